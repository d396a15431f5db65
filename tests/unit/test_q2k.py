"""KDE-Sample step by step: the densities against scikit-learn and scipy, the weights by hand, every edge case."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import digamma, gammaln
from scipy.stats import gaussian_kde
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import BayesianGaussianMixture

from flawscope.agent.errors import ConfigError
from flawscope.tools.knowledge import mixture as mx
from flawscope.tools.knowledge import q2k

MODES: tuple[q2k.Mode, ...] = ("paper", "relevance")


def ids(n: int) -> list[str]:
    return [f"d{i:03d}" for i in range(n)]


def three_groups(seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    parts = [(0.80, 0.004, 12), (0.62, 0.006, 40), (0.35, 0.008, 28)]
    scores = np.concatenate([rng.normal(mean, spread, size) for mean, spread, size in parts])
    standard: NDArray[np.float64] = (scores - scores.mean()) / scores.std()
    return standard


# The mixture and the kernel density


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("max_iter", [1, 7, 25])
def test_same_responsibilities_give_scikit_learns_mixture(seed: int, max_iter: int) -> None:
    rng = np.random.default_rng(seed)
    values = three_groups(seed) if seed % 2 else rng.normal(size=60)
    theirs = BayesianGaussianMixture(
        n_components=5,
        weight_concentration_prior=0.1,
        covariance_prior=values.var(ddof=1, keepdims=True)[:, None] / 5**2,
        reg_covar=1e-4,
        init_params="random",
        random_state=seed,
        max_iter=max_iter,
        tol=0.0,
    )
    with pytest.warns(match="did not converge"):
        theirs.fit(values[:, None])
    start = np.random.RandomState(seed).uniform(size=(values.size, 5))  # what init_params="random" draws
    start /= start.sum(axis=1, keepdims=True)
    ours = mx.fit_mixture(values, start.T[:, None, :], max_iter=max_iter, tol=0.0, growth=1.0)
    assert ours.lower_bound == pytest.approx(theirs.lower_bound_, abs=1e-8)
    assert ours.means == pytest.approx(theirs.means_[:, 0], abs=1e-8)
    assert ours.variances == pytest.approx(theirs.covariances_[:, 0, 0], abs=1e-8)
    assert ours.weights == pytest.approx(theirs.weights_, abs=1e-8)
    assert ours.labels.tolist() == theirs.predict(values[:, None]).tolist()
    assert not ours.converged


@pytest.mark.parametrize("seed", range(8))
def test_separated_groups_are_those_of_scikit_learn(seed: int) -> None:
    values = three_groups(seed)
    theirs = BayesianGaussianMixture(
        n_components=6,
        weight_concentration_prior=0.1,
        covariance_prior=values.var(ddof=1, keepdims=True)[:, None] / 6**2,
        n_init=3,
        max_iter=300,
        reg_covar=1e-4,
        random_state=0,
    ).fit(values[:, None])
    ours = mx.fit_mixture(values, mx.hard_starts(values, 6))
    assert ours.converged
    assert np.unique(ours.labels).size == 3
    assert adjusted_rand_score(theirs.predict(values[:, None]), ours.labels) == 1.0
    assert ours.lower_bound >= theirs.lower_bound_ - 0.1


@pytest.mark.parametrize("seed", range(8))
def test_longer_steps_end_no_lower_than_plain_ones(seed: int) -> None:
    values = three_groups(seed)
    starts = mx.hard_starts(values, 6)
    plain = mx.fit_mixture(values, starts, growth=1.0, max_iter=2000, tol=1e-6)
    fast = mx.fit_mixture(values, starts, max_iter=2000, tol=1e-6)
    assert fast.lower_bound >= plain.lower_bound - 1e-3
    assert fast.labels.tolist() == plain.labels.tolist()


def test_bound_never_falls() -> None:
    values = np.random.default_rng(5).uniform(size=80)
    starts = mx.hard_starts(values, 6)
    bounds = [mx.fit_mixture(values, starts, max_iter=i, tol=0.0).lower_bound for i in range(1, 40)]
    assert all(later >= earlier - 1e-9 for earlier, later in pairwise(bounds))


def test_starts_are_partitions_and_large_components_come_first() -> None:
    values = np.random.default_rng(0).exponential(size=50)
    starts = mx.hard_starts(values, 5)
    assert starts.shape == (5, 3, 50)
    assert (starts.sum(axis=0) == 1.0).all()
    sizes = starts.sum(axis=2)
    assert (np.diff(sizes, axis=0) <= 0).all()
    assert sizes[:, 0].tolist() == [10.0] * 5


def test_gamma_functions_match_scipy() -> None:
    x = np.concatenate([np.linspace(0.05, 12.0, 400), [50.0, 1e3, 1e6]])
    log_gamma, slope = mx.gamma_functions(x)
    assert log_gamma == pytest.approx(gammaln(x), rel=1e-11, abs=1e-10)
    assert slope == pytest.approx(digamma(x), rel=1e-11, abs=1e-11)


@pytest.mark.parametrize("n", [2, 5, 100])
def test_kernel_density_matches_scipy(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n)
    assert mx.scott_density(values) == pytest.approx(gaussian_kde(values)(values), abs=1e-10)


def test_widest_gap_split() -> None:
    assert mx.widest_gap_split(np.array([0.1, 0.9, 0.2, 0.8])).tolist() == [1, 0, 1, 0]


def test_sampling_imports_neither_scipy_nor_scikit_learn() -> None:
    code = (
        "import sys; from flawscope.tools.knowledge.q2k import kde_sample;"
        "kde_sample([i * i / 900 for i in range(30)], [str(i) for i in range(30)]);"
        "print(sorted(m for m in sys.modules if m in ('scipy', 'sklearn')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Weights and quotas by hand


def test_equation_6_by_hand() -> None:
    standard = np.array([1.5, 1.4, -0.8, -1.0, -1.1])
    labels = np.array([0, 0, 1, 1, 1])
    density = gaussian_kde(standard)(standard)
    density = density / density.max()
    sums = [
        sum(math.exp(d - 1.0) for d in density[:2]) / 2,
        sum(math.exp(d - 1.0) for d in density[2:]) / 2,
    ]  # W_c with K = 2
    expected = np.array(sums) / sum(sums)
    scores = np.array([0.82, 0.80, 0.50, 0.48, 0.46])
    assert q2k._weights(scores, standard, labels, None) == pytest.approx(expected)
    # relevance: means .81 and .48 at temperature .05 and the square root of the sizes
    relevant = np.array([sums[0] / math.sqrt(2), sums[1] * math.exp(-0.33 / 0.05) / math.sqrt(3)])
    assert q2k._weights(scores, standard, labels, 0.05) == pytest.approx(relevant / relevant.sum())


@pytest.mark.parametrize(
    ("sizes", "weights", "k", "quotas"),
    [
        ([5, 5, 5], [0.6, 0.3, 0.1], 6, [3, 2, 1]),  # one each, then 1.8 / .9 / .3: 1, 0, 0 and the two largest rests
        ([2, 5, 5], [0.8, 0.1, 0.1], 6, [2, 2, 2]),  # the first is full at 2, the overflow is spread again
        ([5, 5, 5], [0.1, 0.1, 0.8], 2, [1, 1, 0]),  # fewer places than groups: best groups first
        ([1, 1, 1], [0.5, 0.3, 0.2], 3, [1, 1, 1]),
        ([4, 4], [1.0, 0.0], 7, [4, 3]),  # a weight of 0 still fills what is left
    ],
)
def test_quotas_by_hand(sizes: list[int], weights: list[float], k: int, quotas: list[int]) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    scores = 0.8 - 0.04 * labels - 0.001 * np.arange(labels.size)
    found, eligible = q2k._quotas(scores, labels, np.array(weights), k, cutoff=0.15)
    assert found.tolist() == quotas
    assert eligible.all()


def test_a_group_below_the_cutoff_waits_for_the_others() -> None:
    labels = np.array([0, 0, 1, 1, 1])
    scores = np.array([0.8, 0.79, 0.64, 0.63, 0.62])
    weights = np.array([0.1, 0.9])
    assert q2k._quotas(scores, labels, weights, 2, 0.15)[0].tolist() == [2, 0]
    assert q2k._quotas(scores, labels, weights, 4, 0.15)[0].tolist() == [2, 2]
    assert q2k._quotas(scores, labels, weights, 2, 0.16)[0].tolist() == [1, 1]
    assert q2k._quotas(scores, labels, weights, 4, 0.16)[0].tolist() == [1, 3]


# The whole sample


def grouped() -> tuple[list[float], list[str]]:
    """Many near-copies at .80 and ten other documents each at .74 and .68."""
    rng = np.random.default_rng(1)
    parts = [(0.80, 30), (0.74, 10), (0.68, 10)]
    scores = np.concatenate([rng.normal(mean, 0.002, size) for mean, size in parts])
    names = [f"{group}{i}" for group, (_, size) in zip("abc", parts, strict=True) for i in range(size)]
    return scores.tolist(), names


@pytest.mark.parametrize("mode", MODES)
def test_every_relevant_group_is_read(mode: q2k.Mode) -> None:
    scores, names = grouped()
    chosen = q2k.kde_sample(scores, names, 4, mode=mode)
    assert {doc[0] for doc in chosen.doc_ids} == {"a", "b", "c"}
    assert chosen.clusters == tuple("abc".index(doc[0]) for doc in chosen.doc_ids)
    assert {doc[0] for doc in q2k.top_k(scores, names, 4).doc_ids} == {"a"}
    assert chosen.flags == ()
    assert chosen.all_clusters == tuple("abc".index(name[0]) for name in names)


def test_only_relevance_keeps_a_crowd_from_outweighing_the_best() -> None:
    rng = np.random.default_rng(2)
    scores = np.concatenate([rng.normal(0.80, 0.01, 6), rng.normal(0.50, 0.02, 40)]).tolist()
    paper = q2k.kde_sample(scores, ids(46), 5, mode="paper", cutoff=2.0)
    relevance = q2k.kde_sample(scores, ids(46), 5, cutoff=2.0)
    assert len(paper.weights) == len(relevance.weights) == 2
    assert paper.weights[1] > 0.8
    assert paper.trace["quotas"] == [1, 4]
    assert relevance.weights[0] > 0.9
    assert relevance.trace["quotas"] == [4, 1]
    assert q2k.kde_sample(scores, ids(46), 5, mode="paper").trace["quotas"] == [5, 0]  # the cutoff, .15


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("n", range(7))
@pytest.mark.parametrize("k", [1, 4, 9])
def test_few_documents(mode: q2k.Mode, n: int, k: int) -> None:
    scores = [0.9 - 0.11 * i for i in range(n)]
    chosen = q2k.kde_sample(scores, ids(n), k, mode=mode)
    assert chosen.doc_ids == tuple(ids(n)[: min(k, n)])  # with so few, the best
    assert chosen.weights == ((1.0,) if n else ())
    assert chosen.flags == (("single_cluster",) if n else ("no_knowledge",))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [-1.0, 0.0, 0.37, 1.0])
def test_equal_similarities_are_one_group_ordered_by_id(mode: q2k.Mode, value: float) -> None:
    chosen = q2k.kde_sample([value] * 30, ids(30)[::-1], 4, mode=mode)
    assert chosen.doc_ids == ("d000", "d001", "d002", "d003")
    assert chosen.weights == (1.0,)
    assert "single_cluster" in chosen.flags


def test_nearly_equal_similarities_are_one_group() -> None:
    scores = [0.5 + 1e-6 * i for i in range(30)]
    chosen = q2k.kde_sample(scores, ids(30), 4)
    assert chosen.doc_ids == ("d029", "d028", "d027", "d026")
    assert chosen.weights == (1.0,)


@pytest.mark.parametrize("mode", MODES)
def test_bounds_of_the_cosine(mode: q2k.Mode) -> None:
    chosen = q2k.kde_sample([1.0] * 10 + [-1.0] * 10 + [0.0] * 10, ids(30), 4, mode=mode)
    assert chosen.similarities == (1.0, 1.0, 1.0, 1.0)
    assert np.isfinite(chosen.weights).all()


def test_values_that_are_not_finite_are_dropped_and_flagged() -> None:
    chosen = q2k.kde_sample([math.nan, 0.9, math.inf, 0.8, -math.inf], ids(5), 4)
    assert chosen.doc_ids == ("d001", "d003")
    assert chosen.all_clusters == (-1, 0, -1, 0, -1)
    assert "nan_dropped" in chosen.flags
    nothing = q2k.kde_sample([math.nan], ["a"], 4)
    assert nothing.doc_ids == ()
    assert nothing.flags == ("nan_dropped", "no_knowledge")


def test_a_repeated_id_keeps_its_best_entry() -> None:
    chosen = q2k.kde_sample([0.2, 0.9, 0.5], ["a", "a", "b"], 4)
    assert chosen.doc_ids == ("a", "b")
    assert chosen.similarities == (0.9, 0.5)
    assert chosen.all_clusters == (-1, 0, 0)
    assert "duplicates_dropped" in chosen.flags


def test_a_mixture_that_does_not_settle_falls_back_to_the_widest_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = [0.9, 0.89, 0.88, 0.87, 0.6, 0.59, 0.58, 0.57, 0.56, 0.55]

    def impatient(values: NDArray[np.float64], starts: NDArray[np.float64]) -> mx.Mixture:
        return mx.fit_mixture(values, starts, max_iter=1, tol=0.0)

    monkeypatch.setattr(q2k, "fit_mixture", impatient)
    chosen = q2k.kde_sample(scores, ids(10), 4)
    assert chosen.all_clusters == (0,) * 4 + (1,) * 6
    assert "largest_gap_split" in chosen.flags


def test_token_budget_keeps_one_of_each_group_first() -> None:
    scores, names = grouped()
    everything = q2k.kde_sample(scores, names, 6)
    tokens = [100] * len(names)
    chosen = q2k.kde_sample(scores, names, 6, token_counts=tokens, token_budget=399)
    assert {doc[0] for doc in chosen.doc_ids} == {"a", "b", "c"}
    assert chosen.trace["tokens"] == 300
    assert "token_budget" in chosen.flags
    assert set(chosen.doc_ids) <= set(everything.doc_ids)
    assert q2k.kde_sample(scores, names, 6, token_counts=tokens, token_budget=600).doc_ids == everything.doc_ids


def test_the_best_document_is_read_even_beyond_the_budget() -> None:
    chosen = q2k.kde_sample([0.9, 0.8], ["a", "b"], 2, token_counts=[500, 10], token_budget=100)
    assert chosen.doc_ids == ("a",)
    assert chosen.flags == ("single_cluster", "token_budget_exceeded", "token_budget")


def test_stochastic_draws_vary_with_the_seed_but_keep_the_best() -> None:
    scores, names = grouped()
    best = names[int(np.argmax(scores))]
    draws = [q2k.kde_sample(scores, names, 5, stochastic=True, seed=seed) for seed in range(12)]
    assert len({draw.doc_ids for draw in draws}) > 3
    assert all(draw.doc_ids[0] == best and len(set(draw.doc_ids)) == 5 for draw in draws)
    assert all({doc[0] for doc in draw.doc_ids} == {"a", "b", "c"} for draw in draws)
    assert q2k.kde_sample(scores, names, 5, stochastic=True, seed=3) == draws[3]


def test_trace_is_plain_data() -> None:
    scores, names = grouped()
    trace = q2k.kde_sample(scores, names, 4).trace
    assert json.loads(json.dumps(trace)) == trace
    assert sum(trace["quotas"]) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.1, 0.2], ["a"], 4, {}), "2 similarities for 1"),
        (([0.1], ["a"], 0, {}), "k >= 1"),
        (([0.1], ["a"], 1, {"temperature": 0.0}), "temperature"),
        (([0.1], ["a"], 1, {"cutoff": -0.1}), "cutoff"),
        (([0.1], ["a"], 1, {"mode": "best"}), "mode"),
        (([0.1], ["a"], 1, {"token_budget": 10}), "token count"),
        (([0.1], ["a"], 1, {"token_budget": 10, "token_counts": [1, 2]}), "token count"),
    ],
)
def test_arguments_that_make_no_sense(arguments: tuple[Any, ...], message: str) -> None:
    scores, names, k, options = arguments
    with pytest.raises(ConfigError, match=message):
        q2k.kde_sample(scores, names, k, **options)


# Baselines


def test_mmr_by_hand() -> None:
    # a and b are the same document twice, c is orthogonal: after a, b gains .7*.9 - .3 = .33 and c .7*.6 = .42.
    vectors = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    chosen = q2k.mmr([0.95, 0.9, 0.6], ["a", "b", "c"], 2, vectors=vectors)
    assert chosen.trace["picked"] == ["a", "c"]
    assert q2k.mmr([0.95, 0.9, 0.6], ["a", "b", "c"], 2, vectors=vectors, lambda_=1.0).doc_ids == ("a", "b")


def test_mmr_needs_vectors_that_fit() -> None:
    with pytest.raises(ConfigError, match="vectors"):
        q2k.SAMPLERS["mmr"]([0.5], ["a"])
    with pytest.raises(ConfigError, match="one vector"):
        q2k.mmr([0.5], ["a"], vectors=np.ones((2, 3)))


def test_mmr_rows_follow_their_document() -> None:
    vectors = np.array([[0.0, 1.0], [9.0, 9.0], [1.0, 0.0], [1.0, 0.01]])
    chosen = q2k.mmr([0.6, math.nan, 0.9, 0.95], ["c", "x", "b", "a"], 2, vectors=vectors)
    assert chosen.trace["picked"] == ["a", "c"]


def test_uniform_per_cluster_gives_every_group_the_same() -> None:
    scores, names = grouped()
    chosen = q2k.uniform_per_cluster(scores, names, 9)
    assert sorted(doc[0] for doc in chosen.doc_ids) == list("aaabbbccc")
    assert chosen.weights == (1 / 3,) * 3


def test_registry_names_one_signature() -> None:
    scores, names = grouped()
    vectors = np.random.default_rng(0).normal(size=(len(names), 8))
    chosen = {name: sample(scores, names, 4, vectors=vectors) for name, sample in q2k.SAMPLERS.items()}
    assert set(chosen) == {"relevance", "paper", "top_k", "mmr", "uniform_per_cluster"}
    assert all(selection.trace["sampler"] == name for name, selection in chosen.items())


def test_the_example_of_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "q2k.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    *setup, call = code.strip().splitlines()
    names: dict[str, Any] = {}
    exec("\n".join(setup), names)
    expression, expected = call.split("  # ")
    assert eval(expression, names) == eval(expected)
