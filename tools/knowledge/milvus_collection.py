"""The Store as one collection of a Milvus, embedded or on a server: what both do alike.

Traps handled here: errors are logged with a traceback before they are raised, so inputs are checked first and the
loggers are silenced; inserting an existing key is an upsert only by accident, so upsert is called; a search without
output_fields returns every vector; words are stored as terms of our own, since analyzers differ between Lite and a
server; BM25 counts how rare a word is by segment, so that pages written later are ranked by the counts of their own;
a call that is not answered in time ends in gRPC's own error and not in the client's.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import KnowledgeError
from .bm25 import BM25_B, BM25_K1
from .store import MAX_NAME_LENGTH, UNWRITABLE, Hit, LockRecord, WordHit, check_records, check_vector
from .terms import terms

PAGE = 1000
"""Records of one message: a few megabytes, of which Milvus takes 64."""
TEXT_LENGTH = 65535
"""Bytes of a text column at most."""
MAX_LIMIT = 16384
"""Results that Milvus gives at most."""


class MilvusCollection:
    """Lock records in one collection, FLAT index, cosine metric.

    Args:
        client: a connected client.
        collection: its name.
        dim: length of the vectors.
        place: what a message calls it.
        remedy: what a message advises.
        create: make it when it is missing, instead of failing.

    Raises:
        KnowledgeError: it fails, or was made for vectors of another length.
    """

    def __init__(self, client: Any, collection: str, dim: int, place: str, remedy: str, *, create: bool = True) -> None:
        self._client, self._collection, self._dim = client, collection, dim
        self._place, self._remedy = place, remedy
        self._prepare(create)

    def _prepare(self, create: bool) -> None:
        from pymilvus import DataType, Function, FunctionType

        if self._call("has_collection", self._collection):
            fields = self._call("describe_collection", self._collection)["fields"]
            dim = next(int(f["params"]["dim"]) for f in fields if f["name"] == "vector")
            if dim != self._dim:
                raise KnowledgeError(
                    f"{self._place} holds vectors of length {dim}, not {self._dim}.", hint=self._remedy
                )
        elif not create:
            raise KnowledgeError(f"{self._place} has no collection {self._collection}.", hint=self._remedy)
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
            self._create(schema, index)
        self._call("load_collection", self._collection)

    def _create(self, schema: Any, index: Any) -> None:
        self._call("create_collection", self._collection, schema=schema, index_params=index)

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call the client; its failures become one line."""
        from grpc import RpcError  # type: ignore[import-untyped]
        from pymilvus.exceptions import MilvusException

        try:
            return getattr(self._client, method)(*args, **kwargs, **self._wait(method))
        except (MilvusException, RpcError, OSError) as error:
            raise self._failure(method, error) from error

    def _wait(self, method: str) -> dict[str, float]:
        """How long to wait for an answer, as the client takes it; nothing for as long as it takes."""
        return {}

    def _failure(self, method: str, error: Exception) -> KnowledgeError:
        reason = " ".join(str(getattr(error, "message", error)).split())[:200]
        return KnowledgeError(f"{self._place} failed in {method}: {reason}.", hint=self._remedy)

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
            self._call("upsert", self._collection, rows[start : start + PAGE])
        if rows:  # words are counted alike only in what was written out
            self._call("flush", self._collection)

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
        asked = {"product": products, "defect_type": types}
        filters = {
            column_name: [name for name in names if not UNWRITABLE.search(name)]  # which no record has
            for column_name, names in asked.items()
            if names is not None
        }
        if not all(filters.values()):
            return []
        condition = " and ".join(f"{column_name} in {_quoted(names)}" for column_name, names in filters.items())
        wanted = min(limit + 1, MAX_LIMIT)
        while True:
            found = self._call(
                "search",
                self._collection,
                data=[query],
                limit=wanted,
                filter=condition,
                output_fields=["doc_id"],
                anns_field=column,
            )[0]
            # Milvus cuts equals off in any order: as long as the last one equals the last wanted, more may follow.
            if len(found) < wanted or wanted == MAX_LIMIT or found[-1]["distance"] != found[limit - 1]["distance"]:
                break
            wanted = min(2 * wanted, MAX_LIMIT)
        return [(str(hit["doc_id"]), float(hit["distance"])) for hit in found]

    def delete(self, doc_ids: Sequence[str]) -> None:
        """Remove records; see ``Store.delete``."""
        ids = [doc_id for doc_id in doc_ids if not UNWRITABLE.search(doc_id)]
        for start in range(0, len(ids), PAGE):  # by a filter of ours: the client pastes ids in without quoting them
            self._call("delete", self._collection, filter=f"doc_id in {_quoted(ids[start : start + PAGE])}")

    def doc_ids(self) -> set[str]:
        """All ids."""
        rows = self._call("query", self._collection, filter='doc_id != ""', output_fields=["doc_id"])
        return {str(row["doc_id"]) for row in rows}


def _quoted(names: Sequence[str]) -> str:
    """A list of names in Milvus's syntax: it reads JSON's quotes, but not its escapes of other scripts."""
    return json.dumps(list(names), ensure_ascii=False)


def load_client() -> Any:
    """The class MilvusClient, imported without the noise and the demands of its package.

    An address in MILVUS_URI that it does not like keeps it from being imported; gRPC reads its own level once.
    """
    kept = os.environ.pop("MILVUS_URI", None)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from pymilvus import MilvusClient
    finally:
        if kept is not None:
            os.environ["MILVUS_URI"] = kept
    silence()
    return MilvusClient


def silence() -> None:
    """Each error is raised to the caller anyway; importing pymilvus resets these levels, so this follows the import."""
    for name in list(logging.root.manager.loggerDict):
        if "ilvus" in name:
            logging.getLogger(name).setLevel(logging.CRITICAL)
