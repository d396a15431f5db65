"""The AD Expert with a trained head on top, where the setting ``trained_head`` names one.

Patches are scored as ``flawscope bench head`` scores them (``reference_head.head_scores``). For maps and reports the
log odds are brought to the scale of the untrained expert's distances by one line per product, fitted to its references:
it gives good patches the mean and spread that they have without the head. A line with a positive slope changes no order
and, since thresholds are learnt from the same scores, no verdict.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import ProductError, WeightsError
from ..backbones import VisualFeatures
from .anomaly_map import grid_to_pixels, smooth_grid
from .expert import ExpertConfig, FittedExpert, Localisation, ReferenceFit
from .head_file import REMEDY
from .reference_head import HeadMemory, MemoryFit, ReferenceHead, head_scores, layer_tokens

LEAST_SPREAD = 1e-3
"""Of the log odds of good patches: a head that tells none of them apart is not stretched without end."""


@dataclass(frozen=True)
class HeadScale:
    """The line from log odds to the distances of maps and reports.

    Attributes:
        slope: distance per log odds, positive.
        offset: distance at even odds.
    """

    slope: float
    offset: float

    def __post_init__(self) -> None:
        if not (0.0 < self.slope < np.inf and np.isfinite(self.offset)):
            raise ProductError("the trained head's scale of this product is damaged.", hint="Enrol the product again.")


class HeadExpert(FittedExpert):
    """An expert whose patch scores are those of a trained head.

    Args:
        head: trained.
        memory: of the references, with the untrained expert that they make.
        scale: of the product.
    """

    def __init__(self, head: ReferenceHead, memory: HeadMemory, scale: HeadScale) -> None:
        plain = memory.expert
        self.look_slope = scale.slope / float(memory.spread[-1])
        look = plain.appearance and replace(plain.appearance, gain=plain.appearance.gain * self.look_slope)
        super().__init__(plain.bank, plain.config, look, plain.alignment)
        self.head, self.memory, self.scale = head, memory, scale

    @property
    def untrained(self) -> FittedExpert:
        """The expert below the head."""
        return self.memory.expert

    def score_grid(self, features: VisualFeatures) -> NDArray[np.float32]:
        """What the head says of each patch, on the scale of distances, float32 (h, w)."""
        return self._on_scale(self.head.logits(self.head.inputs(features, self.memory)))

    def image_score(self, patch_scores: NDArray[np.float32], features: VisualFeatures) -> float:
        """The score of a whole picture: the head's patches, and what the untrained expert sees in it as a whole."""
        plain = self.untrained.score_grid(features)
        return self.local_score(patch_scores) + self.look_slope * self._look(plain, features)

    def localise(self, features: VisualFeatures, height: int, width: int) -> Localisation:
        """Judge a picture by its features; see ``FittedExpert.localise``."""
        read = self.head.inputs(features, self.memory)
        look = self._look(read.distances.reshape(read.grid), features)
        score, logits = head_scores(self.head, read, self.memory, look, self.config.top_fraction)
        patch_scores = self._on_scale(logits)
        anomaly_map = grid_to_pixels(smooth_grid(patch_scores), height, width)
        return Localisation(anomaly_map, self.scale.slope * score + self.scale.offset, patch_scores)

    def _look(self, plain: NDArray[np.float32], features: VisualFeatures) -> float:
        return self.untrained.image_score(plain, features) - self.untrained.local_score(plain)

    def _on_scale(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(self.scale.slope * logits + self.scale.offset, np.float32)


class HeadFit:
    """What ``ReferenceFit`` is without a head: the expert of the references, and each reference judged by the others.

    Args:
        head: trained.
        fit: the untrained expert of the references, which are whole pictures the right way up.
        references: features of each, in the same order.

    Raises:
        ProductError: there are too few references.
        WeightsError: the head was trained for another backbone.
    """

    def __init__(self, head: ReferenceHead, fit: ReferenceFit, references: Sequence[VisualFeatures]) -> None:
        if [tokens.shape[1] for tokens in layer_tokens(references[0])] != head.config["layer_dims"]:
            raise WeightsError("the trained head was made for other features.", hint=REMEDY)
        self._memories = MemoryFit(fit, references)
        judged = [
            head.logits(head.inputs(features, self._memories.without(owner))).ravel()
            for owner, features in enumerate(references)
        ]
        good, memory = np.concatenate(judged), self._memories.memory
        slope = float(memory.spread[-1]) / max(float(good.std()), LEAST_SPREAD)
        self._head = head
        self._scale = HeadScale(slope, float(memory.centre[-1]) - slope * float(good.mean()))
        self.expert = HeadExpert(head, memory, self._scale)

    def without(self, owner: int) -> HeadExpert:
        """The expert that the other references make, on the same scale.

        Made anew each time: a memory holds most tokens of the product, and there are as many as references.
        """
        return HeadExpert(self._head, self._memories.without(owner), self._scale)


def refuse_another_look(head: ReferenceHead, config: ExpertConfig) -> None:
    """Refuse a head that was trained on pictures prepared in another way, before any is looked at.

    Args:
        head: trained.
        config: of the product.

    Raises:
        WeightsError: it is such a head.
    """
    try:
        same = _plain(ExpertConfig(**head.config["expert"])) == _plain(config)
    except (KeyError, TypeError):
        same = False
    if not same:
        raise WeightsError("the trained head was made for pictures prepared in another way.", hint=REMEDY)


def _plain(config: ExpertConfig) -> str:
    return json.dumps(asdict(config), sort_keys=True)  # a file holds lists in place of tuples


def refuse_unjudged(config: ExpertConfig, *, rotate: bool, large: bool) -> None:
    """Refuse products that a head was never trained or measured on, before any work is done.

    Args:
        config: of the product.
        rotate: whether quarter turns are to be learnt.
        large: whether its pictures are seen in tiles.

    Raises:
        ProductError: it is such a product.
    """
    reasons = {
        "quarter turns": rotate,
        "pictures so large that they are seen in tiles": large,
        "regions that are not judged": config.partial,
    }
    for what, found in reasons.items():
        if found:
            raise ProductError(f"a trained head cannot be used with {what}.", hint="Enrol it without trained_head.")
