from __future__ import annotations

import numpy as np
import pytest

from flawscope.tools.knowledge.familiarity import MIN_PHOTOGRAPHS, Familiarity, judge, least_familiar


def turned(*degrees: float) -> np.ndarray:
    angles = np.deg2rad(np.array(degrees))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_the_threshold_is_how_alike_photographs_of_one_product_are() -> None:
    # four pairs 10 degrees apart, each of its own product: all nearest similarities are cos 10
    images = turned(0, 10, 90, 100, 180, 190, 270, 280)
    products = [name for name in "abcd" for _ in range(2)]
    assert least_familiar(images, products) == pytest.approx(np.cos(np.deg2rad(10)), abs=1e-6)
    assert least_familiar(images, list("abcdefgh")) is None  # nothing has another one of its product
    assert least_familiar(images[: MIN_PHOTOGRAPHS - 1], products[: MIN_PHOTOGRAPHS - 1]) is None
    assert least_familiar(np.zeros((0, 2), np.float32), []) is None


def test_the_least_like_twentieth_is_given_up() -> None:
    # 20 pairs: 19 identical ones and one 60 degrees apart, so 2 of 40 nearest similarities are 0.5
    images = np.concatenate([turned(*[0.0] * 38), turned(0, 60)])
    products = [f"p{n // 2}" for n in range(40)]
    found = least_familiar(images, products)
    assert found is not None
    assert 0.5 < found <= 1.0  # rank 1.95 of 0..39 lies between the two halves and the first whole one
    assert found == pytest.approx(0.5 + 0.95 * 0.5, abs=1e-6)


@pytest.mark.parametrize(
    ("similarity", "threshold", "product", "known", "basis"),
    [
        (0.9, 0.8, None, True, "picture"),
        (0.8, 0.8, "new", True, "picture"),  # its pages may be under another name
        (0.7, 0.8, None, False, "picture"),
        (0.7, None, "new", False, "name"),
        (None, 0.8, "new", False, "name"),
        (0.7, None, None, None, "nothing to compare"),
        (None, None, None, None, "nothing to compare"),
    ],
)
def test_what_a_base_knows(
    similarity: float | None, threshold: float | None, product: str | None, known: bool | None, basis: str
) -> None:
    found = judge(similarity, threshold, "gear.burr", product)
    assert (found.known, found.basis) == (known, basis)


def test_a_sentence_is_said_only_where_the_base_knows_nothing() -> None:
    told = judge(0.7, 0.8, "gear.burr", None).sentence
    assert "nothing near this picture" in told
    assert "gear.burr, is similar by 0.70" in told
    assert "0.80 or more" in told
    assert "no page about this product" in judge(None, None, None, "new").sentence
    assert Familiarity(False, "empty").sentence == "The knowledge base is empty."
    assert judge(0.9, 0.8, "gear.burr", None).sentence == judge(None, None, None, None).sentence == ""
