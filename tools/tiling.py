"""Overlapping tiles for pictures too large for one look, and the way back to one map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

TILE_PX = 1036


class Tile(NamedTuple):
    """A half-open rectangle in pixels of the image."""

    y0: int
    x0: int
    y1: int
    x1: int


def plan_tiles(height: int, width: int, tile: int = TILE_PX, stride: int = 777) -> list[Tile]:
    """Cover an image with overlapping tiles, row by row.

    Args:
        height: of the image, pixels.
        width: of the image, pixels.
        tile: side of a tile, pixels; an image that is smaller along an axis gets tiles of its own size there.
        stride: step between tiles, pixels; the last tile of a row or column ends flush with the border instead.

    Raises:
        ValueError: an empty image, or a stride that would leave gaps.
    """
    if height < 1 or width < 1:
        raise ValueError(f"an image of {width} x {height} px cannot be tiled")
    if not 1 <= stride <= tile:
        raise ValueError(f"stride {stride} must lie in 1..{tile}, the side of a tile")
    rows, columns = _starts(height, tile, stride), _starts(width, tile, stride)
    return [Tile(y, x, min(y + tile, height), min(x + tile, width)) for y in rows for x in columns]


def _starts(length: int, tile: int, stride: int) -> list[int]:
    last = max(length - tile, 0)
    return [*range(0, last, stride), last]


def merge_tiles(
    maps: Sequence[NDArray[np.float32]], tiles: Sequence[Tile], height: int, width: int, feather: int = 32
) -> NDArray[np.float32]:
    """Merge the anomaly maps of overlapping tiles into one.

    The strongest tile wins at each pixel, but a tile near its own border saw its object cut, so there its say fades:
    with weights w that fall linearly to 0 over the last `feather` pixels before an interior border, the merged value
    is the largest over the tiles of ``low + w * (value - low)``, ``low`` being the smallest value that any tile has
    at that pixel. Where all tiles agree the merge equals them, and the border of the image itself never fades.

    Args:
        maps: one (y1-y0, x1-x0) float32 map for each tile.
        tiles: as `plan_tiles` gave them.
        height: of the image, pixels.
        width: of the image, pixels.
        feather: width of the fading band, pixels; 0 gives the plain maximum.

    Returns:
        (height, width) float32.

    Raises:
        ValueError: maps and tiles do not belong together, or leave a gap.
    """
    if len(maps) != len(tiles):
        raise ValueError(f"{len(maps)} maps for {len(tiles)} tiles")
    low = np.full((height, width), np.inf, np.float32)
    for values, tile in zip(maps, tiles, strict=True):
        if values.shape != (tile.y1 - tile.y0, tile.x1 - tile.x0):
            raise ValueError(f"map of shape {values.shape} does not belong to {tile}")
        np.minimum(low[tile.y0 : tile.y1, tile.x0 : tile.x1], values, out=low[tile.y0 : tile.y1, tile.x0 : tile.x1])
    if np.isposinf(low).any():
        raise ValueError("the tiles leave part of the image uncovered")
    merged = low.copy()
    for values, tile in zip(maps, tiles, strict=True):
        inside = (slice(tile.y0, tile.y1), slice(tile.x0, tile.x1))
        weight = np.minimum.outer(_ramp(tile.y0, tile.y1, height, feather), _ramp(tile.x0, tile.x1, width, feather))
        np.maximum(merged[inside], low[inside] + weight * (values - low[inside]), out=merged[inside])
    return merged


def _ramp(start: int, stop: int, length: int, feather: int) -> NDArray[np.float32]:
    """Weight along one axis of a tile: (distance to its interior border in pixels + 1/2) / feather, at most 1."""
    centre = np.arange(stop - start, dtype=np.float32) + np.float32(0.5)
    weight = np.ones(stop - start, np.float32)
    if feather > 0 and start > 0:
        weight = np.minimum(weight, centre / np.float32(feather))
    if feather > 0 and stop < length:
        weight = np.minimum(weight, centre[::-1] / np.float32(feather))
    return weight
