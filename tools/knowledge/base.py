"""The open knowledge base: what an inspection and a person ask of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import KnowledgeUnreachableError
from .categories import CategoryChoice, category_posterior, choose, prototypes
from .familiarity import Familiarity, judge, least_familiar
from .features import LockSpace
from .in_memory import InMemoryStore
from .joint import JointPictures
from .lookup import documents_about
from .q2k import SAMPLERS
from .remote import RemoteStore
from .schema import KnowledgeDocument
from .search import Found, Scope, search_pages
from .selection import Q2KSelection
from .store import Hit, LockRecord, Store

CANDIDATES = 32
"""Documents that the store hands to the sampling step; KDE-Sample needs the neighbourhood, not the whole base."""

SMALL = 2000
"""Documents up to which candidates come from the vectors in memory. Asking Milvus Lite takes ten times as long: its
server is in this process, under the same lock of the interpreter as the inspection beside it."""


@dataclass(frozen=True)
class Retrieval:
    """What Q2K chose for one key.

    Attributes:
        documents: in falling similarity.
        similarities: their cosines.
        selection: the sampling step with its clusters, weights and flags; documents found by words are not in it.
        familiarity: whether the base knows what was asked about; where it does not, the documents are the nearest of
            a base that holds nothing near, and not to be leaned on.
    """

    documents: tuple[KnowledgeDocument, ...]
    similarities: tuple[float, ...]
    selection: Q2KSelection
    familiarity: Familiarity


class KnowledgeBase:
    """Documents, their lock features and the store that searches them.

    Attributes:
        documents: by doc_id.
        content_hash: of everything the base was made from.
    """

    def __init__(
        self,
        documents: Sequence[KnowledgeDocument],
        vectors: NDArray[np.float32],
        space: LockSpace,
        store: Store,
        content_hash: str,
        joint: JointPictures | None = None,
    ) -> None:
        self.documents = {document.doc_id: document for document in documents}
        self.content_hash = content_hash
        self._vectors = dict(zip(self.documents, vectors, strict=True))
        self._space = space
        self._store = store
        self._joint = joint

    def retrieve(
        self,
        image: NDArray[np.float32] | None,
        text: str,
        *,
        product: str | None,
        k: int,
        mode: Literal["relevance", "paper", "top_k", "mmr"] = "relevance",
        exclude: Sequence[str] = (),
        words: str = "",
    ) -> Retrieval:
        """Query image to knowledge (Q2K): search the store, then sample among the candidates.

        No picture leads to a page without one, and in the joint key words weigh too little to. So where words are
        asked for, up to half of the places go to pages without a picture that are among the k best by those words.
        Without a picture to ask with, all places go by words as far as they lead.

        Args:
            image: image part of the key, see ``features.image_part``.
            text: words of the key: the product and the instruction.
            product: documents of this product and general ones are searched; None for general ones only.
            k: documents wanted.
            mode: how to choose among the candidates.
            exclude: doc_ids already seen.
            words: asked for by a person, may be empty.

        Raises:
            KnowledgeError: the key cannot be embedded or the store failed.
        """
        key = self._space.key(image, text)
        products = ["general"] if product is None else ["general", product]
        worded = self._by_words(words, products, k, exclude, pictured=image is None)
        skip = {*exclude, *worded}
        limit = min(CANDIDATES + len(skip), max(1, len(self.documents)))
        hits = [h for h in self._nearest(key, limit, products) if h.doc_id not in skip and h.doc_id in self.documents]
        ids = [hit.doc_id for hit in hits]
        selection = SAMPLERS[mode](
            [hit.similarity for hit in hits],
            ids,
            max(1, k - len(worded)),
            vectors=np.stack([self._vectors[i] for i in ids]) if ids else np.zeros((0, self._space.dim), np.float32),
        )
        cosines = dict(zip(selection.doc_ids[: k - len(worded)], selection.similarities, strict=False))
        cosines |= {doc_id: float(self._vectors[doc_id] @ key) for doc_id in worded}
        ranked = sorted(cosines, key=lambda doc_id: (-cosines[doc_id], doc_id))
        found = tuple(self.documents[doc_id] for doc_id in ranked)
        return Retrieval(
            found, tuple(cosines[doc_id] for doc_id in ranked), selection, self.familiarity(image, product)
        )

    def _nearest(self, key: NDArray[np.float32], limit: int, products: Sequence[str]) -> list[Hit]:
        """The store's answer; a small base of this machine gives it from the vectors that it holds."""
        if len(self.documents) > SMALL or isinstance(self._store, RemoteStore):
            return self._store.search(key, limit, products)
        return self._near.search(key, limit, products)

    def _by_words(
        self, words: str, products: Sequence[str], k: int, exclude: Sequence[str], *, pictured: bool
    ) -> list[str]:
        """Ids among the k best by words: all of them, or at most half as many that no picture leads to."""
        if not words.strip():
            return []
        hits = self._store.search_words(words, k + len(exclude), products)
        ids = [hit.doc_id for hit in hits if hit.doc_id in self.documents and hit.doc_id not in exclude][:k]
        if pictured or not ids:
            return ids
        parts = self._space.visual(np.stack([self._vectors[doc_id] for doc_id in ids]))
        return [doc_id for doc_id, part in zip(ids, parts, strict=True) if not part.any()][: k // 2]

    def familiarity(self, image: NDArray[np.float32] | None, product: str | None) -> Familiarity:
        """Whether the base knows a picture or the product that is named with it.

        Args:
            image: image part of the picture, None without one.
            product: its name, None when it is not known.

        Raises:
            KnowledgeError: the picture cannot be embedded.
        """
        if not self.documents:
            return Familiarity(False, "empty")
        if product in self._products:
            return Familiarity(True, "name")
        ids, parts = self._pictured
        if image is None or not ids:
            return judge(None, self._least_familiar, None, product)
        cosines = parts @ self._space.visual(self._space.key(image, "")[None])[0]  # a tenth of asking the store
        nearest = int(cosines.argmax())
        return judge(float(cosines[nearest]), self._least_familiar, ids[nearest], product)

    def category(self, image: NDArray[np.float32], product: str | None) -> CategoryChoice:
        """What kind of part a picture shows, see ``categories.choose``; the store is not asked.

        Args:
            image: image part of the picture.
            product: that the operator named; it is taken at its word when the base has pages of it.
        """
        if product is not None and product in self._products:
            return CategoryChoice("given", ((product, None),))
        key = self._space.visual(self._space.key(image, "")[None])[0]
        parts, _ = self._photographs
        if not len(parts):
            return CategoryChoice("generic")
        limit = self._least_familiar
        familiar = None if limit is None else bool(float((parts @ key).max()) >= limit)
        return choose(category_posterior(key, self._prototypes), familiar)

    def search(
        self,
        words: str = "",
        image: NDArray[np.float32] | None = None,
        *,
        product: str | None = None,
        type_name: str | None = None,
        k: int = 4,
    ) -> tuple[Found, ...]:
        """Search by words, by a picture or by both, see ``search.search_pages``.

        A base of a backbone with a text tower also looks for the words in the pages' pictures.

        Args:
            words: free text.
            image: image part of a picture.
            product: only its pages, ``general`` for those that hold for any product; None for all.
            type_name: only pages of this type, a product's own label or a general type; None for all.
            k: at most so many.
        """
        scope = Scope.of(self.documents, product, type_name)
        return search_pages(
            self._store, self._space, self._vectors, scope, words=words, image=image, k=k, joint=self._joint
        )

    def documents_about(
        self, defect_type: str, product: str | None, image: NDArray[np.float32] | None = None
    ) -> tuple[KnowledgeDocument, ...]:
        """Pages of one type, see ``lookup.documents_about``.

        Args:
            defect_type: a product's own label or a general type.
            product: whose labels to look at; None for general pages only.
            image: image part of the picture at hand: of several pages under one label the most alike comes first.
        """
        pages = documents_about(self.documents.values(), defect_type, product)
        if image is None or len(pages) < 2:
            return pages
        key = self._space.visual(self._space.key(image, "")[None])[0]
        parts = self._space.visual(np.stack([self._vectors[page.doc_id] for page in pages]))
        likeness = dict(zip((page.doc_id for page in pages), (parts @ key).tolist(), strict=True))
        # The product's own stay before the general ones; a page without a picture is like none, and follows.
        pictured = {page.doc_id: bool(part.any()) for page, part in zip(pages, parts, strict=True)}
        return tuple(
            sorted(pages, key=lambda p: (p.product != product, not pictured[p.doc_id], -likeness[p.doc_id], p.doc_id))
        )

    @property
    def reads_pictures(self) -> bool:
        """Whether words are looked for in the pages' pictures too: the backbone has a text tower."""
        return self._joint is not None

    @property
    def away(self) -> KnowledgeUnreachableError | None:
        """Why the server did not answer when it was last asked; None when it did, or when there is none."""
        return self._store.away if isinstance(self._store, RemoteStore) else None

    def close(self) -> None:
        """Let go of the store."""
        self._store.close()

    @cached_property
    def _products(self) -> frozenset[str]:
        """Of the pages that hold more than a draft which nobody has accepted."""
        own = (page.product for page in self.documents.values() if page.says_something or not page.pending)
        return frozenset(own) - {"general"}

    @cached_property
    def _least_familiar(self) -> float | None:
        """The threshold of ``familiarity``; what general pages show are drawings, which are no photographs."""
        parts, products = self._photographs
        return least_familiar(parts, products) if products else None

    @cached_property
    def _near(self) -> InMemoryStore:
        """The same vectors without the store's server."""
        near = InMemoryStore(self._space.dim)
        pages = self.documents.items()
        near.upsert([LockRecord(i, self._vectors[i], page.product, page.defect_type) for i, page in pages])
        return near

    @cached_property
    def _pictured(self) -> tuple[list[str], NDArray[np.float32]]:
        """Pages that have a picture, in the order of their doc_ids, and the image parts (n, D)."""
        if not self.documents:
            return [], np.zeros((0, 0), np.float32)
        ids = sorted(self.documents)
        parts = self._space.visual(np.stack([self._vectors[doc_id] for doc_id in ids]))
        there = np.flatnonzero(parts.any(axis=1))
        return [ids[row] for row in there], parts[there]

    @cached_property
    def _photographs(self) -> tuple[NDArray[np.float32], list[str]]:
        """Image parts (n, D) of the products' pages that have a picture, and the product of each."""
        ids, parts = self._pictured
        products = [self.documents[doc_id].product for doc_id in ids]
        rows = [row for row, product in enumerate(products) if product != "general"]
        return parts[rows], [products[row] for row in rows]

    @cached_property
    def _prototypes(self) -> dict[str, NDArray[np.float32]]:
        """Of the products, for ``category``."""
        return prototypes(*self._photographs)
