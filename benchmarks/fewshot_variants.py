"""The default expert with one part changed: what ``bench parts`` compares.

Parts that the expert decides on by itself (places, mirror images, alignment) have no setting, since nobody should have
to choose; here the decision is taken for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..tools.ad_expert import expert as expert_module
from ..tools.ad_expert import reference_views
from ..tools.ad_expert.expert import ExpertConfig
from ..tools.backbones import VisualFeatures
from ..tools.tiled import fit_tiles, localise_tiles
from ..tools.tiling import Tile, plan_tiles
from .fewshot import StageBackbone

SHIPPED = "as it ships"
TILE_SHARE, STRIDE_SHARE = 0.625, 0.6
"""Side of a tile as a share of the picture's shorter side, and the step between tiles as a share of a tile."""
Swap = tuple[Any, str, Any]
"""A module, the name of one of its decisions, and what stands there instead."""
Scored = tuple[float, NDArray[np.float32]]
"""image_score and anomaly_map, float32 (H, W)."""


@dataclass(frozen=True)
class Variant:
    """The expert with one part changed.

    Attributes:
        name: in the table.
        config: of the expert.
        rotate: learn quarter turns of the references.
        swaps: decisions that are taken for the expert.
        fine: length of the tokens of stride 8 that are joined to those of stride 16, which have length 1; 0 for none.
    """

    name: str
    config: ExpertConfig = field(default_factory=ExpertConfig)
    rotate: bool = False
    swaps: tuple[Swap, ...] = ()
    fine: float = 0.0

    @property
    def frame(self) -> tuple[int, float | None, float]:
        """What its forward pass depends on."""
        return self.config.short_side_px, self.config.mean_grey, self.fine


def unsmoothed_tokens(features: VisualFeatures) -> NDArray[np.float32]:
    """The expert's tokens without their 3x3 average, float32 (N, D), unit length."""
    tokens = features.patch_tokens[-1][0]
    return np.asarray(tokens / np.maximum(np.linalg.norm(tokens, axis=1, keepdims=True), 1e-6), np.float32)


def variants() -> list[Variant]:
    """Every part that can be changed alone, the shipped expert first."""
    base = ExpertConfig()
    fixed: list[tuple[str, tuple[Swap, ...]]] = [
        ("no 3x3 average", tuple((at, "expert_tokens", unsmoothed_tokens) for at in (expert_module, reference_views))),
        ("no places", ((expert_module, "PLACED_SHARE", 2.0),)),
        ("no rival weights", ((expert_module, "rival_weights", lambda apart, typical: np.ones_like(apart)),)),
        ("no alignment", ((expert_module, "captures_differ", lambda statistics: False),)),
        ("no look of the whole", ((expert_module, "appearance_gain", lambda statistics, local: 0.0),)),
        ("no mirror images", ((reference_views, "NATURAL", 0.0),)),
        ("no copies half a patch aside", ((reference_views, "FEW", 0),)),
    ]
    return [
        Variant(SHIPPED),
        Variant("stride 8 joined at half length", fine=0.5),
        Variant("320 px", replace(base, short_side_px=320)),
        Variant("512 px", replace(base, short_side_px=512)),
        Variant("light as it is", replace(base, mean_grey=None)),
        Variant("top 1 % instead of 2 %", replace(base, top_fraction=0.01)),
        Variant("all tokens in the bank", replace(base, bank_size=10**7)),
        Variant("quarter turns of the references", rotate=True),
        *(Variant(name, swaps=swaps) for name, swaps in fixed),
    ]


@contextmanager
def decided(swaps: Sequence[Swap]) -> Iterator[None]:
    """Some of the expert's decisions taken for it, and given back."""
    before = [(module, name, getattr(module, name)) for module, name, _ in swaps]
    try:
        for module, name, value in swaps:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


class JoinedStages:
    """A backbone whose tokens are those of stride 16 with those of stride 8 behind them.

    Args:
        backbone: with both stages.
        fine: length of the part of stride 8.
    """

    def __init__(self, backbone: StageBackbone, fine: float) -> None:
        self._backbone = backbone
        self._fine = fine

    def encode_image(self, batch: NDArray[np.uint8]) -> VisualFeatures:
        """See ``Backbone.encode_image``."""
        stage8, stage16 = self._backbone.run_stages(batch, ("stride8", "stride16"))
        b, _, h, w = stage16.shape
        pooled = stage8[:, :, : 2 * h, : 2 * w].reshape(b, -1, h, 2, w, 2).mean(axis=(3, 5))
        parts = [_unit(stage.reshape(b, -1, h * w).transpose(0, 2, 1)) for stage in (stage16, pooled)]
        tokens = np.concatenate([parts[0], np.float32(self._fine) * parts[1]], axis=2)
        return VisualFeatures((np.ascontiguousarray(tokens, np.float32),), tokens.mean(axis=1), (h, w))


def _unit(tokens: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(tokens / np.maximum(np.linalg.norm(tokens, axis=2, keepdims=True), 1e-6), np.float32)


def share_tiles(height: int, width: int) -> list[Tile]:
    """Tiles that are a share of the picture, however large it is."""
    side = round(TILE_SHARE * min(height, width))
    return plan_tiles(height, width, side, max(1, round(STRIDE_SHARE * side)))


class Tiles:
    """The expert on overlapping tiles of a picture, each enlarged to the frame of a whole one.

    Args:
        pictures: references, uint8 (H, W, 3).
        backbone: sees the tiles.
    """

    def __init__(self, pictures: Sequence[NDArray[np.uint8]], backbone: Any) -> None:
        self._backbone = backbone
        fit, _ = fit_tiles(pictures, backbone, ExpertConfig(), lambda what, done, total: None, share_tiles)
        self._expert = fit.expert

    def judge(self, rgb: NDArray[np.uint8]) -> Scored:
        """The strongest tile's score, and the tiles' maps as one."""
        anomaly_map, score = localise_tiles(self._expert, self._backbone, rgb, share_tiles)
        return score, anomaly_map
