"""Messages on their way: a small SQLite file that survives a power cut, filled from the audit's records.

The records are the truth; the outbox is filled by reading on in them. For each destination it keeps how far it has
read (a cursor), and moves that cursor in the same transaction that puts the messages in. So a process killed between
writing a record and putting its message in loses nothing and doubles nothing, and a full outbox needs no decision: the
cursor waits, and what is behind it waits in the records. A delivered message is removed, one that its receiver refuses
stays as a dead letter until a person decides.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..agent.errors import ConfigError, StorageError
from .database import database_errors, open_database
from .message import message_of
from .tail import records_from

OUTBOX_NAME = "outbox.sqlite"
SCHEMA = 1
PENDING_LIMIT = 10_000
DEAD_LIMIT = 10_000
"""Messages kept per destination; more wait in the records."""
FILL_AT_ONCE = 500
TABLES = """
CREATE TABLE IF NOT EXISTS cursors (destination TEXT PRIMARY KEY, read_bytes INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    destination TEXT NOT NULL,
    key TEXT NOT NULL,
    part TEXT NOT NULL,
    body BLOB NOT NULL,
    created REAL NOT NULL,
    due REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'dead')),
    problem TEXT NOT NULL DEFAULT '',
    UNIQUE (destination, key)
);
CREATE INDEX IF NOT EXISTS by_part ON messages (destination, state, part, id);
"""
COLUMNS = "id, destination, key, part, body, created, due, attempts, state, problem"
State = Literal["pending", "dead"]


@dataclass(frozen=True)
class Message:
    """A message as the outbox holds it.

    Attributes:
        id: its place in the outbox; messages of one part go out in this order.
        destination: the address, which holds no secret.
        key: the idempotency key.
        part: what the order is kept by.
        body: the message as JSON, UTF-8.
        created: when it was put in, seconds since the epoch.
        due: when it is to be sent next.
        attempts: how often that failed.
        state: ``pending`` or ``dead``.
        problem: why the last attempt failed.
    """

    id: int
    destination: str
    key: str
    part: str
    body: bytes
    created: float
    due: float
    attempts: int
    state: State
    problem: str


@dataclass(frozen=True)
class Depth:
    """What waits for a destination.

    Attributes:
        pending: messages to be sent.
        dead: refused ones.
        oldest: when the oldest pending one was put in, None without one.
    """

    pending: int
    dead: int
    oldest: float | None


class Outbox:
    """The file; safe to use from several threads, and for a person to look at and change while it is in use.

    Args:
        folder: of the records.
        limit: pending messages kept per destination.

    Raises:
        StorageError: the file cannot be made or is damaged.
    """

    def __init__(self, folder: Path, *, limit: int = PENDING_LIMIT) -> None:
        self.path = folder / OUTBOX_NAME
        self.limit = limit
        self._lock = threading.Lock()
        with self._errors():
            self._db = open_database(self.path, durable=True)
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, SCHEMA):
                self._db.close()
                raise StorageError(
                    f"{self.path} is of version {version}.", hint=f"This program knows {SCHEMA}: use the newer one."
                )
            self._db.executescript(f"BEGIN IMMEDIATE; {TABLES} PRAGMA user_version={SCHEMA}; COMMIT;")

    def __enter__(self) -> Outbox:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._db.close()

    # --- filling ------------------------------------------------------------------------------------------------------

    def begin(self, destination: str, records: Path) -> None:
        """Follow the records for a destination; one that is new starts behind those that are there.

        Args:
            destination: its address.
            records: their file.
        """
        with self._changing() as db:
            size = records.stat().st_size if records.exists() else 0
            db.execute("INSERT OR IGNORE INTO cursors VALUES (?, ?)", (destination, size))

    def fill(self, destination: str, records: Path, now: float) -> int:
        """Put in what was recorded since the last call, as far as there is room.

        Args:
            destination: one that was begun.
            records: the file of records; whole lines only are read.
            now: seconds since the epoch.

        Returns:
            How many messages were put in.

        Raises:
            StorageError: the disk refuses, or the records are shorter than what was read of them.
        """
        with self._changing() as db:
            begin = int(db.execute("SELECT read_bytes FROM cursors WHERE destination=?", (destination,)).fetchone()[0])
            room = min(self.limit - self._count(destination, "pending"), FILL_AT_ONCE)
            if room <= 0 or self._count(destination, "dead") >= DEAD_LIMIT:
                return 0
            read = records_from(records, begin, room)
            for record, _ in read:
                message = message_of(record)
                db.execute(
                    "INSERT OR IGNORE INTO messages (destination, key, part, body, created, due) VALUES (?,?,?,?,?,?)",
                    (destination, record.id, message.part, message.model_dump_json().encode(), now, now),
                )
            if read:
                db.execute("UPDATE cursors SET read_bytes=? WHERE destination=?", (read[-1][1], destination))
            return len(read)

    # --- sending ------------------------------------------------------------------------------------------------------

    def due(self, destination: str, now: float, busy: Collection[str], limit: int) -> list[Message]:
        """Messages to send: of each part only the oldest, and none of a part that is being sent.

        Args:
            destination: its address.
            now: seconds since the epoch.
            busy: parts on their way.
            limit: how many at most.
        """
        query = (
            f"SELECT {COLUMNS} FROM messages AS m WHERE destination=? AND state='pending' AND due<=? AND NOT EXISTS"  # noqa: S608 - names of our own
            " (SELECT 1 FROM messages AS e WHERE e.destination=m.destination AND e.state='pending' AND e.part=m.part"
            " AND e.id<m.id) ORDER BY id LIMIT ?"
        )
        found = self._rows(query, (destination, now, limit + len(busy)))
        return [message for message in found if message.part not in busy][:limit]

    def next_due(self, destination: str, busy: Collection[str]) -> float | None:
        """When the next message that may go is due; None without one."""
        query = (
            "SELECT part, due FROM messages AS m WHERE destination=? AND state='pending' AND NOT EXISTS (SELECT 1 FROM"
            " messages AS e WHERE e.destination=m.destination AND e.state='pending' AND e.part=m.part AND e.id<m.id)"
            " ORDER BY due LIMIT ?"
        )
        with self._lock, self._errors():
            rows = self._db.execute(query, (destination, 1 + len(busy))).fetchall()
        return next((float(due) for part, due in rows if part not in busy), None)

    def delivered(self, message: Message) -> None:
        """The receiver has it."""
        with self._changing() as db:
            db.execute("DELETE FROM messages WHERE id=?", (message.id,))

    def failed(self, message: Message, problem: str, due: float) -> None:
        """Try again later.

        Args:
            message: that was not delivered.
            problem: why, without secrets.
            due: when to try next.
        """
        with self._changing() as db:
            db.execute(
                "UPDATE messages SET attempts=attempts+1, problem=?, due=? WHERE id=?", (problem[:500], due, message.id)
            )

    def refused(self, message: Message, problem: str) -> None:
        """Make it a dead letter."""
        with self._changing() as db:
            db.execute(
                "UPDATE messages SET attempts=attempts+1, problem=?, state='dead' WHERE id=?",
                (problem[:500], message.id),
            )

    # --- for people ---------------------------------------------------------------------------------------------------

    def depth(self, destination: str) -> Depth:
        """What waits for a destination."""
        with self._lock, self._errors():
            pending, dead = self._count(destination, "pending"), self._count(destination, "dead")
            oldest = self._db.execute(
                "SELECT MIN(created) FROM messages WHERE destination=? AND state='pending'", (destination,)
            ).fetchone()[0]
        return Depth(pending, dead, oldest)

    def messages(self, state: State | None = None, limit: int = 1000) -> list[Message]:
        """Messages of all destinations, oldest first.

        Args:
            state: of this state only.
            limit: how many at most.
        """
        states = ("pending", "dead") if state is None else (state, state)
        query = f"SELECT {COLUMNS} FROM messages WHERE state IN (?, ?) ORDER BY id LIMIT ?"  # noqa: S608 - names of our own
        return self._rows(query, (*states, limit))

    def retry(self, ids: Sequence[int] | None, now: float) -> int:
        """Send dead letters again, beginning now.

        Args:
            ids: which; None for all.
            now: seconds since the epoch; their age counts from here.

        Returns:
            How many.

        Raises:
            ConfigError: an id is none of a dead letter; nothing is changed.
        """
        change = "UPDATE messages SET state='pending', attempts=0, created=?, due=? WHERE state='dead'"
        return self._decide(change, (now, now), ids, "a dead letter", "state='dead'")

    def drop(self, ids: Sequence[int]) -> int:
        """Give messages up, pending ones too; their records stay.

        Raises:
            ConfigError: an id is none of a message; nothing is changed.
        """
        return self._decide("DELETE FROM messages WHERE 1=1", (), ids, "a message", "1=1")

    def _decide(self, change: str, values: tuple[Any, ...], ids: Sequence[int] | None, what: str, where: str) -> int:
        with self._changing() as db:
            if ids is None:
                return db.execute(change, values).rowcount
            for number in set(ids):
                known = db.execute(f"SELECT 1 FROM messages WHERE id=? AND {where}", (number,)).fetchone()  # noqa: S608 - words of our own
                if known is None:
                    raise ConfigError(f"{number} is not the id of {what}.", hint="flawscope outbox list shows them.")
                db.execute(f"{change} AND id=?", (*values, number))
            return len(set(ids))

    # --- inside -------------------------------------------------------------------------------------------------------

    def _count(self, destination: str, state: State) -> int:
        query = "SELECT COUNT(*) FROM messages WHERE destination=? AND state=?"
        return int(self._db.execute(query, (destination, state)).fetchone()[0])

    def _rows(self, query: str, values: tuple[Any, ...]) -> list[Message]:
        with self._lock, self._errors():
            return [Message(*row) for row in self._db.execute(query, values)]

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, on the disk when the block ends."""
        with self._lock, self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk ends some of them by itself
                    self._db.execute("ROLLBACK")
                raise

    def _errors(self) -> AbstractContextManager[None]:
        return database_errors(self.path, "Check the disk, or move that file away.")
