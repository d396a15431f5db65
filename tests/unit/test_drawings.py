"""Drawn examples: repeatable, marked where they differ and nowhere else, one for every general type."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import label

from flawscope.agent.errors import KnowledgeError
from flawscope.tools.knowledge.drawings import DRAWN_TYPES, draw_defect
from flawscope.tools.knowledge.drawings_base import fractal_noise, paint, relief, smooth_step, warped
from flawscope.tools.knowledge.schema import general_types, load_documents

WHOLE_PART = {"texture_change", "discolouration"}  # faults without a place of their own


def dilated(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    padded = np.pad(mask, reach)
    size = mask.shape[0]
    shifts = range(2 * reach + 1)
    grown: NDArray[np.bool_] = np.any([padded[y : y + size, x : x + size] for y in shifts for x in shifts], axis=0)
    return grown


def test_every_general_type_has_a_drawing_and_no_other() -> None:
    assert set(general_types(load_documents())) == set(DRAWN_TYPES)


@pytest.mark.parametrize("defect_type", DRAWN_TYPES)
def test_a_drawing_shows_its_defect_inside_its_mask_only(defect_type: str) -> None:
    for variant in range(4):
        image, mask, clean = draw_defect(defect_type, variant=variant, size=160)
        assert image.shape == clean.shape == (160, 160, 3)
        assert image.dtype == clean.dtype == np.uint8
        assert mask.shape == (160, 160)
        assert mask.dtype == np.bool_
        assert mask.sum() >= 12
        if defect_type not in WHOLE_PART:
            assert mask.mean() < 0.95
        difference = np.abs(image.astype(int) - clean.astype(int)).max(axis=2)
        outside = ~dilated(mask, 2)
        assert difference[outside].max(initial=0) <= 10
        assert difference[mask].mean() > 10
        assert clean.std() > 2, "a material has texture and light"


@pytest.mark.parametrize("defect_type", DRAWN_TYPES)
def test_variants_differ_and_repeat(defect_type: str) -> None:
    first = [draw_defect(defect_type, variant=variant, size=96) for variant in range(3)]
    again = draw_defect(defect_type, variant=1, size=96)
    for before, after in zip(first[1], again, strict=True):
        assert np.array_equal(before, after)
    assert not np.array_equal(first[0].image, first[1].image)
    assert not np.array_equal(first[1].image, first[2].image)


@pytest.mark.parametrize(
    ("defect_type", "more_copper", "more_bare"),
    [
        ("open_circuit", 1, -1),
        ("short_circuit", -1, 1),
        ("mouse_bite", 0, 0),
        ("spur", 0, 0),
        ("spurious_copper", 1, 0),
        ("pinhole", 0, 1),
    ],
)
def test_a_board_has_the_connections_that_its_defect_implies(
    defect_type: str, more_copper: int, more_bare: int
) -> None:
    def pieces(cover: NDArray[np.bool_]) -> int:
        _, sizes = np.unique(label(cover)[0][cover], return_counts=True)
        return int((sizes > 20).sum())

    for variant in range(1, 37, 3):  # the copper-coloured boards
        drawing = draw_defect(defect_type, variant=variant)
        # light scales all channels alike, so the ratio of red to blue tells copper from laminate
        copper, clean = (
            picture[:, :, 0] > 2.2 * picture[:, :, 2].astype(float) for picture in (drawing.image, drawing.clean)
        )
        assert pieces(clean) == 5, variant
        assert pieces(copper) - pieces(clean) == more_copper, variant
        assert pieces(~copper) - pieces(~clean) == more_bare, variant


def test_another_process_draws_the_same_pixels() -> None:
    code = (
        "import hashlib; from flawscope.tools.knowledge.drawings import draw_defect;"
        "print(hashlib.sha256(draw_defect('crack', variant=2, size=96).image.tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == hashlib.sha256(draw_defect("crack", variant=2, size=96).image.tobytes()).hexdigest()


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(DRAWN_TYPES), st.integers(0, 10_000), st.integers(64, 200))
def test_any_variant_and_size_can_be_drawn(defect_type: str, variant: int, size: int) -> None:
    image, mask, _ = draw_defect(defect_type, variant=variant, size=size)
    assert image.shape == (size, size, 3)
    assert mask.any()


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(KnowledgeError, match="No drawing of 'rust'"):
        draw_defect("rust")
    with pytest.raises(ValueError, match="at least 64"):
        draw_defect("crack", size=63)
    with pytest.raises(ValueError, match="not negative"):
        draw_defect("crack", variant=-1)


def test_light_comes_from_the_upper_left() -> None:
    y, x = np.mgrid[0:64, 0:64] / 64
    light = relief(0.1 * np.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) / 0.01))
    assert light[26, 26] > 0.1, "the flank of a dome that faces the lamp is bright"
    assert light[38, 38] < -0.1
    assert not relief(np.full((8, 8), 3.0)).any()


def test_brushes_by_hand() -> None:
    assert smooth_step(np.array([[-1.0, 0.0, 1.0]]), 0.0, 1.0).tolist() == [[0.0, 0.5, 1.0]]
    ground = np.zeros((2, 2, 3), dtype=np.float32)
    cover = np.array([[0.0, 1.0], [0.5, 0.0]], dtype=np.float32)
    assert paint(ground, cover, (1.0, 1.0, 1.0))[:, :, 0].tolist() == [[0.0, 1.0], [0.5, 0.0]]
    assert not ground.any(), "the picture handed in stays as it was"
    noise = fractal_noise(np.random.default_rng(0), 64)
    assert abs(float(noise.mean())) < 1e-4
    assert abs(float(noise.std()) - 1) < 1e-3


def test_warping_by_one_pixel_moves_the_picture() -> None:
    picture = np.random.default_rng(0).random((8, 8, 1), dtype=np.float32)
    shift = np.full((8, 8), 1 / 8, dtype=np.float32)
    moved = warped(picture, shift, 0 * shift)
    assert np.allclose(moved[:-1, :6], picture[:-1, 1:7], atol=1e-4)
