"""A doubtful model is asked again where that is allowed: what it says then is evidence, and signs for a calibrator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from conftest import Plant

from flawscope.agent.inspector import InspectionDeps
from flawscope.agent.reasoner.model_reasoner import ModelReasoner
from flawscope.agent.schemas import InspectionReport
from flawscope.agent.uncertainty.inspections import record_of
from flawscope.agent.vision_language import Generated, LetterAnswer, Message
from flawscope.agent.vision_language.fakes import spoken
from flawscope.graphs.inspection import build_inspection_graph


def head(verdict: str, kind: str = "none", region: str = "none") -> str:
    return json.dumps({"verdict": verdict, "defect_type": kind, "region": region, "sentences": []})


class Wavers:
    """Says NG, and when drawn what it is given; as a letter always the one that is named first, or a steady Yes."""

    name = "wavers"

    def __init__(self, drawn: Sequence[str], *, steady: bool = False, certainty: float = 0.8) -> None:
        self.drawn, self.steady, self.certainty = drawn, steady, certainty
        self.temperatures: list[float] = []
        self.lengths: list[int] = []
        self.questions: list[str] = []

    def generate(
        self, messages: Sequence[Message], *, max_tokens: int = 0, temperature: float = 0.0, seed: int = 0, **_: Any
    ) -> Generated:
        self.temperatures.append(temperature)
        if temperature == 0.0:
            return spoken(head("NG", "unknown", "R1"), certainty=self.certainty)
        self.lengths.append(max_tokens)
        return Generated(self.drawn[seed][:60], None, "length")  # the beginning is enough

    def choose(self, messages: Sequence[Message], letters: Sequence[str]) -> LetterAnswer:
        text = messages[-1].text
        self.questions.append(text)
        letter = ("A" if "A. Yes." in text else "B") if self.steady else "A"
        return LetterAnswer(letter, None, None, letter)


DRAWN = (head("NG", "unknown", "R1"), head("NG", "unknown", "R1"), head("OK"), "I do not know.", head("NG", "scratch"))


def inspected(plant: Plant, model: Wavers, **flags: Any) -> InspectionReport:
    deps: InspectionDeps = plant.deps(**{"max_actions": 0, "entropy_settled": 0.0, "ask_again": True, **flags})
    deps.__dict__["reasoner"] = ModelReasoner(model, name="qwen_vl")
    state = build_inspection_graph(deps).invoke({"image": str(plant.square), "product": "plate"})
    return InspectionReport.model_validate(state["report"])


def test_what_it_says_again_is_evidence_and_signs_of_doubt(plant: Plant) -> None:
    model = Wavers(DRAWN)
    report = inspected(plant, model)
    assert report.error is None
    assert model.temperatures == [0.0, *[0.7] * 5]
    assert model.lengths == [64] * 5
    (item,) = (item for item in report.evidence if item.id == "S2")
    assert item.text == (
        "Asked again, 3 of 5 answers drawn at a temperature of 0.7 say NG, and 1 of 2 orders of the options."
    )
    again = report.provenance["again"]
    assert again["samples"] == ["NG | unknown | upper left"] * 2 + ["OK |  | ", None, "NG | scratch | "]
    assert again["permuted"] == ["NG", "OK"]  # the first option, whatever it says
    # clusters of 2, 1, 1, 1 of five: (.4 log 2.5 + .6 log 5) / log 5
    assert report.uncertainty.parts["semantic"] == pytest.approx(0.8277, abs=1e-4)
    assert report.uncertainty.parts["permutation"] == 0.5
    assert ["A. Yes.\nB. No." in question for question in model.questions] == [True, False]
    known = record_of(report, defective=True)
    assert known is not None
    assert (known.samples, known.permuted) == (tuple(again["samples"]), ("NG", "OK"))


def test_one_that_says_the_same_has_none(plant: Plant) -> None:
    report = inspected(plant, Wavers([head("NG", "unknown", "R1")] * 5, steady=True))
    assert (report.uncertainty.parts["semantic"], report.uncertainty.parts["permutation"]) == (0.0, 0.0)


@pytest.mark.parametrize("flags", [{"ask_again": False}, {"entropy_settled": 1.0}])
def test_it_is_not_asked_again_where_that_is_off_or_the_verdict_is_settled(plant: Plant, flags: dict[str, Any]) -> None:
    model = Wavers(DRAWN)
    report = inspected(plant, model, **flags)
    assert model.temperatures == [0.0]
    assert model.questions == []
    assert "again" not in report.provenance
    assert not any(item.id == "S2" for item in report.evidence)


def test_it_is_asked_again_once_however_often_the_part_is_looked_at(plant: Plant) -> None:
    model = Wavers(DRAWN)
    report = inspected(
        plant, model, max_actions=2, actions=("zoom", "reference"), entropy_accept=0.0, time_budget_s=3600.0
    )
    assert [step.action for step in report.trace].count("reason") > 1
    assert model.temperatures.count(0.7) == 5
    assert any(item.id == "S2" for item in report.evidence)


def test_the_embedded_reasoner_is_not_asked(plant: Plant) -> None:
    deps = plant.deps(max_actions=0, ask_again=True, entropy_settled=0.0)
    state = build_inspection_graph(deps).invoke({"image": str(plant.square), "product": "plate"})
    assert "again" not in state["report"]["provenance"]
