"""The benchmark that fits and measures calibrators: figures by hand, splits, tables, the diagram, the command."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from flawscope.agent.errors import ConfigError
from flawscope.agent.uncertainty.calibrator import load_calibrator
from flawscope.benchmarks import detection_metrics as dm
from flawscope.benchmarks.calibration import TaskWorth, Worth, no_better, render, run_calibration
from flawscope.benchmarks.reliability import draw_reliability, reliability_bins


def write_log(path: Path, products: str, count: int = 240, seed: int = 0, **fixed: Any) -> Path:
    """Answers stated with the square of the odds that they have."""
    rng, lines = np.random.default_rng(seed), []
    for i in range(count):
        odds = abs(rng.normal(0.0, 2.0))
        sure = 1 / (1 + np.exp(-2 * odds))
        right = bool(rng.random() < 1 / (1 + np.exp(-odds)))
        line = {
            "id": f"{path.stem}-{i}",
            "task": ("Anomaly Detection", "Defect Analysis")[i % 2],
            "product": products[i % len(products)],
            "model": "mini",
            "answer": "A",
            "truth": "A" if right else "B",
            "correct": right,
            "probabilities": {"A": sure, "B": 1 - sure},
        }
        lines.append(json.dumps(line | fixed))
    path.write_text("\n".join(lines))
    return path


def text_of(result: Any) -> str:
    console = Console(width=160, file=io.StringIO())
    console.print(render(result))
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_area_under_risk_and_coverage_by_hand() -> None:
    # Surest first: right, wrong, right, wrong. Risks 0, 1/2, 1/3, 1/2; their mean is 1/3.
    sure, right = [0.9, 0.8, 0.7, 0.6], [True, False, True, False]
    assert dm.aurc(sure, right) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert dm.risk_at_coverage(sure, right, 0.75) == pytest.approx(1 / 3)


def test_a_perfect_calibration_has_no_error() -> None:
    stated = [0.2] * 10 + [0.9] * 10
    true = [i < 2 for i in range(10)] + [i < 9 for i in range(10)]
    assert dm.expected_calibration_error(stated, true) == pytest.approx(0.0)
    bins = [b for b in reliability_bins(stated, true) if b is not None]
    assert [(b.count, b.stated, b.observed) for b in bins] == [
        (10, pytest.approx(0.2), pytest.approx(0.2)),
        (10, pytest.approx(0.9), pytest.approx(0.9)),
    ]


def test_bins_are_those_of_the_calibration_error() -> None:
    rng = np.random.default_rng(0)
    stated, true = rng.random(200).tolist(), (rng.random(200) < 0.5).tolist()
    bins = [b for b in reliability_bins(stated, true) if b is not None]
    error = sum(b.count * abs(b.stated - b.observed) for b in bins) / 200
    assert error == pytest.approx(dm.expected_calibration_error(stated, true))
    assert reliability_bins([None, 0.0, 1.0], [True, True, False])[0] is not None
    assert reliability_bins([], []) == (None,) * 15


def test_the_diagram_shows_every_series(tmp_path: Path) -> None:
    picture = draw_reliability({"stated": ([0.95] * 20, [i % 2 == 0 for i in range(20)]), "empty": ([None], [True])})
    assert picture.size[0] == 2 * (300 + 2 * 46)
    colours = {colour for _, colour in picture.getcolors(100_000) or ()}
    assert {(54, 106, 170), (226, 160, 120)} <= colours  # what came true, and what was stated beyond it


def test_products_are_judged_by_the_others_and_the_file_is_written(tmp_path: Path) -> None:
    log, out, drawn = write_log(tmp_path / "a.jsonl", "pqrs", 600), tmp_path / "c.json", tmp_path / "c.png"
    result = run_calibration([log], out, diagram=drawn)
    every = result.tasks[0]
    stated, _, calibrated = every.worth
    assert [row.task for row in result.tasks] == ["all", "defect_analysis", "detection"]
    assert every.answers == 600
    assert calibrated.known == 600
    assert stated.ece is not None
    assert calibrated.ece is not None
    assert calibrated.ece < 0.6 * stated.ece
    assert calibrated.brier is not None
    assert stated.brier is not None
    assert calibrated.brier < stated.brier
    assert stated.auroc is not None
    assert stated.auroc > 0.6
    assert result.calibrator.temperature == pytest.approx(2.0, rel=0.25)
    assert load_calibrator(out) == result.calibrator
    with Image.open(drawn) as picture:
        assert picture.format == "PNG"
    shown = text_of(result)
    assert "no better than" not in shown
    assert "each product judged by a calibrator of the others" in shown
    assert "How sure, and how right" in shown
    assert "not measured" in shown


def test_other_products_measure_what_was_fitted(tmp_path: Path) -> None:
    log, test = write_log(tmp_path / "a.jsonl", "pqrs", 1500), write_log(tmp_path / "b.jsonl", "xyz", 400, seed=5)
    result = run_calibration([log], test=[test])
    assert result.test_products == ("x", "y", "z")
    assert result.tasks[0].answers == 400
    analysis = next(row for row in result.tasks if row.task == "defect_analysis")
    assert analysis.threshold is not None
    assert analysis.stands is not None
    assert analysis.stands.decided > 50
    assert analysis.stands.errors / analysis.stands.decided < 0.2
    assert "measured on 3 other products" in text_of(result)


def test_products_of_the_calibration_and_other_models_are_refused_as_test(tmp_path: Path) -> None:
    log = write_log(tmp_path / "a.jsonl", "pqrs")
    with pytest.raises(ConfigError, match="share 1 product"):
        run_calibration([log], test=[write_log(tmp_path / "b.jsonl", "sx", 20)])
    with pytest.raises(ConfigError, match="'other'"):
        run_calibration([log], test=[write_log(tmp_path / "c.jsonl", "x", 20, model="other")])
    with pytest.raises(ConfigError, match="unknown sign of doubt"):
        run_calibration([log], features=["hunch"])


def test_a_task_of_few_answers_is_said_to_be_uncalibrated(tmp_path: Path) -> None:
    many, few = (
        write_log(tmp_path / "a.jsonl", "pq", 100, task="x"),
        write_log(tmp_path / "b.jsonl", "pq", 40, task="y"),
    )
    result = run_calibration([many, few])
    assert not result.calibrator.threshold("y").calibrated
    assert "uncalibrated: too few answers" in text_of(result)


def test_answers_without_probabilities_are_calibrated_by_their_entropy(tmp_path: Path) -> None:
    log = write_log(tmp_path / "a.jsonl", "pqr", 200, probabilities=None, entropy=0.4)
    result = run_calibration([log])
    assert result.calibrator.temperature is None
    stated, entropy, calibrated = result.tasks[0].worth
    assert (stated.known, stated.ece, entropy.known, entropy.ece, calibrated.known) == (0, None, 200, None, 200)
    assert entropy.auroc == 0.5  # the same for all
    assert text_of(result)


def test_a_calibrator_that_is_no_better_is_not_recommended() -> None:
    stated = Worth("stated", 40, 0.9, 0.05, 0.08, 0.02, 0.0, 0.8)
    entropy = Worth("entropy", 40, 0.9, None, None, 0.02, 0.0, 0.8)
    worse = Worth("calibrated", 40, 0.9, 0.06, 0.09, 0.03, 0.0, 0.7)
    assert "by 4 wrong answers" in no_better(TaskWorth("all", 40, (stated, entropy, worse), None))
    better = Worth("calibrated", 40, 0.9, 0.02, 0.07, 0.03, 0.0, 0.7)
    assert no_better(TaskWorth("all", 40, (stated, entropy, better), None)) == ""


def test_the_command(tmp_path: Path) -> None:
    from flawscope.cli import app

    log = write_log(tmp_path / "a.jsonl", "pqrs")
    done = CliRunner().invoke(
        app, ["bench", "calibrate", str(log), "--out", str(tmp_path / "c.json"), "--signs", "entropy"]
    )
    assert done.exit_code == 0, done.output
    assert "How sure, and how right" in done.output
    assert [sign.name for sign in load_calibrator(tmp_path / "c.json").signs] == ["entropy"]
    assert (tmp_path / "c.png").exists()
    again = CliRunner().invoke(
        app, ["bench", "calibrate", str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "c.json")]
    )
    assert again.exit_code != 0
