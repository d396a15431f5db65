"""Which contents of which names have a record, so that nothing is inspected twice after a restart.

A cache of the records, caught up from them at the start: it may be deleted at any time. A picture is known by its name
within the watched folder and the hash of its bytes; whether a file changed at all is first asked by size and time, so
that a folder with a hundred thousand old pictures is not read again.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from ..agent.errors import StorageError
from ..agent.home import storage_errors
from .settling import Signature
from .tail import records_from

SEEN_NAME = "seen.sqlite"
TABLES = """
CREATE TABLE IF NOT EXISTS pictures (image TEXT, sha256 TEXT, PRIMARY KEY (image, sha256)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (image TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS place (read_bytes INTEGER, number INTEGER);
"""
AT_ONCE = 1000


class Seen:
    """The cache beside the records.

    Args:
        folder: of the records.
        records: their file.

    Raises:
        StorageError: the disk refuses, or the records are damaged.
    """

    def __init__(self, folder: Path, records: Path) -> None:
        self._path = folder / SEEN_NAME
        self._records = records
        try:
            with storage_errors(self._path):
                self._db = sqlite3.connect(self._path, timeout=30.0, isolation_level=None)
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=NORMAL")  # what a power cut takes is read from the records again
                self._db.executescript(TABLES)
                self._begin()
                self.catch_up()
        except sqlite3.Error as error:
            raise StorageError(
                f"{self._path} cannot be used: {error}.", hint="It may be deleted: it is made again from the records."
            ) from error

    def __enter__(self) -> Seen:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    @property
    def number(self) -> int:
        """Of the last record, 0 without one."""
        return int(self._db.execute("SELECT number FROM place").fetchone()[0])

    def catch_up(self) -> None:
        """Read what was recorded since the last call."""
        while True:
            begin = int(self._db.execute("SELECT read_bytes FROM place").fetchone()[0])
            read = records_from(self._records, begin, AT_ONCE)
            if not read:
                return
            self._db.execute("BEGIN")
            rows = [(record.line.image, record.sha256 or "") for record, _ in read]
            self._db.executemany("INSERT OR IGNORE INTO pictures VALUES (?, ?)", rows)
            number = max(record.line.number for record, _ in read)
            self._db.execute("UPDATE place SET read_bytes=?, number=MAX(number, ?)", (read[-1][1], number))
            self._db.execute("COMMIT")

    def has_file(self, image: str, signature: Signature) -> bool:
        """Whether a file was remembered with this size and time."""
        given = (image, signature.size, signature.mtime_ns)
        found = self._db.execute("SELECT 1 FROM files WHERE image=? AND size=? AND mtime_ns=?", given).fetchone()
        return found is not None

    def has_picture(self, image: str, sha256: str | None) -> bool:
        """Whether there is a record of this content under this name."""
        found = self._db.execute("SELECT 1 FROM pictures WHERE image=? AND sha256=?", (image, sha256 or "")).fetchone()
        return found is not None

    def remember(self, image: str, signature: Signature) -> None:
        """The file with this size and time has its record."""
        self._db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", (image, signature.size, signature.mtime_ns))

    def _begin(self) -> None:
        size = self._records.stat().st_size if self._records.exists() else 0
        place = self._db.execute("SELECT read_bytes FROM place").fetchone()
        if place is None or place[0] > size:  # new, or made from records that are no more
            self._db.executescript("DELETE FROM pictures; DELETE FROM files; DELETE FROM place;")
            self._db.execute("INSERT INTO place VALUES (0, 0)")
