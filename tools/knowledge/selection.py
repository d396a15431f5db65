"""What a retrieval gives back, and the bookkeeping every sampler shares: usable candidates, ties, token budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import ConfigError


@dataclass(frozen=True)
class Q2KSelection:
    """The chosen documents and why they were chosen.

    Attributes:
        doc_ids: chosen documents, best first.
        similarities: their similarities.
        clusters: their groups; group 0 has the highest mean similarity.
        all_clusters: group of every given document in the given order, -1 when it was dropped.
        weights: share of each group, non-negative, summing to 1; empty when there are no documents.
        flags: what was unusual: ``no_knowledge``, ``nan_dropped``, ``duplicates_dropped``, ``single_cluster``,
            ``largest_gap_split``, ``below_cutoff``, ``token_budget``, ``token_budget_exceeded``.
        trace: plain data for records: the mode, the mixture, the quotas.
    """

    doc_ids: tuple[str, ...]
    similarities: tuple[float, ...]
    clusters: tuple[int, ...]
    all_clusters: tuple[int, ...]
    weights: tuple[float, ...]
    flags: tuple[str, ...]
    trace: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidates:
    """Usable documents, best first (ties by id), and how to get back to the caller's order.

    Attributes:
        scores: (n,) finite similarities, falling.
        ids: (n) their unique ids.
        index: (n,) position of each in the caller's sequences.
        n_given: length of the caller's sequences.
        flags: what was unusual so far.
        tokens: (n,) tokens of each, None when not given.
        token_budget: tokens that may be spent, None for no limit.
    """

    scores: NDArray[np.float64]
    ids: list[str]
    index: NDArray[np.intp]
    n_given: int
    flags: list[str]
    tokens: NDArray[np.int64] | None
    token_budget: int | None


def gather(
    similarities: Sequence[float],
    doc_ids: Sequence[str],
    k: int,
    token_counts: Sequence[int] | None,
    token_budget: int | None,
) -> Candidates:
    """Check the arguments, drop what cannot be ranked and sort the rest.

    Raises:
        ConfigError: lengths that differ, k below 1, or a token budget without token counts.
    """
    scores = np.asarray(similarities, dtype=np.float64)
    if scores.ndim != 1 or scores.size != len(doc_ids):
        raise ConfigError(f"Retrieval got {scores.size} similarities for {len(doc_ids)} documents.")
    if k < 1:
        raise ConfigError(f"Retrieval needs k >= 1, got {k}.")
    if token_budget is not None and (token_counts is None or len(token_counts) != len(doc_ids)):
        raise ConfigError("A token budget needs the token count of every document.")
    flags = [] if bool(np.isfinite(scores).all()) else ["nan_dropped"]
    usable = sorted(np.flatnonzero(np.isfinite(scores)).tolist(), key=lambda i: (-scores[i], doc_ids[i]))
    best_of = {doc_ids[i]: i for i in reversed(usable)}  # the last write is the most similar entry of an id
    kept = [i for i in usable if best_of[doc_ids[i]] == i]
    if len(kept) < len(usable):
        flags.append("duplicates_dropped")
    if not kept:
        flags.append("no_knowledge")
    index = np.array(kept, dtype=np.intp)
    tokens = None if token_counts is None else np.asarray(token_counts, dtype=np.int64)[index]
    return Candidates(scores[index], [doc_ids[i] for i in kept], index, scores.size, flags, tokens, token_budget)


def representatives_first(chosen: Sequence[int], labels: NDArray[np.intp]) -> list[int]:
    """The best of each group, then the rest, each best first: the order in which a token budget is spent."""
    ordered = sorted(chosen)
    leaders = sorted({int(labels[m]): m for m in reversed(ordered)}.values())
    return leaders + [m for m in ordered if m not in leaders]


def select(
    pool: Candidates, chosen: list[int], labels: NDArray[np.intp], weights: list[float], trace: dict[str, Any]
) -> Q2KSelection:
    """Spend the token budget in the order of ``chosen``, then report best first.

    Args:
        pool: the candidates.
        chosen: positions in the pool, in the order in which tokens are spent.
        labels: (n,) group of each candidate.
        weights: share of each group.
        trace: plain data about the choice; the spent tokens are added.

    Returns:
        The selection, with the groups back in the caller's order.
    """
    flags = list(pool.flags)
    if pool.tokens is not None and pool.token_budget is not None and chosen:
        spent = np.cumsum(pool.tokens[chosen])
        fitting = int(np.searchsorted(spent, pool.token_budget, side="right"))
        if fitting == 0:
            flags.append("token_budget_exceeded")
        kept = max(fitting, 1)
        if kept < len(chosen):
            flags.append("token_budget")
        chosen = chosen[:kept]
        trace["tokens"] = int(pool.tokens[chosen].sum())
    chosen = sorted(chosen)
    all_clusters = np.full(pool.n_given, -1, dtype=np.intp)
    all_clusters[pool.index] = labels
    return Q2KSelection(
        doc_ids=tuple(pool.ids[m] for m in chosen),
        similarities=tuple(float(pool.scores[m]) for m in chosen),
        clusters=tuple(int(labels[m]) for m in chosen),
        all_clusters=tuple(all_clusters.tolist()),
        weights=tuple(weights),
        flags=tuple(flags),
        trace=trace,
    )
