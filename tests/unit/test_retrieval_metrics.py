"""Retrieval metrics against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flawscope.benchmarks import retrieval_metrics as rm


@pytest.mark.parametrize(
    ("doc", "grade"),
    [(("nut", "scratch"), 2), (("nut", "dent"), 1), (("bolt", "scratch"), 1), (("bolt", "dent"), 0), ((None, None), 0)],
)
def test_grade_counts_agreement_in_product_and_type(doc: tuple[str | None, str | None], grade: int) -> None:
    assert rm.relevance_grade("nut", "scratch", *doc) == grade


def test_unknown_does_not_agree_with_unknown() -> None:
    assert rm.relevance_grade(None, None, None, None) == 0


def test_recall_counts_only_the_first_k() -> None:
    assert rm.recall_at_k(["a", "b", "c", "d"], {"a", "d", "x"}, 3) == pytest.approx(1 / 3)
    assert rm.recall_at_k(["a", "b", "c", "d"], {"a", "d", "x"}, 4) == pytest.approx(2 / 3)
    assert rm.recall_at_k(["a"], set(), 1) is None


def test_reciprocal_rank_and_its_mean() -> None:
    ranks = [
        rm.reciprocal_rank(["a", "b", "c"], {"c", "b"}),
        rm.reciprocal_rank(["a"], {"z"}),
        rm.reciprocal_rank([], set()),
    ]
    assert ranks == [0.5, 0.0, None]
    assert rm.mean_of_known(ranks) == 0.25
    assert rm.mean_of_known([None]) is None


def test_seek_accuracy_needs_a_full_match() -> None:
    assert rm.seek_accuracy([[0, 2], [1, 1], [], [2, 2]]) == 0.5
    assert rm.seek_accuracy([]) is None


def test_ndcg_by_hand() -> None:
    # Gains 2^g - 1: retrieved 1, 3, 0; ideal 3, 1, 1 from the pool {2, 1, 1, 0}.
    gained = 1 / math.log2(2) + 3 / math.log2(3)
    ideal = 3 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    assert rm.ndcg_at_k([1, 2, 0], [0, 1, 2, 1], 3) == pytest.approx(gained / ideal)
    assert rm.ndcg_at_k([2, 1, 1], [0, 1, 2, 1], 3) == pytest.approx(1.0)
    assert rm.ndcg_at_k([0], [0, 0], 1) is None


def test_subtopic_recall_by_hand() -> None:
    ranked = [{"cause"}, {"cause", "type"}, {"scenario"}]
    wanted = {"cause", "type", "scenario", "product"}
    assert rm.subtopic_recall_at_k(ranked, wanted, 1) == 0.25
    assert rm.subtopic_recall_at_k(ranked, wanted, 2) == 0.5
    assert rm.subtopic_recall_at_k(ranked, wanted, 9) == 0.75
    assert rm.subtopic_recall_at_k(ranked, set(), 1) is None


def test_alpha_ndcg_by_hand() -> None:
    # Ranked {a}, {a}, {b}: gains 1, 1/2, 1. Greedy ideal of the pool: {a, b}, then {a} (1/2), then {a} (1/4).
    pool = [{"a"}, {"a"}, {"b"}, {"a", "b"}]
    gained = 1.0 + 0.5 / math.log2(3) + 1.0 / 2
    ideal = 2.0 + 0.5 / math.log2(3) + 0.5 / 2
    assert rm.alpha_ndcg_at_k([{"a"}, {"a"}, {"b"}], pool, 3) == pytest.approx(gained / ideal)
    assert rm.alpha_ndcg_at_k([set()], [set(), set()], 1) is None


def test_alpha_one_pays_a_subtopic_once() -> None:
    pool = [{"a"}, {"a"}, {"b"}]
    gained, ideal = 1.0, 1.0 + 1.0 / math.log2(3)
    assert rm.alpha_ndcg_at_k([{"a"}, {"a"}], pool, 2, alpha=1.0) == pytest.approx(gained / ideal)


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(1, 12), st.randoms(use_true_random=False))
def test_alpha_zero_with_one_subtopic_is_binary_ndcg(relevant: list[bool], k: int, random: object) -> None:
    ranked = sorted(relevant, key=lambda _: random.random())  # type: ignore[attr-defined]
    topics = [{"only"} if hit else set() for hit in ranked]
    expected = rm.ndcg_at_k([int(hit) for hit in ranked], [int(hit) for hit in relevant], k)
    found = rm.alpha_ndcg_at_k(topics, topics, k, alpha=0.0)
    assert found == (None if expected is None else pytest.approx(expected))


def test_pairwise_similarity_and_redundancy_by_hand() -> None:
    # Cosines: (x, x') 1, (x, y) 0, (x', y) 0; lengths do not matter.
    vectors = np.array([[1.0, 0.0], [5.0, 0.0], [0.0, 2.0]])
    assert rm.intra_list_similarity(vectors) == pytest.approx(1 / 3)
    assert rm.redundancy(vectors) == pytest.approx(1 / 3)
    assert rm.redundancy(vectors[1:]) == 0.0
    assert rm.intra_list_similarity(vectors[:1]) == 0.0
    assert rm.redundancy(vectors[:0]) == 0.0


def test_an_interval_of_a_mean_resamples_clusters() -> None:
    sums, counts = rm.cluster_means([("a", 1.0), ("a", 0.0), ("b", 1.0), ("c", None)])
    assert (sums.tolist(), counts.tolist()) == ([1.0, 1.0], [2.0, 1.0])
    # drawn: a twice 1/2, b twice 1, one of each 2/3
    assert rm.interval(sums, counts) == (0.5, 1.0)
    assert rm.interval(*rm.cluster_means([("a", 0.25), ("b", 0.25)])) == (0.25, 0.25)
    assert rm.interval(*rm.cluster_means([])) is None
    many = rm.cluster_means([(str(n), float(n % 2)) for n in range(400)])
    low, high = rm.interval(*many) or (0.0, 0.0)
    assert low < 0.5 < high
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.1)  # of a share of 1/2 over 400
