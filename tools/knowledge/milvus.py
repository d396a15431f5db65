"""The Store on Milvus Lite: an embedded vector database in a folder that one process owns.

Traps handled here: the folder's lock is exclusive and its failure carries no cause, so the lock is looked at first;
closing the client keeps the lock, so the server behind it is released with its last user; errors are logged with a
traceback before they are raised, so inputs are checked first and the loggers are silenced; inserting an existing key
is an upsert only by accident, so upsert is called; a search without output_fields returns every vector; words are
stored as terms of our own, since analyzers differ between Lite and a server; BM25 counts how rare a word is by segment,
so that pages written later are ranked by the counts of their own.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import KnowledgeError, KnowledgeLockedError
from .bm25 import BM25_B, BM25_K1
from .store import MAX_NAME_LENGTH, Hit, LockRecord, WordHit, check_records, check_vector
from .terms import terms

COLLECTION = "documents"
PAGE = 1000
TEXT_LENGTH = 65535
"""Bytes of a text column at most."""
MAX_LIMIT = 16384
"""Results that Milvus gives at most."""
REMEDY = "Delete that folder; it is built again on the next run."
_users: Counter[str] = Counter()
"""Open stores of this process by path: the lock is per process, so the last one to close releases it."""


class MilvusLiteStore:
    """Lock records in ``<folder>/kb.db`` (a directory), FLAT index, cosine metric.

    Args:
        folder: an existing folder.
        dim: length of the vectors.

    Raises:
        KnowledgeLockedError: another process has the knowledge base open.
        KnowledgeError: it cannot be opened, or was made for vectors of another length.
    """

    def __init__(self, folder: Path, dim: int) -> None:
        self._dim = dim
        self._path = (folder / "kb.db").resolve()
        self._closed = False
        if not _users[str(self._path)]:
            refuse_foreign_owner(self._path)
        self._client = _open(self._path)
        _users[str(self._path)] += 1
        try:
            self._prepare()
        except KnowledgeError:
            self.close()
            raise

    def _prepare(self) -> None:
        from pymilvus import DataType, Function, FunctionType

        if self._call("has_collection", COLLECTION):
            fields = self._call("describe_collection", COLLECTION)["fields"]
            dim = next(int(f["params"]["dim"]) for f in fields if f["name"] == "vector")
            if dim != self._dim:
                raise KnowledgeError(
                    f"the knowledge base at {self._path.parent} holds vectors of length {dim}, not {self._dim}.",
                    hint=REMEDY,
                )
        else:
            schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("doc_id", DataType.VARCHAR, is_primary=True, max_length=MAX_NAME_LENGTH)
            schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self._dim)
            schema.add_field("product", DataType.VARCHAR, max_length=MAX_NAME_LENGTH)
            schema.add_field("defect_type", DataType.VARCHAR, max_length=MAX_NAME_LENGTH)
            schema.add_field("terms", DataType.VARCHAR, max_length=TEXT_LENGTH, enable_analyzer=True)
            schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
            schema.add_function(Function("bm25", FunctionType.BM25, ["terms"], ["words"]))
            index = self._client.prepare_index_params()
            index.add_index("vector", index_type="FLAT", metric_type="COSINE")
            saturation = {"bm25_k1": BM25_K1, "bm25_b": BM25_B}
            index.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25", params=saturation)
            self._call("create_collection", COLLECTION, schema=schema, index_params=index)
        self._call("load_collection", COLLECTION)

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call the client; its failures become one line."""
        from pymilvus.exceptions import MilvusException

        try:
            return getattr(self._client, method)(*args, **kwargs)
        except (MilvusException, OSError) as error:
            reason = " ".join(str(getattr(error, "message", error)).split())[:200]
            raise KnowledgeError(
                f"the knowledge base at {self._path.parent} failed in {method}: {reason}.",
                hint=REMEDY,
            ) from error

    def upsert(self, records: Sequence[LockRecord]) -> None:
        """Insert or replace; see ``Store.upsert``."""
        rows = [
            {
                "doc_id": r.doc_id,
                "vector": r.vector.astype(np.float32),
                "product": r.product,
                "defect_type": r.defect_type,
                "terms": " ".join(terms(r.text)),
            }
            for r in check_records(records, self._dim)
        ]
        for start in range(0, len(rows), PAGE):
            self._call("upsert", COLLECTION, rows[start : start + PAGE])
        if rows:
            self._call("flush", COLLECTION)

    def search(
        self,
        key: NDArray[np.float32],
        limit: int,
        products: Sequence[str] | None = None,
        types: Sequence[str] | None = None,
    ) -> list[Hit]:
        """Exact cosine search; see ``Store.search``."""
        query = check_vector(key, self._dim, "the key")
        # With the COSINE metric what Milvus calls a distance is the similarity itself.
        found = self._nearest("vector", query, limit, products, types)
        hits = [Hit(doc_id, min(1.0, max(-1.0, similarity))) for doc_id, similarity in found]
        return sorted(hits, key=lambda hit: (-hit.similarity, hit.doc_id))[:limit]

    def search_words(
        self, words: str, limit: int, products: Sequence[str] | None = None, types: Sequence[str] | None = None
    ) -> list[WordHit]:
        """BM25; see ``Store.search_words``."""
        query = " ".join(dict.fromkeys(terms(words)))
        if not query:
            return []
        # Lite gives a BM25 score with a minus before it, a server without.
        hits = [WordHit(doc_id, abs(score)) for doc_id, score in self._nearest("words", query, limit, products, types)]
        return sorted(hits, key=lambda hit: (-hit.score, hit.doc_id))[:limit]

    def _nearest(
        self, column: str, query: Any, limit: int, products: Sequence[str] | None, types: Sequence[str] | None
    ) -> list[tuple[str, float]]:
        """Ids and scores, at least ``limit`` where there are so many, with all that equal the last of them."""
        filters = {"product": products, "defect_type": types}
        if any(names is not None and not names for names in filters.values()):
            return []
        condition = " and ".join(f"{name} in {_quoted(names)}" for name, names in filters.items() if names is not None)
        wanted = min(limit + 1, MAX_LIMIT)
        while True:
            found = self._call(
                "search",
                COLLECTION,
                data=[query],
                limit=wanted,
                filter=condition,
                output_fields=["doc_id"],
                anns_field=column,
            )[0]
            # Milvus cuts equals off in any order: as long as the last one equals the last wanted, more may follow.
            if len(found) < wanted or found[-1]["distance"] != found[limit - 1]["distance"] or wanted >= MAX_LIMIT:
                break
            wanted = min(2 * wanted, MAX_LIMIT)
        return [(str(hit["doc_id"]), float(hit["distance"])) for hit in found]

    def delete(self, doc_ids: Sequence[str]) -> None:
        """Remove records; see ``Store.delete``."""
        if doc_ids:  # by a filter of ours: the client pastes ids into one without quoting them
            self._call("delete", COLLECTION, filter=f"doc_id in {_quoted(doc_ids)}")

    def doc_ids(self) -> set[str]:
        """All ids."""
        rows = self._call("query", COLLECTION, filter='doc_id != ""', output_fields=["doc_id"])
        return {str(row["doc_id"]) for row in rows}

    def close(self) -> None:
        """Close the client and release the folder's lock."""
        if self._closed:
            return
        self._closed = True
        self._client.close()
        _users[str(self._path)] -= 1
        if not _users[str(self._path)]:
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(str(self._path))


