"""Reviews of threads whose checkpoints a real PostgreSQL server keeps, as those in a file are in tests/graph."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import Plant
from postgres_server import postgres_server
from review_parts import asking_at, audited, desk_of

from flawscope.agent.errors import ConfigError, ReviewConflictError
from flawscope.agent.review.decisions import make_decision

CLI = Path(__file__).parents[1] / "cli" / "cheap_cli.py"
ASK = {"ask_human": True, "max_actions": 0}
NG = make_decision("NG", "hole", "a hole, due to dull punch")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture
def database(server: str, request: pytest.FixtureRequest) -> str:
    """The address of an empty database."""
    name = f"review_{abs(hash(request.node.nodeid)):x}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    return server.replace("/postgres", f"/{name}")


def ask(inspector: Any, picture: Path, thread_id: str) -> None:
    assert "interrupt" in dict(inspector.stream(picture, product="plate", thread_id=thread_id))


def report_of(inspector: Any, thread_id: str) -> dict[str, Any]:
    return dict(inspector.graph.get_state({"configurable": {"thread_id": thread_id}}).values["report"])


def test_threads_are_listed_decided_and_asked_again_over_several_connections(
    plant: Plant, tmp_path: Path, database: str
) -> None:
    loaded = plant.loaded(**ASK)
    with asking_at(loaded, database) as (inspector, threads):
        assert threads.waiting() == []
        for thread_id, picture in (("z", plant.square), ("a", plant.scratch), ("answered", plant.square)):
            ask(inspector, picture, thread_id)
        inspector.resume("answered", {"verdict": "OK"})
    with asking_at(loaded, database) as (_, threads):  # as another process finds them
        queue = desk_of(tmp_path, threads=threads).queue()
        asked = [waiting.item.question.thread_id for waiting in queue if waiting.item.question]
        assert asked == ["z", "a"]  # the oldest question first
        assert [waiting.item.image for waiting in queue] == [str(plant.square), str(plant.scratch)]
        assert all(waiting.item.sha256 and waiting.item.regions for waiting in queue)
        first = queue[0].item
    with asking_at(loaded, database) as (inspector, threads):
        desk = desk_of(tmp_path, threads=threads)
        outcome = desk.decide(first.id, NG, "Kim")
        assert (outcome.verdict, outcome.problem, outcome.standing.state) == ("NG", None, "decided")
        assert report_of(inspector, "z")["verdict_reason"] == "Decided by Kim. a hole, due to dull punch"
        assert desk.settle() == []
    with asking_at(loaded, database) as (inspector, threads):
        desk = desk_of(tmp_path, threads=threads)
        again = desk.undo(first.id, "Kim").asked_again
        assert again is not None
        assert again in {waiting.item.id for waiting in desk.queue()}
        assert desk.decide(again, make_decision("OK"), "Ada").verdict == "OK"
        assert report_of(inspector, "z")["verdict_reason"] == "Decided by Ada."
        kinds = [entry.kind for entry in desk.journal.entries(first.id)]
        assert kinds == ["decided", "resumed", "undone", "reopened"]
        (left,) = threads.waiting()
        assert left.question is not None
        assert left.question.thread_id == "a"


def test_of_two_reviewers_with_connections_of_their_own_one_answers(
    plant: Plant, tmp_path: Path, database: str
) -> None:
    loaded, ready = plant.loaded(**ASK), threading.Barrier(2)
    with asking_at(loaded, database) as (inspector, threads):
        ask(inspector, plant.square, "part")
        item = desk_of(tmp_path, threads=threads).queue()[0].item
    won, lost = [], []
    with asking_at(loaded, database) as (one, one_threads), asking_at(loaded, database) as (_, other_threads):

        def decide(by: str, verdict: str, threads: Any) -> None:
            desk = desk_of(tmp_path, threads=threads)
            ready.wait()
            try:
                won.append((by, desk.decide(item.id, make_decision(verdict), by, version=0).verdict))
            except (ReviewConflictError, ConfigError):
                lost.append(by)

        both = [
            threading.Thread(target=decide, args=of)
            for of in (("Kim", "OK", one_threads), ("Ada", "NG", other_threads))
        ]
        for each in both:
            each.start()
        for each in both:
            each.join()
        assert len(won) == len(lost) == 1
        report = report_of(one, "part")
        assert (report["verdict"], report["verdict_reason"]) == (won[0][1], f"Decided by {won[0][0]}.")
        assert [entry.kind for entry in desk_of(tmp_path).journal.entries()] == ["decided", "resumed"]


def test_what_a_killed_reviewer_left_is_told_once(plant: Plant, tmp_path: Path, database: str) -> None:
    loaded = plant.loaded(**ASK)
    with asking_at(loaded, database) as (inspector, threads):
        ask(inspector, plant.square, "untold")
        ask(inspector, plant.square, "told")
        for item in threads.waiting():  # both decisions are in the journal, one thread has its answer already
            data = {"item": item.model_dump(mode="json"), "decision": NG.model_dump(mode="json")}
            desk_of(tmp_path).journal.append(item.id, "decided", "Kim", data, after=0)
        inspector.resume("told", {**NG.model_dump(mode="json"), "by": "Kim"})
    with asking_at(loaded, database) as (inspector, threads):
        desk = desk_of(tmp_path, threads=threads)
        assert [done.verdict for done in desk.settle()] == ["NG", "NG"]
        assert desk.settle() == []
        for thread_id in ("untold", "told"):
            assert report_of(inspector, thread_id)["verdict_reason"].startswith("Decided by Kim.")
            history = inspector.graph.get_state_history({"configurable": {"thread_id": thread_id}})
            assert sum("report" in (state.next or ()) for state in history) == 1  # nothing ran twice
        assert threads.waiting() == []


def test_the_commands_take_the_servers_address(plant: Plant, tmp_path: Path, database: str) -> None:
    with asking_at(plant.loaded(**ASK), database) as (inspector, _):
        ask(inspector, plant.square, "part")
        inspector.deps.knowledge.close()
    given = {"HOME": str(plant.home), "BACKBONE": "patch-statistics", "STORE": "memory", "FALSE_ALARM": "0.15"}
    environ = {**os.environ, **{f"FLAWSCOPE_{name}": value for name, value in given.items()}, "OMP_NUM_THREADS": "1"}

    def review(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(CLI), "review", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environ, cwd=tmp_path)

    listed = review("list", "--threads", database, "--json")
    (item,) = map(json.loads, listed.stdout.splitlines())
    assert (item["question"]["thread_id"], item["state"], listed.stderr) == ("part", "open", "")
    decided = review("decide", item["id"], "NG", "--type", "hole", "--threads", database, "--by", "Kim")
    assert decided.stdout.splitlines() == [
        f"{item['id']}: NG, decided by Kim",
        f"{item['id']}: its thread went on and ended with NG",
    ]
    assert review("list", "--threads", database).stdout == ""
    away = review("list", "--threads", "postgresql://kim:geheim@127.0.0.1:1/plant")
    assert (away.returncode, away.stderr.count("\n")) == (10, 1)
    assert "geheim" not in away.stderr


def test_a_record_is_one_item_with_its_thread(plant: Plant, tmp_path: Path, database: str) -> None:
    from audit_records import written

    from flawscope.audits.record_file import read_records

    folder = audited(plant.loaded(), tmp_path / "audit", [plant.square])
    (record,) = read_records(folder)
    written(folder, [record.model_copy(update={"thread_id": "order 7"})])
    with asking_at(plant.loaded(**ASK), database) as (inspector, threads):
        ask(inspector, plant.square, "order 7")
        desk = desk_of(tmp_path, folder, threads=threads)
        (waiting,) = desk.queue()
        assert (waiting.item.source, waiting.item.serial) == ("audit", "S1")
        assert desk.decide(waiting.item.id, NG, "Kim").verdict == "NG"
        assert threads.waiting() == []
