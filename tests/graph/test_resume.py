"""Interrupt for a person and resume: in memory, across processes, as a subgraph; threads that are used again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, TypedDict

import pytest
from conftest import Plant
from fakes import FunctionReasoner
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command

from flawscope.agent.errors import ConfigError
from flawscope.agent.inspector import InspectionDeps, Inspector
from flawscope.agent.reasoner import DraftReport, ReasonerReply
from flawscope.agent.schemas import InspectionReport, Verdict
from flawscope.graphs.inspection import build_inspection_graph


def asking(plant: Plant, verdict: Verdict = Verdict.REVIEW) -> Inspector:
    """An inspector whose reasoner cannot decide, with a person to ask."""
    inspector = Inspector(plant.loaded(ask_human=True, max_actions=0), checkpointer=InMemorySaver())
    undecided = ReasonerReply(DraftReport(verdict=verdict), 1.0, "scripted")
    inspector.deps.__dict__["reasoner"] = FunctionReasoner(lambda evidence: undecided)
    return inspector


def test_a_person_decides(plant: Plant) -> None:
    with asking(plant) as inspector:
        events = dict(inspector.stream(plant.square, product="plate", thread_id="t1"))
        question = events["interrupt"]
        json.dumps(question, allow_nan=False)
        assert question["image"] == str(plant.square)
        assert question["probability"] > 0.5
        assert question["regions"]
        assert "report" not in events
        report = inspector.resume("t1", {"verdict": "NG", "note": "hole seen", "by": "Kim"})
    assert report.verdict is Verdict.NG
    assert report.verdict_reason == "Decided by Kim. hole seen"
    assert next(item.text for item in report.evidence if item.id == "H1") == report.verdict_reason
    assert [claim.evidence_ids for claim in report.claims if claim.field == "verdict"] == [("H1",)]


def test_a_person_names_the_type_and_the_place(plant: Plant) -> None:
    with asking(plant) as inspector:
        list(inspector.stream(plant.square, product="plate", thread_id="t1"))
        decision = {"verdict": "NG", "note": "fin on the rim", "by": "Kim", "defect_type": "Burr", "box": [1, 2, 3, 4]}
        report = inspector.resume("t1", decision)
    assert report.defect_type is not None
    assert (report.defect_type.name, report.defect_type.posterior) == ("burr", None)
    (person,) = [item for item in report.evidence if item.kind == "person"]
    assert person.values == {
        "verdict": "NG",
        "note": "fin on the rim",
        "defect_type": "burr",
        "x0": 1,
        "y0": 2,
        "x1": 3,
        "y1": 4,
    }
    assert [c.text for c in report.claims if c.field == "defect_type"] == ["Kim named it burr."]
    assert report.root_cause == ""  # words for another type are dropped


def test_inspect_says_that_it_waits(plant: Plant) -> None:
    with asking(plant) as inspector, pytest.raises(ConfigError, match="waits for a person"):
        inspector.inspect(plant.square, product="plate", thread_id="t")


def test_a_person_may_pass_what_could_not_be_scored(plant: Plant) -> None:
    with asking(plant) as inspector:
        list(inspector.stream(plant.flat, product="plate", thread_id="t"))
        report = inspector.resume("t", {"verdict": "OK"})
    assert report.verdict is Verdict.OK
    assert report.image_score is None


@pytest.mark.parametrize("answer", [None, "NG", {}, {"verdict": "maybe"}, {"verdict": ["OK"]}, {"verdict": None}])
def test_an_answer_that_is_none_is_refused_and_the_question_stays(plant: Plant, answer: Any) -> None:
    with asking(plant) as inspector:
        list(inspector.stream(plant.square, product="plate", thread_id="t"))
        with pytest.raises(ConfigError, match="verdict of OK, NG or REVIEW"):
            inspector.resume("t", answer)
        assert inspector.resume("t", {"verdict": "OK", "by": None, "note": None}).verdict is Verdict.OK


def test_nothing_is_asked_when_the_decision_is_clear(plant: Plant) -> None:
    with Inspector(plant.loaded(ask_human=True), checkpointer=InMemorySaver()) as inspector:
        assert inspector.inspect(plant.square, product="plate").verdict is Verdict.NG


def test_questions_that_could_never_be_answered_are_refused(plant: Plant) -> None:
    with pytest.raises(ConfigError, match="checkpointer"):
        Inspector(plant.loaded(ask_human=True))
    with Inspector(plant.loaded()) as inspector, pytest.raises(ConfigError, match="checkpointer"):
        inspector.resume("t", {"verdict": "OK"})
    with asking(plant) as inspector:
        with pytest.raises(ConfigError, match="no inspection waits"):
            inspector.resume("never", {"verdict": "OK"})
        list(inspector.stream(plant.square, product="plate", thread_id="t"))
        with pytest.raises(ConfigError, match="not finished"):
            inspector.inspect(plant.new_good, product="plate", thread_id="t")
        inspector.resume("t", {"verdict": "OK"})
        with pytest.raises(ConfigError, match="no inspection waits"):
            inspector.resume("t", {"verdict": "OK"})


def test_a_thread_used_again_keeps_nothing_of_the_picture_before(plant: Plant, tmp_path: Path) -> None:
    def told(report: InspectionReport) -> dict[str, Any]:
        found = report.model_dump(mode="json")
        for entry in found["trace"]:
            del entry["seconds"]
        return found

    with Inspector(plant.loaded(), checkpointer=InMemorySaver()) as inspector:
        fresh = inspector.inspect(plant.new_good, product="plate", thread_id="a")
        for before in (plant.square, tmp_path / "missing.png", plant.flat):
            inspector.inspect(before, product="plate", thread_id="b")
            assert told(inspector.inspect(plant.new_good, product="plate", thread_id="b")) == told(fresh)


def test_each_checkpoint_is_plain_data(plant: Plant) -> None:
    with Inspector(plant.loaded(entropy_accept=0.0), checkpointer=InMemorySaver()) as inspector:
        inspector.inspect(plant.square, product="plate", thread_id="t")
        history = list(inspector.graph.get_state_history({"configurable": {"thread_id": "t"}}))
    assert len(history) >= 8  # one for each step of one round, and the input
    for snapshot in history:
        assert json.loads(json.dumps(snapshot.values, allow_nan=False)) == snapshot.values


# As a node of a larger workflow


class Order(TypedDict, total=False):
    """State of a workflow that has more to do than inspecting."""

    image: str
    product: str
    serial: str
    report: dict[str, Any]
    shipped: bool


def workflow(deps: InspectionDeps, checkpointer: Any) -> Any:
    graph = StateGraph(Order)
    graph.add_node("inspect", build_inspection_graph(deps))
    graph.add_node("ship", lambda state: {"shipped": state["report"]["verdict"] == "OK"})
    graph.add_edge(START, "inspect")
    graph.add_edge("inspect", "ship")
    graph.add_edge("ship", END)
    return graph.compile(checkpointer=checkpointer)


@pytest.mark.parametrize("keep", [False, True])
def test_as_a_subgraph(plant: Plant, keep: bool) -> None:
    graph = workflow(plant.deps(), InMemorySaver() if keep else None)
    config = {"configurable": {"thread_id": "order"}}
    state = graph.invoke({"image": str(plant.new_good), "product": "plate", "serial": "7"}, config)
    assert (state["shipped"], state["serial"]) == (True, "7")
    state = graph.invoke({"image": str(plant.square), "product": "plate"}, config)
    assert (state["shipped"], state["report"]["verdict"]) == (False, "NG")


def test_the_parents_checkpointer_carries_the_question(plant: Plant) -> None:
    deps = plant.deps(ask_human=True, max_actions=0)
    undecided = ReasonerReply(DraftReport(verdict=Verdict.REVIEW), 1.0, "scripted")
    deps.__dict__["reasoner"] = FunctionReasoner(lambda evidence: undecided)
    graph = workflow(deps, InMemorySaver())
    config = {"configurable": {"thread_id": "order"}}
    waiting = graph.invoke({"image": str(plant.square), "product": "plate"}, config)
    assert waiting["__interrupt__"][0].value["question"] == "Is this part OK or NG?"
    done = graph.invoke(Command(resume={"verdict": "OK", "by": "Kim"}), config)
    assert (done["shipped"], done["report"]["verdict"]) == (True, "OK")


def test_a_parent_that_answers_nonsense_is_asked_again(plant: Plant) -> None:
    deps = plant.deps(ask_human=True, max_actions=0)
    undecided = ReasonerReply(DraftReport(verdict=Verdict.REVIEW), 1.0, "scripted")
    deps.__dict__["reasoner"] = FunctionReasoner(lambda evidence: undecided)
    graph = workflow(deps, InMemorySaver())
    config = {"configurable": {"thread_id": "order"}}
    graph.invoke({"image": str(plant.square), "product": "plate"}, config)
    again = graph.invoke(Command(resume="ship it"), config)
    assert "must be a mapping" in again["__interrupt__"][0].value["problem"]
    done = graph.invoke(Command(resume={"verdict": "NG"}), config)
    assert done["report"]["verdict"] == "NG"


# Across processes

SCRIPT = """
import json, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from langgraph.checkpoint.sqlite import SqliteSaver
from fakes import FunctionReasoner, PatchStatistics
from flawscope.agent.inspector import Inspector
from flawscope.agent.reasoner import DraftReport, ReasonerReply
from flawscope.agent.schemas import Verdict
from flawscope.agent.settings import load_settings
from flawscope.tools.backbones import BACKBONES
from flawscope.tools.knowledge import builder, schema

