"""What an inspection does and says when the knowledge base does not know the part."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import Plant

from flawscope.agent.inspector import InspectionDeps
from flawscope.agent.schemas import InspectionReport
from flawscope.graphs.inspection import build_inspection_graph
from flawscope.tools.knowledge.base import KnowledgeBase
from flawscope.tools.knowledge.familiarity import Familiarity


def run(deps: InspectionDeps, image: Path) -> tuple[list[str], InspectionReport]:
    """Names of the steps in order, and the report."""
    report = InspectionReport.model_validate(
        build_inspection_graph(deps).invoke({"image": str(image), "product": "plate"})["report"]
    )
    return [step.action for step in report.trace], report


class Undecided:
    """A type model that cannot tell its types apart."""

    def posterior(self, feature: Any) -> list[tuple[str, float]]:
        return [("hole", 0.5), ("scratch", 0.5)]


@pytest.mark.parametrize("known_at_first", [True, False])
def test_a_further_look_cannot_contradict_what_the_first_said_of_the_base(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, known_at_first: bool
) -> None:
    """The whole picture tells whether the base knows the part; the suspicious place alone would tell otherwise."""
    answers = [known_at_first, not known_at_first]
    near = partial(Familiarity, basis="picture", similarity=0.5, threshold=0.6, nearest="general.hole")
    monkeypatch.setattr(KnowledgeBase, "familiarity", lambda *asked: near(answers.pop(0)))
    deps = plant.deps(actions=("more_docs",), documents=2)
    product = deps.product("plate")
    assert product is not None
    deps.products["plate"] = replace(product, types=Undecided())  # type: ignore[arg-type]
    steps, report = run(deps, plant.square)
    assert ("more_docs" in steps) is known_at_first
    assert any(item.id == "K2" for item in report.evidence) is not known_at_first
    found = [item for item in report.evidence if item.kind == "document" and "similarity" in item.values]
    assert len(found) == (2 if known_at_first else 0)


def test_pages_of_a_base_that_knows_nothing_of_the_product_are_not_leaned_on(plant: Plant) -> None:
    deps = plant.deps(actions=("more_docs",), documents=2)
    steps, report = run(deps, plant.square)
    assert "retrieve" in steps
    (told,) = [item for item in report.evidence if item.kind == "knowledge"]
    assert told.id == "K2"
    assert "no page about this product" in told.text
    assert told.values["known"] is False
    named = report.defect_type.name if report.defect_type else None
    documents = [item for item in report.evidence if item.kind == "document"]
    assert {item.values["defect_type"] for item in documents} <= {named}  # the type was named by examples, not pages
    cited = {cite for claim in report.claims for cite in claim.evidence_ids}
    assert cited <= {item.id for item in report.evidence}
