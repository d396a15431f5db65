"""Test-time alignment: what differs between captures rather than between parts is taken off a picture's tokens.

Light, focus and sensor move all patch tokens of a picture together, and a memory bank takes that for a defect of every
patch. Robust Distribution Alignment (Liao et al., arXiv 2503.14910) adapts a bank to a shifted capture by optimising a
robust Sinkhorn distance on pictures of that capture. Here there is one picture and no time, so only the first moment is
matched: the mean of its tokens is moved towards the references' mean. On the same pictures a Sinkhorn plan and matching
to nearest neighbours did no better (docs/robustness.md).

The mean is also evidence: a weave that changed everywhere shows in nothing else. The references tell which it is. Where
good pictures disagree in their means, a mean says little about the part and is aligned; where they agree, it is left,
and the branch for the look of the whole part scores it (``appearance``): what one weight gains the other loses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import ProductError
from .appearance import DISAGREEMENT, MIN_REFERENCES, disagreement


@dataclass(frozen=True)
class Alignment:
    """How far a picture's tokens are moved, and where to.

    Attributes:
        centre: float32 (D,), mean over the references of each one's mean token.
        strength: in [0, 1]; 0 leaves tokens as they are, to the bit.
    """

    centre: NDArray[np.float32]
    strength: float

    def __post_init__(self) -> None:
        if self.centre.ndim != 1 or not np.isfinite(self.centre).all() or not 0.0 <= self.strength <= 1.0:
            raise ProductError("the alignment of this product is damaged.", hint="Enrol the product again.")

    def apply(self, tokens: NDArray[np.float32]) -> NDArray[np.float32]:
        """Move a picture's tokens.

        Args:
            tokens: float32 (N, D), unit rows, all of one picture.

        Returns:
            float32 (N, D), unit rows.
        """
        if self.strength == 0.0:
            return tokens
        moved = tokens + np.float32(self.strength) * (self.centre - tokens.mean(axis=0))
        lengths = np.sqrt(np.einsum("nd,nd->n", moved, moved))[:, None]
        return np.asarray(moved / np.maximum(lengths, 1e-6), dtype=np.float32)


def alignment_strength(statistics: NDArray[np.float32]) -> float:
    """How far tokens should be moved, from the references alone.

    Args:
        statistics: float32 (n, 2 D) from ``picture_statistics``.

    Returns:
        Share of the way, 1 where good pictures differ so much in their means that their look says nothing; 0 with
        fewer than MIN_REFERENCES.
    """
    if len(statistics) < MIN_REFERENCES:
        return 0.0
    return min(1.0, disagreement(statistics) / DISAGREEMENT)
