"""Pictures that are one, and pictures that only look alike."""

from __future__ import annotations

import io

import numpy as np
import pytest
from fakes import enlarged, texture, with_scratch, with_square
from PIL import Image

from flawscope.tools.knowledge.twins import are_twins, difference_hash, fingerprint, hamming


def grey(cells: np.ndarray) -> np.ndarray:
    """A picture of 10 px cells."""
    return np.repeat(np.kron(cells, np.ones((10, 10)))[..., None], 3, axis=2).astype(np.uint8)


def test_the_hash_of_a_ramp_is_all_ones_and_of_its_mirror_image_none() -> None:
    ramp = grey(np.tile(np.arange(9) * 20, (8, 1)))
    assert difference_hash(ramp) == 0xFFFF_FFFF_FFFF_FFFF
    assert difference_hash(np.ascontiguousarray(ramp[:, ::-1])) == 0
    assert difference_hash(np.full((40, 50, 3), 90, np.uint8)) == 0


def test_bits_stand_in_raster_order() -> None:
    cells = np.zeros((8, 9))
    cells[0, 1] = 100  # brighter than its left neighbour: the first bit but one from the top is 0, the first is 1
    cells[7, 8] = 100  # the last bit
    assert difference_hash(grey(cells)) == (1 << 63) | 1


def test_hamming() -> None:
    assert hamming(0b1011, 0b0010) == 2
    assert hamming(0, 0xFFFF_FFFF_FFFF_FFFF) == 64


@pytest.mark.parametrize("change", ["half", "jpeg", "darker"])
def test_a_copy_is_a_twin(change: str) -> None:
    pixels = enlarged(with_square(texture(1)))
    if change == "half":
        other = np.asarray(Image.fromarray(pixels).resize((240, 240)))
    elif change == "jpeg":
        stored = io.BytesIO()
        Image.fromarray(pixels).save(stored, "JPEG", quality=60)
        other = np.asarray(Image.open(stored))
    else:
        other = (pixels * 0.8).astype(np.uint8)
    assert are_twins(fingerprint(pixels), fingerprint(other))


def test_another_part_or_another_defect_under_the_same_camera_is_none() -> None:
    first = fingerprint(with_square(texture(1)))
    for other in (with_square(texture(2)), with_scratch(texture(1)), with_square(texture(1), 60, 60), texture(1)):
        assert not are_twins(first, fingerprint(other))


def test_a_flat_picture_is_its_own_twin() -> None:
    flat = fingerprint(np.full((64, 64, 3), 90, np.uint8))
    assert are_twins(flat, flat)
    assert not are_twins(flat, fingerprint(with_square(np.full((64, 64, 3), 90, np.uint8))))
