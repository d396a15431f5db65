"""How good a retrieval is: does it find the right document, and do its documents say different things?

Relevance is graded: 2 for a document of the same product and defect type, 1 when only one of the two agrees, 0
otherwise. Diversity is read from subtopics (what a document tells: product facts, type description, cause,
scenario) and from the lock features. A metric of one query returns None when the query has nothing to find, so that
averages never mix "found nothing" with "there was nothing".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
from numpy.typing import NDArray


def relevance_grade(
    query_product: str | None, query_type: str | None, doc_product: str | None, doc_type: str | None
) -> int:
    """Grade 2: same product and type. Grade 1: one of them. Grade 0: neither. Unknown (None) never agrees."""
    same_product = query_product is not None and query_product == doc_product
    same_type = query_type is not None and query_type == doc_type
    return int(same_product) + int(same_type)


def recall_at_k(ranked_ids: Sequence[str], relevant_ids: AbstractSet[str], k: int) -> float | None:
    """Share of the relevant documents among the first k; None when no document is relevant."""
    if not relevant_ids:
        return None
    return len(relevant_ids & set(ranked_ids[:k])) / len(relevant_ids)


def reciprocal_rank(ranked_ids: Sequence[str], relevant_ids: AbstractSet[str]) -> float | None:
    """1 / rank of the first relevant document, 0 when none was retrieved, None when no document is relevant.

    Its mean over queries is the MRR.
    """
    if not relevant_ids:
        return None
    return next((1.0 / rank for rank, doc_id in enumerate(ranked_ids, start=1) if doc_id in relevant_ids), 0.0)


def seek_accuracy(grades_per_query: Sequence[Sequence[int]]) -> float | None:
    """Share of queries whose selection holds at least one document of grade 2; None without queries.

    Args:
        grades_per_query: for each query the grades of the selected documents. Name and meaning after ADSeeker
            (arXiv 2508.03088), which reports the share of queries that reach the right document.
    """
    if not grades_per_query:
        return None
    return sum(2 in grades for grades in grades_per_query) / len(grades_per_query)


def mean_of_known(values: Sequence[float | None]) -> float | None:
    """Mean over the queries that have a value; None when none has."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def ndcg_at_k(ranked_grades: Sequence[int], all_grades: Sequence[int], k: int) -> float | None:
    """Normalised discounted cumulative gain with gain 2^grade - 1 and discount 1 / log2(1 + rank).

    Args:
        ranked_grades: grades of the retrieved documents in their order.
        all_grades: grades of every document that could have been retrieved; sets the ideal order.
        k: depth.

    Returns:
        A value in [0, 1], or None when no document has a grade above 0.
    """
    ideal = _discounted([2.0**grade - 1.0 for grade in sorted(all_grades, reverse=True)[:k]])
    if ideal == 0.0:
        return None
    return _discounted([2.0**grade - 1.0 for grade in ranked_grades[:k]]) / ideal


def subtopic_recall_at_k(
    ranked_subtopics: Sequence[AbstractSet[str]], subtopics: AbstractSet[str], k: int
) -> float | None:
    """Share of ``subtopics`` that the first k documents cover; None when there are none (Zhai et al. 2003)."""
    if not subtopics:
        return None
    covered = frozenset[str]().union(*ranked_subtopics[:k])
    return len(covered & subtopics) / len(subtopics)


def alpha_ndcg_at_k(
    ranked_subtopics: Sequence[AbstractSet[str]],
    all_subtopics: Sequence[AbstractSet[str]],
    k: int,
    alpha: float = 0.5,
) -> float | None:
    """Cumulative gain (nDCG) in which a subtopic pays less each time it is repeated (Clarke et al. 2008).

    The document at rank r gains (1 - alpha)^(earlier documents with that subtopic) for each of its subtopics,
    discounted by 1 / log2(1 + r). The ideal order is built greedily, as usual, because the exact one is a covering
    problem; a ranking that beats the greedy order therefore scores slightly above 1.

    Args:
        ranked_subtopics: relevant subtopics of the retrieved documents in their order; empty for irrelevant ones.
        all_subtopics: the same for every document that could have been retrieved.
        k: depth.
        alpha: how much a repetition loses, in [0, 1]; 0 with a single subtopic is binary nDCG.

    Returns:
        The normalised gain, or None when no document has a subtopic.
    """
    ideal = _discounted(_novelty_gains(_greedy_order(all_subtopics, k, alpha), alpha))
    if ideal == 0.0:
        return None
    return _discounted(_novelty_gains(ranked_subtopics[:k], alpha)) / ideal


