"""Thresholds by hand, the rates that they promise, and tables that are too small, too alike or damaged."""

from __future__ import annotations

import json
import math
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binom, t

from flawscope.agent.errors import ProductError
from flawscope.tools.ad_expert.calibration import (
    MIN_THRESHOLD,
    Calibration,
    conformal_threshold,
    probability_of_defect,
    smallest_rate,
)

VIEWS = ("whole", "zoom", "reference", "self_consistency")


def just_above(value: float) -> float:
    return float(np.nextafter(value, np.inf))


@pytest.mark.parametrize(
    ("count", "rate", "rank"),
    [
        (19, 0.05, 19),  # 20 * 0.95 = 19: the largest, and just enough references
        (20, 0.05, 20),  # 21 * 0.95 = 19.95 -> 20
        (39, 0.05, 38),  # 40 * 0.95 = 38
        (9, 0.1, 9),
        (19, 0.1, 18),
        (99, 0.02, 98),
        (49, 0.02, 49),
        (10, 0.2, 9),  # 11 * 0.8 = 8.8 -> 9
    ],
)
def test_the_threshold_is_the_right_reference(count: int, rate: float, rank: int) -> None:
    scores = np.random.default_rng(count).permutation(np.arange(1.0, count + 1))
    assert conformal_threshold(scores, rate) == (just_above(float(rank)), "conformal")


def test_too_few_references_are_extrapolated_by_students_t() -> None:
    scores = np.array([1.0, 2.0, 3.0, 6.0])
    threshold, basis = conformal_threshold(scores, 0.05)
    expected = 3.0 + t.ppf(0.95, 3) * np.std(scores, ddof=1) * math.sqrt(1.25)
    assert basis == "extrapolated"
    assert threshold == pytest.approx(expected)


@pytest.mark.parametrize("count", [3, 9, 19, 40])
def test_the_smallest_supported_rate_is_the_border(count: int) -> None:
    scores = np.arange(1.0, count + 1)
    assert conformal_threshold(scores, smallest_rate(count))[1] == "conformal"
    assert conformal_threshold(scores, smallest_rate(count) * 0.99)[1] == "extrapolated"


@pytest.mark.parametrize(("count", "rate"), [(19, 0.05), (40, 0.05), (40, 0.1), (12, 0.1), (6, 0.05), (10, 0.02)])
def test_new_good_parts_alarm_at_most_as_often_as_stated(count: int, rate: float) -> None:
    """2000 products with one new good part each: alarms within the binomial bound of the stated rate."""
    rng, trials = np.random.default_rng(7), 2000
    alarms = 0
    for _ in range(trials):
        drawn = rng.normal(0.4, 0.05, size=count + 1)
        decision = Calibration(("whole",), drawn[:-1, None]).decide({"whole": float(drawn[-1])}, rate)
        assert decision.score is not None
        assert decision.threshold is not None
        alarms += decision.score >= decision.threshold
    assert alarms <= binom.ppf(0.9999, trials, rate)
    if decision.basis == "conformal":  # and it is no stricter than its references force it to be
        assert alarms >= binom.ppf(0.0001, trials, rate - smallest_rate(count))


@pytest.mark.parametrize("chosen", [views for n in range(1, 5) for views in combinations(VIEWS, n)], ids="+".join)
def test_every_combination_of_views_keeps_the_rate(chosen: tuple[str, ...]) -> None:
    rng, trials, rate, count = np.random.default_rng(11), 400, 0.1, 30
    alarms = 0
    for _ in range(trials):
        shared = rng.normal(size=(count + 1, 1))
        table = np.array([0.4, 0.5, 0.3, 0.45]) + 0.03 * (shared + rng.normal(size=(count + 1, 4)))
        scores = {view: float(table[-1, VIEWS.index(view)]) for view in chosen}
        decision = Calibration(VIEWS, table[:-1]).decide(scores, rate)
        assert decision.basis == "conformal"
        assert decision.score is not None
        assert decision.threshold is not None
        alarms += decision.score >= decision.threshold
    assert alarms <= binom.ppf(0.9999, trials, rate)


def table(seed: int = 0, count: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.4, 0.05, size=(count, 4))


def test_the_order_of_references_and_of_views_is_irrelevant() -> None:
    scores = {"whole": 0.5, "zoom": 0.41, "reference": 0.48}
    first = Calibration(VIEWS, table()).decide(scores, 0.05)
    shuffled = np.random.default_rng(1).permutation(table())
    backwards = dict(reversed(scores.items()))
    for again in (
        Calibration(VIEWS, shuffled).decide(scores, 0.05),
        Calibration(VIEWS, table()).decide(backwards, 0.05),
    ):
        assert again.score == pytest.approx(first.score)
        assert again.threshold == pytest.approx(first.threshold)
        assert again.p_value == first.p_value


