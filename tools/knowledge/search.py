"""Search the pages by words, by a picture or by both, for people and for steps that hold words.

Words go to BM25, a picture to the cosine of the image parts, and both rankings are joined by reciprocal rank fusion.
With a text tower the words are also looked for in the pages' pictures (``joint``), which is one more ranking.
The words of a key (``features.text_part``) serve the inspection's joint key; on their own they find little.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import KnowledgeError
from .features import LockSpace
from .fusion import fuse
from .joint import JointPictures
from .schema import KnowledgeDocument
from .store import Store

DEPTH = 64
"""Places of each ranking that are joined; a page further down would not reach the first few."""


@dataclass(frozen=True)
class Found:
    """A page that a search found, and why.

    Attributes:
        page: the page.
        score: what the order is by: fused ranks when there are several rankings, else what the one is by.
        word_score: BM25 of its text, None when no word of the query occurs in it.
        similarity: cosine of its picture with the one given, None without either.
        word_similarity: cosine of its picture with the words given, None without either or without a text tower.
        ranks: its place in each ranking that holds it, from 1: ``words``, ``words_to_picture``, ``picture``.
    """

    page: KnowledgeDocument
    score: float
    word_score: float | None
    similarity: float | None
    word_similarity: float | None = None
    ranks: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Scope:
    """What a search may find, as the stores filter it.

    Attributes:
        pages: by doc_id.
        products, types: columns to filter by, None for all.
        strangers: pages that pass these filters and are not wanted: labels are a product's own, and one label may
            stand for different general types.
    """

    pages: Mapping[str, KnowledgeDocument]
    products: list[str] | None
    types: list[str] | None
    strangers: int

    @classmethod
    def of(cls, documents: Mapping[str, KnowledgeDocument], product: str | None, type_name: str | None) -> Scope:
        """The pages of a product and a type, which may be its own label or a general type; None for all."""

        def within(page: KnowledgeDocument) -> bool:
            return product in (None, page.product) and type_name in (None, page.defect_type, page.canonical_type)

        pages = {doc_id: page for doc_id, page in documents.items() if within(page)}
        labels = {page.defect_type for page in pages.values()}
        let_through = [p for p in documents.values() if product in (None, p.product) and p.defect_type in labels]
        return cls(
            pages,
            None if product is None else [product],
            None if type_name is None else sorted(labels),
            len(let_through) - len(pages) if type_name is not None else 0,
        )


def search_pages(
    store: Store,
    space: LockSpace,
    vectors: Mapping[str, NDArray[np.float32]],
    scope: Scope,
    *,
    words: str = "",
    image: NDArray[np.float32] | None = None,
    k: int = 4,
    joint: JointPictures | None = None,
) -> tuple[Found, ...]:
    """The k pages that answer best, ties by doc_id; fewer when fewer hold a word or have a picture.

    Args:
        store: with all documents.
        space: of the vectors.
        vectors: lock features by doc_id.
        scope: what may be found.
        words: free text.
        image: image part of a picture, see ``features.image_part``.
        k: at most so many.
        joint: the pages' pictures in the space shared with words, None without a text tower.

    Raises:
        KnowledgeError: there is neither a word nor a picture, or the store failed.
        BackendError: a word is longer than the text tower reads.
    """
    if image is None and not words.strip():
        raise KnowledgeError("a search needs words or a picture.")
    limit = max(DEPTH, k) + scope.strangers
    by_words: dict[str, float] = {}
    in_pictures: dict[str, float] = {}
    by_picture: dict[str, float] = {}
    if words.strip():
        hits = store.search_words(words, limit, scope.products, scope.types)
        by_words = {hit.doc_id: hit.score for hit in hits if hit.doc_id in scope.pages}
        in_pictures = {} if joint is None else joint.search(words, scope.pages, max(DEPTH, k))
    if image is not None:
        key = space.key(image, "")
        ids = [hit.doc_id for hit in store.search(key, limit, scope.products, scope.types)]
        by_picture = _likeness(space, vectors, key, [doc_id for doc_id in ids if doc_id in scope.pages])
    rankings = {"words": by_words, "words_to_picture": in_pictures, "picture": by_picture}
    places = {name: {i: n for n, i in enumerate(ranking, start=1)} for name, ranking in rankings.items() if ranking}
    if len(places) > 1:
        # A page without a picture cannot be in the ranking of words in pictures: that is no sign against it.
        unpictured = set(scope.pages).difference(joint.doc_ids) if joint is not None and in_pictures else set()
        ranked = fuse([list(ranking) for ranking in places.values()], unpictured)
    else:
        ranked = list((by_words or in_pictures or by_picture).items())
    return tuple(
        Found(
            scope.pages[doc_id],
            score,
            by_words.get(doc_id),
            by_picture.get(doc_id),
            in_pictures.get(doc_id),
            {name: ranking[doc_id] for name, ranking in places.items() if doc_id in ranking},
        )
        for doc_id, score in ranked[:k]
    )


def _likeness(
    space: LockSpace, vectors: Mapping[str, NDArray[np.float32]], key: NDArray[np.float32], ids: list[str]
) -> dict[str, float]:
    """Cosine of the image parts by doc_id, best first, of the pages that have a picture."""
    if not ids:
        return {}
    parts = space.visual(np.stack([vectors[doc_id] for doc_id in ids]))
    cosines = parts @ space.visual(key[None])[0]
    pictured = [(doc_id, float(c)) for doc_id, c, part in zip(ids, cosines, parts, strict=True) if part.any()]
    return dict(sorted(pictured, key=lambda item: (-item[1], item[0])))
