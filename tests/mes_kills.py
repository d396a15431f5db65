"""Kill the MES workflow at a point of each step, for real: ``mes_kills.py PICTURE DATABASE CHECKPOINTS POINT...``.

A point is ``STEP:start`` or ``STEP:end``. At its start a step's predecessors are in the checkpoint and itself did
nothing; at its end its work is done and in no checkpoint. For each point a part of its own is sent through the workflow
by processes that die by SIGKILL there, until it is booked, and then sent through once more. What came of it is written
to standard output as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import mes.workflow
import mes_workflow
from conftest import FEW_DOCUMENTS
from fakes import PatchStatistics
from mes.database import PARTS, open_database
from sqlalchemy import select

from flawscope.graphs.nodes import InspectionNodes
from flawscope.tools.backbones import BACKBONES
from flawscope.tools.knowledge import builder, schema

PICTURE, DATABASE, CHECKPOINTS = sys.argv[1:4]
OWN_STEPS = {"receive": "receive", "dispose": "dispose", "ask": "ask", "write": "upsert"}


def dying(step: Callable[..., Any], at_start: bool) -> Callable[..., Any]:
    """The step, with the end of the process in it."""

    def run(*arguments: Any) -> Any:
        if not at_start:
            step(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    return run


def arm(point: str) -> None:
    """Let this process die at a point."""
    step, _, when = point.partition(":")
    holder, name = (mes.workflow, OWN_STEPS[step]) if step in OWN_STEPS else (InspectionNodes, step)
    setattr(holder, name, dying(getattr(holder, name), when == "start"))


def command(arguments: list[str], point: str | None = None) -> tuple[bool, list[str]]:
    """One command in a process of its own: whether it died at the point, which it must or end well, and its steps."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(2, 1)
        os.dup2(writer, 2)
        os.close(reader)
        if point is not None:
            arm(point)
        os._exit(mes_workflow.main(["--database", DATABASE, "--checkpoints", CHECKPOINTS, *arguments]))
    os.close(writer)
    with os.fdopen(reader) as told:
        steps = told.read().splitlines()
    status = os.waitpid(pid, 0)[1]
    if status not in (0, signal.SIGKILL):
        raise RuntimeError(f"{arguments} ended with {os.waitstatus_to_exitcode(status)}: {steps}")
    return status == signal.SIGKILL, steps


def rows(serial: str | None = None) -> list[dict[str, Any]]:
    """What is booked."""
    engine = open_database(DATABASE)
    with engine.connect() as connection:
        found = [dict(row) for row in connection.execute(select(PARTS)).mappings()]
    engine.dispose()
    return [row for row in found if serial in (None, row["serial"])]


def send(serial: str, point: str | None) -> dict[str, Any]:
    """Send one part through, dying once on the way; what was done after that, and how often a person was asked."""
    part = ["part", serial, PICTURE, "--product", "plate"]
    answer = ["answer", serial, "--disposition", "rework", "--by", "Kim"]
    died, _ = command(part, point)
    resumed = command(part)[1] if died else []
    answers = 0
    while not rows(serial):
        answers += 1
        if command(answer, None if died else point)[0]:
            died, resumed = True, command(part)[1]
        if answers > 2:
            raise RuntimeError(f"{serial} is asked about without end")
    return {"died": died, "resumed": resumed, "answers": answers, "once_more": command(part)[1]}


if __name__ == "__main__":
    few = tuple(page for page in schema.load_documents() if page.doc_id in FEW_DOCUMENTS)
    BACKBONES["patch-statistics"] = PatchStatistics
    builder.load_documents = lambda: few
    told = {point or "nowhere": send(point or "nowhere", point) for point in (None, *sys.argv[4:])}
    sys.stdout.write(json.dumps({"told": told, "rows": rows()}))