BACKBONES["patch-statistics"] = PatchStatistics
few = tuple(page for page in schema.load_documents() if page.doc_id in {few!r})
builder.load_documents = lambda: few
loaded = load_settings(
    dict(home=Path({home!r}), backbone="patch-statistics", store="memory", false_alarm=0.15, ask_human=True,
         max_actions=0), environ={{}})
with SqliteSaver.from_conn_string({database!r}) as saver, Inspector(loaded, checkpointer=saver) as inspector:
    reply = ReasonerReply(DraftReport(verdict=Verdict.REVIEW), 1.0, "scripted")
    inspector.deps.__dict__["reasoner"] = FunctionReasoner(lambda evidence: reply)
    print({action})
"""


def elsewhere(plant: Plant, database: Path, action: str) -> str:
    """Run one action of an inspector in a process of its own; what it prints."""
    from conftest import FEW_DOCUMENTS

    script = SCRIPT.format(
        tests=str(Path(__file__).parents[1]),
        few=sorted(FEW_DOCUMENTS),
        home=str(plant.home),
        database=str(database),
        action=action,
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_question_asked_in_one_process_is_answered_in_another(plant: Plant, tmp_path: Path) -> None:
    plant.deps().knowledge.close()  # built once, here
    database = tmp_path / "threads.sqlite"
    ask = f"[kind for kind, _ in inspector.stream({str(plant.square)!r}, product='plate', thread_id='t')][-1]"
    assert elsewhere(plant, database, ask).strip() == "interrupt"
    answer = "inspector.resume('t', {'verdict': 'NG', 'by': 'Kim'}).model_dump_json()"
    report = InspectionReport.model_validate_json(elsewhere(plant, database, answer))
    assert report.verdict is Verdict.NG
    assert report.image == str(plant.square)
    assert report.regions
    assert [step.action for step in report.trace][:2] == ["load", "encode"]
