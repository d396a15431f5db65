"""Registration and template comparison on drawn boards whose motion and defects are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from flawscope.agent.errors import InputError
from flawscope.tools.registration import register
from flawscope.tools.template import TemplateConfig, compare_with_template, grey_of


def board(seed: int = 3, side: int = 200) -> NDArray[np.float32]:
    """Bright tracks and pads on dark ground, some 8 px wide."""
    rng = np.random.default_rng(seed)
    grey = np.full((side, side), 30.0, np.float32)
    for _ in range(9):
        at, start = rng.integers(20, side - 30, 2)
        length = int(rng.integers(40, 90))
        grey[at : at + 8, start : start + length] = 220.0
        at, start = rng.integers(20, side - 30, 2)
        grey[start : start + length, at : at + 8] = 220.0
    return grey


def moved(grey: NDArray[np.float32], turn_deg: float, x: float, y: float) -> NDArray[np.float32]:
    """The board turned about its centre (x towards y) and shifted."""
    turn = np.deg2rad(turn_deg)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])  # y, x: inverse of the turn
    centre = (np.array(grey.shape) - 1) / 2
    offset = centre - matrix @ (centre + np.array([y, x]))
    return np.asarray(ndimage.affine_transform(grey, matrix, offset, order=1, mode="constant", cval=30.0), np.float32)


@settings(max_examples=8, deadline=None)
@given(
    st.floats(-3.0, 3.0),
    st.floats(-12.0, 12.0),
    st.floats(-12.0, 12.0),
    st.floats(0.6, 1.2),
    st.floats(-15.0, 15.0),
)
def test_turn_shift_and_light_are_found(turn: float, x: float, y: float, gain: float, offset: float) -> None:
    grey = ndimage.gaussian_filter(board(), 0.8)
    found = register(grey, gain * moved(grey, turn, x, y) + np.float32(offset))
    assert found.turn_deg == pytest.approx(turn, abs=0.15)
    assert found.shift_px == pytest.approx((x, y), abs=0.4)
    assert found.gain == pytest.approx(gain, rel=0.08)
    assert found.correlation > 0.9


def test_the_same_board_has_no_regions() -> None:
    found = compare_with_template(board(), board())
    assert found.regions == ()
    assert found.score == 0.0


@pytest.mark.parametrize(("turn", "x", "y", "gain"), [(0.0, 0.0, 0.0, 1.0), (1.5, 6.0, -4.0, 0.7)])
def test_missing_and_extra_copper_are_found_where_they_are(turn: float, x: float, y: float, gain: float) -> None:
    grey = board()
    part = grey.copy()
    rows, columns = np.nonzero(ndimage.minimum_filter(grey, 9) > 200)
    row, column = int(rows[len(rows) // 2]), int(columns[len(rows) // 2])
    part[row - 5 : row + 6, column - 5 : column + 6] = 30.0  # a hole in a track
    empty_rows, empty_columns = np.nonzero(ndimage.maximum_filter(grey[30:170, 30:170], 25) < 40)
    y0, x0 = int(empty_rows[0]) + 30, int(empty_columns[0]) + 30
    part[y0 - 4 : y0 + 5, x0 - 4 : x0 + 5] = 220.0  # a splash on the ground
    found = compare_with_template(grey, gain * moved(part, turn, x, y))
    assert sorted(region.kind for region in found.regions) == ["extra", "missing"]
    want = found.registration.to_picture(np.array([[x0, y0], [column, row]], float), (200, 200))
    for region in found.regions:
        centre = [(region.box[0] + region.box[2] - 1) / 2, (region.box[1] + region.box[3] - 1) / 2]
        assert np.hypot(*(want[0 if region.kind == "extra" else 1] - centre)) < 5.0


def test_dark_material_turns_missing_into_extra() -> None:
    grey = board()
    part = grey.copy()
    rows, columns = np.nonzero(ndimage.minimum_filter(grey, 9) > 200)
    part[rows[0] - 5 : rows[0] + 6, columns[0] - 5 : columns[0] + 6] = 30.0
    assert {r.kind for r in compare_with_template(grey, part).regions} == {"missing"}
    assert {r.kind for r in compare_with_template(grey, part, TemplateConfig(material="dark")).regions} == {"extra"}


def test_what_is_ignored_is_not_compared() -> None:
    grey = board()
    part = grey.copy()
    rows, columns = np.nonzero(ndimage.minimum_filter(grey, 9) > 200)
    part[rows[0] - 5 : rows[0] + 6, columns[0] - 5 : columns[0] + 6] = 30.0
    ignore = np.zeros(grey.shape, bool)
    ignore[rows[0] - 8 : rows[0] + 9, columns[0] - 8 : columns[0] + 9] = True
    assert compare_with_template(grey, part, ignore=ignore).regions == ()


def test_what_cannot_be_aligned_is_refused() -> None:
    with pytest.raises(InputError, match="px"):
        register(board(), board(side=180))
    with pytest.raises(InputError, match="flat"):
        register(board(), np.full((200, 200), 9.0, np.float32))
    noise = np.random.default_rng(0).uniform(0, 255, (200, 200)).astype(np.float32)
    with pytest.raises(InputError, match="template"):
        compare_with_template(board(), noise)


def test_luma_is_weighted() -> None:
    rgb = np.array([[[100, 0, 0], [0, 100, 0], [0, 0, 100]]], np.uint8)
    assert grey_of(rgb)[0].tolist() == pytest.approx([29.9, 58.7, 11.4], rel=1e-5)
