"""The Store in a numpy array: test double, and the reader for processes that must not own Milvus Lite's lock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .bm25 import WordIndex
from .store import Hit, LockRecord, WordHit, check_records, check_vector


class InMemoryStore:
    """Exact search over all records."""

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._records: dict[str, LockRecord] = {}
        self._matrix: NDArray[np.float32] | None = None
        self._words: WordIndex | None = None

    def upsert(self, records: Sequence[LockRecord]) -> None:
        """Insert or replace; see ``Store.upsert``."""
        for record in check_records(records, self._dim):
            self._records[record.doc_id] = replace(record, vector=np.array(record.vector, np.float32))
        self._matrix = self._words = None

    def search(
        self,
        key: NDArray[np.float32],
        limit: int,
        products: Sequence[str] | None = None,
        types: Sequence[str] | None = None,
    ) -> list[Hit]:
        """Exact cosine search; see ``Store.search``."""
        query = check_vector(key, self._dim, "the key")
        records = list(self._records.values())
        if not records:
            return []
        if self._matrix is None:
            self._matrix = np.stack([r.vector / np.linalg.norm(r.vector) for r in records])
        similarities = np.clip(self._matrix @ (query / np.linalg.norm(query)), -1.0, 1.0).tolist()
        hits = [
            Hit(record.doc_id, similarity)
            for record, similarity in zip(records, similarities, strict=True)
            if _wanted(record, products, types)
        ]
        return sorted(hits, key=lambda hit: (-hit.similarity, hit.doc_id))[:limit]

    def search_words(
        self, words: str, limit: int, products: Sequence[str] | None = None, types: Sequence[str] | None = None
    ) -> list[WordHit]:
        """Exact BM25; see ``Store.search_words``."""
        records = list(self._records.values())
        if self._words is None:
            self._words = WordIndex([record.text for record in records])
        hits = [
            WordHit(record.doc_id, float(score))
            for record, score in zip(records, self._words.scores(words), strict=True)
            if score > 0.0 and _wanted(record, products, types)
        ]
        return sorted(hits, key=lambda hit: (-hit.score, hit.doc_id))[:limit]

    def delete(self, doc_ids: Sequence[str]) -> None:
        """Remove records; see ``Store.delete``."""
        for doc_id in doc_ids:
            self._records.pop(doc_id, None)
        self._matrix = self._words = None

    def doc_ids(self) -> set[str]:
        """All ids."""
        return set(self._records)

    def close(self) -> None:
        """Nothing is held."""


def _wanted(record: LockRecord, products: Sequence[str] | None, types: Sequence[str] | None) -> bool:
    return (products is None or record.product in products) and (types is None or record.defect_type in types)
