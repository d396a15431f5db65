"""What a retriever finds for pictures whose pages are in the base, with and without trained projections.

The base is that of an inspection: all shipped pages, a few pictures on the page of each label, drawings on the general
pages. Each picture asks as a whole, and KDE-Sample chooses four of the candidates. Three scopes: the product is given
(its pages and the general ones are searched), it is unknown (all are), or only general pages are searched, where the
right one is that of the picture's general type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..tools.knowledge.base import CANDIDATES
from ..tools.knowledge.features import LockSpace
from ..tools.knowledge.in_memory import InMemoryStore
from ..tools.knowledge.q2k import SAMPLERS
from ..tools.knowledge.retriever import Projection
from ..tools.knowledge.schema import KnowledgeDocument
from ..tools.knowledge.store import LockRecord
from ..training.retriever_pairs import LabelledPart, by_label
from .retrieval_judge import K, grade, subtopics
from .retrieval_metrics import alpha_ndcg_at_k

DOCUMENTS_PER_PAGE = 4
SHARE = 4
"""One in so many pictures of a label becomes a document at most, as ``kb build`` takes them."""
SCOPES = ("product given", "product unknown", "general pages")
METRICS = ("seek", "recall", "a-nDCG")
RESAMPLES = 1000
Part = NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """What one picture found.

    Attributes:
        product, label, name: of the picture.
        scope: one of SCOPES.
        seek: whether the right page is among the chosen.
        recall: share of the right page and the general page of its type that are; as seek where only one can be.
        alpha_ndcg: of the chosen, over subtopics; None where no page tells any.
    """

    product: str
    label: str
    name: str
    scope: str
    seek: float
    recall: float
    alpha_ndcg: float | None

    def value(self, metric: str) -> float | None:
        """One of METRICS."""
        return {"seek": self.seek, "recall": self.recall, "a-nDCG": self.alpha_ndcg}[metric]


@dataclass(frozen=True)
class Seek:
    """A metric before and after, macro over products.

    Attributes:
        before, after: means.
        low, high: 95% bootstrap interval of the difference, pictures paired and drawn anew within each product.
    """

    before: float
    after: float
    low: float
    high: float

    @property
    def wins(self) -> bool:
        """Whether the gain is more than chance among these pictures."""
        return self.low > 0.0


def share_out(parts: Sequence[LabelledPart], seed: int) -> tuple[list[LabelledPart], list[LabelledPart]]:
    """A few pictures of each label as documents, the others as queries; a label with one picture has no document."""
    rng = np.random.default_rng(seed)
    documents, queries = [], []
    for own in by_label(parts).values():
        order = [own[i] for i in rng.permutation(len(own))]
        taken = min(DOCUMENTS_PER_PAGE, max(1, len(own) // SHARE)) if len(own) > 1 else 0
        documents += order[:taken]
        queries += order[taken:] if taken else []
    return documents, queries


def seek_pages(
    documents: Sequence[LabelledPart],
    queries: Sequence[LabelledPart],
    pages: Sequence[KnowledgeDocument],
    drawings: Mapping[str, Part],
    projection: Projection | None,
) -> list[Row]:
    """Ask with every picture in every scope; pictures without a page are passed over.

    Args:
        documents: pictures on pages.
        queries: other pictures.
        pages: the shipped ones.
        drawings: image part of each general type's drawing.
        projection: a trained one, None for none.
    """
    pictures = {label: [part.part for part in own] for label, own in by_label(documents).items()}
    seen = [part for own in pictures.values() for part in own] + list(drawings.values())
    space = LockSpace.fit(np.stack(seen))
    if projection is not None:
        space = LockSpace(projection.mean, projection.spread, projection)
    vectors = {}
    for page in pages:
        own = pictures.get(page.doc_id, [])
        drawn = drawings.get(page.defect_type) if page.scope == "general" else None
        image = np.asarray(np.mean(own, axis=0), np.float32) if own else drawn
        vectors[page.doc_id] = space.embed(image, page.searchable_text())
    store = InMemoryStore(space.dim)
    store.upsert([LockRecord(p.doc_id, vectors[p.doc_id], p.product, p.defect_type) for p in pages])
    known = {page.doc_id: page for page in pages}
    return [
        row
        for query in queries
        for scope in SCOPES
        if (row := _ask(query, scope, space, store, vectors, known)) is not None
    ]


def _ask(
    query: LabelledPart,
    scope: str,
    space: LockSpace,
    store: InMemoryStore,
    vectors: Mapping[str, Part],
    pages: Mapping[str, KnowledgeDocument],
) -> Row | None:
    page = query.page
    if page is None:
        return None
    products = {SCOPES[0]: ["general", page.product], SCOPES[1]: None, SCOPES[2]: ["general"]}[scope]
    reach = [p for p in pages.values() if products is None or p.product in products]
    general = {p.doc_id for p in reach if p.scope == "general" and p.defect_type == page.canonical_type}
    own = {page.doc_id} if scope != SCOPES[2] else general
    if not own:
        return None
    words = page.product if scope != SCOPES[1] else ""
    hits = store.search(space.key(query.part, words), CANDIDATES, products)
    ids = [hit.doc_id for hit in hits]
    chosen = SAMPLERS["relevance"](
        [hit.similarity for hit in hits], ids, K, vectors=np.stack([vectors[i] for i in ids])
    ).doc_ids
    wanted = own | general
    told = [subtopics(page, p) if grade(page, p) else frozenset[str]() for p in reach]
    gain = alpha_ndcg_at_k([subtopics(page, pages[i]) for i in chosen], told, K)
    found = set(chosen)
    return Row(
        query.product,
        query.label,
        query.name,
        scope,
        float(bool(own & found)),
        len(wanted & found) / len(wanted),
        gain,
    )


def compare(before: Sequence[Row], after: Sequence[Row], scope: str = SCOPES[0], metric: str = "seek") -> Seek | None:
    """Two ways to ask with the same pictures, paired; a picture that asked several times counts once, by its mean.

    Args:
        before: the one.
        after: the other, row by row of the same pictures.
        scope: rows of this scope count.
        metric: one of METRICS.

    Returns:
        None when no picture was asked with.
    """
    pictures: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for one, other in zip(before, after, strict=True):
        old, new = one.value(metric), other.value(metric)
        if one.scope == scope and old is not None and new is not None:
            pictures.setdefault((one.product, one.label, one.name), []).append((old, new))
    if not pictures:
        return None
    pairs: dict[str, list[NDArray[np.float64]]] = {}
    for (product, _, _), values in pictures.items():
        pairs.setdefault(product, []).append(np.mean(values, axis=0))
    rng = np.random.default_rng(0)
    means, drawn = [], np.zeros(RESAMPLES)
    for _, own in sorted(pairs.items()):
        table = np.array(own)
        means.append(table.mean(axis=0))
        gains = table[:, 1] - table[:, 0]
        drawn += gains[rng.integers(0, len(gains), (RESAMPLES, len(gains)))].mean(axis=1) / len(pairs)
    low, high = np.quantile(drawn, [0.025, 0.975])
    overall = np.mean(means, axis=0)
    return Seek(float(overall[0]), float(overall[1]), float(low), float(high))
