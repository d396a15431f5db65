"""What a document is worth to a query, and what a perfect choice among the candidates would be.

A document's subtopics count when they are of use to the query: product facts and scenario when the product agrees,
description and cause when the type does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from ..tools.knowledge.schema import KnowledgeDocument
from .retrieval_data import Entry, Vector
from .retrieval_metrics import (
    alpha_ndcg_at_k,
    intra_list_similarity,
    ndcg_at_k,
    recall_at_k,
    reciprocal_rank,
    redundancy,
    relevance_grade,
    seek_accuracy,
    subtopic_recall_at_k,
)

K = 4
METRICS = ("seek", "relevance", "recall", "MRR", "nDCG", "subtopic", "a-nDCG", "redundant", "ILS")


def subtopics(query: KnowledgeDocument, page: KnowledgeDocument) -> frozenset[str]:
    """What a page tells that is of use to a query of another page's product and type."""
    same_product = page.product == query.product
    same_type = page.canonical_type == query.canonical_type
    told = {
        "product facts": same_product and bool(page.normal_traits),
        "scenario": same_product and bool(page.scenario),
        "type description": same_type and bool(page.appearance or page.description),
        "cause": same_type and bool(page.likely_causes),
    }
    return frozenset(name for name, useful in told.items() if useful)


def grade(query: KnowledgeDocument, page: KnowledgeDocument) -> int:
    """2 for the same product and its own type, 1 when the product or the general type agrees, else 0."""
    if page.product == query.product:
        return relevance_grade(query.product, query.defect_type, page.product, page.defect_type)
    return relevance_grade(query.product, query.canonical_type, page.product, page.canonical_type)


class Judge:
    """The metrics of a selection; what depends on the query's page alone is worked out once.

    Args:
        entries: of the base.
        vectors: their lock features by doc_id.
    """

    def __init__(self, entries: Sequence[Entry], vectors: dict[str, Vector]) -> None:
        self.entries = {entry.doc_id: entry for entry in entries}
        self.pages = {entry.page.doc_id: entry.page for entry in entries}
        self.vectors = vectors
        self._ideal_of = cache(self._ideal)

    def _ideal(
        self, page_id: str, product_given: bool
    ) -> tuple[list[int], list[frozenset[str]], frozenset[str], frozenset[str]]:
        """Grades, subtopics, ids of grade 2 and all subtopics of the documents that can be found."""
        page = self.pages[page_id]
        reach = [e for e in self.entries.values() if not product_given or e.page.product in ("general", page.product)]
        grades = [grade(page, e.page) for e in reach]
        topics = [subtopics(page, e.page) for e in reach]
        relevant = frozenset(e.doc_id for e, g in zip(reach, grades, strict=True) if g == 2)
        # Many pictures share one page, so few sets differ; four of each are all that a ranking of four can use.
        distinct = [kind for kind in sorted(set(topics), key=sorted) for _ in range(min(K, topics.count(kind)))]
        return grades, distinct, relevant, frozenset[str]().union(*topics)

    def metrics(self, page: KnowledgeDocument, product_given: bool, chosen: Sequence[str]) -> dict[str, float | None]:
        """Every metric of the documents chosen for a picture of this page, best first."""
        grades, topics, relevant, wanted = self._ideal_of(page.doc_id, product_given)
        ranked = [self.entries[doc_id].page for doc_id in chosen]
        ranked_grades = [grade(page, found) for found in ranked]
        ranked_topics = [subtopics(page, found) for found in ranked]
        vectors = np.stack([self.vectors[doc_id] for doc_id in chosen])
        return {
            "seek": seek_accuracy([ranked_grades]),
            "relevance": sum(ranked_grades) / (2.0 * len(ranked_grades)),
            "recall": recall_at_k(chosen, relevant, K),
            "MRR": reciprocal_rank(chosen, relevant),
            "nDCG": ndcg_at_k(ranked_grades, grades, K),
            "subtopic": subtopic_recall_at_k(ranked_topics, wanted, len(chosen)),
            "a-nDCG": alpha_ndcg_at_k(ranked_topics, topics, K),
            "redundant": redundancy(vectors),
            "ILS": intra_list_similarity(vectors),
        }

    def oracle(self, page: KnowledgeDocument, ids: Sequence[str], k: int, token_budget: int | None) -> tuple[str, ...]:
        """The k of these candidates that a reader who knows the answer takes: what is new first, then what is relevant.

        Args:
            page: of the query.
            ids: candidates, best first, at least one.
            k: documents at most.
            token_budget: stop before their tokens exceed it; the first is always taken.
        """
        left, told, spent = list(ids), frozenset[str](), 0
        taken: list[str] = []
        while left and len(taken) < k:
            worth = [(len(subtopics(page, self._page(i)) - told), grade(page, self._page(i))) for i in left]
            best = left.pop(worth.index(max(worth)))
            spent += self.entries[best].tokens
            if taken and token_budget is not None and spent > token_budget:
                break
            taken.append(best)
            told |= subtopics(page, self._page(best))
        return tuple(taken)

    def _page(self, doc_id: str) -> KnowledgeDocument:
        return self.entries[doc_id].page
