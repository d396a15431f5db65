"""An inspection inside a larger LangGraph workflow: receive a part, inspect it, send it on its way.

    python examples/parent_graph.py                         # three pictures of the textile beside this file
    python examples/parent_graph.py PICTURE...              # your own

The inspection is one node of the parent graph. What it shares with the parent are ``image`` and ``report``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal, TypedDict

from langgraph.graph import END, START, StateGraph

from flawscope.agent import Inspector

TEXTILE = Path(__file__).parent / "textile"
REFERENCES = sorted((TEXTILE / "good").glob("*.jpg"))[:12]


class Part(TypedDict, total=False):
    """What the workflow knows of a part."""

    serial: str
    image: str
    report: dict[str, Any]
    disposition: str


def receive(part: Part) -> Part:
    """Give the part a number; a real plant would read its label."""
    return {"serial": f"part-{Path(part['image']).stem}"}


def by_verdict(part: Part) -> Literal["ship", "rework", "quarantine"]:
    """OK ships, NG is reworked, and what is unclear or failed waits for a person."""
    if part["report"]["verdict"] == "OK":
        return "ship"
    return "rework" if part["report"]["verdict"] == "NG" else "quarantine"


def build(inspector: Inspector) -> Any:
    """The parent graph; the inspector must stay open while it is used."""
    graph = StateGraph(Part)
    graph.add_node("receive", receive)
    graph.add_node("inspect", inspector.graph)
    graph.add_node("ship", lambda part: {"disposition": "to the warehouse"})
    graph.add_node("rework", lambda part: {"disposition": f"to rework: {part['report']['description']}"})
    graph.add_node("quarantine", lambda part: {"disposition": f"on hold: {part['report']['verdict_reason']}"})
    graph.add_edge(START, "receive")
    graph.add_edge("receive", "inspect")
    graph.add_conditional_edges("inspect", by_verdict)
    for last in ("ship", "rework", "quarantine"):
        graph.add_edge(last, END)
    return graph.compile()


def main(pictures: list[str]) -> None:
    """Send each picture through the workflow."""
    with Inspector(references=REFERENCES) as inspector:
        workflow = build(inspector)
        for picture in pictures:
            part = workflow.invoke({"image": picture})
            print(f"{part['serial']}: {part['report']['verdict']}, {part['disposition']}")  # noqa: T201


if __name__ == "__main__":
    # A good part, a defective one and one in doubt. Not every defect is found: local_000 of the same folder is missed.
    main(sys.argv[1:] or [str(TEXTILE / "test" / f"{name}.jpg") for name in ("good_000", "global_000", "local_002")])
