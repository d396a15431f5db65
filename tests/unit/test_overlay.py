"""Overlays on the product's own scale: a good part looks clean, a defect glows where it is."""

from __future__ import annotations

import numpy as np
import pytest

from flawscope.tools.overlay import (
    FULL_COLOUR,
    MAX_SIDE_PX,
    MIN_SIDE_PX,
    colour_map,
    draw_heatmap,
    draw_overlay,
    heat,
    heat_of_colours,
)

GREY = np.full((480, 640, 3), 128, np.uint8)


def test_the_scale_is_the_products_not_the_pictures() -> None:
    half = 0.5 * (1 + FULL_COLOUR / 2)
    values = np.array([[0.0, 0.4, 0.5, half, 1.0, 9.0]], np.float32)
    np.testing.assert_allclose(heat(values, 0.5), [[0, 0, 0, 0.5, 1, 1]], atol=1e-6)
    faint = np.random.default_rng(0).random((20, 20)).astype(np.float32) * 0.49
    assert not draw_heatmap(faint, 0.5).any()  # however uneven, below the threshold nothing shows


def test_colours_brighten_with_the_value() -> None:
    colours = colour_map(np.linspace(0, 1, 50, dtype=np.float32)).astype(float)
    lightness = colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) >= 0).all()
    np.testing.assert_array_equal(colour_map(np.float32([-1, 2])), colour_map(np.float32([0, 1])))


def test_a_good_part_is_left_as_it_is() -> None:
    drawn = draw_overlay(GREY, np.zeros((480, 640), np.float32), 0.5, [], "OK", "")
    assert (drawn[10:470, 10:630] == 128).all()


def test_a_defect_glows_where_it_is() -> None:
    anomaly_map = np.zeros((480, 640), np.float32)
    anomaly_map[100:200, 300:400] = 1.0
    drawn = draw_overlay(GREY, anomaly_map, 0.5, [], "NG", "hole").astype(int)[:480]
    changed = np.abs(drawn - 128).sum(axis=2) > 30
    assert changed[110:190, 310:390].all()
    assert not changed[210:470, 10:630].any()


@pytest.mark.parametrize("size", [(1, 1), (20, 3000), (3000, 20), (4000, 3000), (32, 32)])
def test_any_size_is_drawn_at_a_readable_one(size: tuple[int, int]) -> None:
    rgb = np.zeros((*size, 3), np.uint8)
    boxes = [((0, 0, size[1], size[0]), "R1"), ((size[1] - 1, size[0] - 1, size[1], size[0]), "R2")]
    drawn = draw_overlay(rgb, np.ones(size, np.float32), 0.5, boxes, "REVIEW", "a very long caption " * 40)
    assert drawn.dtype == np.uint8
    assert max(drawn.shape[0] - 44, 0) <= MAX_SIDE_PX
    assert max(drawn.shape[:2]) >= MIN_SIDE_PX


def test_without_a_map_and_with_an_extreme_scale() -> None:
    assert (draw_overlay(GREY, None, 0.0, [], "REVIEW", "")[10:470, 10:630] == 128).all()
    assert np.isfinite(heat(np.ones((2, 2), np.float32), 0.0)).all()


def test_a_maps_colours_tell_its_values() -> None:
    values = np.linspace(0.0, 1.0, 97, dtype=np.float32)[None]
    np.testing.assert_allclose(heat_of_colours(colour_map(values)), values, atol=1 / 255)
    assert not heat_of_colours(np.zeros((2, 3, 3), np.uint8)).any()
