"""The Store contract: vectors with a few filterable columns, nothing else.

It is the subset that Milvus Lite, a Milvus server and a numpy array have in common; one contract suite runs over all
implementations. Documents themselves stay outside; a store answers with ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import KnowledgeError

MAX_NAME_LENGTH = 128
"""Bytes of an id, a product's or a type's name: the length of the stores' text columns."""
MIN_NORM = 1e-6
UNWRITABLE = re.compile("[\x00-\x07\x0b\x0e-\x1f\ud800-\udfff]")
"""What a name cannot hold: a condition in Milvus's syntax has no way to write it."""


@dataclass(frozen=True)
class LockRecord:
    """A document's lock features (ADSeeker's L_i) and the columns that a search may filter by.

    Attributes:
        doc_id: 1 to 128 bytes, as the other names.
        vector: float32 (D,), finite, not zero.
        product: product name or ``general``.
        defect_type: the type, or ``good`` for a page about normal appearance.
        text: what a search for words looks through; empty for a document that only its vector finds.
    """

    doc_id: str
    vector: NDArray[np.float32]
    product: str
    defect_type: str
    text: str = ""


@dataclass(frozen=True)
class Hit:
    """A document and the cosine of its lock features with the key features, in [-1, 1]."""

    doc_id: str
    similarity: float


@dataclass(frozen=True)
class WordHit:
    """A document and the BM25 score of its text, above 0; only the order tells, the scale is the base's own."""

    doc_id: str
    score: float


@runtime_checkable
class Store(Protocol):
    """A set of lock records that can be searched by cosine similarity and by words."""

    def upsert(self, records: Sequence[LockRecord]) -> None:
        """Insert or replace by doc_id.

        Raises:
            KnowledgeError: a vector is not finite, is zero or has the wrong length; nothing is written then.
        """
        ...

    def search(
        self,
        key: NDArray[np.float32],
        limit: int,
        products: Sequence[str] | None = None,
        types: Sequence[str] | None = None,
    ) -> list[Hit]:
        """The most similar records, best first, ties by doc_id.

        Args:
            key: float32 (D,), finite, not zero.
            limit: at most so many.
            products: only records of these products; None for all.
            types: only records of these defect types; None for all.

        Raises:
            KnowledgeError: the key is not usable or the store failed.
        """
        ...

    def search_words(
        self, words: str, limit: int, products: Sequence[str] | None = None, types: Sequence[str] | None = None
    ) -> list[WordHit]:
        """The records whose text answers the words best by BM25, best first, ties by doc_id; none that holds no word.

        Args:
            words: free text, see ``terms``.
            limit: at most so many.
            products: only records of these products; None for all.
            types: only records of these defect types; None for all.

        Raises:
            KnowledgeError: the store failed.
        """
        ...

    def delete(self, doc_ids: Sequence[str]) -> None:
        """Remove records; unknown ids are ignored."""
        ...

    def doc_ids(self) -> set[str]:
        """All ids."""
        ...

    def close(self) -> None:
        """Let go of files and locks; closing twice is harmless."""
        ...


def check_vector(vector: NDArray[np.float32], dim: int, what: str) -> NDArray[np.float32]:
    """Refuse what a cosine search would silently get wrong (Milvus Lite accepts NaN and zero vectors).

    Args:
        vector: (D,) of any float type.
        dim: the D of the store.
        what: named in the message.

    Raises:
        KnowledgeError: wrong length, not finite, or (near) zero.
    """
    found = np.asarray(vector, dtype=np.float32)
    if found.shape != (dim,):
        raise KnowledgeError(f"{what} has shape {found.shape}, expected ({dim},).")
    if not np.isfinite(found).all():
        raise KnowledgeError(f"{what} holds NaN or infinity.")
    if float(np.linalg.norm(found)) < MIN_NORM:
        raise KnowledgeError(f"{what} is zero: it has no direction to compare.")
    return found


def check_records(records: Iterable[LockRecord], dim: int) -> list[LockRecord]:
    """Check ids and vectors of all records before any is written.

    Raises:
        KnowledgeError: see ``check_vector``; or an id, product or type that is empty, too long or no text.
    """
    checked = list(records)
    for record in checked:
        for what, name in (("id", record.doc_id), ("product", record.product), ("defect type", record.defect_type)):
            if not 0 < len(name.encode("utf-8", "surrogatepass")) <= MAX_NAME_LENGTH:
                raise KnowledgeError(f"a document's {what} {name[:40]!r} must have 1 to {MAX_NAME_LENGTH} bytes.")
            if UNWRITABLE.search(name):
                raise KnowledgeError(f"a document's {what} {name[:40]!r} holds characters that no store can write.")
        check_vector(record.vector, dim, f"the vector of document {record.doc_id}")
    return checked
