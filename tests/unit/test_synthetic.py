"""Synthetic defects: exact masks, bounded areas, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import texture
from hypothesis import given, settings
from hypothesis import strategies as st

from flawscope.agent.errors import InputError
from flawscope.training.synthetic import AREA_SHARE, KINDS, MIN_AREA_PX, add_defect, perlin_noise


def coloured(seed: int, height: int = 80, width: int = 112) -> np.ndarray:
    return np.random.default_rng(seed).integers(40, 200, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_mask_holds_exactly_the_changed_pixels_and_its_area_is_bounded(kind: str, seed: int) -> None:
    good = coloured(seed % 7)
    before = good.copy()
    made = add_defect(good, np.random.default_rng(seed), kind=kind)
    assert (good == before).all()
    assert made.image.shape == good.shape
    assert made.image.dtype == np.uint8
    assert made.kind == kind
    np.testing.assert_array_equal(made.mask, (made.image != good).any(axis=2))
    assert max(MIN_AREA_PX, AREA_SHARE[0] * made.mask.size) <= made.mask.sum() <= AREA_SHARE[1] * made.mask.size


def test_same_seed_same_defect_other_seed_another() -> None:
    good = texture(0)
    first, again, other = (add_defect(good, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert (first.image == again.image).all()
    assert first.kind == again.kind
    assert (first.image != other.image).any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_grey_picture_stays_grey(kind: str) -> None:
    grey = np.repeat(coloured(1)[..., :1], 3, axis=2)
    made = add_defect(grey, np.random.default_rng(0), kind=kind, textures=[coloured(2)])
    assert (made.image[..., :1] == made.image).all()


def test_a_perlin_blend_takes_its_content_from_the_textures() -> None:
    dark, bright = np.full((64, 64, 3), 60, np.uint8), np.full((40, 90, 3), 250, np.uint8)
    changes = [add_defect(dark, np.random.default_rng(s), kind="perlin", textures=[bright]) for s in range(5)]
    assert all((made.image[made.mask].astype(int).mean(axis=1) > 60).all() for made in changes)


def test_kinds_are_all_drawn() -> None:
    rng = np.random.default_rng(0)
    assert {add_defect(texture(0), rng).kind for _ in range(80)} == set(KINDS)


def test_perlin_noise_is_zero_on_the_lattice_smooth_and_bounded() -> None:
    noise = perlin_noise(64, 96, (4, 3), np.random.default_rng(0))
    assert noise.shape == (64, 96)
    np.testing.assert_allclose(noise[::16, ::32], 0, atol=1e-6)
    assert np.abs(noise).max() <= np.sqrt(0.5) + 1e-6
    assert noise.std() > 0.1
    assert max(np.abs(np.diff(noise, axis=axis)).max() for axis in (0, 1)) < 0.2


def test_perlin_noise_between_two_lattice_points_follows_the_fade() -> None:
    # On the lattice's row the corner terms are g0 t and g1 (t - 1) with the x-components g of the corners' gradients.
    rng = np.random.default_rng(5)
    gradient = np.sin(np.random.default_rng(5).uniform(0, 2 * np.pi, (2, 2)))[0]
    t = 0.25
    fade = t**3 * (t * (6 * t - 15) + 10)
    expected = gradient[0] * t + fade * (gradient[1] * (t - 1) - gradient[0] * t)
    assert perlin_noise(4, 4, (1, 1), rng)[0, 1] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((31, 64, 3), np.uint8),
        np.zeros((64, 64), np.uint8),
        np.zeros((64, 64, 3), np.float32),
    ],
)
def test_refuses_what_is_no_picture_or_too_small(picture: np.ndarray) -> None:
    with pytest.raises(InputError, match="32 px"):
        add_defect(picture, np.random.default_rng(0))


def test_says_when_nothing_can_be_changed_and_knows_its_kinds() -> None:
    flat = np.full((64, 64, 3), 90, np.uint8)
    with pytest.raises(InputError, match="no visible defect"):
        add_defect(flat, np.random.default_rng(0), kind="warp")
    with pytest.raises(InputError, match="cutpaste_patch"):
        add_defect(flat, np.random.default_rng(0), kind="rust")
    assert add_defect(flat, np.random.default_rng(0), kind="hole").mask.any()
