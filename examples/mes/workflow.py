"""The parent graph, and how parts are sent through it.

receive -> inspect -> dispose -+-> ask a person -+-> write
                               +-----------------+
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from sqlalchemy import Engine
from typing_extensions import TypedDict

from flawscope.agent import ConfigError, InputError, load_settings
from flawscope.agent.artifacts import ArtifactStore
from flawscope.agent.checkpoints import open_checkpointer
from flawscope.agent.inspector import InspectionDeps
from flawscope.graphs import build_inspection_graph

from .database import open_database, upsert
from .rules import CHOICES, RULES, disposition_of


class Part(TypedDict, total=False):
    """What the workflow knows of a part; plain data, so that every checkpointer can keep it."""

    serial: str
    image: str
    sha256: str
    product: str | None
    lot: str | None
    received: str
    report: dict[str, Any]
    disposition: dict[str, Any]
    problem: str
    answer: dict[str, str] | None
    row: dict[str, Any] | None


def receive(part: Part) -> Part:
    """Date the part. A serial number that is used again keeps nothing of its picture before."""
    return {"received": datetime.now(UTC).isoformat(timespec="seconds"), "answer": None, "problem": "", "row": None}


def dispose(part: Part) -> Part:
    """Apply the rules."""
    return {"disposition": disposition_of(part["report"], RULES)}


def ask(part: Part) -> Part:
    """Ask a person. The step runs from its top when it is resumed, so that nothing is done before the question."""
    report = part["report"]
    question = {
        "serial": part["serial"],
        "image": part["image"],
        "verdict": report["verdict"],
        "description": report["description"],
        "proposed": part["disposition"]["do"],
        "why": part["disposition"]["why"],
        "choices": list(CHOICES),
        "problem": part["problem"],
    }
    said = interrupt(question)
    if not (isinstance(said, dict) and said.get("disposition") in CHOICES and said.get("by")):
        return {"problem": f"an answer needs 'by' and a 'disposition': {', '.join(CHOICES)}"}
    answer = {"disposition": said["disposition"], "by": str(said["by"])[:80], "note": str(said.get("note") or "")[:500]}
    return {"answer": answer, "problem": ""}


def after_dispose(part: Part) -> Literal["ask", "write"]:
    """Whether a person is asked."""
    return "ask" if part["disposition"]["ask"] else "write"


def after_ask(part: Part) -> Literal["ask", "write"]:
    """Ask again when the answer was none: one question a step, so that no step is replayed for an older one."""
    return "ask" if part["problem"] else "write"


def row_of(part: Part) -> dict[str, Any]:
    """What is booked; it follows from the state alone, so writing twice writes the same."""
    report, answer = part["report"], part["answer"] or {}
    severity = part["disposition"]["severity"]
    return {
        "serial": part["serial"],
        "product": part.get("product"),
        "lot": part.get("lot"),
        "image": part["image"],
        "picture_sha256": part["sha256"],
        "verdict": report["verdict"],
        "probability": report["probability"],
        "defect_type": (report["defect_type"] or {}).get("name"),
        "severity": None if severity is None else str(severity),
        "disposition": answer.get("disposition", part["disposition"]["do"]),
        "decided_by": answer.get("by", "rules"),
        "note": answer.get("note", part["disposition"]["why"])[:500],
        "received": part["received"],
        "report": report,
    }


def build_workflow(inspection: Any, database: Engine, checkpointer: Any = None) -> Any:
    """The parent graph.

    Args:
        inspection: of ``build_inspection_graph``; a node like the others.
        database: of ``open_database``.
        checkpointer: keeps each step; without one nothing can be asked or resumed.
    """

    def write(part: Part) -> Part:
        row = row_of(part)
        upsert(database, row)
        return {"row": {name: value for name, value in row.items() if name != "report"}}

    graph = StateGraph(Part)
    graph.add_node("receive", receive)
    graph.add_node("inspect", inspection)
    graph.add_node("dispose", dispose)
    graph.add_node("ask", ask)
    graph.add_node("write", write)
    graph.add_edge(START, "receive")
    graph.add_edge("receive", "inspect")
    graph.add_edge("inspect", "dispose")
    graph.add_conditional_edges("dispose", after_dispose)
    graph.add_conditional_edges("ask", after_ask)
    graph.add_edge("write", END)
    return graph.compile(checkpointer=checkpointer)


@contextmanager
def open_workflow(database: str, checkpoints: str) -> Iterator[Any]:
    """The workflow with all it needs; arrays go to disk, or another process could not go on inside an inspection."""
    loaded, engine = load_settings({"ask_human": False}), open_database(database)  # the workflow asks, at its own step
    deps = InspectionDeps(loaded, ArtifactStore(loaded.home.artifacts))
    try:
        with open_checkpointer(checkpoints) as checkpointer:
            yield build_workflow(build_inspection_graph(deps), engine, checkpointer)
    finally:
        deps.close()
        engine.dispose()


def thread_of(serial: str) -> dict[str, Any]:
    """A part's thread is its serial number."""
    return {"configurable": {"thread_id": serial}}


