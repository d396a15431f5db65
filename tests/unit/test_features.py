"""Key and lock features: cosines by hand, missing parts, weights, and what cannot be embedded."""

from __future__ import annotations

import numpy as np
import pytest

from flawscope.agent.errors import KnowledgeError
from flawscope.tools.backbones import VisualFeatures
from flawscope.tools.knowledge.features import TEXT_DIM, LockSpace, grid_weights, image_part, text_part

SPACE = LockSpace(np.zeros(3, np.float32), np.ones(3, np.float32))
A, B = np.array([1.0, 0, 0], np.float32), np.array([3.0, 4.0, 0], np.float32)


def test_the_cosine_of_two_complete_vectors_is_the_weighted_sum() -> None:
    first, second = SPACE.embed(A, "round hole"), SPACE.embed(B, "round gap")
    expected = 0.7 * 0.6 + 0.3 * float(text_part("round hole") @ text_part("round gap"))
    assert float(first @ second) == pytest.approx(expected, abs=1e-6)


def test_a_missing_part_leaves_the_other_whole() -> None:
    words, picture = SPACE.embed(None, "hole"), SPACE.embed(B, "")
    assert np.linalg.norm(words) == pytest.approx(1.0)
    assert float(words @ SPACE.embed(None, "hole")) == pytest.approx(1.0)
    assert float(words @ picture) == 0.0
    assert float(picture @ SPACE.embed(A, "")) == pytest.approx(0.6, abs=1e-6)
    assert SPACE.dim == 3 + TEXT_DIM == len(words)


@pytest.mark.parametrize("text", ["", "!?", "日本", "a"])
def test_nothing_to_see_and_nothing_to_read_cannot_be_embedded(text: str) -> None:
    with pytest.raises(KnowledgeError, match="neither"):
        SPACE.embed(None, text)


def test_a_picture_that_is_not_finite_is_refused() -> None:
    with pytest.raises(KnowledgeError):
        SPACE.embed(np.array([np.nan, 0, 0], np.float32), "hole")


def test_a_picture_like_the_average_of_all_still_has_its_words() -> None:
    space = LockSpace(A, np.ones(3, np.float32))
    assert np.linalg.norm(space.embed(A, "hole")) == pytest.approx(1.0)


def test_words_count_not_their_case_or_marks() -> None:
    np.testing.assert_array_equal(text_part("Cut_Lead!"), text_part("cut lead"))
    assert float(text_part("deep scratch") @ text_part("deep scratch on glass")) > 0.5
    assert float(text_part("deep scratch") @ text_part("cold solder joint")) < 0.3
    assert not text_part("").any()


def test_image_parts_weigh_their_patches() -> None:
    layers = tuple(np.arange(4 * d, dtype=np.float32).reshape(1, 4, d) for d in (1, 2))
    features = VisualFeatures(layers, np.zeros((1, 3), np.float32), (2, 2))
    np.testing.assert_allclose(image_part(features), [1.5, 3.0, 4.0])
    np.testing.assert_allclose(image_part(features, np.array([0, 0, 0, 5], np.float32)), [3, 6, 7])
    np.testing.assert_allclose(image_part(features, np.zeros(4, np.float32)), image_part(features))


def test_the_space_is_fitted_to_its_pictures() -> None:
    parts = np.array([[0.0, 5.0, 1.0], [2.0, 5.0, 3.0]], np.float32)
    space = LockSpace.fit(parts)
    np.testing.assert_allclose(space.mean, [1, 5, 2])
    np.testing.assert_allclose(space.spread, [1, 0.1, 1])  # a dead feature gets a tenth of the median, not zero
    single = LockSpace.fit(parts[:1])
    assert np.isfinite(single.embed(parts[1], "x")).all()


def test_a_mask_is_shared_out_over_the_grid() -> None:
    mask = np.zeros((8, 8), np.bool_)
    mask[:4, :2] = True
    np.testing.assert_allclose(grid_weights(mask, (2, 2)), [0.5, 0, 0, 0])
