"""The Store on Milvus Lite: an embedded vector database in a folder that one process owns.

Traps handled here: the folder's lock is exclusive and its failure carries no cause, so the lock is looked at first;
closing the client keeps the lock, so the server behind it is released with its last user.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from ...agent.errors import KnowledgeError, KnowledgeLockedError
from .milvus_collection import MilvusCollection, load_client, silence

COLLECTION = "documents"
REMEDY = "Delete that folder; it is built again on the next run."
_users: Counter[str] = Counter()
"""Open stores of this process by path: the lock is per process, so the last one to close releases it."""


class MilvusLiteStore(MilvusCollection):
    """Lock records in ``<folder>/kb.db`` (a directory).

    Args:
        folder: an existing folder.
        dim: length of the vectors.

    Raises:
        KnowledgeLockedError: another process has the knowledge base open.
        KnowledgeError: it cannot be opened, or was made for vectors of another length.
    """

    def __init__(self, folder: Path, dim: int) -> None:
        self._path = (folder / "kb.db").resolve()
        self._closed = False
        if not _users[str(self._path)]:
            refuse_foreign_owner(self._path)
        client = _open(self._path)
        _users[str(self._path)] += 1
        try:
            super().__init__(client, COLLECTION, dim, f"the knowledge base at {self._path.parent}", REMEDY)
        except KnowledgeError:
            self.close()
            raise

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
    client_class = load_client()
    import milvus_lite.server_manager  # noqa: F401 - its logger is made here, which tells a lock lost to others in full
    from pymilvus.exceptions import MilvusException

    silence()
    try:
        client = client_class(str(path))
    except (MilvusException, OSError) as error:
        refuse_foreign_owner(path)  # one may have come in between
        raise KnowledgeError(
            f"cannot open the knowledge base at {path.parent}.",
            hint=REMEDY,
        ) from error
    silence()  # the engine's own loggers came with it
    return client
