"""Pictures too large for one look: the expert goes over overlapping tiles, and the strongest tile speaks.

A line scan reduced to the model's frame would lose the small defects that it was taken for. Products whose references
are all that large learn a second memory bank from tiles; their anomaly_map is merged from the tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from .ad_expert.anomaly_map import grid_to_pixels, smooth_grid
from .ad_expert.expert import STRIDE_PX, ExpertConfig, FittedExpert, ReferenceFit, expert_tokens, prepare
from .backbones import Backbone
from .tiling import TILE_PX, Tile, merge_tiles, plan_tiles

Progress = Callable[[str, int, int], None]
TileTokens = tuple[NDArray[np.float32], tuple[int, int]]
"""Tokens (N, D) of a tile and their grid (h, w)."""
Plan = Callable[[int, int], Sequence[Tile]]
"""Tiles of a picture by its height and width."""


def tile_tokens(
    rgb: NDArray[np.uint8], backbone: Backbone, config: ExpertConfig, plan: Plan = plan_tiles
) -> list[TileTokens]:
    """Tokens of every tile of a picture, uint8 (H, W, 3), in the order of the plan."""
    found = []
    for tile in plan(rgb.shape[0], rgb.shape[1]):
        crop = rgb[tile.y0 : tile.y1, tile.x0 : tile.x1]
        features = backbone.encode_image(prepare(crop, config)[None])
        found.append((expert_tokens(features), features.grid))
    return found


def fit_tiles(
    pictures: Sequence[NDArray[np.uint8]],
    backbone: Backbone,
    config: ExpertConfig,
    tell: Progress,
    plan: Plan = plan_tiles,
) -> tuple[ReferenceFit, list[list[TileTokens]]]:
    """Memory bank of the tiles of all references, and each reference's own tiles."""
    tiles = []
    for done, rgb in enumerate(pictures):
        tell("looking at the references tile by tile", done, len(pictures))
        tiles.append(tile_tokens(rgb, backbone, config, plan))
    tell("looking at the references tile by tile", len(pictures), len(pictures))
    owners = [owner for owner, own in enumerate(tiles) for _ in own]
    return ReferenceFit([tokens for own in tiles for tokens, _ in own], owners, config, progress=tell), tiles


def score_tiles(expert: FittedExpert, tiles: Sequence[TileTokens]) -> tuple[list[NDArray[np.float32]], float]:
    """Patch scores (h, w) of each tile, and the score of the strongest."""
    grids = [expert.bank.distances(tokens).reshape(grid) for tokens, grid in tiles]
    return grids, max(expert.local_score(grid) for grid in grids)


def localise_tiles(
    expert: FittedExpert, backbone: Backbone, rgb: NDArray[np.uint8], plan: Plan = plan_tiles
) -> tuple[NDArray[np.float32], float]:
    """Go over a picture tile by tile.

    Args:
        expert: fitted to tiles.
        backbone: feature extractor.
        rgb: uint8 (H, W, 3).
        plan: as it was fitted.

    Returns:
        The merged anomaly_map, float32 (H, W), and the score of the strongest tile.
    """
    height, width = rgb.shape[:2]
    tiles = plan(height, width)
    grids, score = score_tiles(expert, tile_tokens(rgb, backbone, expert.config, plan))
    maps = [
        grid_to_pixels(smooth_grid(grid), tile.y1 - tile.y0, tile.x1 - tile.x0)
        for grid, tile in zip(grids, tiles, strict=True)
    ]
    return merge_tiles(maps, tiles, height, width), score


def cell_grid(height: int, width: int, short_side_px: int) -> tuple[int, int]:
    """Patches (h, w) that a merged map of that many pixels amounts to, each as large as a patch of a tile."""
    patch_px = TILE_PX * STRIDE_PX / short_side_px
    return max(1, round(height / patch_px)), max(1, round(width / patch_px))
