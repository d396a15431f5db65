"""Latent reasoning: think tokens optimised while the model answers (Reason-IAD, arXiv 2602.09850). Off by default.

`thinking.think` is the way in; what it is told and what it tells need no torch, the search itself does.
"""

from __future__ import annotations

from .evidence import detection_evidence, localisation_evidence, place_box
from .outcome import LatentOutcome, SearchStep, Thought
from .settings import ARMS, Arm, LatentSettings, NormalImages

__all__ = [
    "ARMS",
    "Arm",
    "LatentOutcome",
    "LatentSettings",
    "NormalImages",
    "SearchStep",
    "Thought",
    "detection_evidence",
    "localisation_evidence",
    "place_box",
]
