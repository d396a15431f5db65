"""Fitting P(correct), its file, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flawscope.agent.errors import ConfigError, FlawscopeError, WeightsError
from flawscope.agent.uncertainty.calibrator import Calibrator, load_calibrator, refuse_overlap
from flawscope.agent.uncertainty.features import FEATURES
from flawscope.agent.uncertainty.fitting import cross_fitted, fit_calibrator, fit_temperature
from flawscope.agent.uncertainty.records import Answered, AnswerRecord

SHA = "a" * 64


def answers(count: int = 400, products: int = 4, seed: int = 0, **fixed: Any) -> list[AnswerRecord]:
    """Yes/no answers stated too surely, by a factor of two in the log-odds; the expert knows a little more."""
    rng, made = np.random.default_rng(seed), []
    for i in range(count):
        odds = rng.normal(0.0, 1.5)
        true_p = 1 / (1 + np.exp(-odds))
        stated = 1 / (1 + np.exp(-2 * odds))
        defective = bool(rng.random() < true_p)
        answer = "A" if stated >= 0.5 else "B"
        truth = "A" if defective else "B"
        given: dict[str, Any] = {
            "id": str(i),
            "task": "detection",
            "product": f"p{i % products}",
            "answer": answer,
            "truth": truth,
            "correct": answer == truth,
            "probabilities": {"A": stated, "B": 1 - stated},
            "p_defect": stated,
            "s_cal": float(np.clip(0.8 * defective + 0.1 + rng.normal(0, 0.2), 0, 1)),
        }
        made.append(AnswerRecord.model_validate(given | fixed))
    return made


def test_the_temperature_undoes_what_was_stated_too_surely() -> None:
    assert fit_temperature(answers(4000)) == pytest.approx(2.0, rel=0.1)
    one_without = [*answers(50), *answers(1, probabilities=None, entropy=0.5)]
    assert fit_temperature(one_without) is None
    assert fit_temperature(answers(50, truth=None)) is None


@pytest.mark.parametrize("method", ["logistic", "isotonic"])
def test_probabilities_come_true_on_products_left_out(method: Any) -> None:
    records = answers(1200)
    fitted = cross_fitted(records, method=method)
    p = np.array([-1.0 if value is None else value for value in fitted])
    right = np.array([record.correct for record in records])
    assert p.min() >= 0.0
    assert abs(p.mean() - right.mean()) < 0.02
    assert np.mean((p - right) ** 2) < np.mean(
        (np.array([max(r.probabilities.values()) for r in records if r.probabilities]) - right) ** 2
    )
    assert right[p > 0.9].mean() > 0.9
    assert right[p < 0.5].mean() < 0.5


def test_more_doubt_is_less_probable() -> None:
    fitted = fit_calibrator(answers())
    assert [sign.name for sign in fitted.signs] == ["entropy", "disagreement"]
    assert all(sign.weight < 0 for sign in fitted.signs)
    base = {"task": "detection", "product": "new", "probabilities": {"A": 0.9, "B": 0.1}, "p_defect": 0.9}
    agreeing = fitted.p_correct(Answered.model_validate(base | {"s_cal": 0.9}))
    opposed = fitted.p_correct(Answered.model_validate(base | {"s_cal": 0.1}))
    assert agreeing is not None
    assert opposed is not None
    assert agreeing > opposed


def test_what_the_calibration_never_saw_gives_no_probability() -> None:
    fitted = fit_calibrator(answers())
    whole = {
        "task": "detection",
        "product": "new",
        "probabilities": {"A": 0.9, "B": 0.1},
        "p_defect": 0.9,
        "s_cal": 0.9,
    }
    assert fitted.p_correct(Answered.model_validate(whole)) is not None
    assert fitted.p_correct(Answered.model_validate(whole | {"s_cal": None})) is None
    assert fitted.p_correct(Answered.model_validate(whole | {"probabilities": None, "entropy": 0.1})) is None
    assert fitted.p_correct(Answered.model_validate(whole | {"task": "defect_analysis"})) is None
    assert not fitted.threshold("defect_analysis").calibrated


def test_a_sign_that_is_sometimes_unknown_has_a_weight_for_that() -> None:
    # Where the expert is silent every third answer is wrong, whatever the entropy says.
    silent = answers(300, seed=1, s_cal=None, entropy=None)
    silent = [record.model_copy(update={"correct": i % 3 != 0}) for i, record in enumerate(silent)]
    told = [record.model_copy(update={"correct": True}) for record in answers(300, seed=2)]
    fitted = fit_calibrator([*silent, *told])
    apart = next(sign for sign in fitted.signs if sign.name == "disagreement")
    assert apart.unknown_weight is not None
    assert apart.unknown_weight < 0
    assert next(sign for sign in fitted.signs if sign.name == "entropy").unknown_weight is None
    assert set(fitted.tasks["detection"].patterns) == {"10", "11"}


def test_a_pattern_of_a_few_answers_does_not_count() -> None:
    few = answers(9, seed=3, s_cal=None)
    assert fit_calibrator([*answers(), *few]).tasks["detection"].patterns == ("11",)
    ten = answers(10, seed=3, s_cal=None)
    assert fit_calibrator([*answers(), *ten]).tasks["detection"].patterns == ("10", "11")


def test_only_the_signs_asked_for_are_weighed() -> None:
    fitted = fit_calibrator(answers(), features=("disagreement",))
    assert [sign.name for sign in fitted.signs] == ["disagreement"]
    with pytest.raises(ConfigError, match="none of the signs"):
        fit_calibrator(answers(), features=("semantic_entropy",))


def test_thresholds_keep_the_error_on_other_products() -> None:
    fitted = fit_calibrator(answers(1500), features=FEATURES)
    chosen = fitted.threshold("detection")
    assert chosen.calibrated
    assert chosen.low is not None
    fresh = answers(3000, seed=9)
    stands = [r for r in fresh if (p := fitted.p_correct(r)) is not None and 1 - p <= chosen.low]
    assert len(stands) > 0.15 * len(fresh)
    assert np.mean([not r.correct for r in stands]) < 0.06


def test_what_cannot_be_calibrated_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"59 answers are too few.*60 are needed.*uncalibrated"):
        fit_calibrator(answers(59))
    with pytest.raises(ConfigError, match="one product only"):
        fit_calibrator(answers(80, products=1))
    with pytest.raises(ConfigError, match="all right or all wrong"):
        fit_calibrator(answers(80, correct=True))
    with pytest.raises(ConfigError, match="several models: big, small"):
        fit_calibrator([*answers(80, model="big"), *answers(80, model="small")])


def test_products_of_the_calibration_are_refused_as_test() -> None:
    fitted = fit_calibrator(answers())
    with pytest.raises(ConfigError, match=r"share 1 product.*p3"):
        fitted.refuse_products(["p3", "other"])
    fitted.refuse_products(["other"])
    with pytest.raises(ConfigError, match="share"):
        refuse_overlap(["a"], ["a"])


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["logistic", "isotonic"])
def test_a_calibrator_is_kept_and_read_back(tmp_path: Path, method: Any) -> None:
    fitted = fit_calibrator(answers(retrieval_similarity=0.4), inputs_sha256=[SHA], method=method)
    fitted.save(tmp_path / "one" / "c.json")
    fit_calibrator(answers(retrieval_similarity=0.4), inputs_sha256=[SHA], method=method).save(tmp_path / "d.json")
    assert (tmp_path / "one" / "c.json").read_bytes() == (tmp_path / "d.json").read_bytes()
    read = load_calibrator(tmp_path / "d.json")
    assert read == fitted
    assert (read.inputs_sha256, read.products, read.answers) == ((SHA,), ("p0", "p1", "p2", "p3"), 400)
    assert (read.steps is None) == (method == "logistic")
    assert all(read.p_correct(record) == fitted.p_correct(record) for record in answers(20, retrieval_similarity=0.1))


def _written(path: Path, fitted: Calibrator, **changed: Any) -> Path:
    content = {**fitted.model_dump(mode="json"), "sha256": fitted.sha256, **changed}
    path.write_text(json.dumps({key: value for key, value in content.items() if value != "gone"}))
    return path


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"intercept": 4.0}, "changed since"),
        ({"sha256": "gone"}, "changed since"),
        ({"version": 2}, "version 2"),
        ({"format": "other"}, "no calibrator"),
        ({"signs": []}, "damaged"),
        ({"steps": [[0.5, 0.2], [0.1, 0.3]]}, "damaged"),
        ({"similarities": [0.5, 0.2]}, "damaged"),
        ({"temperature": -1.0}, "damaged"),
        ({"extra": 1}, "damaged"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(WeightsError, match=said):
        load_calibrator(_written(tmp_path / "c.json", fit_calibrator(answers(100)), **changed))


@pytest.mark.parametrize("blob", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"format": []}'])
def test_files_of_something_else_are_refused(tmp_path: Path, blob: bytes) -> None:
    (tmp_path / "c.json").write_bytes(blob)
    with pytest.raises(WeightsError, match="no calibrator"):
        load_calibrator(tmp_path / "c.json")


def test_missing_folders_and_huge_files_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(FlawscopeError, match="cannot be read"):
            load_calibrator(path)
    (tmp_path / "big.json").write_bytes(b" " * 4_000_001)
    with pytest.raises(WeightsError, match="too large"):
        load_calibrator(tmp_path / "big.json")