def intra_list_similarity(vectors: NDArray[np.floating[Any]]) -> float:
    """Mean cosine over the pairs of selected documents, (m, d) lock features; 0 with fewer than two documents."""
    cosines = _pair_cosines(vectors)
    return float(cosines.mean()) if cosines.size else 0.0


def redundancy(vectors: NDArray[np.floating[Any]], threshold: float = 0.9) -> float:
    """Share of pairs of selected documents, (m, d) lock features, whose cosine exceeds ``threshold``."""
    cosines = _pair_cosines(vectors)
    return float((cosines > threshold).mean()) if cosines.size else 0.0


def _pair_cosines(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    rows = np.asarray(vectors, dtype=np.float64)
    if len(rows) < 2:
        return np.zeros(0)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    upper: NDArray[np.float64] = (rows @ rows.T)[np.triu_indices(len(rows), k=1)]
    return upper


def _discounted(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(1 + rank) for rank, gain in enumerate(gains, start=1))


def _novelty_gain(subtopics: AbstractSet[str], seen: dict[str, int], alpha: float) -> float:
    return sum((1.0 - alpha) ** seen.get(subtopic, 0) for subtopic in sorted(subtopics))


def _novelty_gains(ranked_subtopics: Sequence[AbstractSet[str]], alpha: float) -> list[float]:
    seen: dict[str, int] = {}
    gains = []
    for subtopics in ranked_subtopics:
        gains.append(_novelty_gain(subtopics, seen, alpha))
        seen.update({subtopic: seen.get(subtopic, 0) + 1 for subtopic in subtopics})
    return gains


def _greedy_order(all_subtopics: Sequence[AbstractSet[str]], k: int, alpha: float) -> list[AbstractSet[str]]:
    left = list(all_subtopics)
    seen: dict[str, int] = {}
    order: list[AbstractSet[str]] = []
    while left and len(order) < k:
        gains = [_novelty_gain(subtopics, seen, alpha) for subtopics in left]
        best = left.pop(gains.index(max(gains)))
        seen.update({subtopic: seen.get(subtopic, 0) + 1 for subtopic in best})
        order.append(best)
    return order


CONFIDENCE = 0.95
RESAMPLES = 1000


def cluster_means(
    values: Sequence[tuple[str, float | None]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number of the known values of each cluster, such as one picture that asked in several splits."""
    total: dict[str, list[float]] = {}
    for cluster, value in values:
        if value is not None:
            total.setdefault(cluster, []).append(value)
    return np.array([sum(v) for v in total.values()]), np.array([float(len(v)) for v in total.values()])


def interval(sums: NDArray[np.float64], counts: NDArray[np.float64], *, seed: int = 0) -> tuple[float, float] | None:
    """Bootstrap interval of a mean by resampling clusters (Efron & Tibshirani 1993, chapter 13: percentiles).

    Args:
        sums: (g,) sum of each cluster's values.
        counts: (g,) number of them, all above 0.
        seed: of the resampling.

    Returns:
        The bounds that hold ``CONFIDENCE`` of the resampled means; None without clusters.
    """
    if not len(sums):
        return None
    drawn = np.random.default_rng(seed).multinomial(len(sums), np.full(len(sums), 1.0 / len(sums)), size=RESAMPLES)
    means = (drawn @ sums) / (drawn @ counts)
    low, high = np.quantile(means, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    return float(low), float(high)