def go_on(workflow: Any, given: Any, config: dict[str, Any]) -> Part:
    """Run until the end or a question, telling each step; every step is on disk before the next begins.

    Returns:
        The state that this run came to; another process may be at the same part and its thread elsewhere.
    """
    state: Part = {}
    modes = ["updates", "values"]
    for place, mode, found in workflow.stream(given, config, stream_mode=modes, subgraphs=True, durability="sync"):
        if mode == "updates":
            for name in found:
                if not name.startswith("__"):
                    print("/".join([step.partition(":")[0] for step in place] + [name]), file=sys.stderr)  # noqa: T201
        elif not place:
            state = found
    return state


def take_in(workflow: Any, serial: str, image: Path, product: str | None, lot: str | None = None) -> Part:
    """Inspect a part, or go on with it; a part whose picture was dealt with already is left alone.

    The same picture as another product is dealt with anew, like another picture.

    Raises:
        InputError: there is no such picture.
        ConfigError: the part is being worked on with another one, or as another product.
    """
    if not image.is_file():
        raise InputError(f"{image} does not exist.", hint="Check the path.")
    digest = sha256(image.read_bytes()).hexdigest()
    kept = workflow.get_state(thread_of(serial))
    same = kept.values.get("sha256") == digest and kept.values.get("product") == product
    if "sha256" not in kept.values or not (kept.next or same):
        given = {"serial": serial, "image": str(image), "sha256": digest, "product": product, "lot": lot}
        return go_on(workflow, given, thread_of(serial))
    if not same:
        what = f"{kept.values['image']} as {kept.values.get('product') or 'no product'}"
        raise ConfigError(f"part {serial} is not finished with {what}.", hint="Answer or finish it.")
    if kept.next and not kept.interrupts:
        return go_on(workflow, None, thread_of(serial))
    found: Part = kept.values
    return found


def waiting(workflow: Any) -> list[dict[str, Any]]:
    """The questions that wait for a person, by serial number, which is also the thread; read from the checkpoints.

    It looks at every thread: a plant with many thousands keeps a table of open questions instead.
    """
    begun = workflow.checkpointer.list(None, filter={"source": "input"})
    serials = sorted({str(found.config["configurable"]["thread_id"]) for found in begun})
    return [asked.value for serial in serials for asked in workflow.get_state(thread_of(serial)).interrupts]


def answer_for(workflow: Any, serial: str, answer: dict[str, str]) -> Part:
    """Answer the question that a part waits with.

    Raises:
        ConfigError: it waits with none.
    """
    if not workflow.get_state(thread_of(serial)).interrupts:
        raise ConfigError(f"part {serial} waits for nobody.", hint="Waiting and booked parts: mes_workflow.py parts")
    return go_on(workflow, Command(resume=answer), thread_of(serial))


def redo(workflow: Any, serial: str, node: str, changes: Part | None = None) -> Part:
    """Go back to the latest time that a part stood before a step, and on from there; what was stays in its history.

    Args:
        workflow: of ``build_workflow``.
        serial: the part.
        node: the step, such as ``dispose`` after the rules were changed.
        changes: of the state as it was then.

    Raises:
        ConfigError: it never stood there.
    """
    for then in workflow.get_state_history(thread_of(serial)):
        if then.next == (node,):
            return go_on(workflow, None, workflow.update_state(then.config, changes or {}))
    raise ConfigError(f"part {serial} never stood before {node}.")
