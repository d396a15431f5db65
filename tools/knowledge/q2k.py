"""Q2K retrieval, the sampling half: which documents to read, given how similar each one is to the query.

The nearest documents of an industrial knowledge base tend to say the same thing many times, because the defects of
one product look alike. KDE-Sample groups the similarities with a Bayesian Gaussian mixture, weights every group by
the kernel density of its members and gives each group its share of the places.

Source: ADSeeker (arXiv 2508.03088), section Q2K RAG, equation 6. The paper leaves open the mixture's settings, the
threshold and the sampling within a group, and its weights neither sum to one nor respect relevance: a large group of
middling documents outweighs the best one. ``mode="paper"`` is equation 6 with normalised weights;
``mode="relevance"``, the default, adds the relevance of each group. See docs/q2k.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import ConfigError
from .mixture import fit_mixture, hard_starts, scott_density, widest_gap_split
from .selection import Q2KSelection, gather, representatives_first, select

Mode = Literal["paper", "relevance"]

MAX_COMPONENTS = 6
MIN_FOR_MIXTURE = 5  # with fewer documents a mixture has nothing to estimate from
FLAT_RANGE = 1e-4  # cosines closer together than this carry no order
AFFINE_STD = 0.1  # affine mode rescales to this spread, where ``cutoff`` and ``temperature`` mean what they mean raw
_ROUND = 9  # digits of standardised scores: float noise of a shift or scale must not decide a group


class Sampler(Protocol):
    """The signature all entries of :data:`SAMPLERS` share."""

    def __call__(
        self,
        similarities: Sequence[float],
        doc_ids: Sequence[str],
        k: int = 4,
        *,
        vectors: NDArray[np.floating[Any]] | None = None,
        token_counts: Sequence[int] | None = None,
        token_budget: int | None = None,
    ) -> Q2KSelection:
        """Choose at most k documents; ``vectors`` (n, d) are lock features, needed by ``mmr`` only."""
        ...


def kde_sample(
    similarities: Sequence[float],
    doc_ids: Sequence[str],
    k: int = 4,
    *,
    mode: Mode = "relevance",
    affine: bool = False,
    stochastic: bool = False,
    seed: int = 0,
    cutoff: float = 0.15,
    temperature: float = 0.05,
    token_counts: Sequence[int] | None = None,
    token_budget: int | None = None,
) -> Q2KSelection:
    """Choose k documents so that every relevant group of similarities is represented.

    Args:
        similarities: cosine of the query's key feature with each document's lock feature. Values that are not finite
            are dropped; of repeated ids the most similar entry stays.
        doc_ids: the documents' ids, aligned with ``similarities``.
        k: documents to choose, at least 1.
        mode: ``paper`` weighs groups by equation 6, ``relevance`` also by their mean similarity.
        affine: standardise first, so that ``a * similarities + b`` with a > 0 chooses the same documents. For
            encoders whose cosines live in a narrow band.
        stochastic: draw within a group without replacement, in proportion to exp(similarity / temperature), instead
            of taking its best. The most similar document is always chosen.
        seed: of the stochastic draw.
        cutoff: groups whose best document is this much below the overall best get a place only when no other is left.
        temperature: similarity that changes a group's relevance by a factor e.
        token_counts: tokens of each document, aligned with ``doc_ids``.
        token_budget: stop before the sum of tokens exceeds this; the most similar document is always kept.

    Returns:
        Exactly min(k, usable documents) documents, fewer only under a token budget.

    Raises:
        ConfigError: arguments that do not fit together.
    """
    if mode not in ("paper", "relevance"):
        raise ConfigError(f"Unknown retrieval mode {mode!r}.", hint="Use 'paper' or 'relevance'.")
    if not temperature > 0.0 or not cutoff >= 0.0:
        raise ConfigError(f"Retrieval needs temperature > 0 and cutoff >= 0, got {temperature} and {cutoff}.")
    pool = gather(similarities, doc_ids, k, token_counts, token_budget)
    n = len(pool.ids)
    if n == 0:
        return select(pool, [], np.zeros(0, dtype=np.intp), [], {"sampler": mode})
    standard, flat = _standardise(pool.scores, affine)
    trace: dict[str, Any] = {"sampler": mode, "affine": affine, "stochastic": stochastic, "n": n, "k": k}
    labels, fitted = (np.zeros(n, dtype=np.intp), {}) if flat or n <= k else _group(standard)
    if fitted.get("converged") is False:
        pool.flags.append("largest_gap_split")
    scores = standard * AFFINE_STD if affine else pool.scores
    labels = _by_falling_mean(labels, scores)
    weights = _weights(scores, standard, labels, None if mode == "paper" else temperature)
    if weights.size == 1:
        pool.flags.append("single_cluster")
    quotas, eligible = _quotas(scores, labels, weights, min(k, n), cutoff)
    if not eligible[quotas > 0].all():
        pool.flags.append("below_cutoff")
    order = scores
    if stochastic:
        order = scores / temperature + np.random.default_rng(seed).gumbel(size=n)
        order[0] = math.inf  # the best document is always read
    chosen = [m for c in range(weights.size) for m in _first(np.flatnonzero(labels == c), order, int(quotas[c]))]
    trace |= fitted | {"quotas": quotas.tolist(), "eligible": eligible.tolist()}
    return select(pool, representatives_first(chosen, labels), labels, weights.tolist(), trace)


def top_k(
    similarities: Sequence[float],
    doc_ids: Sequence[str],
    k: int = 4,
    *,
    token_counts: Sequence[int] | None = None,
    token_budget: int | None = None,
) -> Q2KSelection:
    """Baseline: the k most similar documents, ties by id; arguments as in :func:`kde_sample`."""
    pool = gather(similarities, doc_ids, k, token_counts, token_budget)
    n = len(pool.ids)
    return select(pool, list(range(min(k, n))), np.zeros(n, dtype=np.intp), [1.0][:n], {"sampler": "top_k"})


def mmr(
    similarities: Sequence[float],
    doc_ids: Sequence[str],
    k: int = 4,
    *,
    vectors: NDArray[np.floating[Any]] | None = None,
    lambda_: float = 0.7,
    token_counts: Sequence[int] | None = None,
    token_budget: int | None = None,
) -> Q2KSelection:
    """Baseline: maximal marginal relevance (Carbonell & Goldstein 1998).

    Args:
        similarities: as in :func:`kde_sample`.
        doc_ids: as in :func:`kde_sample`.
        k: documents to choose.
        vectors: (n, d) lock features of the documents, aligned with ``doc_ids``, not zero.
        lambda_: weight of the similarity against the largest cosine with a document already chosen; 1 is top-k.
        token_counts: as in :func:`kde_sample`.
        token_budget: as in :func:`kde_sample`.

    Returns:
        The chosen documents, best first; ``trace["picked"]`` holds the order in which they were picked.

    Raises:
        ConfigError: vectors that are missing or do not match the documents.
    """
    pool = gather(similarities, doc_ids, k, token_counts, token_budget)
    if vectors is None:
        raise ConfigError("MMR needs the documents' vectors.")
    rows = np.asarray(vectors, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[0] != pool.n_given:
        raise ConfigError(f"MMR needs one vector a document, got shape {rows.shape} for {pool.n_given} documents.")
    rows = rows[pool.index]
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    n = len(pool.ids)
    chosen: list[int] = []
    closest = np.zeros(n)
    for _ in range(min(k, n)):
        gain = lambda_ * pool.scores - (1.0 - lambda_) * closest
        gain[chosen] = -math.inf
        pick = int(np.argmax(gain))
        cosines = rows @ rows[pick]
        closest = np.maximum(closest, cosines) if chosen else cosines
        chosen.append(pick)
    trace = {"sampler": "mmr", "lambda": lambda_, "picked": [pool.ids[m] for m in chosen]}
    return select(pool, chosen, np.zeros(n, dtype=np.intp), [1.0][:n], trace)


def uniform_per_cluster(
    similarities: Sequence[float],
    doc_ids: Sequence[str],
    k: int = 4,
    *,
    token_counts: Sequence[int] | None = None,
    token_budget: int | None = None,
) -> Q2KSelection:
    """Baseline: the groups of :func:`kde_sample`, all with the same weight and none cut off."""
    pool = gather(similarities, doc_ids, k, token_counts, token_budget)
    n = len(pool.ids)
    if n == 0:
        return select(pool, [], np.zeros(0, dtype=np.intp), [], {"sampler": "uniform_per_cluster"})
    standard, flat = _standardise(pool.scores, affine=False)
    labels, fitted = (np.zeros(n, dtype=np.intp), {}) if flat or n <= k else _group(standard)
    labels = _by_falling_mean(labels, pool.scores)
    n_clusters = int(labels.max()) + 1
    weights = np.full(n_clusters, 1.0 / n_clusters)
    quotas, _ = _quotas(pool.scores, labels, weights, min(k, n), math.inf)
    chosen = [m for c in range(n_clusters) for m in np.flatnonzero(labels == c)[: quotas[c]].tolist()]
    trace = {"sampler": "uniform_per_cluster", "quotas": quotas.tolist()} | fitted
    return select(pool, representatives_first(chosen, labels), labels, weights.tolist(), trace)


def _standardise(scores: NDArray[np.float64], affine: bool) -> tuple[NDArray[np.float64], bool]:
    """Scores with mean 0 and standard deviation 1, and whether they are too alike to be grouped."""
    spread = float(scores.std())
    span = float(scores[0] - scores[-1])
    limit = 1e-9 * float(np.abs(scores).max()) if affine else FLAT_RANGE
    if span <= limit or spread == 0.0:
        return np.zeros_like(scores), True
    standard = np.round((scores - scores.mean()) / spread, _ROUND)
    return standard, np.unique(standard).size < 3


def _group(standard: NDArray[np.float64]) -> tuple[NDArray[np.intp], dict[str, Any]]:
    """Group of each standardised score: Bayesian mixture, or the widest gap when the mixture does not settle."""
    n = standard.size
    n_components = min(MAX_COMPONENTS, n // 3, int(np.unique(standard).size))
    if n < MIN_FOR_MIXTURE or n_components < 2:
        return np.zeros(n, dtype=np.intp), {}
    mixture = fit_mixture(standard, hard_starts(standard, n_components))
    fitted = {"converged": mixture.converged, "n_iter": mixture.n_iter, "lower_bound": mixture.lower_bound}
    return (mixture.labels if mixture.converged else widest_gap_split(standard)), fitted


def _by_falling_mean(labels: NDArray[np.intp], scores: NDArray[np.float64]) -> NDArray[np.intp]:
    present, compact = np.unique(labels, return_inverse=True)
    means = np.array([scores[compact == c].mean() for c in range(present.size)])
    rank = np.empty(present.size, dtype=np.intp)
    rank[np.argsort(-means, kind="stable")] = np.arange(present.size)
    return rank[compact]


def _weights(
    scores: NDArray[np.float64], standard: NDArray[np.float64], labels: NDArray[np.intp], temperature: float | None
) -> NDArray[np.float64]:
    """Share of each group: equation 6 normalised, times its relevance when a temperature is given."""
    sizes = np.bincount(labels)
    if sizes.size == 1:
        return np.ones(1)
    density = scott_density(standard)
    density /= density.max()  # the raw density underflows or explodes with the spread; only its shape matters
    log_weights = np.log(np.bincount(labels, weights=np.exp(density - density.max())))
    if temperature is not None:
        means = np.bincount(labels, weights=scores) / sizes
        log_weights += (means - means[0]) / temperature - 0.5 * np.log(sizes)
    weights = np.exp(log_weights - log_weights.max())
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def _quotas(
    scores: NDArray[np.float64], labels: NDArray[np.intp], weights: NDArray[np.float64], k: int, cutoff: float
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Places of each group, summing to k <= n, and which groups are within the cutoff.

    Every eligible group gets one place, best first; the others follow the weights by largest remainder, no group
    getting more than it has documents. Groups below the cutoff serve only when the eligible ones are exhausted.
    """
    sizes = np.bincount(labels)
    best = np.array([scores[labels == c].max() for c in range(sizes.size)])
    by_best = np.argsort(-best, kind="stable")
    eligible = best >= best.max() - cutoff - 1e-12
    quotas = np.zeros(sizes.size, dtype=np.intp)
    if sizes[eligible].sum() < k:
        for c in sorted(by_best, key=lambda c: not eligible[c]):
            quotas[c] = min(int(sizes[c]), k - int(quotas.sum()))
        return quotas, eligible
    quotas[by_best[eligible[by_best]][:k]] = 1
    while (left := k - int(quotas.sum())) > 0:
        room = np.where(eligible, sizes - quotas, 0)
        share = np.where(room > 0, np.maximum(weights, np.finfo(np.float64).tiny), 0.0)
        wanted = np.round(left * share / share.sum(), _ROUND)
        full = (room > 0) & (wanted >= room)
        if full.any():  # fill these first, then spread what they could not take
            quotas[full] = sizes[full]
            continue
        whole = np.floor(wanted).astype(np.intp)
        quotas += whole
        quotas[np.argsort(whole - wanted, kind="stable")[: left - int(whole.sum())]] += 1
    return quotas, eligible


def _first(members: NDArray[np.intp], order: NDArray[np.float64], quota: int) -> list[int]:
    ranked: list[int] = members[np.argsort(-order[members], kind="stable")][:quota].tolist()
    return ranked


def _ignoring_vectors(choose: Callable[..., Q2KSelection]) -> Sampler:
    def sampler(
        similarities: Sequence[float],
        doc_ids: Sequence[str],
        k: int = 4,
        *,
        vectors: NDArray[np.floating[Any]] | None = None,
        token_counts: Sequence[int] | None = None,
        token_budget: int | None = None,
    ) -> Q2KSelection:
        return choose(similarities, doc_ids, k, token_counts=token_counts, token_budget=token_budget)

    return sampler


SAMPLERS: dict[str, Sampler] = {
    "relevance": _ignoring_vectors(partial(kde_sample, mode="relevance")),
    "paper": _ignoring_vectors(partial(kde_sample, mode="paper")),
    "top_k": _ignoring_vectors(top_k),
    "mmr": mmr,
    "uniform_per_cluster": _ignoring_vectors(uniform_per_cluster),
}
