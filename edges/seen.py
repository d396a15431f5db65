"""Which contents of which names have a record, so that nothing is inspected twice after a restart.

A cache of the records, caught up from them at the start: it may be deleted at any time. A picture is known by its name
within the watched folder and the hash of its bytes; whether a file changed at all is first asked by size and time, so
that a folder with a hundred thousand old pictures is not read again.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from .database import database_errors, open_database
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
        with self._errors():
            self._db = open_database(self._path, durable=False)  # what a power cut takes is read from the records again
            self._db.executescript(TABLES)
            self._begin()
        self.catch_up()

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
        with self._errors():
            return int(self._db.execute("SELECT number FROM place").fetchone()[0])

    def catch_up(self) -> None:
        """Read what was recorded since the last call."""
        with self._errors():
            while self._read_on():
                pass

    def _read_on(self) -> bool:
        begin = int(self._db.execute("SELECT read_bytes FROM place").fetchone()[0])
        read = records_from(self._records, begin, AT_ONCE)
        if not read:
            return False
        self._db.execute("BEGIN")
        rows = [(record.line.image, record.sha256 or "") for record, _ in read]
        self._db.executemany("INSERT OR IGNORE INTO pictures VALUES (?, ?)", rows)
        number = max(record.line.number for record, _ in read)
        self._db.execute("UPDATE place SET read_bytes=?, number=MAX(number, ?)", (read[-1][1], number))
        self._db.execute("COMMIT")
        return True

    def has_file(self, image: str, signature: Signature) -> bool:
        """Whether a file was remembered with this size and time."""
        query = "SELECT 1 FROM files WHERE image=? AND size=? AND mtime_ns=?"
        return self._is_there(query, (image, signature.size, signature.mtime_ns))

    def has_picture(self, image: str, sha256: str | None) -> bool:
        """Whether there is a record of this content under this name."""
        return self._is_there("SELECT 1 FROM pictures WHERE image=? AND sha256=?", (image, sha256 or ""))

    def remember(self, image: str, signature: Signature) -> None:
        """The file with this size and time has its record."""
        given = (image, signature.size, signature.mtime_ns)
        with self._errors():
            self._db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", given)

    def _is_there(self, query: str, values: tuple[str | int, ...]) -> bool:
        with self._errors():
            return self._db.execute(query, values).fetchone() is not None

    def _errors(self) -> AbstractContextManager[None]:
        return database_errors(self._path, "It may be deleted: it is made again from the records.")

    def _begin(self) -> None:
        size = self._records.stat().st_size if self._records.exists() else 0
        place = self._db.execute("SELECT read_bytes FROM place").fetchone()
        if place is None or place[0] > size:  # new, or made from records that are no more
            self._db.executescript("DELETE FROM pictures; DELETE FROM files; DELETE FROM place;")
            self._db.execute("INSERT INTO place VALUES (0, 0)")
