"""Join rankings whose scores have no common scale, such as cosines and BM25.

Source: Cormack, Clarke & Büttcher, Reciprocal Rank Fusion outperforms Condorcet and individual rank learning methods
(SIGIR 2009): each ranking gives the document at rank r the share 1 / (60 + r).
"""

from __future__ import annotations

from collections.abc import Container, Sequence

RANK_OFFSET = 60


def fuse(rankings: Sequence[Sequence[str]], unranked: Container[str] = ()) -> list[tuple[str, float]]:
    """Documents of all rankings with their summed shares, best first, ties by id.

    The order of the rankings does not matter, and a document keeps its place or gains one when a ranking moves it up.

    Args:
        rankings: ids, best first; of an id that a ranking repeats the first place counts.
        unranked: ids that one further ranking could not hold, whatever was asked. To be missing there tells nothing
            against them, so each place that they have counts once more in its stead.
    """
    total: dict[str, list[float]] = {}
    for ranking in rankings:
        for rank, doc_id in enumerate(dict.fromkeys(ranking), start=1):
            times = 2 if doc_id in unranked else 1
            total.setdefault(doc_id, []).extend([1.0 / (RANK_OFFSET + rank)] * times)
    # Summed in falling order, so that no order of the rankings gives another rounding.
    shares = {doc_id: sum(sorted(given, reverse=True)) for doc_id, given in total.items()}
    return sorted(shares.items(), key=lambda item: (-item[1], item[0]))
