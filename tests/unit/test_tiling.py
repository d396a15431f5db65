from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flawscope.tools.tiling import Tile, merge_tiles, plan_tiles


def test_small_image_is_one_tile():
    assert plan_tiles(300, 400) == [Tile(0, 0, 300, 400)]
    assert plan_tiles(1036, 1036) == [Tile(0, 0, 1036, 1036)]


def test_last_tiles_are_flush_with_the_border():
    # width 2000: starts 0, 777 (ends 1813), then flush at 2000 - 1036 = 964
    assert plan_tiles(1000, 2000) == [Tile(0, 0, 1000, 1036), Tile(0, 777, 1000, 1813), Tile(0, 964, 1000, 2000)]
    # 1813 = 777 + 1036 ends on the border by itself: no third, identical tile
    assert [t.x0 for t in plan_tiles(10, 1813)] == [0, 777]


def test_rows_come_before_columns():
    assert plan_tiles(6, 6, tile=4, stride=2) == [
        Tile(0, 0, 4, 4),
        Tile(0, 2, 4, 6),
        Tile(2, 0, 6, 4),
        Tile(2, 2, 6, 6),
    ]


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 20), st.data())
def test_every_pixel_is_covered_and_every_tile_inside(height, width, tile, data):
    stride = data.draw(st.integers(1, tile))
    seen = np.zeros((height, width), bool)
    tiles = plan_tiles(height, width, tile, stride)
    for t in tiles:
        assert 0 <= t.y0 < t.y1 <= height
        assert 0 <= t.x0 < t.x1 <= width
        assert t.y1 - t.y0 == min(tile, height)
        seen[t.y0 : t.y1, t.x0 : t.x1] = True
    assert seen.all()
    assert len(set(tiles)) == len(tiles)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 9), st.floats(-100, 100, width=32))
def test_a_constant_stays_constant(height, width, feather, value):
    tiles = plan_tiles(height, width, 16, 11)
    maps = [np.full((t.y1 - t.y0, t.x1 - t.x0), value, np.float32) for t in tiles]
    merged = merge_tiles(maps, tiles, height, width, feather)
    assert merged.dtype == np.float32
    np.testing.assert_array_equal(merged, np.float32(value))


def test_feather_by_hand():
    # One row of 8 px, tiles [0,6) and [2,8); A is 4 everywhere, B is 0, feather 2.
    # A fades before its interior border at 6: weights at pixels 4 and 5 are 1.5/2 and 0.5/2.
    tiles = [Tile(0, 0, 1, 6), Tile(0, 2, 1, 8)]
    maps = [np.full((1, 6), 4, np.float32), np.zeros((1, 6), np.float32)]
    merged = merge_tiles(maps, tiles, 1, 8, feather=2)
    np.testing.assert_allclose(merged, [[4, 4, 4, 4, 3, 1, 0, 0]])
    np.testing.assert_allclose(merge_tiles(maps, tiles, 1, 8, feather=0), [[4, 4, 4, 4, 4, 4, 0, 0]])


def test_the_border_of_the_image_does_not_fade():
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(merge_tiles([values], [Tile(0, 0, 3, 4)], 3, 4), values)


def test_a_peak_seen_by_both_tiles_keeps_its_height():
    tiles = plan_tiles(100, 180, 100, 80)
    maps = [np.zeros((100, 100), np.float32) for _ in tiles]
    maps[0][50, 90], maps[1][50, 10] = 7, 7  # the same pixel, x = 90, near the border of each
    assert merge_tiles(maps, tiles, 100, 180, feather=5)[50, 90] == 7


@pytest.mark.parametrize(
    ("maps", "tiles", "message"),
    [
        ([], [Tile(0, 0, 2, 2)], "0 maps for 1 tiles"),
        ([np.zeros((2, 3), np.float32)], [Tile(0, 0, 2, 2)], "does not belong"),
        ([np.zeros((2, 1), np.float32)], [Tile(0, 0, 2, 1)], "uncovered"),
    ],
)
def test_mismatches_are_refused(maps, tiles, message):
    with pytest.raises(ValueError, match=message):
        merge_tiles(maps, tiles, 2, 2)


@pytest.mark.parametrize("arguments", [(0, 5), (5, 0), (5, 5, 4, 5), (5, 5, 4, 0)])
def test_plans_with_gaps_are_refused(arguments):
    with pytest.raises(ValueError, match="tile"):
        plan_tiles(*arguments)
