from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from flawscope.tools.ad_expert.anomaly_map import grid_to_pixels, smooth_grid, top_fraction_mean


def test_patch_centres_stay_where_they_lie() -> None:
    # Two patches of two pixels each: centres at 0.5 and 2.5, so pixel 1 is a quarter and pixel 2 three quarters along.
    found = grid_to_pixels(np.array([[0.0, 1.0]], np.float32), 1, 4)
    np.testing.assert_allclose(found, [[0.0, 0.25, 0.75, 1.0]], atol=1e-6)


def test_each_axis_of_the_map_is_its_own() -> None:
    found = grid_to_pixels(np.array([[0.0], [1.0]], np.float32), 4, 3)
    assert found.shape == (4, 3)
    np.testing.assert_allclose(found[:, 0], [0.0, 0.25, 0.75, 1.0], atol=1e-6)
    np.testing.assert_array_equal(found[:, 0], found[:, 2])


def test_a_single_hot_patch_peaks_at_its_own_pixels() -> None:
    grid = np.zeros((5, 7), np.float32)
    grid[3, 1] = 1.0
    found = grid_to_pixels(grid, 80, 112)
    y, x = np.unravel_index(int(found.argmax()), found.shape)
    assert 48 <= y < 64
    assert 16 <= x < 32
    assert found.dtype == np.float32


def test_smoothing_spreads_a_point_binomially() -> None:
    grid = np.zeros((5, 5), np.float32)
    grid[2, 2] = 16.0
    np.testing.assert_allclose(smooth_grid(grid)[1:4, 1:4], [[1, 2, 1], [2, 4, 2], [1, 2, 1]])


def test_smoothing_keeps_a_constant_up_to_the_border() -> None:
    np.testing.assert_allclose(smooth_grid(np.full((3, 4), 0.7, np.float32)), 0.7, rtol=1e-6)


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [(1.0, 49.5), (0.01, 99.0), (0.02, 98.5), (0.011, 98.5), (1e-6, 99.0)],  # rounded up, at least one
)
def test_mean_of_the_highest(fraction: float, expected: float) -> None:
    scores = np.random.default_rng(0).permutation(100).reshape(10, 10).astype(np.float32)
    assert top_fraction_mean(scores, fraction) == pytest.approx(expected)


def test_enlarging_keeps_the_range_and_agrees_with_pillow() -> None:
    grid = np.random.default_rng(0).random((9, 14)).astype(np.float32)
    found = grid_to_pixels(grid, 131, 207)
    expected = Image.fromarray(grid).resize((207, 131), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(found, np.asarray(expected), atol=1e-6)
    assert found.min() >= grid.min() - 1e-6
    assert found.max() <= grid.max() + 1e-6


def test_a_grid_of_one_patch_is_constant() -> None:
    np.testing.assert_allclose(grid_to_pixels(np.array([[0.3]], np.float32), 3, 5), 0.3)
