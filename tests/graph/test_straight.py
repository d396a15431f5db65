"""The steps one after the other give the graph's reports."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import FunctionReasoner

from flawscope.agent.errors import ConfigError
from flawscope.agent.inspector import Inspector
from flawscope.agent.reasoner import DraftReport, EvidenceBundle, ReasonerReply
from flawscope.agent.schemas import InspectionReport, Verdict
from flawscope.graphs.straight import StraightInspection


def told(report: InspectionReport) -> dict[str, Any]:
    plain = report.model_dump(mode="json")
    for step in plain["trace"]:
        del step["seconds"]
    return plain


def unsure(evidence: EvidenceBundle) -> ReasonerReply:
    """In doubt whatever it is shown; its verdict follows the score."""
    above = (evidence.image_score or 0.0) >= (evidence.threshold or 0.0)
    return ReasonerReply(DraftReport(verdict=Verdict.NG if above else Verdict.OK), 1.0, "scripted")


@pytest.mark.parametrize("product", ["plate", None, "nothing like it"])
def test_reports_are_the_graphs(plant: Any, product: str | None) -> None:
    with Inspector(plant.loaded()) as inspector:
        straight = StraightInspection(inspector.deps)
        for path in (plant.new_good, plant.square, plant.scratch, plant.flat, plant.good[0], plant.home / "none.png"):
            assert told(straight.inspect(str(path), product)) == told(inspector.inspect(path, product=product))


def test_doubtful_parts_are_looked_at_again_as_in_the_graph(plant: Any) -> None:
    with Inspector(plant.loaded()) as inspector:
        inspector.deps.reasoner = FunctionReasoner(unsure)
        by_graph = inspector.inspect(plant.scratch, product="plate")
        assert told(StraightInspection(inspector.deps).inspect(str(plant.scratch), "plate")) == told(by_graph)
    assert {"zoom", "reference", "self_consistency"} <= {step.action for step in by_graph.trace}


def test_a_person_cannot_be_asked(plant: Any) -> None:
    deps = plant.deps(ask_human=True)
    with pytest.raises(ConfigError, match="needs the graph"):
        StraightInspection(deps)