def test_a_higher_score_is_never_less_suspicious() -> None:
    calibration = Calibration(VIEWS, table())
    found = [calibration.decide({"whole": s, "zoom": 0.4}, 0.05) for s in np.linspace(0.2, 1.2, 60)]
    scores = [d.score for d in found if d.score is not None]
    probabilities = [d.probability for d in found if d.probability is not None]
    p_values = [d.p_value for d in found if d.p_value is not None]
    assert scores == sorted(scores)
    assert probabilities == sorted(probabilities)
    assert p_values == sorted(p_values, reverse=True)
    assert len({d.threshold for d in found}) == 1


def test_units_of_the_raw_scores_are_irrelevant() -> None:
    first = Calibration(("whole",), table()[:, :1]).decide({"whole": 0.55}, 0.05)
    scaled = Calibration(("whole",), 3.0 * table()[:, :1]).decide({"whole": 1.65}, 0.05)
    assert scaled.score == pytest.approx(first.score)
    assert scaled.threshold == pytest.approx(first.threshold)


@pytest.mark.parametrize("constant", [0.0, 0.4, 1e-12])
def test_references_that_are_all_alike_give_finite_numbers(constant: float) -> None:
    calibration = Calibration(VIEWS, np.full((20, 4), constant))
    for score in (constant, constant + 1e-9, constant + 0.3, 0.0):
        decision = calibration.decide({"whole": score, "zoom": constant}, 0.05)
        values = (decision.score, decision.threshold, decision.probability, decision.p_value)
        assert all(value is not None and math.isfinite(value) for value in values)
        json.dumps(values, allow_nan=False)
    same = calibration.decide({"whole": constant}, 0.05)
    assert same.score is not None
    assert same.threshold is not None
    assert same.score < same.threshold
    other = calibration.decide({"whole": constant + 0.3}, 0.05)
    assert other.probability is not None
    assert other.probability > 0.99


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_references_decide_nothing(count: int) -> None:
    decision = Calibration(("whole",), np.full((count, 1), 0.4)).decide({"whole": 9.0}, 0.05)
    assert (decision.score, decision.threshold, decision.probability, decision.p_value) == (None,) * 4
    assert decision.basis == "uncalibrated"


def test_the_threshold_is_never_within_the_spread_of_good_parts() -> None:
    assert conformal_threshold(np.array([-1.0, 0.0, 0.1] * 10), 0.1)[0] == MIN_THRESHOLD


@pytest.mark.parametrize(
    ("scores", "views"),
    [
        (np.zeros((3, 2)), ("whole",)),
        (np.zeros(3), ("whole",)),
        (np.array([[np.nan], [0.0], [1.0]]), ("whole",)),
        (np.array([[np.inf], [0.0], [1.0]]), ("whole",)),
    ],
)
def test_a_damaged_table_is_refused(scores: np.ndarray, views: tuple[str, ...]) -> None:
    with pytest.raises(ProductError, match="damaged"):
        Calibration(views, scores)


@pytest.mark.parametrize("scores", [{}, {"x_ray": 1.0}, {"whole": 1.0, "x_ray": 1.0}])
def test_views_that_were_not_calibrated_are_refused(scores: dict[str, float]) -> None:
    with pytest.raises(ProductError, match="no calibration for the views"):
        Calibration(VIEWS, table()).decide(scores, 0.05)


def test_p_values_count_the_part_itself() -> None:
    calibration = Calibration(("whole",), np.arange(1.0, 10.0)[:, None])
    found = [calibration.decide({"whole": s}, 0.1).p_value for s in (10.0, 9.0, 5.0, 0.0)]
    assert found == pytest.approx([0.1, 0.2, 0.6, 1.0])


def test_the_probability_is_even_at_the_threshold_and_bounded() -> None:
    assert probability_of_defect(2.0, 2.0) == 0.5
    assert probability_of_defect(4.0, 2.0) == pytest.approx(1 / (1 + math.exp(-4.0)))
    assert 0.0 <= probability_of_defect(-1e9, 1.0) < 1e-20
    assert probability_of_defect(1e9, 1.0) <= 1.0


def test_a_single_view_never_contradicts_itself() -> None:
    calibration = Calibration(VIEWS, np.random.default_rng(3).normal(0.4, 0.05, size=(40, 4)))
    for score in np.linspace(0.2, 0.8, 20):
        assert calibration.decide({"whole": float(score)}, 0.05).contradicting == ()


def test_views_on_the_other_side_of_the_threshold_are_named() -> None:
    """By hand: 39 references at 1 to 39 in both views, 5% stated, so each view alone alarms from just above 38."""
    column = np.arange(1.0, 40.0)
    calibration = Calibration(("whole", "zoom"), np.stack([column, column], axis=1))
    assert calibration.decide({"whole": 60.0, "zoom": 50.0}, 0.05).contradicting == ()
    assert calibration.decide({"whole": 60.0, "zoom": 30.0}, 0.05).contradicting == ("zoom",)  # 45 together: alarm
    assert calibration.decide({"whole": 40.0, "zoom": 10.0}, 0.05).contradicting == ("whole",)  # 25 together: none
    assert calibration.decide({"whole": 20.0, "zoom": 10.0}, 0.05).contradicting == ()
