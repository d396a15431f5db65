"""Threads that wait for a person: listed, answered exactly once whatever is killed when, and asked again after undo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import FEW_DOCUMENTS, Plant
from fakes import FunctionReasoner
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command
from review_parts import asking, audited, desk_of, undecided
from typing_extensions import TypedDict

from flawscope.agent.errors import ConfigError, InputError, ReviewConflictError, StorageError
from flawscope.agent.review.decisions import make_decision
from flawscope.agent.review.threads import GraphThreads
from flawscope.graphs.inspection import build_inspection_graph

NG = make_decision("NG", "hole", "a hole, due to dull punch")
ASK = {"ask_human": True, "max_actions": 0}


def ask(inspector: Any, plant: Plant, thread_id: str) -> None:
    events = dict(inspector.stream(plant.square, product="plate", thread_id=thread_id))
    assert "interrupt" in events


def ended(inspector: Any, thread_id: str) -> dict[str, Any]:
    """The report that a thread ended with, and how often a person is in its history."""
    report = inspector.graph.get_state({"configurable": {"thread_id": thread_id}}).values["report"]
    return dict(report)


def test_a_waiting_thread_is_listed_decided_and_goes_on(plant: Plant, tmp_path: Path) -> None:
    with asking(plant.loaded(**ASK), tmp_path / "t.sqlite") as (inspector, threads):
        ask(inspector, plant, "part-1")
        ask(inspector, plant, "part-2")
        inspector.resume("part-2", {"verdict": "OK"})  # elsewhere
        desk = desk_of(tmp_path, threads=threads)
        (waiting,) = desk.queue()
        item = waiting.item
        assert (item.source, item.image, item.product) == ("thread", str(plant.square), "plate")
        assert item.question is not None
        assert item.question.thread_id == "part-1"
        assert item.regions
        assert item.sha256
        assert item.anomaly_map
        outcome = desk.decide(item.id, NG, "Kim")
        assert (outcome.verdict, outcome.problem, outcome.standing.state) == ("NG", None, "decided")
        assert [entry.kind for entry in desk.journal.entries()] == ["decided", "resumed"]
        report = ended(inspector, "part-1")
        assert report["verdict_reason"] == "Decided by Kim. a hole, due to dull punch"
        assert report["defect_type"]["name"] == "hole"
        (still,) = desk.queue()
        assert still.standing.decision == NG
        assert desk.settle() == []


def test_undo_makes_the_thread_ask_again(plant: Plant, tmp_path: Path) -> None:
    with asking(plant.loaded(**ASK), tmp_path / "t.sqlite") as (inspector, threads):
        ask(inspector, plant, "part")
        desk = desk_of(tmp_path, threads=threads)
        first = desk.queue()[0].item
        desk.decide(first.id, NG, "Kim")
        outcome = desk.undo(first.id, "Kim")
        assert outcome.standing.state == "open"
        (waiting,) = desk.queue()
        assert waiting.item.id == outcome.asked_again != first.id
        assert waiting.item.sha256 == first.sha256
        assert desk.decide(waiting.item.id, make_decision("OK"), "Ada").verdict == "OK"
        assert ended(inspector, "part")["verdict_reason"] == "Decided by Ada."
        assert [entry.kind for entry in desk.journal.entries(first.id)] == ["decided", "resumed", "undone", "reopened"]


def test_an_undo_before_the_thread_was_told_tells_it_nothing(plant: Plant, tmp_path: Path) -> None:
    with asking(plant.loaded(**ASK), tmp_path / "t.sqlite") as (inspector, threads):
        ask(inspector, plant, "part")
        desk = desk_of(tmp_path, threads=threads)
        item = desk.queue()[0].item
        data = {"item": item.model_dump(mode="json"), "decision": NG.model_dump(mode="json")}
        desk.journal.append(item.id, "decided", "Kim", data, after=0)  # and killed
        assert desk.undo(item.id, "Kim").asked_again is None
        assert desk.settle() == []
        assert [waiting.item.id for waiting in desk.queue()] == [item.id]
        assert threads.waits(item.question)  # type: ignore[arg-type]


def test_a_thread_that_went_on_to_another_picture_cannot_ask_again(plant: Plant, tmp_path: Path) -> None:
    with asking(plant.loaded(**ASK), tmp_path / "t.sqlite") as (inspector, threads):
        ask(inspector, plant, "part")
        desk = desk_of(tmp_path, threads=threads)
        item = desk.queue()[0].item
        desk.decide(item.id, NG, "Kim")
        dict(inspector.stream(plant.scratch, product="plate", thread_id="part"))
        with pytest.raises(ConfigError, match="another picture"):
            desk.undo(item.id, "Kim")
        assert desk.find(item.id).standing.decision == NG
        assert [waiting.item.image for waiting in desk.queue() if waiting.standing.decision is None] == [
            str(plant.scratch)
        ]


def test_two_reviewers_at_once(plant: Plant, tmp_path: Path) -> None:
    with asking(plant.loaded(**ASK), tmp_path / "t.sqlite") as (inspector, threads):
        ask(inspector, plant, "part")
        item = desk_of(tmp_path, threads=threads).queue()[0].item
        won, lost, ready = [], [], threading.Barrier(2)

        def decide(by: str, verdict: str) -> None:
            desk = desk_of(tmp_path, threads=threads)
            ready.wait()
            try:
                won.append((by, desk.decide(item.id, make_decision(verdict), by, version=0).verdict))
            except (ReviewConflictError, ConfigError):
                lost.append(by)

        both = [threading.Thread(target=decide, args=of) for of in (("Kim", "OK"), ("Ada", "NG"))]
        for one in both:
            one.start()
        for one in both:
            one.join()
        assert len(won) == len(lost) == 1
        assert ended(inspector, "part")["verdict_reason"] == f"Decided by {won[0][0]}."
        assert ended(inspector, "part")["verdict"] == won[0][1]


def test_a_thread_without_its_database_keeps_the_decision(plant: Plant, tmp_path: Path) -> None:
    with asking(plant.loaded(**ASK), tmp_path / "t.sqlite") as (inspector, threads):
        ask(inspector, plant, "part")
        item = desk_of(tmp_path, threads=threads).queue()[0].item
        data = {"item": item.model_dump(mode="json"), "decision": NG.model_dump(mode="json")}
        desk_of(tmp_path).journal.append(item.id, "decided", "Kim", data, after=0)
        (outcome,) = desk_of(tmp_path).settle()
        assert "--threads" in str(outcome.problem)
        assert [done.verdict for done in desk_of(tmp_path, threads=threads).settle()] == ["NG"]


def test_what_cannot_be_told_is_told_later(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with asking(plant.loaded(**ASK), tmp_path / "t.sqlite") as (inspector, threads):
        ask(inspector, plant, "part")
        desk = desk_of(tmp_path, threads=threads)
        item = desk.queue()[0].item

        def full(*given: Any) -> None:
            raise StorageError("the disk is full.")

        with monkeypatch.context() as patch:
            patch.setattr(threads, "_run", full)
            outcome = desk.decide(item.id, NG, "Kim")
            assert str(outcome.problem) == "the disk is full."
            assert outcome.standing.decision == NG
        assert [done.verdict for done in desk.settle()] == ["NG"]


def test_an_audits_record_answers_its_thread(plant: Plant, tmp_path: Path) -> None:
    folder = audited(plant.loaded(), tmp_path / "audit", [plant.square, plant.scratch])
    with asking(plant.loaded(**ASK), tmp_path / "t.sqlite") as (inspector, threads):
        ask(inspector, plant, f"audit-{1:032x}")
        desk = desk_of(tmp_path, folder, threads=threads)
        first, second = desk.queue()
        assert first.item.question is not None
        assert second.item.question is None
        assert desk.decide(first.item.id, NG, "Kim").verdict == "NG"
        assert desk.decide(second.item.id, NG, "Kim").verdict is None
        assert ended(inspector, f"audit-{1:032x}")["verdict"] == "NG"


def test_a_picture_that_changed_is_not_judged(plant: Plant, tmp_path: Path) -> None:
    picture = tmp_path / "part.png"
    picture.write_bytes(plant.square.read_bytes())
    with asking(plant.loaded(**ASK), tmp_path / "t.sqlite") as (inspector, threads):
        dict(inspector.stream(picture, product="plate", thread_id="part"))
        desk = desk_of(tmp_path, threads=threads)
        item = desk.queue()[0].item
        picture.write_bytes(plant.scratch.read_bytes())
        with pytest.raises(InputError, match="has changed"):
            desk.decide(item.id, NG, "Kim")
        assert desk.journal.entries() == []
        picture.unlink()  # the part itself may still be looked at
        assert desk.decide(item.id, NG, "Kim").verdict == "NG"


# A parent graph


class Order(TypedDict, total=False):
    """State of a workflow around the inspection."""

    image: str
    product: str
    report: dict[str, Any]
    shipped: list[str]


def workflow(deps: Any, saver: Any, shipped: list[str]) -> Any:
    def ship(state: Order) -> Order:
        shipped.append(state["report"]["verdict"])
        return {"shipped": [*shipped]}

    graph = StateGraph(Order)
    graph.add_node("inspect", build_inspection_graph(deps))
    graph.add_node("ship", ship)
    graph.add_edge(START, "inspect")
    graph.add_edge("inspect", "ship")
    graph.add_edge("ship", END)
    return graph.compile(checkpointer=saver)


def test_a_workflow_around_the_inspection_is_answered_too(plant: Plant, tmp_path: Path) -> None:
    deps, saver, shipped = plant.deps(**ASK), InMemorySaver(), list[str]()
    deps.__dict__["reasoner"] = FunctionReasoner(undecided)
    graph = workflow(deps, saver, shipped)
    thread = {"configurable": {"thread_id": "order"}}
    graph.invoke({"image": str(plant.square), "product": "plate"}, thread)
    desk = desk_of(tmp_path, threads=GraphThreads(graph, saver))
    (waiting,) = desk.queue()
    assert waiting.item.sha256  # read from the inspection's own state
    assert desk.decide(waiting.item.id, NG, "Kim").verdict == "NG"
    assert shipped == ["NG"]
    again = desk.undo(waiting.item.id, "Kim").asked_again
    assert again is not None
    assert desk.decide(again, make_decision("OK"), "Kim").verdict == "OK"
    assert shipped == ["NG", "OK"]


def test_a_workflows_thread_is_not_touched_by_the_inspections_own_graph(plant: Plant, tmp_path: Path) -> None:
    with asking(plant.loaded(**ASK), tmp_path / "t.sqlite") as (inspector, threads):
        graph = workflow(inspector.deps, threads._checkpointer, [])
        graph.invoke({"image": str(plant.square), "product": "plate"}, {"configurable": {"thread_id": "order"}})
        assert threads.waiting() == []
        graph.invoke(Command(resume={"verdict": "OK"}), {"configurable": {"thread_id": "order"}})


# kill -9 between the journal and the graph

SCRIPT = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from fakes import PatchStatistics
from langgraph.checkpoint.sqlite import SqliteSaver
from flawscope.agent.review.decisions import make_decision
from flawscope.agent.review.journal import Journal
from flawscope.agent.review import threads as threads_module
from flawscope.agent.settings import load_settings
from flawscope.graphs import nodes
from flawscope.tools.backbones import BACKBONES
from flawscope.tools.knowledge import builder, schema
from review_parts import asking, desk_of

BACKBONES["patch-statistics"] = PatchStatistics
few = tuple(page for page in schema.load_documents() if page.doc_id in {few!r})
builder.load_documents = lambda: few

def die(*given, **more):
    os.kill(os.getpid(), signal.SIGKILL)

def dies_after(owner, name):
    real = getattr(owner, name)
    def call(*given, **more):
        real(*given, **more)
        die()
    setattr(owner, name, call)

loaded = load_settings(
    dict(home=Path({home!r}), backbone="patch-statistics", store="memory", false_alarm=0.15, ask_human=True,
         max_actions=0), environ={{}})
folder = Path({folder!r})
when, what = sys.argv[1:]
if when == "journal":
    dies_after(Journal, "append")
elif when == "taken":
    SqliteSaver.put = die
elif when == "human":
    nodes.InspectionNodes.report = die
elif when == "graph":
    dies_after(threads_module.GraphThreads, "_run")
elif when == "fork":
    threads_module.GraphThreads._run = die
with asking(loaded, folder / "t.sqlite") as (inspector, threads):
    desk = desk_of(folder, threads=threads)
    if what == "decide":
        desk.decide(desk.queue()[0].item.id, make_decision("NG", "hole", "a hole"), "Kim")
    else:
        desk.undo(desk.queue()[0].item.id, "Kim")
"""


