"""The look of a whole part: statistics that local comparison cannot see.

A weave that changed everywhere has patches that each resemble some good patch; only their mixture is wrong. The mean
and the spread of the patch tokens over a picture show it. They are worth something only where good parts agree in
them: under changing light or framing they differ between good pictures as much as defects do. The references say
which holds: the branch's weight falls from WEIGHT to zero as the share of the token variance that lies between good
pictures rises to DISAGREEMENT.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import ProductError
from ..backbones import VisualFeatures
from .calibration import centre_and_spread

WEIGHT = 0.5
"""Against the local score, both in spreads of good parts."""
DISAGREEMENT = 0.01
"""Share of variance between good pictures at which the branch is silent; see docs/ad_expert.md."""
MIN_REFERENCES = 4
"""Below this the agreement of good pictures cannot be judged."""
SHRINKAGE = 0.3
"""Of the mean spread, added to each statistic's own."""


def picture_statistics(features: VisualFeatures) -> NDArray[np.float32]:
    """Mean and standard deviation of the deepest layer's tokens over the first picture, float32 (2 D,)."""
    tokens = features.patch_tokens[-1][0]
    return np.concatenate([tokens.mean(axis=0), tokens.std(axis=0)]).astype(np.float32)


@dataclass(frozen=True)
class Appearance:
    """Statistics of the references, and how much their comparison adds to an image_score.

    Attributes:
        centre: float32 (K,).
        spread: float32 (K,), positive.
        references: float32 (n, K), standardised.
        gain: image_score units per unit of distance; 0 where good parts do not agree.
    """

    centre: NDArray[np.float32]
    spread: NDArray[np.float32]
    references: NDArray[np.float32]
    gain: float

    def __post_init__(self) -> None:
        shapes = {self.centre.shape, self.spread.shape, self.references.shape[1:]}
        if len(shapes) != 1 or not all(np.isfinite(a).all() for a in (self.centre, self.spread, self.references)):
            raise ProductError(
                "the appearance statistics of this product are damaged.", hint="Enrol the product again."
            )

    @property
    def typical_added(self) -> float:
        """What the look of a typical good part adds: median over the references of the way to the nearest other."""
        if not self.gain or len(self.references) < 2:
            return 0.0
        nearest = [
            np.sqrt(((np.delete(self.references, i, axis=0) - own) ** 2).mean(axis=1)).min()
            for i, own in enumerate(self.references)
        ]
        return self.gain * float(np.median(nearest))

    def added_score(self, statistics: NDArray[np.float32]) -> float:
        """What a picture's statistics (K,) add to its image_score."""
        if not self.gain:
            return 0.0
        standard = (statistics - self.centre) / self.spread
        return self.gain * float(np.sqrt(((self.references - standard) ** 2).mean(axis=1)).min())


def fit_appearance(statistics: NDArray[np.float32], gain: float) -> Appearance:
    """Standardise the references' statistics (n, K)."""
    spread = statistics.std(axis=0)
    spread = spread + SHRINKAGE * spread.mean() + 1e-6
    centre = statistics.mean(axis=0)
    return Appearance(centre, spread, ((statistics - centre) / spread).astype(np.float32), gain)


def disagreement(statistics: NDArray[np.float32]) -> float:
    """Share of the variance of tokens that lies between good pictures, in [0, 1].

    Args:
        statistics: float32 (n, 2 D) from ``picture_statistics``, n >= 2.
    """
    half = statistics.shape[1] // 2
    between = float(statistics[:, :half].var(axis=0, ddof=1).sum())
    within = float((statistics[:, half:] ** 2).sum(axis=1).mean())
    return between / max(between + within, 1e-12)


def appearance_gain(statistics: NDArray[np.float32], local_scores: NDArray[np.float64]) -> float:
    """How much the branch may add, from the references alone.

    Args:
        statistics: float32 (n, 2 D) from ``picture_statistics``.
        local_scores: (n,) leave-one-out local scores of the same references.

    Returns:
        The gain, 0 with fewer than MIN_REFERENCES or where good pictures disagree.
    """
    count = len(statistics)
    if count < MIN_REFERENCES:
        return 0.0
    weight = WEIGHT * max(0.0, 1.0 - disagreement(statistics) / DISAGREEMENT)
    distances = np.array(
        [fit_appearance(np.delete(statistics, i, axis=0), 1.0).added_score(statistics[i]) for i in range(count)]
    )
    _, (local_spread, look_spread) = centre_and_spread(np.stack([local_scores, distances], axis=1))
    return weight * float(local_spread) / float(look_spread)
