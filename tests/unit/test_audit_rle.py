"""Masks in run lengths: worked by hand here; other readers' agreement is tested with the exports."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from flawscope.agent.errors import InputError
from flawscope.audits.rle import decode_mask, encode_mask, mask_area, mask_box

MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=24))


def test_worked_by_hand() -> None:
    mask = np.array([[0, 1], [0, 1], [1, 0]], bool)  # columns 0,0,1 and 1,1,0: runs 2, 3, 1
    assert encode_mask(mask) == "231"


def test_a_first_pixel_of_the_mask_begins_with_an_empty_run() -> None:
    assert encode_mask(np.ones((2, 2), bool)) == "04"


def test_longer_runs_take_more_characters() -> None:
    mask = np.zeros((10, 10), bool)  # one run of 100 = 0b11_00100: 4 with the sign that more follow, then 3
    assert encode_mask(mask) == chr(48 + 32 + 4) + chr(48 + 3)


@given(MASKS)
def test_decoding_gives_the_mask_back(mask: np.ndarray) -> None:
    counts = encode_mask(mask)
    assert np.array_equal(decode_mask(counts, *mask.shape), mask)
    assert mask_area(counts) == mask.sum()


@given(MASKS.filter(lambda mask: mask.any()))
def test_the_box_is_the_masks(mask: np.ndarray) -> None:
    rows, columns = np.nonzero(mask)
    expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert mask_box(encode_mask(mask), mask.shape[0]) == expected


@pytest.mark.parametrize("counts", ["", "5", "Z", "é", "o" * 30, "o"])
def test_damage_is_told(counts: str) -> None:
    with pytest.raises(InputError):
        decode_mask(counts, 3, 3)


@given(st.text(max_size=12))
def test_any_text_is_a_mask_or_an_input_error(counts: str) -> None:
    with contextlib.suppress(InputError):
        assert decode_mask(counts, 4, 4).shape == (4, 4)


def test_an_empty_mask_has_no_box() -> None:
    with pytest.raises(InputError):
        mask_box(encode_mask(np.zeros((3, 3), bool)), 3)


@given(MASKS, st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_a_window_is_encoded_as_the_whole_mask_would_be(mask: np.ndarray, x0: int, y0: int, right: int, below: int):
    whole = np.pad(mask, ((y0, below), (x0, right)))
    assert encode_mask(mask, (x0, y0), (whole.shape[1], whole.shape[0])) == encode_mask(whole)
    assert np.array_equal(decode_mask(encode_mask(whole), *whole.shape), whole)
