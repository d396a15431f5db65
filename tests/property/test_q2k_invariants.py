"""What holds for every sampler on any similarities."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flawscope.tools.knowledge.q2k import SAMPLERS, Mode, kde_sample
from flawscope.tools.knowledge.selection import Q2KSelection

MODES: tuple[Mode, ...] = ("paper", "relevance")
# Thousandths: the order of two similarities is never a matter of float noise.
similarity_lists = st.lists(st.integers(-1000, 1000).map(lambda i: i / 1000), max_size=60)
ranked_lists = similarity_lists.filter(lambda values: len(values) > 0)
modes = st.sampled_from(MODES)
budgets = st.integers(1, 12)


def ids(n: int) -> list[str]:
    return [f"d{i:03d}" for i in range(n)]


def sample(name: str, scores: list[float], k: int) -> Q2KSelection:
    vectors = np.random.default_rng(len(scores)).normal(size=(len(scores), 6))
    return SAMPLERS[name](scores, ids(len(scores)), k, vectors=vectors)


@pytest.mark.parametrize("name", list(SAMPLERS))
@settings(max_examples=60)
@given(scores=similarity_lists, k=budgets)
def test_exactly_k_unique_documents_with_the_best_inside(name: str, scores: list[float], k: int) -> None:
    chosen = sample(name, scores, k)
    assert len(chosen.doc_ids) == len(set(chosen.doc_ids)) == min(k, len(scores))
    assert list(chosen.similarities) == sorted(chosen.similarities, reverse=True)
    assert [scores[int(doc[1:])] for doc in chosen.doc_ids] == list(chosen.similarities)
    assert [chosen.all_clusters[int(doc[1:])] for doc in chosen.doc_ids] == list(chosen.clusters)
    if scores:
        assert chosen.similarities[0] == max(scores)
        assert min(chosen.weights) >= 0.0
        assert sum(chosen.weights) == pytest.approx(1.0, abs=1e-9)
        assert set(chosen.all_clusters) == set(range(len(chosen.weights)))
    assert sample(name, scores, k) == chosen


@settings(max_examples=80)
@given(scores=ranked_lists, k=budgets, mode=modes, stochastic=st.booleans())
def test_every_eligible_group_is_covered(scores: list[float], k: int, mode: Mode, stochastic: bool) -> None:
    chosen = kde_sample(scores, ids(len(scores)), k, mode=mode, stochastic=stochastic)
    groups = np.array(chosen.all_clusters)
    best = {c: np.array(scores)[groups == c].max() for c in set(chosen.all_clusters)}
    eligible = {c for c, score in best.items() if score >= max(scores) - 0.15 - 1e-9}
    read = set(chosen.clusters)
    if k >= len(eligible):
        assert eligible <= read
    else:
        assert read <= eligible
        assert len(read) == k
    assert ("below_cutoff" in chosen.flags) == bool(read - eligible)
    means = [np.array(scores)[groups == c].mean() for c in sorted(best)]
    assert all(a >= b - 1e-12 for a, b in pairwise(means))


@settings(max_examples=80)
@given(scores=ranked_lists, k=budgets, mode=modes, stochastic=st.booleans(), order=st.randoms(use_true_random=False))
def test_order_of_the_documents_does_not_matter(
    scores: list[float], k: int, mode: Mode, stochastic: bool, order: object
) -> None:
    shuffled = list(range(len(scores)))
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    names = ids(len(scores))
    plain = kde_sample(scores, names, k, mode=mode, stochastic=stochastic)
    mixed = kde_sample([scores[i] for i in shuffled], [names[i] for i in shuffled], k, mode=mode, stochastic=stochastic)
    assert mixed.doc_ids == plain.doc_ids
    assert mixed.weights == plain.weights
    assert mixed.all_clusters == tuple(plain.all_clusters[i] for i in shuffled)


@settings(max_examples=80)
@given(scores=ranked_lists, k=budgets, mode=modes, a=st.floats(0.01, 100.0), b=st.floats(-5.0, 5.0))
def test_affine_mode_does_not_see_scale_and_shift(scores: list[float], k: int, mode: Mode, a: float, b: float) -> None:
    names = ids(len(scores))
    plain = kde_sample(scores, names, k, mode=mode, affine=True)
    moved = kde_sample([a * score + b for score in scores], names, k, mode=mode, affine=True)
    assert moved.doc_ids == plain.doc_ids
    assert moved.all_clusters == plain.all_clusters
    assert moved.weights == pytest.approx(plain.weights, abs=1e-6)


@settings(max_examples=60)
@given(scores=ranked_lists, k=budgets, mode=modes, budget=st.integers(0, 900), seed=st.integers(0, 99))
def test_token_budget_holds(scores: list[float], k: int, mode: Mode, budget: int, seed: int) -> None:
    names = ids(len(scores))
    tokens = np.random.default_rng(seed).integers(1, 200, len(scores)).tolist()
    free = kde_sample(scores, names, k, mode=mode)
    chosen = kde_sample(scores, names, k, mode=mode, token_counts=tokens, token_budget=budget)
    spent = sum(tokens[int(doc[1:])] for doc in chosen.doc_ids)
    assert chosen.trace["tokens"] == spent
    assert spent <= budget or len(chosen.doc_ids) == 1
    assert set(chosen.doc_ids) <= set(free.doc_ids)
    assert chosen.similarities[0] == max(scores)
    assert ("token_budget" in chosen.flags) == (len(chosen.doc_ids) < len(free.doc_ids))


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), crowded=st.integers(0, 1), copies=st.integers(1, 12), mode=modes)
def test_copies_of_one_type_do_not_crowd_out_the_other(seed: int, crowded: int, copies: int, mode: Mode) -> None:
    rng = np.random.default_rng(seed)
    scores, types = [], []
    for group, mean in enumerate((0.80, 0.70)):
        members = rng.uniform(mean - 0.004, mean + 0.004, 6).tolist() * (copies if group == crowded else 1)
        scores += members
        types += [group] * len(members)
    chosen = kde_sample(scores, ids(len(scores)), 4, mode=mode)
    assert {types[int(doc[1:])] for doc in chosen.doc_ids} == {0, 1}
