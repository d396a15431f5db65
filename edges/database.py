"""SQLite files, whose refusals are the disk's."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..agent.errors import StorageError
from ..agent.home import alone, lock_beside, storage_errors


def open_database(path: Path, *, durable: bool) -> sqlite3.Connection:
    """A connection without implicit transactions, for any thread.

    Args:
        path: the file; made when missing.
        durable: whether each commit waits for the disk; without it a power cut may take the last ones.
    """
    connection = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
    with alone(lock_beside(path)):
        connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
    return connection


@contextmanager
def database_errors(path: Path, hint: str) -> Iterator[None]:
    """Turn what SQLite and the disk refuse into one line.

    Args:
        path: the file.
        hint: what to do.

    Raises:
        StorageError: the file cannot be used.
    """
    try:
        with storage_errors(path):
            yield
    except sqlite3.Error as error:
        raise StorageError(f"{path} cannot be used: {error}.", hint=hint) from error
