"""The journal of reviews: entries are appended, on the disk before anything else happens, and never changed.

SQLite rather than JSON Lines: several programs write here (terminal, page, another reviewer's terminal), and "nobody
has decided this since I looked" must be checked and written in one step that also survives a kill or a power cut. A
transaction is that step. Triggers refuse every change of an entry; the numbers of a subject's entries follow each
other without a gap, so that a second writer finds the place taken.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from ..errors import ReviewConflictError, StorageError
from ..home import storage_errors
from ..schemas import Frozen

FORMAT = 1
NAME = "journal.sqlite"
WAIT_S = 10.0
"""So long a writer waits for another one."""
Kind = Literal[
    "decided",
    "undone",
    "confirmed",
    "unconfirmed",
    "resumed",
    "reopened",
    "applying",
    "applied",
    "reverting",
    "reverted",
]
_TABLE = """
CREATE TABLE entries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    subject TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version > 0),
    kind TEXT NOT NULL,
    by TEXT NOT NULL,
    at TEXT NOT NULL,
    data TEXT NOT NULL,
    UNIQUE (subject, version)
)
"""
_REFUSE = "CREATE TRIGGER entries_no_{what} BEFORE {what} ON entries BEGIN SELECT RAISE(ABORT, 'entries stay'); END"


class Entry(Frozen):
    """One thing that was done.

    Attributes:
        seq: place in the journal, from 1.
        subject: an item's id, or ``product:NAME``.
        version: place among the subject's entries, from 1.
        kind: what was done.
        by: who did it.
        at: when, ISO 8601 in UTC.
        data: what belongs to it.
    """

    seq: Annotated[int, Field(ge=1)]
    subject: str
    version: Annotated[int, Field(ge=1)]
    kind: Kind
    by: str
    at: str
    data: dict[str, Any]


class Journal:
    """The entries of a home.

    Args:
        folder: where it lies; made with the first entry.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / NAME

    def entries(self, subject: str | None = None) -> list[Entry]:
        """All entries, or those of one subject, in their order.

        Raises:
            StorageError: the journal cannot be read, is damaged or of another version.
        """
        if not self.path.exists():
            return []
        sql = "SELECT seq, subject, version, kind, by, at, data FROM entries"
        with self._open("rw") as connection:
            if not self._has_format(connection):
                return []
            if subject is None:
                rows = connection.execute(f"{sql} ORDER BY seq").fetchall()
            else:
                rows = connection.execute(f"{sql} WHERE subject = ? ORDER BY seq", (subject,)).fetchall()
        return [self._entry(row) for row in rows]

    def append(self, subject: str, kind: Kind, by: str, data: dict[str, Any], *, after: int) -> Entry:
        """Add an entry; it is on the disk when this returns.

        Args:
            subject: see `Entry`.
            kind: see `Entry`.
            by: see `Entry`.
            data: plain data.
            after: the subject's version that the writer has seen, 0 for none.

        Raises:
            ReviewConflictError: somebody else has added an entry since; nothing is written.
            StorageError: the disk refuses, or the journal is damaged; nothing is written.
        """
        at = datetime.now(UTC).isoformat(timespec="seconds")
        text = json.dumps(data, allow_nan=False)  # ASCII: a name of a file may hold what UTF-8 does not
        with storage_errors(self.path):
            self.folder.mkdir(parents=True, exist_ok=True)
        fresh = not self.path.exists()
        with self._open("rwc") as connection:
            connection.execute("BEGIN IMMEDIATE")
            if not self._has_format(connection):
                connection.execute(_TABLE)
                for what in ("UPDATE", "DELETE"):
                    connection.execute(_REFUSE.format(what=what))
                connection.execute(f"PRAGMA user_version = {FORMAT}")
            newest = connection.execute("SELECT max(version) FROM entries WHERE subject = ?", (subject,)).fetchone()
            if (newest[0] or 0) != after:
                connection.execute("ROLLBACK")
                raise ReviewConflictError(
                    f"somebody else has changed {subject} since it was looked at.", hint="Look at it again."
                )
            row = (subject, after + 1, kind, by, at, text)
            sql = "INSERT INTO entries (subject, version, kind, by, at, data) VALUES (?, ?, ?, ?, ?, ?)"
            seq = connection.execute(sql, row).lastrowid
            connection.execute("COMMIT")
        if fresh:
            _sync(self.folder)
        return self._entry((seq, *row))

    @contextmanager
    def _open(self, mode: str) -> Iterator[sqlite3.Connection]:
        address = f"{self.path.absolute().as_uri()}?mode={mode}"
        try:
            with closing(sqlite3.connect(address, uri=True, timeout=WAIT_S, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous = EXTRA")  # the folder too: a commit outlives a power cut
                yield connection
        except sqlite3.Error as error:
            full = "disk is full" in str(error)
            raise StorageError(
                f"the journal of reviews {self.path} cannot be used: {error}.",
                hint="Free some space." if full else "Check the disk, or restore the file from a copy.",
            ) from error

    def _has_format(self, connection: sqlite3.Connection) -> bool:
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found not in (0, FORMAT):
            raise StorageError(
                f"the journal of reviews {self.path} was written by another version.", hint="Use that version."
            )
        return bool(found == FORMAT)

    def _entry(self, row: tuple[Any, ...]) -> Entry:
        try:
            return Entry(**dict(zip(Entry.model_fields, (*row[:-1], json.loads(row[-1])), strict=True)))
        except (ValueError, TypeError, RecursionError, ValidationError) as error:
            raise StorageError(
                f"entry {row[0]} of the journal of reviews {self.path} is damaged.", hint="Restore it from a copy."
            ) from error


def _sync(folder: Path) -> None:
    """Force the name of a new journal to the disk."""
    if os.name == "nt":  # folders cannot be opened there
        return
    for path in (folder, folder.parent):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
