"""The journal of reviews: appended, never changed, and of two writers one is told."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flawscope.agent.errors import ReviewConflictError, StorageError
from flawscope.agent.review.journal import Journal

ITEM = "0123456789abcdef"


def test_entries_come_back_in_their_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "reviews")
    assert journal.entries() == []
    assert not journal.folder.exists()  # reading makes nothing
    first = journal.append(ITEM, "decided", "Kim", {"x": 1}, after=0)
    other = journal.append("product:plate", "applying", "Kim", {}, after=0)
    second = journal.append(ITEM, "undone", "Ada", {}, after=1)
    assert [entry.seq for entry in journal.entries()] == [1, 2, 3]
    assert journal.entries() == [first, other, second]
    assert journal.entries(ITEM) == [first, second]
    assert (second.version, second.by, second.kind) == (2, "Ada", "undone")


def test_a_writer_who_looked_too_early_is_told(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(ITEM, "decided", "Kim", {}, after=0)
    for seen in (0, 2):
        with pytest.raises(ReviewConflictError, match="somebody else"):
            journal.append(ITEM, "decided", "Ada", {}, after=seen)
    assert [entry.by for entry in journal.entries()] == ["Kim"]


def test_of_many_writers_at_once_one_wins(tmp_path: Path) -> None:
    journal, won, lost = Journal(tmp_path), [], []
    ready = threading.Barrier(8)

    def write(name: str) -> None:
        ready.wait()
        try:
            won.append(journal.append(ITEM, "decided", name, {}, after=0).by)
        except ReviewConflictError:
            lost.append(name)

    threads = [threading.Thread(target=write, args=(f"reviewer {n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    assert [entry.by for entry in journal.entries()] == won


@pytest.mark.parametrize("sql", ["UPDATE entries SET by = 'Eve'", "DELETE FROM entries"])
def test_entries_cannot_be_changed(tmp_path: Path, sql: str) -> None:
    journal = Journal(tmp_path)
    journal.append(ITEM, "decided", "Kim", {}, after=0)
    connection = sqlite3.connect(journal.path)
    with pytest.raises(sqlite3.IntegrityError, match="entries stay"):
        connection.execute(sql)
    connection.close()
    assert journal.entries()[0].by == "Kim"


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(codec=None), max_size=40))
def test_any_text_comes_back_as_it_was(tmp_path: Path, text: str) -> None:
    journal = Journal(tmp_path)
    after = len(journal.entries(ITEM))
    journal.append(ITEM, "decided", "Kim", {"note": text}, after=after)
    assert journal.entries(ITEM)[-1].data == {"note": text}


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.path.write_bytes(b"no database at all" * 100)
    with pytest.raises(StorageError, match="cannot be used"):
        journal.entries()
    with pytest.raises(StorageError, match="cannot be used"):
        journal.append(ITEM, "decided", "Kim", {}, after=0)


def test_a_damaged_entry_is_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(ITEM, "decided", "Kim", {}, after=0)
    connection = sqlite3.connect(journal.path)
    connection.execute(
        "INSERT INTO entries (subject, version, kind, by, at, data) VALUES ('x', 1, 'won', 'K', '', '{')"
    )
    connection.commit()
    connection.close()
    with pytest.raises(StorageError, match=r"entry 2 .* is damaged"):
        journal.entries()


def test_a_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(ITEM, "decided", "Kim", {}, after=0)
    connection = sqlite3.connect(journal.path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(StorageError, match="another version"):
        journal.append(ITEM, "undone", "Kim", {}, after=1)


WRITER = """
import sys
from pathlib import Path
from flawscope.agent.review.journal import Journal
journal = Journal(Path(sys.argv[1]))
after = len(journal.entries("0123456789abcdef"))
while True:
    after = journal.append("0123456789abcdef", "decided", "Kim", {"note": "x" * 2000}, after=after).version
    print(after, flush=True)
"""


def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    told = 0
    for run in range(3):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        for _ in range(3 + 4 * run):
            told = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split("\n")
        child.stdout.close()
        child.wait()
        told = max([told, *(int(line) for line in rest[:-1])])
        entries = Journal(tmp_path).entries()
        assert len(entries) in (told, told + 1)  # the last may have been written and not told
        assert [entry.version for entry in entries] == list(range(1, len(entries) + 1))
