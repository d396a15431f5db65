"""The decision benchmark on hand-made outcomes."""

from __future__ import annotations

import io

import numpy as np

from flawscope.agent.schemas import Verdict
from flawscope.benchmarks.decisions import DecisionReport, Decisions, MixedAlarms, render

OK, NG, REVIEW = Verdict.OK, Verdict.NG, Verdict.REVIEW


def outcome(verdicts: tuple[Verdict, ...], alarmed: list[bool], stated: float = 0.1) -> Decisions:
    """Four good pictures, then four defective ones."""
    return Decisions(
        product="plate",
        references=40,
        stated=stated,
        retries=False,
        defective=np.array([False] * 4 + [True] * 4),
        alarmed=np.array(alarmed),
        verdicts=verdicts,
        probabilities=np.where(alarmed, 0.9, 0.1),
        actions=0.0,
    )


MIXED = (OK, OK, NG, REVIEW, NG, NG, OK, REVIEW)
ALARMS = [False, False, True, False, True, True, False, True]


def test_rates_by_hand() -> None:
    result = outcome(MIXED, ALARMS)
    assert result.false_alarms == (1, 4)
    assert result.detection == 3 / 4
    assert result.decided.tolist() == [True, True, True, False, True, True, True, False]
    assert result.accuracy == 4 / 6  # two OK and two NG are right among six decided


def test_coverage_needs_the_stated_rate_inside_the_interval() -> None:
    assert outcome(MIXED, ALARMS, stated=0.1).covers  # 1 of 4: 0.006 to 0.806
    assert not outcome(MIXED, [True] * 8, stated=0.1).covers  # 4 of 4: 0.398 to 1


def test_accuracy_is_unknown_when_everything_went_to_review() -> None:
    assert outcome((REVIEW,) * 8, ALARMS).accuracy is None


def test_the_tables_show_what_was_measured() -> None:
    from rich.console import Console

    console = Console(width=140, record=True, file=io.StringIO())
    console.print(render(DecisionReport([outcome(MIXED, ALARMS)], [MixedAlarms("plate", 40, 0.1, 7, 100)])))
    text = console.export_text()
    assert "1/4 = 0.250" in text
    assert "0.667" in text
    assert "7/100 = 0.070" in text
