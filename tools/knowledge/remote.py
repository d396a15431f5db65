"""A base on a Milvus server: which collection is whose, filling it, and what happens while the server is away.

A collection is named by the content of the shipped pages and by the home whose plant's pages it holds, so bases of
other backbones and other plants on the same server never meet. Its rows follow from those, so two that fill one at once
write the same. Which of the plant's pages it holds is noted beside the base, as for the embedded store, see
``plant_index``.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import KnowledgeError, KnowledgeUnreachableError
from ...agent.home import storage_errors, write_json_atomically
from .plant_index import SETTLED, settle
from .store import Hit, LockRecord, Store, WordHit, check_vector

if TYPE_CHECKING:
    from .milvus_server import MilvusServer

IDENTITY = "server.json"
COMPLETE = "complete"
REST = 10.0
"""After waiting in vain no call waits again for so many times as long: a line loses a tenth of its time at most."""

Answer = TypeVar("Answer")


class RemoteStore:
    """A store that is connected to when it is first asked, and again after its server was away.

    Threads may share it: they ask in turn, since whoever finds the server away lets go of the connection of all.

    Args:
        connect: opens the store and brings it up to date.
        dim: length of the vectors.
    """

    def __init__(self, connect: Callable[[], Store], dim: int) -> None:
        self._connect, self._dim = connect, dim
        self._store: Store | None = None
        self._away: KnowledgeUnreachableError | None = None
        self._again = 0.0
        self._turn = threading.RLock()

    @property
    def away(self) -> KnowledgeUnreachableError | None:
        """Why the last call was not answered; None when it was."""
        return self._away

    def reach(self) -> Store:
        """The connected store.

        Raises:
            KnowledgeUnreachableError: the server is away, or was a moment ago.
        """
        with self._turn:
            if self._store is None:
                if self._away is not None and time.monotonic() < self._again:
                    raise KnowledgeUnreachableError(self._away.message, hint=self._away.hint)
                self._store = self._timed(self._connect)
                self._away = None
            return self._store

    def _timed(self, call: Callable[[], Answer]) -> Answer:
        begun = time.monotonic()
        try:
            return call()
        except KnowledgeUnreachableError as error:
            now = time.monotonic()
            self._away, self._again = error, now + REST * (now - begun)
            self.close()
            raise

    def _ask(self, question: Callable[[Store], Answer]) -> Answer:
        with self._turn:
            fresh = self._store is None
            store = self.reach()
            try:
                return self._timed(lambda: question(store))
            except KnowledgeUnreachableError:
                raise
            except KnowledgeError:
                if fresh:
                    raise
            self.close()  # a server that was started again answers, but has let go of the collection
            return self._ask(question)

    def upsert(self, records: Sequence[LockRecord]) -> None:
        """See ``Store.upsert``."""
        self._ask(lambda store: store.upsert(records))

    def search(
        self,
        key: NDArray[np.float32],
        limit: int,
        products: Sequence[str] | None = None,
        types: Sequence[str] | None = None,
    ) -> list[Hit]:
        """See ``Store.search``."""
        query = check_vector(key, self._dim, "the key")
        return self._ask(lambda store: store.search(query, limit, products, types))

    def search_words(
        self, words: str, limit: int, products: Sequence[str] | None = None, types: Sequence[str] | None = None
    ) -> list[WordHit]:
        """See ``Store.search_words``."""
        return self._ask(lambda store: store.search_words(words, limit, products, types))

    def delete(self, doc_ids: Sequence[str]) -> None:
        """See ``Store.delete``."""
        self._ask(lambda store: store.delete(doc_ids))

    def doc_ids(self) -> set[str]:
        """See ``Store.doc_ids``."""
        return self._ask(lambda store: store.doc_ids())

    def close(self) -> None:
        """Let go of the connection; the next call connects again."""
        with self._turn:
            store, self._store = self._store, None
            if store is not None:
                store.close()


def open_remote(
    server: MilvusServer,
    home: Path,
    dim: int,
    records: Sequence[LockRecord],
    n_shipped: int,
    keys: Sequence[str],
) -> RemoteStore:
    """The store of a built base on a server, filled when it can be reached.

    Args:
        server: where it is, and whether it may be away.
        home: of the base; its folder's name is the hash of the shipped pages.
        dim: length of the vectors.
        records: first the shipped ones, then the plant's.
        n_shipped: how many those are.
        keys: of the plant's, see ``PlantDocument.key``.

    Raises:
        KnowledgeUnreachableError: the server is away and was required.
        KnowledgeError: the server refuses.
        StorageError: what it holds cannot be noted.
    """
    own = records[n_shipped:]
    shipped = {record.doc_id for record in records[:n_shipped]}
    name, state, opening = collection_of(home), state_folder(home, server), True

    def connect() -> Store:
        from .milvus_server import MilvusServerStore

        store = MilvusServerStore(server, name, dim)
        try:
            present = store.doc_ids()
            if not opening:  # another process may have changed pages since: only what is missing is ours to add
                missing = [record for record in records if record.doc_id not in present]
                if not shipped.issuperset(record.doc_id for record in missing):
                    with storage_errors(state):  # they may be old by now: whoever opens the base next looks again
                        (state / SETTLED).unlink(missing_ok=True)
                store.upsert(missing)
                return store
            store.upsert([record for record in records[:n_shipped] if record.doc_id not in present])
            with storage_errors(state):
                state.mkdir(parents=True, exist_ok=True)
            settle(state, state / COMPLETE, store, shipped, own, keys)
        except KnowledgeError:
            store.close()
            raise
        return store

    remote = RemoteStore(connect, dim)
    try:
        remote.reach()
    except KnowledgeUnreachableError:
        if server.required:
            raise
    opening = False
    return remote


def collection_of(home: Path) -> str:
    """Name of a base's collection: by the hash of its shipped pages, which names the folder, and by its plant."""
    return f"flawscope_{home.name}_{identity(home.parent)}"


def state_folder(home: Path, server: MilvusServer) -> Path:
    """Where a base notes what a server holds of it."""
    return home / "servers" / hashlib.sha256(server.uri.encode()).hexdigest()[:16]


def identity(folder: Path) -> str:
    """Eight digits for the plant whose pages are below a folder, drawn when first asked for.

    A copy of the folder is another plant, since its pages go their own way; it is known by standing elsewhere.

    Raises:
        KnowledgeError: the file is damaged.
        StorageError: it cannot be written.
    """
    path, place = folder / IDENTITY, str(folder.resolve())
    drawn = {"plant": secrets.token_hex(4), "folder": place}
    if not path.exists():
        with storage_errors(path):
            fresh = path.with_name(f"{IDENTITY}.{os.getpid()}")
            fresh.write_text(json.dumps(drawn), encoding="utf-8")
            try:
                os.link(fresh, path)  # fails where another process was first
            except FileExistsError:
                pass
            finally:
                fresh.unlink()
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        plant, found = str(known["plant"]), str(known["folder"])
        int(plant, 16)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KnowledgeError(f"{path} is damaged.", hint="Delete that file; the server gets a base anew.") from error
    if found != place:
        write_json_atomically(path, drawn)
        return drawn["plant"]
    return plant