def killed(plant: Plant, folder: Path, when: str, what: str) -> None:
    """A reviewer's process that dies at a certain moment."""
    script = SCRIPT.format(
        tests=str(Path(__file__).parents[1]), few=sorted(FEW_DOCUMENTS), home=str(plant.home), folder=str(folder)
    )
    done = subprocess.run(
        [sys.executable, "-c", script, when, what], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert os.path.exists(folder / "reviews" / "journal.sqlite")  # noqa: PTH110


@pytest.mark.parametrize("when", ["journal", "taken", "human", "graph"])
def test_a_kill_between_journal_and_graph_is_made_good_once(plant: Plant, tmp_path: Path, when: str) -> None:
    with asking(plant.loaded(**ASK), tmp_path / "t.sqlite") as (inspector, _):
        ask(inspector, plant, "part")
    killed(plant, tmp_path, when, "decide")
    with asking(plant.loaded(**ASK), tmp_path / "t.sqlite") as (inspector, threads):
        desk = desk_of(tmp_path, threads=threads)
        assert [entry.kind for entry in desk.journal.entries()] == ["decided"]
        assert [outcome.verdict for outcome in desk.settle()] == ["NG"]
        assert desk.settle() == []
        assert ended(inspector, "part")["verdict_reason"] == "Decided by Kim. a hole"
        history = list(inspector.graph.get_state_history({"configurable": {"thread_id": "part"}}))
        assert sum("report" in state.values and state.next == () for state in history) == 1
        assert sum(state.next == ("report",) for state in history) == 1  # the answer was taken once


@pytest.mark.parametrize("when", ["journal", "fork", "graph"])
def test_a_kill_in_an_undo_is_made_good_once(plant: Plant, tmp_path: Path, when: str) -> None:
    with asking(plant.loaded(**ASK), tmp_path / "t.sqlite") as (inspector, threads):
        ask(inspector, plant, "part")
        desk = desk_of(tmp_path, threads=threads)
        desk.decide(desk.queue()[0].item.id, NG, "Kim")
    killed(plant, tmp_path, when, "undo")
    with asking(plant.loaded(**ASK), tmp_path / "t.sqlite") as (inspector, threads):
        desk = desk_of(tmp_path, threads=threads)
        (outcome,) = desk.settle()
        assert outcome.asked_again is not None
        assert desk.settle() == []
        assert [waiting.item.id for waiting in desk.queue()] == [outcome.asked_again]
        history = list(inspector.graph.get_state_history({"configurable": {"thread_id": "part"}}))
        assert sum(state.metadata["source"] == "fork" for state in history) == 1
        assert desk.decide(outcome.asked_again, make_decision("OK"), "Ada").verdict == "OK"
