"""What looking for words in pictures may not do: depend on an order, leave the scope, or cost a page for its lack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from fakes import ColourWords
from hypothesis import given
from hypothesis import strategies as st

from flawscope.tools.knowledge.fusion import fuse
from flawscope.tools.knowledge.joint import JointPictures

NAMES = "abcdefgh"
ranking = st.lists(st.sampled_from(NAMES), max_size=8, unique=True)


class Fixed(ColourWords):
    def encode_text(self, prompts: Sequence[str]) -> np.ndarray:
        return np.tile(np.eye(4, dtype=np.float32)[0], (len(prompts), 1))


@given(st.integers(0, 2**32 - 1), st.sets(st.sampled_from(NAMES)), st.integers(1, 8), st.permutations(NAMES))
def test_pictures_are_ranked_within_the_scope_whatever_their_order(
    seed: int, within: set[str], limit: int, order: list[str]
) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(8, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[rng.random(8) < 0.3] = 0.0
    there = {name for name, vector in zip(NAMES, vectors, strict=True) if vector.any()}
    found = JointPictures.of(Fixed(), list(NAMES), vectors).search("words", within, limit)
    assert len(found) == min(limit, len(there & within))
    assert set(found) <= there & within
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert all(-1.0001 <= cosine <= 1.0001 for cosine in found.values())
    if len(found) < limit:
        assert set(found) == there & within
    shuffled = vectors[[NAMES.index(name) for name in order]]
    again = JointPictures.of(Fixed(), order, shuffled).search("words", within, limit)
    assert list(again) == list(found)


@given(ranking, ranking, st.sets(st.sampled_from(NAMES)))
def test_a_page_without_a_picture_never_falls_behind_one_that_both_rankings_put_lower(
    words: list[str], pictures: list[str], unpictured: set[str]
) -> None:
    pictures = [name for name in pictures if name not in unpictured]
    fused = [name for name, _ in fuse([words, pictures], unpictured)]
    assert set(fused) == set(words) | set(pictures)
    for place, name in enumerate(words):
        for lower in words[place + 1 :] if name in unpictured else ():
            if lower in unpictured or lower not in pictures or pictures.index(lower) >= place:
                assert fused.index(name) < fused.index(lower)


@given(st.lists(ranking, max_size=3), st.sets(st.sampled_from(NAMES)))
def test_when_every_page_lacks_a_picture_the_order_is_that_of_the_others(
    rankings: list[list[str]], some: set[str]
) -> None:
    assert [name for name, _ in fuse(rankings, NAMES)] == [name for name, _ in fuse(rankings)]
    assert {name for name, _ in fuse(rankings, some)} == {name for name, _ in fuse(rankings)}
