"""The report: closed, frozen, consistent in itself, and equal to its committed JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flawscope.agent.schemas import (
    Claim,
    Evidence,
    InspectionReport,
    Region,
    ReportError,
    TraceStep,
    Uncertainty,
    Verdict,
)

SCHEMA = Path(__file__).parents[2] / "docs" / "report.schema.json"
UNKNOWN = Uncertainty(entropy=None, source="uncalibrated", calibrated=False)
MEASURED = Evidence(id="M1", kind="measurement", text="")


def report(**changes: Any) -> InspectionReport:
    given = {"image": "a.png", "sha256": None, "product": None, "verdict": "REVIEW", "uncertainty": UNKNOWN}
    return InspectionReport(**{**given, **changes})


def test_the_committed_schema_is_the_models() -> None:
    wanted = json.dumps(InspectionReport.model_json_schema(), indent=2, sort_keys=True) + "\n"
    assert SCHEMA.read_text(encoding="utf-8") == wanted, (
        "docs/report.schema.json is stale. If the change is meant (and schema_version raised when it breaks readers), "
        'write it again:\n  python -c "import json; from flawscope.agent.schemas import InspectionReport as R; '
        'print(json.dumps(R.model_json_schema(), indent=2, sort_keys=True))" > docs/report.schema.json'
    )


def test_a_report_survives_json() -> None:
    full = report(
        verdict="NG",
        image_score=1.5,
        evidence=(MEASURED,),
        claims=(Claim(field="verdict", text="so", evidence_ids=("M1",)),),
        regions=(Region(id="R1", box=(0, 0, 1, 1), area_px=1, peak=0.5, place="centre"),),
        trace=(TraceStep(action="load", seconds=0.1),),
    )
    assert InspectionReport.model_validate_json(full.model_dump_json()) == full
    assert InspectionReport.model_validate(full.model_dump(mode="json")) == full


def test_a_report_cannot_be_changed_or_extended() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        report().verdict = Verdict.OK
    with pytest.raises(ValidationError, match="Extra inputs"):
        report(colour="red")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"verdict": "OK"}, "verdict OK without an image_score"),
        ({"verdict": "NG"}, "verdict NG without an image_score"),
        (
            {"verdict": "OK", "image_score": 1.0, "error": ReportError(code="x", message="y", exit_code=4)},
            "never a judgement",
        ),
        ({"evidence": (MEASURED, MEASURED)}, "not unique"),
        ({"claims": (Claim(field="action", text="do", evidence_ids=("D9",)),)}, "unknown evidence"),
        ({"probability": 1.1}, "less than or equal to 1"),
        ({"probability": float("nan")}, "finite|less than|greater than"),
        ({"image_score": float("inf")}, "finite"),
        ({"verdict": "MAYBE"}, "'OK', 'NG' or 'REVIEW'"),
        ({"schema_version": "0.9"}, "1.0"),
    ],
)
def test_what_does_not_hang_together_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        report(**changes)


def test_a_person_may_judge_what_has_no_score() -> None:
    person = Evidence(id="H1", kind="person", text="seen")
    assert report(verdict="OK", evidence=(person,)).verdict is Verdict.OK


@pytest.mark.parametrize("box", [(0, 0, 0, 1), (0, 0, 1, 0), (-1, 0, 1, 1), (2, 0, 1, 1)])
def test_boxes_are_half_open_and_not_empty(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValidationError, match="half-open"):
        Region(id="R1", box=box, area_px=1, peak=0.1, place="centre")


def test_a_claim_cites_something() -> None:
    with pytest.raises(ValidationError, match="at least 1"):
        Claim(field="verdict", text="x", evidence_ids=())


def test_names_that_are_not_utf8_can_be_written() -> None:
    assert json.loads(report(image="part\udcff.png").model_dump_json())["image"] == "part\\xff.png"
