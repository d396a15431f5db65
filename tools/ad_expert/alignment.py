"""Test-time alignment: what differs between captures rather than between parts is taken off a picture's tokens.

Light, focus and sensor move all patch tokens of a picture together, and a memory bank takes that for a defect of every
patch. Robust Distribution Alignment (Liao et al., arXiv 2503.14910) adapts a bank to a shifted capture by optimising a
robust Sinkhorn distance on pictures of that capture. Here there is one picture and no time, so only the first moment is
matched: the mean of its tokens is moved towards the references' mean. On the same pictures a Sinkhorn plan and matching
to nearest neighbours did no better (docs/robustness.md).

A capture also raises the distance of every patch alike, by what the mean does not hold (blur, noise, a curved gain):
half of the picture's middle distance is taken off its image_score.

What a picture has everywhere is also evidence: a weave that changed as a whole shows in nothing else. The references
tell which it is. Where good pictures agree in their means, tokens and scores are left, and the branch for the look of
the whole part scores the mean (``appearance``); where they disagree until that branch is silent, they are aligned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import ProductError
from .appearance import DISAGREEMENT, MIN_REFERENCES, disagreement

BACKGROUND_SHARE = 0.5
"""Of a picture's median patch score, taken off its image_score. Not all of it: a part that is wrong everywhere must
still score higher than one that is wrong in half its patches."""


@dataclass(frozen=True)
class Alignment:
    """Takes off what a picture has everywhere.

    Attributes:
        centre: float32 (D,), mean over the references of each one's mean token.
    """

    centre: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.centre.ndim != 1 or not np.isfinite(self.centre).all():
            raise ProductError("the alignment of this product is damaged.", hint="Enrol the product again.")

    def apply(self, tokens: NDArray[np.float32]) -> NDArray[np.float32]:
        """Move a picture's tokens so that their mean is the references'.

        Args:
            tokens: float32 (N, D), unit rows, all of one picture.

        Returns:
            float32 (N, D), unit rows.
        """
        moved = tokens + (self.centre - tokens.mean(axis=0))
        lengths = np.sqrt(np.einsum("nd,nd->n", moved, moved))[:, None]
        return np.asarray(moved / np.maximum(lengths, 1e-6), dtype=np.float32)

    def background(self, patch_scores: NDArray[np.float32]) -> float:
        """What the capture adds to an image_score.

        Args:
            patch_scores: any shape.
        """
        return BACKGROUND_SHARE * float(np.median(patch_scores))


def captures_differ(statistics: NDArray[np.float32]) -> bool:
    """Whether good pictures differ so much in their means that the look of the whole part says nothing.

    Args:
        statistics: float32 (n, 2 D) from ``picture_statistics``; fewer than MIN_REFERENCES cannot tell, and do not.
    """
    return len(statistics) >= MIN_REFERENCES and disagreement(statistics) >= DISAGREEMENT
