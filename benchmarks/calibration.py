"""Fit a calibrator to the logs of a benchmark, and say what its probabilities are worth on products it has not seen.

Without logs of other products every product is judged by a calibrator of all others.

Run: ``python -m flawscope.benchmarks.calibration LOG… --out FILE``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from ..agent.errors import ConfigError, InputError
from ..agent.home import write_atomically
from ..agent.schemas import InspectionReport
from ..agent.uncertainty.calibrator import Calibrator, known_features
from ..agent.uncertainty.features import FEATURES, Signs, signs_of_doubt
from ..agent.uncertainty.fitting import Method, cross_fitted, fit_calibrator
from ..agent.uncertainty.inspections import record_of
from ..agent.uncertainty.records import AnswerLog, AnswerRecord, products_of, read_log
from ..agent.uncertainty.thresholds import Threshold
from .detection_metrics import (
    aurc,
    brier_score,
    clopper_pearson,
    expected_calibration_error,
    image_auroc,
    risk_at_coverage,
)
from .reliability import draw_reliability
from .untouched import untouched_tests

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

EVERYTHING = "all"
COVERAGE = 0.8
GOOD = "good"
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Worth:
    """What one way of saying how sure an answer is was worth on some answers.

    Attributes:
        way: ``stated`` for the likeliest option's probability, ``entropy`` for its complement, ``calibrated`` for
            P(correct).
        known: answers that it says something of; the figures are of these.
        accuracy: of these.
        ece: expected calibration error in 15 bins; None for an entropy, which is no probability.
        brier: score; None for an entropy.
        aurc: area under risk and coverage.
        risk: error rate among the surest four fifths.
        auroc: chance that a wrong answer has more doubt than a right one; None when all are right or all wrong.
    """

    way: str
    known: int
    accuracy: float | None
    ece: float | None
    brier: float | None
    aurc: float | None
    risk: float | None
    auroc: float | None


@dataclass(frozen=True)
class Stands:
    """How a threshold does on answers that it was not chosen from.

    Attributes:
        decided: answers that stand.
        errors: among them.
    """

    decided: int
    errors: int


@dataclass(frozen=True)
class TaskWorth:
    """One task, or all of them.

    Attributes:
        task: its name.
        answers: of it.
        worth: each way, on the same split.
        threshold: of the calibrator; None for all tasks together.
        stands: on the test logs; None without.
    """

    task: str
    answers: int
    worth: tuple[Worth, ...]
    threshold: Threshold | None
    stands: Stands | None = None


@dataclass(frozen=True)
class CalibrationResult:
    """The fit and its figures.

    Attributes:
        calibrator: fitted to all calibration logs.
        tasks: figures by task, all of them first.
        test_products: that the figures are from; empty when each product was judged by a fit of the others.
        out: where the calibrator was written, None when it was not.
        diagram: where the picture was written.
    """

    calibrator: Calibrator
    tasks: tuple[TaskWorth, ...]
    test_products: tuple[str, ...]
    out: Path | None
    diagram: Path | None


def read_answers(path: Path, good: str = GOOD) -> AnswerLog:
    """The answers of a benchmark's log, or those of inspections' reports.

    Args:
        path: JSONL; lines of ``inspect --json`` are told by their schema version.
        good: name of the folders whose pictures show good parts; every other inspected picture shows a defective one.

    Raises:
        InputError: it cannot be used.
    """
    try:
        blob = path.read_bytes()
        first = next((line for line in blob.decode("utf-8").split("\n") if line.strip()), "")
        head = json.loads(first) if first else None
    except (OSError, ValueError, RecursionError):
        return read_log(path)  # which says what is wrong with it
    if not isinstance(head, dict) or "schema_version" not in head:
        return read_log(path)
    records = []
    for number, line in enumerate(blob.decode("utf-8").split("\n"), start=1):  # other line breaks may stand in a name
        if line.strip():
            try:
                report = InspectionReport.model_validate_json(line)
            except ValidationError as error:
                raise InputError(f"line {number} of {path} is no report.", hint="Log inspect --json alone.") from error
            records.append(record_of(report, defective=Path(report.image).parent.name != good))
    known = tuple(record for record in records if record is not None)
    if not known:
        raise InputError(f"none of the reports of {path} leans to either side.", hint="Enrol the products first.")
    return AnswerLog(known, hashlib.sha256(blob).hexdigest())


def run_calibration(
    logs: Sequence[Path],
    out: Path | None = None,
    test: Sequence[Path] = (),
    features: Sequence[str] = FEATURES,
    method: Method = "logistic",
    diagram: Path | None = None,
    good: str = GOOD,
    progress: Progress | None = None,
) -> CalibrationResult:
    """Fit, measure, write.

    Args:
        logs: per-item logs, or reports of inspections, to fit to.
        out: for the calibrator.
        test: logs of other products to measure on.
        features: signs of doubt to weigh. An inspection has ``entropy``, ``disagreement`` and ``retrieval``; a
            calibrator that was fitted with others says nothing there.
        method: ``logistic``, or ``isotonic`` on top of it.
        diagram: for a picture of stated and observed rates.
        good: folder of good parts' pictures, for reports.
        progress: told what is done.

    Raises:
        InputError: a log cannot be used.
        ConfigError: the answers cannot be calibrated, or calibration and test share products.
    """
    tell = progress or (lambda text: None)
    wanted = known_features(features)
    tell("reading the logs")
    read, checked = [read_answers(path, good) for path in logs], [read_answers(path, good) for path in test]
    records, held_out = [r for log in read for r in log.records], [r for log in checked for r in log.records]
    tell("fitting")
    calibrator = fit_calibrator(records, inputs_sha256=[log.sha256 for log in read], features=wanted, method=method)
    if held_out:
        calibrator.refuse_products(products_of(held_out))
        foreign = sorted({r.model for r in held_out} - {calibrator.model})
        if foreign:
            raise ConfigError(f"the test logs are of {foreign[0]!r}, the calibration of {calibrator.model!r}.")
        probabilities, judged = [calibrator.p_correct(r) for r in held_out], held_out
    else:
        tell("judging each product by the others")
        probabilities, judged = cross_fitted(records, features=wanted, method=method), records
    tasks = sorted({r.task for r in judged})
    rows = [_measure(EVERYTHING, judged, probabilities, None, bool(held_out))] if len(tasks) > 1 else []
    for task in tasks:
        mine = [(r, p) for r, p in zip(judged, probabilities, strict=True) if r.task == task]
        chosen = calibrator.threshold(task)
        rows.append(_measure(task, [r for r, _ in mine], [p for _, p in mine], chosen, bool(held_out)))
    if diagram is not None:
        tell("drawing")
        stated = [None if r.probabilities is None else max(r.probabilities.values()) for r in judged]
        correct = [r.correct for r in judged]
        picture = draw_reliability({"stated": (stated, correct), "calibrated": (probabilities, correct)})
        write_atomically(diagram, lambda temporary: picture.save(temporary, format="PNG"))
    if out is not None:
        calibrator.save(out)
    return CalibrationResult(calibrator, tuple(rows), products_of(held_out), out, diagram)


def _measure(
    task: str,
    records: Sequence[AnswerRecord],
    probabilities: Sequence[float | None],
    chosen: Threshold | None,
    held_out: bool,
) -> TaskWorth:
    signs: list[Signs] = [signs_of_doubt(r, None, ()) for r in records]
    correct = [r.correct for r in records]
    stated = [None if r.probabilities is None else max(r.probabilities.values()) for r in records]
    certain = [None if (doubt := sign["entropy"]) is None else 1.0 - doubt for sign in signs]
    ways = (
        _worth("stated", stated, correct, probability=True),
        _worth("entropy", certain, correct, probability=False),
        _worth("calibrated", probabilities, correct, probability=True),
    )
    stands = None
    if held_out and chosen is not None and chosen.calibrated:
        kept = [
            right
            for p, right in zip(probabilities, correct, strict=True)
            if p is not None and chosen.low is not None and 1.0 - p <= chosen.low
        ]
        stands = Stands(len(kept), sum(not right for right in kept))
    return TaskWorth(task, len(records), ways, chosen, stands)


def _worth(way: str, sure: Sequence[float | None], correct: Sequence[bool], *, probability: bool) -> Worth:
    pairs = [(value, right) for value, right in zip(sure, correct, strict=True) if value is not None]
    if not pairs:
        return Worth(way, 0, None, None, None, None, None, None)
    values, right = np.array([value for value, _ in pairs]), np.array([r for _, r in pairs])
    return Worth(
        way,
        len(pairs),
        float(right.mean()),
        expected_calibration_error(values, right) if probability else None,
        brier_score(values, right) if probability else None,
        aurc(values, right),
        risk_at_coverage(values, right, COVERAGE),
        image_auroc(1.0 - values, ~right),
    )


# --- the tables -------------------------------------------------------------------------------------------------------


def render(result: CalibrationResult) -> Group:
    """What each way of saying how sure is worth, what the thresholds are, and what was learnt."""
    from rich.console import Group

    c = result.calibrator
    split = (
        f"measured on {len(result.test_products)} other products"
        if result.test_products
        else "each product judged by a calibrator of the others"
    )
    heat = "not fitted" if c.temperature is None else f"{c.temperature:.2f}"
    signs = ", ".join(f"{s.name.replace('_', ' ')} {s.weight:+.2f}" for s in c.signs)
    notes = [
        f"{c.answers} answers of {c.model or 'a model without a name'} on {len(c.products)} products; {split}",
        f"temperature {heat}; log-odds of being right per spread of a sign: {signs}",
    ]
    notes += [warning] if (warning := no_better(result.tasks[0])) else []
    if result.out is not None:
        notes.append(f"written to {result.out} (sha256 {c.sha256[:12]})")
    if result.diagram is not None:
        notes.append(f"diagram: {result.diagram}")
    return Group(_worth_table(result), _threshold_table(result), *notes)


def no_better(row: TaskWorth) -> str:
    """That a calibrator is not worth using, where the options' own probabilities did as well; empty otherwise."""
    stated, _, calibrated = row.worth
    if stated.brier is None or calibrated.brier is None or calibrated.brier < stated.brier:
        return ""
    wrong = round((1.0 - (calibrated.accuracy or 0.0)) * calibrated.known)
    return f"no better than what was stated (Brier score), by {wrong} wrong answers: fit it to more before using it"


