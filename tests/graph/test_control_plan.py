"""A control plan in the inspection: what it asks for is evidence, what it says of bad parts is cited, regions hold."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import Plant

from flawscope.agent.errors import ProductError
from flawscope.agent.inspector import Inspector
from flawscope.agent.reasoner import EvidenceBundle
from flawscope.agent.reasoner.composing import compose
from flawscope.agent.schemas import InspectionReport, Verdict
from flawscope.tools.control_plan.reading import parse_plan, product_plan
from flawscope.tools.control_plan.store import PlanStore
from flawscope.tools.products import enroll_product

PLAN = """
products:
  - product: plate
    severity: 7
    disposition: scrap
    scale_px_per_mm: 10
    tools: [count, arrangement, template, measurement]
"""
REGIONS = """
products:
  - product: plate
    picture_size_px: [480, 480]
    regions: [{name: label, look: ignore, box: [0, 0, 240, 240]}]
"""


def home_with(plant: Plant, tmp_path: Path, plan: str) -> Path:
    home = tmp_path / "home"
    shutil.copytree(plant.home, home)
    PlanStore(home / "plans").set("plate", plan, author="ann")
    return home


def inspected(plant: Plant, home: Path, *pictures: Path) -> list[InspectionReport]:
    with Inspector(plant.loaded(home=home)) as inspector:
        return [inspector.inspect(picture, product="plate") for picture in pictures]


def test_checks_are_evidence_and_the_disposition_is_cited(plant: Plant, tmp_path: Path) -> None:
    (bad,) = inspected(plant, home_with(plant, tmp_path, PLAN), plant.square)
    assert bad.error is None
    assert bad.verdict is Verdict.NG
    found = {item.id: item for item in bad.evidence}
    assert {"L1", "L2", "X1", "W1", "P1"} <= set(found)
    assert found["P1"].kind == "plan"
    x0, _, x1, _ = bad.regions[0].box
    assert found["W1"].values["width_mm"] == pytest.approx((x1 - x0) / 10)
    assert "severity 7; disposition: scrap" in bad.action
    assert any(claim.field == "action" and claim.evidence_ids == ("P1",) for claim in bad.claims)


def test_what_the_plan_calls_normal_is_told_to_models_and_people(plant: Plant, tmp_path: Path) -> None:
    plan = "products:\n  - product: plate\n    normal_traits: [The mark may be faint., Edges may shine]\n"
    (bad,) = inspected(plant, home_with(plant, tmp_path, plan), plant.square)
    (traits,) = [item for item in bad.evidence if item.kind == "plan"]
    assert traits.text == "The control plan calls normal: The mark may be faint. Edges may shine."
    assert traits.source == "control plan, version 1"
    turns = compose(EvidenceBundle("plate", None, None, None, calibrated=False, items=(traits,)), [])
    told = "".join(part for turn in turns for part in turn.parts if isinstance(part, str))
    assert "[P2] The control plan calls normal: The mark may be faint. Edges may shine." in told


def test_without_a_plan_the_report_is_as_before(plant: Plant) -> None:
    (report,) = inspected(plant, plant.home, plant.square)
    assert not {item.id[0] for item in report.evidence} & {"L", "X", "W", "P"}


def test_an_ignored_region_is_not_judged_once_enrolled_with_it(plant: Plant, tmp_path: Path) -> None:
    home = home_with(plant, tmp_path, REGIONS)
    with pytest.raises(ProductError, match="other regions"):
        plant_product(plant, home)
    plan = product_plan(parse_plan(REGIONS), "plate")
    with Inspector(plant.loaded(home=home)) as inspector:
        enroll_product(home / "products", "plate", plant.good, inspector.deps.backbone, plan=plan, replace=True)
    square, scratch = inspected(plant, home, plant.square, plant.scratch)
    assert square.verdict is not Verdict.NG
    assert square.regions == ()
    assert scratch.verdict is Verdict.NG


def plant_product(plant: Plant, home: Path) -> None:
    with Inspector(plant.loaded(home=home)) as inspector:
        inspector.deps.product("plate")
