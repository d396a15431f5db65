"""Where a workflow keeps its checkpoints: SQLite on one machine, PostgreSQL for several."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .errors import ConfigError, MissingExtraError, StorageError
from .home import alone, lock_beside, storage_errors

_SETUP_LOCK = 0x666C6177
"""Key of the advisory lock under which PostgreSQL's tables are made: two first users at once would collide."""

_LOCK_RETRY_S = 0.05


@contextmanager
def open_checkpointer(url: str) -> Iterator[Any]:
    """Open a LangGraph checkpointer, with its tables made when they are missing.

    Args:
        url: ``sqlite:///PATH`` (four slashes for an absolute path) or ``postgresql://USER:PASSWORD@HOST:PORT/DATABASE``;
            SQLAlchemy's ``postgresql+psycopg://`` means the same.

    Yields:
        A ``BaseCheckpointSaver``; hand it to ``compile(checkpointer=...)``.

    Raises:
        ConfigError: the address is none of these.
        MissingExtraError: PostgreSQL without the extra ``postgres``.
        StorageError: the database cannot be opened or written, or is lost while it is used. The message never holds
            the address, which may hold a password.
    """
    scheme, separator, rest = url.partition("://")
    if scheme == "sqlite" and separator and rest.startswith("/") and len(rest) > 1:
        with _sqlite(Path(rest[1:])) as saver:
            yield saver
    elif separator and re.fullmatch(r"postgres(ql)?(\+psycopg)?", scheme):
        with _postgres(f"postgresql://{rest}") as saver:
            yield saver
    else:
        raise ConfigError("checkpoints are kept at sqlite:///PATH or postgresql://HOST/DATABASE.")


@contextmanager
def _sqlite(path: Path) -> Iterator[Any]:
    from langgraph.checkpoint.sqlite import SqliteSaver

    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with SqliteSaver.from_conn_string(str(path)) as saver:
            with alone(lock_beside(path)):
                saver.setup()
            yield saver
    except sqlite3.Error as error:
        raise StorageError(f"the checkpoints in {path} cannot be used: {error}.", hint="Check the disk.") from error


@contextmanager
def _postgres(url: str) -> Iterator[Any]:
    try:
        import psycopg
        from langgraph.checkpoint.postgres import PostgresSaver
    except ImportError as error:
        raise MissingExtraError("keeping checkpoints in PostgreSQL", "postgres") from error

    if not _is_address(url):
        hint = "It is postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with %40 and %2F for @ and / in a password."
        raise ConfigError("the address of the PostgreSQL database cannot be read.", hint=hint)
    try:
        with PostgresSaver.from_conn_string(url) as saver:
            with saver.conn.cursor() as cursor:
                # Asked for again and again: the tables' indexes are built concurrently, which waits for every statement
                # in progress, also for one that waits for this lock.
                while not _is_true(cursor.execute("SELECT pg_try_advisory_lock(%s) AS got", (_SETUP_LOCK,))):
                    time.sleep(_LOCK_RETRY_S)
                try:
                    saver.setup()
                finally:
                    cursor.execute("SELECT pg_advisory_unlock(%s)", (_SETUP_LOCK,))
            yield saver
    except psycopg.Error as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StorageError(
            f"the checkpoints in PostgreSQL cannot be used: {what}.", hint="Is the server up, and the address right?"
        ) from error


def _is_true(answered: Any) -> bool:
    return bool(answered.fetchone()["got"])


def _is_address(url: str) -> bool:
    """Whether host and port are what they seem: a password with marks in it would be taken, and told, for either."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return bool(parts.hostname) and url.count("@") <= 1 and not parts.fragment
