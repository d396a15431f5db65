"""A calibrator in the loop: P(correct) decides what is looked at again and what a person sees, and reports say so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Plant
from fakes import FunctionReasoner

from flawscope.agent.errors import ConfigError, WeightsError
from flawscope.agent.inspector import InspectionDeps, Inspector
from flawscope.agent.reasoner import DraftReport, ReasonerReply
from flawscope.agent.schemas import Claim, InspectionReport, Verdict
from flawscope.agent.terminal import certainty_in_words
from flawscope.agent.uncertainty.calibrator import Calibrator, Task, Weighed
from flawscope.agent.uncertainty.inspections import inspected, record_of
from flawscope.agent.uncertainty.thresholds import Threshold, default_threshold
from flawscope.benchmarks.calibration import read_answers
from flawscope.graphs.doubt import doubt_in_words, unsettled
from flawscope.graphs.inspection import build_inspection_graph


def made(odds: float, *, low: float | None = 0.1, weight: float = 0.0, **changed: Any) -> Calibrator:
    """A calibrator that gives every answer these log-odds, less ``weight`` per unit of entropy."""
    chosen = Threshold(on="p_correct", low=low, high=low, target=0.05, answers=100)
    whole = {
        "inputs_sha256": (),
        "products": ("other",),
        "model": "evidence",
        "answers": 100,
        "temperature": None,
        "signs": (Weighed(name="entropy", mean=0.0, scale=1.0, weight=-weight, unknown_weight=None),),
        "intercept": odds,
        "tasks": {"detection": Task(weight=0.0, patterns=("1",), threshold=chosen)},
    }
    return Calibrator.model_validate(whole | changed)


def inspect(
    plant: Plant, picture: Path, tmp_path: Path, calibrator: Calibrator | None, **flags: Any
) -> InspectionReport:
    if calibrator is not None:
        calibrator.save(tmp_path / "c.json")
        flags["calibrator"] = tmp_path / "c.json"
    with Inspector(plant.loaded(**flags)) as inspector:
        inspector.prepare("plate")
        return inspector.inspect(picture, product="plate")


def test_a_probable_answer_stands_and_the_report_says_how_probable(plant: Plant, tmp_path: Path) -> None:
    report = inspect(plant, plant.square, tmp_path, made(4.0))
    assert report.verdict is Verdict.NG
    assert certainty_in_words(report) == "such answers are right with a probability of 0.98"
    assert report.uncertainty.p_correct == pytest.approx(0.982, abs=1e-3)
    assert report.uncertainty.source.endswith("calibrated on 100 answers")
    assert report.provenance["doubt"]["calibrator"] == made(4.0).sha256
    assert not {"zoom", "reference", "self_consistency"} & {step.action for step in report.trace}


@pytest.mark.parametrize("low", [0.1, None])
def test_an_improbable_one_is_looked_at_again_and_goes_to_a_person(
    plant: Plant, tmp_path: Path, low: float | None
) -> None:
    report = inspect(plant, plant.square, tmp_path, made(0.0, low=low))
    plain = inspect(plant, plant.square, tmp_path, None)
    assert plain.verdict is Verdict.NG  # the entropy alone lets it stand
    assert certainty_in_words(plain) == ""
    assert report.verdict is Verdict.REVIEW
    assert report.uncertainty.p_correct == 0.5
    assert {"zoom", "reference", "self_consistency"} <= {step.action for step in report.trace}


def test_doubt_follows_the_entropy_of_each_round(plant: Plant, tmp_path: Path) -> None:
    report = inspect(plant, plant.square, tmp_path, made(4.0, weight=8.0))
    entropy = report.uncertainty.entropy
    assert entropy is not None
    assert report.uncertainty.p_correct is not None
    assert report.uncertainty.p_correct == pytest.approx(1 / (1 + 2.718281828459045 ** -(4.0 - 8.0 * entropy)))


def test_without_a_calibration_nothing_is_claimed(plant: Plant, tmp_path: Path) -> None:
    few = made(4.0, tasks={"detection": Task(weight=0.0, patterns=("1",), threshold=default_threshold(0.05, 12))})
    strange = made(4.0, tasks={})
    for calibrator, said in (
        (None, "calibrated probability"),
        (few, "too few answers"),
        (strange, "saw none like this"),
    ):
        report = inspect(plant, plant.square, tmp_path, calibrator)
        assert report.verdict is Verdict.NG  # by the entropy
        assert report.uncertainty.p_correct is None
        assert said in report.uncertainty.source


def test_a_model_without_a_calibrator_is_uncalibrated(plant: Plant) -> None:
    def answer(bundle: Any) -> ReasonerReply:
        cites = tuple(item.id for item in bundle.items if item.kind == "measurement")
        claim = Claim(field="verdict", text="It deviates.", evidence_ids=cites)
        return ReasonerReply(DraftReport(verdict=Verdict.NG, claims=(claim,)), 0.05, "tokens", parts={"verdict": 0.05})

    deps = plant.deps()
    deps.__dict__["reasoner"] = FunctionReasoner(answer)
    state = build_inspection_graph(deps).invoke({"image": str(plant.square), "product": "plate"})
    report = InspectionReport.model_validate(state["report"])
    assert report.uncertainty.source == "tokens; uncalibrated"
    assert certainty_in_words(report) == "uncalibrated"
    assert report.uncertainty.p_correct is None


def test_a_calibrator_of_another_reasoner_or_a_broken_one_stops_before_the_first_picture(
    plant: Plant, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="fitted to the answers of 'qwen_vl'"):
        inspect(plant, plant.square, tmp_path, made(0.0, model="qwen_vl"))
    (tmp_path / "bad.json").write_text("{}")
    with Inspector(plant.loaded(calibrator=tmp_path / "bad.json")) as inspector, pytest.raises(WeightsError):
        inspector.prepare("plate")
    assert InspectionDeps(plant.loaded()).calibrator is None


# --- what an inspection knows -----------------------------------------------------------------------------------------


def test_signs_of_a_models_verdict() -> None:
    parts = {"p_ok": 0.1, "p_ng": 0.7, "p_review": 0.2, "mass": 0.95, "verdict": 0.5}
    known = inspected(product="bolt", reasoner="m", parts=parts, probability=0.3, similarities=[0.2, 0.6])
    assert known.p_defect == pytest.approx(0.8)
    assert (known.answer, known.s_cal, known.retrieval_similarity, known.mass) == ("NG", 0.3, 0.6, 0.95)
    assert known.probabilities == {"OK": 0.1, "NG": 0.7, "REVIEW": 0.2}


def test_a_model_without_token_probabilities_is_not_credited_with_the_experts() -> None:
    known = inspected(product=None, reasoner="m", parts={"verdict": None}, probability=0.9, similarities=[])
    assert (known.probabilities, known.entropy, known.p_defect) == (None, None, None)
    assert (known.s_cal, known.answer, known.product) == (0.9, "NG", "none")
    blind = inspected(product=None, reasoner="m", parts={}, probability=None, similarities=[])
    assert blind.answer is None


def test_reports_become_a_log_by_the_names_of_their_folders(plant: Plant, tmp_path: Path) -> None:
    report = inspect(plant, plant.square, tmp_path, None)
    good = inspect(plant, plant.new_good, tmp_path, None)
    defective = record_of(report, defective=True)
    assert defective is not None
    assert (defective.answer, defective.truth, defective.correct) == ("NG", "NG", True)
    assert defective.s_cal == report.probability
    assert defective.model == "evidence"
    lines = [report.model_copy(update={"image": "set/hole/1.png"}), good.model_copy(update={"image": "set/good/2.png"})]
    path = tmp_path / "reports.jsonl"
    path.write_text("\n".join(line.model_dump_json() for line in lines) + "\n")
    read = read_answers(path).records
    assert [(r.truth, r.correct) for r in read] == [("NG", True), ("OK", good.verdict is not Verdict.NG)]
    assert [r.truth for r in read_answers(path, "hole").records] == ["OK", "NG"]
    odd = report.model_copy(update={"image": "set/hole/a\u2028b\x85c.png"})  # JSON need not escape these line breaks
    path.write_text("\n".join(line.model_dump_json() for line in (odd, good)) + "\r\n", encoding="utf-8")
    assert len(read_answers(path).records) == 2


def test_failures_and_peoples_decisions_are_no_answers(plant: Plant, tmp_path: Path) -> None:
    failed = inspect(plant, tmp_path / "none.png", tmp_path, None)
    assert record_of(failed, defective=True) is None
    path = tmp_path / "reports.jsonl"
    path.write_text(failed.model_dump_json())
    with pytest.raises(Exception, match="leans to either side"):
        read_answers(path)
    path.write_text(json.dumps({"schema_version": "1.0"}))
    with pytest.raises(Exception, match=r"line 1 .* no report"):
        read_answers(path)


def test_what_is_said_of_doubt() -> None:
    assert unsettled({}) is None
    assert doubt_in_words({}) == ""
    sure = {"p_correct": 0.95, "accepted": 0.1, "calibrator": "x"}
    assert unsettled(sure) is False
    assert doubt_in_words(sure) == ""
    assert doubt_in_words(sure | {"p_correct": 0.7}).endswith("probability of 0.70, and 0.90 is asked for")
    assert "no share" in doubt_in_words(sure | {"accepted": None})


def test_the_last_round_tells_a_reasoner_why(plant: Plant, tmp_path: Path) -> None:
    from flawscope.agent.reasoner.evidence import EvidenceReasoner

    calibrator = made(0.0, model="function")
    calibrator.save(tmp_path / "c.json")
    deps = plant.deps(calibrator=tmp_path / "c.json")
    reasoner = FunctionReasoner(lambda bundle: EvidenceReasoner().reason(bundle, (), DraftReport))
    deps.__dict__["reasoner"] = reasoner
    build_inspection_graph(deps).invoke({"image": str(plant.square), "product": "plate"})
    assert reasoner.seen[-1].final
    assert "0.50" in reasoner.seen[-1].doubt
    assert replace(reasoner.seen[-1], doubt="").doubt == ""


def test_the_doctor_reads_the_calibrator(plant: Plant, tmp_path: Path) -> None:
    from flawscope.agent.doctor import _calibrator

    assert _calibrator(plant.loaded()).state == "optional"
    made(1.0).save(tmp_path / "c.json")
    assert _calibrator(plant.loaded(calibrator=tmp_path / "c.json")).state == "ok"
    made(1.0, model="other").save(tmp_path / "d.json")
    foreign = _calibrator(plant.loaded(calibrator=tmp_path / "d.json"))
    assert (foreign.state, foreign.exit_code) == ("broken", 2)
    missing = _calibrator(plant.loaded(calibrator=tmp_path / "none.json"))
    assert (missing.state, missing.exit_code) == ("broken", 9)