def _table(title: str, *columns: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < 1 else "right", no_wrap=True)
    return table


def _worth_table(result: CalibrationResult) -> Table:
    table = _table(
        "How sure, and how right", "task", "by", "answers", "right %", "ECE", "Brier", "AURC", "risk@80%", "AUROC"
    )
    for row in result.tasks:
        for place, way in enumerate(row.worth):
            accuracy = "–" if way.accuracy is None else f"{100 * way.accuracy:.1f}"
            figures = [_figure(value) for value in (way.ece, way.brier, way.aurc, way.risk, way.auroc)]
            table.add_row(row.task if place == 0 else "", way.way, f"{way.known}/{row.answers}", accuracy, *figures)
    return table


def _threshold_table(result: CalibrationResult) -> Table:
    table = _table(
        "Doubt up to which an answer stands", "task", "doubt", "target %", "stand", "wrong", "bound %", "other products"
    )
    for row in result.tasks:
        chosen = row.threshold
        if chosen is None:
            continue
        target = f"{100 * chosen.target:.0f}"
        if not chosen.calibrated:
            said = f"entropy {chosen.low:.2f}/{chosen.high:.2f}"
            table.add_row(row.task, said, target, f"of {chosen.answers}", "–", "–", "uncalibrated: too few answers")
        elif chosen.low is None or chosen.bound is None:
            table.add_row(row.task, "none", target, f"0/{chosen.answers}", "–", "–", "nothing stands")
        else:
            stand = f"{chosen.decided}/{chosen.answers}"
            table.add_row(
                row.task,
                f"{chosen.low:.3f}",
                target,
                stand,
                str(chosen.errors),
                f"{100 * chosen.bound:.1f}",
                _elsewhere(row.stands),
            )
    return table


def _elsewhere(stands: Stands | None) -> str:
    if stands is None:
        return "not measured"
    low, high = clopper_pearson(stands.errors, stands.decided)
    return f"{stands.errors}/{stands.decided} wrong [{100 * low:.1f}, {100 * high:.1f}]%"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of this benchmark alone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("logs", type=Path, nargs="+", help="per-item logs to fit to")
    parser.add_argument("--test", type=Path, nargs="*", default=[], help="logs of other products to measure on")
    parser.add_argument("--out", type=Path, help="file for the calibrator")
    options = parser.parse_args(arguments)
    from rich.console import Console

    Console().print(render(run_calibration(options.logs, options.out, options.test)))


if __name__ == "__main__":
    with untouched_tests():
        main()
