"""How sure an answer is: what tokens, samples, the expert and documents say, and what that was worth before.

Nothing here needs torch; scipy and scikit-learn are imported when a calibrator is fitted.
"""

from __future__ import annotations
