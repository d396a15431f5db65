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
from ..tools.ad_expert.anomaly_map import grid_to_pixels, smooth_grid
from ..tools.ad_expert.expert import ExpertConfig, FittedExpert, ReferenceFit, expert_tokens, prepare
from ..tools.backbones import VisualFeatures
from ..tools.tiling import Tile, merge_tiles, plan_tiles
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


class Tiles:
    """The expert on overlapping tiles of a picture, each enlarged to the frame of a whole one.

    Args:
        pictures: references, uint8 (H, W, 3).
        backbone: sees the tiles.
    """

    def __init__(self, pictures: Sequence[NDArray[np.uint8]], backbone: Any) -> None:
        self._backbone, self._config = backbone, ExpertConfig()
        views = [(owner, tokens) for owner, rgb in enumerate(pictures) for tokens, _, _ in self.look(rgb)]
        fit = ReferenceFit([tokens for _, tokens in views], [owner for owner, _ in views], self._config)
        self._expert: FittedExpert = fit.expert

    def look(self, rgb: NDArray[np.uint8]) -> list[tuple[NDArray[np.float32], tuple[int, int], Tile]]:
        """Tokens and grid of each tile."""
        height, width = rgb.shape[:2]
        side = round(TILE_SHARE * min(height, width))
        found = []
        for tile in plan_tiles(height, width, side, max(1, round(STRIDE_SHARE * side))):
            window = np.ascontiguousarray(rgb[tile.y0 : tile.y1, tile.x0 : tile.x1])
            features = self._backbone.encode_image(prepare(window, self._config)[None])
            found.append((expert_tokens(features), features.grid, tile))
        return found

    def judge(self, rgb: NDArray[np.uint8]) -> Scored:
        """The strongest tile's score, and the tiles' maps as one."""
        height, width = rgb.shape[:2]
        seen = self.look(rgb)
        grids = [self._expert.distances(tokens, grid).reshape(grid) for tokens, grid, _ in seen]
        tiles = [tile for _, _, tile in seen]
        maps = [
            grid_to_pixels(smooth_grid(grid), tile.y1 - tile.y0, tile.x1 - tile.x0)
            for grid, tile in zip(grids, tiles, strict=True)
        ]
        return max(self._expert.local_score(grid) for grid in grids), merge_tiles(maps, tiles, height, width)
