"""Checkpointers by address: SQLite in its own file, and what is said when one cannot be opened."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph

from flawscope.agent.checkpoints import open_checkpointer
from flawscope.agent.errors import ConfigError, MissingExtraError, StorageError
from flawscope.agent.home import alone, lock_beside
from flawscope.agent.session import threads
from flawscope.agent.settings import load_settings
from flawscope.edges.database import open_database


class Count(TypedDict, total=False):
    """State of the smallest graph."""

    seen: int


def counting(checkpointer: Any) -> Any:
    """A graph that adds one."""
    graph = StateGraph(Count)
    graph.add_node("add", lambda state: {"seen": state.get("seen", 0) + 1})
    graph.add_edge(START, "add")
    graph.add_edge("add", END)
    return graph.compile(checkpointer=checkpointer)


THREAD: Any = {"configurable": {"thread_id": "t"}}


def test_sqlite_keeps_what_one_process_left_for_the_next(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new folder/checkpoints.sqlite"
    with open_checkpointer(url) as saver:
        assert counting(saver).invoke({"seen": 1}, THREAD) == {"seen": 2}
    with open_checkpointer(url) as saver:
        assert counting(saver).get_state(THREAD).values == {"seen": 2}


def test_a_relative_path_has_three_slashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open_checkpointer("sqlite:///here.sqlite") as saver:
        counting(saver).invoke({}, THREAD)
    assert (tmp_path / "here.sqlite").is_file()


@pytest.mark.parametrize(
    "url", ["", "here.sqlite", "sqlite://", "sqlite:///", "mysql://host/db", "postgresql:host", "postgresqlx://host/db"]
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="checkpoints are kept at"), open_checkpointer(url):
        pass


def test_a_file_that_is_no_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database, and longer than a header of one would be " * 4)
    with pytest.raises(StorageError, match="cannot be used"), open_checkpointer(f"sqlite:///{tmp_path}/notes.txt"):
        pass


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"), open_checkpointer(f"sqlite:///{tmp_path}/file/c.sqlite"):
        pass


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with (
        pytest.raises(MissingExtraError, match=r"flawscope\[postgres\]"),
        open_checkpointer("postgresql://127.0.0.1/plant"),
    ):
        pass


def checkpointer_of(folder: Path) -> None:
    with open_checkpointer(f"sqlite:///{folder}/first.sqlite"):
        pass


def conversations_of(folder: Path) -> None:
    with threads(load_settings({"home": str(folder)})):
        pass


def outbox_of(folder: Path) -> None:
    open_database(folder / "first.sqlite", durable=True).close()


@pytest.mark.parametrize(
    ("begin", "name"),
    [
        (checkpointer_of, "first.sqlite"),
        (outbox_of, "first.sqlite"),
        (conversations_of, "threads/threads.sqlite"),
    ],
)
def test_first_users_of_a_new_database_make_it_one_after_another(begin: Any, name: str, tmp_path: Path) -> None:
    """SQLite refuses all but one of several that change a new file to write-ahead logging at the same time."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    user = threading.Thread(target=begin, args=(tmp_path,))
    with alone(lock_beside(path)):
        user.start()
        user.join(0.3)
        assert user.is_alive()
        assert not path.exists() or path.stat().st_size == 0
    user.join()
    assert path.stat().st_size > 0
