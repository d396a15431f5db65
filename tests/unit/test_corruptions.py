from __future__ import annotations

import math

import numpy as np
import pytest

from flawscope.agent.errors import ConfigError
from flawscope.benchmarks import corruptions as shift
from flawscope.benchmarks.corruptions import GRADES, KINDS, corrupt


def picture(height: int = 64, width: int = 96, block: int = 8) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 180, (height // block, width // block, 3), dtype=np.uint8)
    return coarse.repeat(block, axis=0).repeat(block, axis=1)


def test_gain_multiplies_and_cuts_off() -> None:
    values = np.array([[[0, 100, 200]]], np.uint8)
    assert shift.gain(values, 1.5).tolist() == [[[0, 150, 255]]]
    assert shift.gain(values, 0.5).tolist() == [[[0, 50, 100]]]


def test_gamma_keeps_black_and_white() -> None:
    values = np.array([[[0, 51, 255]]], np.uint8)
    # 255 * 0.2 ** 2 = 10.2 and 255 * 0.2 ** 0.5 = 114.04
    assert shift.gamma(values, 2.0).tolist() == [[[0, 10, 255]]]
    assert shift.gamma(values, 0.5).tolist() == [[[0, 114, 255]]]


def test_gradient_is_a_ramp_towards_its_angle() -> None:
    flat = np.full((2, 4, 3), 100, np.uint8)
    # cell centres lie at -3/4, -1/4, 1/4 and 3/4 of the way from the middle to the bright edge
    assert shift.gradient(flat, 0.4, 0.0)[0, :, 0].tolist() == [70, 90, 110, 130]
    assert shift.gradient(flat, 0.4, math.pi)[0, :, 0].tolist() == [130, 110, 90, 70]
    down = shift.gradient(flat, 0.4, math.pi / 2)
    assert down[:, 0, 0].tolist() == [80, 120]
    assert (down == down[:, :1]).all()


def test_blur_spreads_a_point_by_its_sigma() -> None:
    point = np.zeros((41, 41, 3), np.uint8)
    point[20, 20] = 255
    # 255 / (2 pi sigma^2) at the centre
    assert shift.blur(point, 2.0)[20, 20, 0] == round(255 / (2 * math.pi * 4))
    assert (shift.blur(np.full((8, 8, 3), 77, np.uint8), 2.0) == 77).all()


def test_noise_has_the_stated_spread_and_grey_stays_grey() -> None:
    grey = np.full((200, 200, 3), 128, np.uint8)
    noisy = shift.noise(grey, 8.0, np.random.default_rng(0)).astype(float)
    assert noisy.std() == pytest.approx(8.0, rel=0.02)
    assert noisy.mean() == pytest.approx(128.0, abs=0.2)
    assert (noisy[:, :, 0] == noisy[:, :, 2]).all()
    colour = grey.copy()
    colour[:, :, 0] = 100
    apart = shift.noise(colour, 8.0, np.random.default_rng(0)).astype(float)
    assert abs(np.corrcoef(apart[:, :, 0].ravel(), apart[:, :, 1].ravel())[0, 1]) < 0.02


def test_a_shift_by_whole_pixels_mirrors_what_comes_into_view() -> None:
    row = np.arange(0, 240, 24, dtype=np.uint8)
    ramp = np.broadcast_to(row[None, :, None], (10, 10, 3)).copy()
    moved = shift.move(ramp, shift_px=(2.0, 0.0))[0, :, 0]
    assert moved.tolist() == [48, 24, *row[:8].tolist()]
    down = shift.move(ramp.transpose(1, 0, 2).copy(), shift_px=(0.0, -3.0))[:, 0, 0]
    assert down.tolist() == [*row[3:].tolist(), 192, 168, 144]


def test_a_quarter_turn_is_counter_clockwise() -> None:
    square = picture(64, 64)
    difference = shift.move(square, degrees=90.0).astype(int) - np.rot90(square)
    assert np.abs(difference).max() <= 1  # bicubic sums are cut to whole levels


def test_magnification_about_the_centre() -> None:
    disc = np.zeros((101, 101, 3), np.uint8)
    y, x = np.mgrid[:101, :101]
    disc[(y - 50) ** 2 + (x - 50) ** 2 <= 20**2] = 255
    for factor in (1.15, 1 / 1.15):
        area = (shift.move(disc, magnification=factor)[:, :, 0] > 127).sum()
        assert area == pytest.approx(math.pi * (20 * factor) ** 2, rel=0.03)


def test_jpeg_loses_more_at_lower_quality() -> None:
    original = picture()
    losses = [np.abs(shift.jpeg(original, quality).astype(int) - original).mean() for quality in (90, 30, 10)]
    assert losses == sorted(losses)
    assert losses[0] < losses[2]


@pytest.mark.parametrize("kind", KINDS)
def test_each_grade_is_more_of_the_same_change(kind: str) -> None:
    original = picture(448, 512, block=64)
    losses = []
    for grade in GRADES:
        changed = corrupt(original, kind, grade, seed=3, number=5)
        assert changed.shape == original.shape
        assert changed.dtype == np.uint8
        assert np.array_equal(changed, corrupt(original, kind, grade, seed=3, number=5))
        losses.append(float(np.abs(changed.astype(int) - original).mean()))
    assert 0 < losses[0] < losses[1] < losses[2]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {"blur", "jpeg"}])
def test_pictures_and_seeds_differ(kind: str) -> None:
    original = picture()
    seen = {corrupt(original, kind, 2, seed=seed, number=number).tobytes() for seed in (0, 1) for number in range(6)}
    assert len(seen) >= 2


@pytest.mark.parametrize(("kind", "grade"), [("fog", 1), ("gain", 0), ("gain", 4)])
def test_an_unknown_change_is_refused(kind: str, grade: int) -> None:
    with pytest.raises(ConfigError, match="no change"):
        corrupt(picture(), kind, grade, seed=0, number=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_smallest_picture_survives(kind: str) -> None:
    assert corrupt(np.full((1, 1, 3), 90, np.uint8), kind, 3, seed=0, number=0).shape == (1, 1, 3)
