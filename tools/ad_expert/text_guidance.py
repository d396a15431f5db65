"""Words beside references: what a text-capable backbone adds to a product's memory bank.

As in WinCLIP+ (Jeong et al., CVPR 2023) the two maps are averaged, and so are the two scores. Their units
differ, so the text map is first brought to the memory map's scale: the references tell where the middle and the upper
end of good patches lie on either. Words that vary much over good parts are thereby turned down. The image score of the
words becomes a view of its own and is calibrated like any other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import ProductError
from ..backbones import VisualFeatures
from .text_anchors import TextAnchors
from .zero_shot import LEAST_RISE, ZeroShotConfig, ZeroShotLook, look

TEXT_WEIGHT = 0.5
"""Of the text map in the joint map: the plain mean of the published method, not tuned on anything."""
UPPER = 0.99
"""Quantile of good patches that stands for the upper end."""


@dataclass(frozen=True)
class TextGuidance:
    """Words, and how their scores read on a product's own scale.

    Attributes:
        anchors: text anchors.
        config: how cosines become scores.
        offset: memory distance that a text score of 0 stands for.
        gain: memory distance per unit of text score, at least 0.
    """

    anchors: TextAnchors
    config: ZeroShotConfig
    offset: float
    gain: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.offset) and math.isfinite(self.gain) and self.gain >= 0.0):
            raise ProductError("the scale of this product's words is damaged.", hint="Enrol the product again.")

    def look(self, features: VisualFeatures, height: int, width: int) -> ZeroShotLook:
        """What the words alone say of a picture of that size in pixels."""
        return look(features, self.anchors, self.config, height, width)

    def joined(self, distances: NDArray[np.float32], text_scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Weighted mean of two patch maps in the unit of the first.

        Args:
            distances: float32 (h, w), to the memory bank.
            text_scores: float32 (h, w), of the same patches.
        """
        aligned = self.offset + self.gain * text_scores
        return np.asarray((1.0 - TEXT_WEIGHT) * distances + TEXT_WEIGHT * aligned, np.float32)


def align(distances: Sequence[NDArray[np.float32]], text_scores: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
    """Offset and gain that bring text scores of good patches onto their distances.

    Args:
        distances: per reference, to the bank of the others.
        text_scores: per reference.

    Returns:
        Offset and gain: medians meet medians, upper ends meet upper ends. Words that hardly vary over good parts are
        not amplified beyond what counts as a rise at all.
    """
    known, words = (np.concatenate([grid.ravel() for grid in grids]) for grids in (distances, text_scores))
    known_middle, known_upper = (float(v) for v in np.quantile(known, (0.5, UPPER)))
    words_middle, words_upper = (float(v) for v in np.quantile(words, (0.5, UPPER)))
    gain = (known_upper - known_middle) / max(words_upper - words_middle, LEAST_RISE)
    return known_middle - gain * words_middle, gain