def _quoted(names: Sequence[str]) -> str:
    """A list of names in Milvus's syntax: it reads JSON's quotes, but not its escapes of other scripts."""
    return json.dumps(list(names), ensure_ascii=False)


def refuse_foreign_owner(path: Path) -> None:
    """Raise if another process holds the lock of a Milvus Lite folder.

    Raises:
        KnowledgeLockedError: it does.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no flock; there the open below fails and says so
        return
    lock = path / "LOCK"
    if not lock.exists():
        return
    try:
        handle = os.open(lock, os.O_RDWR)
    except OSError as error:
        raise KnowledgeError(f"cannot open the knowledge base at {path.parent}: {error.strerror}.") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(handle, fcntl.LOCK_UN)
    except BlockingIOError as error:
        raise KnowledgeLockedError(
            "the knowledge base is open in another process (Milvus Lite has a single owner).",
            hint="Wait for it to end, or set FLAWSCOPE_STORE=memory to read a copy.",
        ) from error
    finally:
        os.close(handle)


def _open(path: Path) -> Any:
    from pymilvus import MilvusClient
    from pymilvus.exceptions import MilvusException

    _silence()
    try:
        client = MilvusClient(str(path))
    except (MilvusException, OSError) as error:
        refuse_foreign_owner(path)  # one may have come in between
        raise KnowledgeError(
            f"cannot open the knowledge base at {path.parent}.",
            hint=REMEDY,
        ) from error
    _silence()
    return client


def _silence() -> None:
    """Each error is raised to the caller anyway; importing pymilvus resets these levels, so this follows the import."""
    for name in list(logging.root.manager.loggerDict):
        if "ilvus" in name:
            logging.getLogger(name).setLevel(logging.CRITICAL)
