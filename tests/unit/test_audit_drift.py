"""Drift of scores against enrolment: what is compared, how often it alarms without cause, and what it sees.

The rates are simulated with a fixed seed; their bounds are quantiles of the binomial distribution that a right test
passes with a probability of 0.999.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from audit_records import PRODUCT, made
from rich.console import Console
from scipy.stats import betabinom, binom

from flawscope.agent.errors import ConfigError
from flawscope.audits.drift import (
    MIN_PARTS,
    WINDOW,
    Enrolment,
    ProductDrift,
    _p_of_spread,
    batch_level,
    compare_scores,
    find_drift,
)
from flawscope.audits.records import AuditRecord
from flawscope.audits.tables import WIDTH, drift_tables

REFERENCES = 20
PARTS = 50


def enrolment(scores: np.ndarray) -> dict[str, Enrolment]:
    return {"nut": Enrolment("nut", PRODUCT, tuple(float(score) for score in scores))}


def lots(scores: np.ndarray) -> Iterator[AuditRecord]:
    """Records of one lot a row."""
    for row, lot in enumerate(scores):
        for column, score in enumerate(lot):
            yield made(1 + row * len(lot) + column, score=float(score), product="nut", lot=f"L{row}")


def judged(references: np.ndarray, scores: np.ndarray, level: float = 0.01) -> ProductDrift:
    (found,) = find_drift(lots(scores), enrolment(references), level=level)
    return found


# --- the alarm's rates ------------------------------------------------------------------------------------------------


def first_alarm(references: np.ndarray, scores: np.ndarray, level: float) -> int | None:
    """The number of the first lot that alarms, without the cost of records."""
    p_values = (compare_scores(references, lot) for lot in scores)
    return next((k for k, p in enumerate(p_values, start=1) if p <= batch_level(level, k)), None)


@pytest.mark.parametrize(("references", "shape"), [(8, 2.0), (40, 9.0)])
def test_an_audit_without_drift_alarms_no_more_often_than_stated(references: int, shape: float) -> None:
    random, level, audits, count = np.random.default_rng(11), 0.1, 150, 5
    alarms = 0
    for _ in range(audits):  # one enrolment for all lots of an audit, as it is; scores are skewed, as they are
        enrolled = random.gamma(shape, size=references)
        alarms += first_alarm(enrolled, random.gamma(shape, size=(count, PARTS)), level) is not None
    assert alarms <= binom.ppf(0.999, audits, level)


def test_without_spending_the_level_it_would_alarm_too_often() -> None:
    random, level, audits = np.random.default_rng(12), 0.1, 150
    naive = 0
    for _ in range(audits):
        enrolled = random.normal(size=REFERENCES)
        naive += any(compare_scores(enrolled, lot) <= level for lot in random.normal(size=(6, PARTS)))
    assert naive > binom.ppf(0.999, audits, level)


def test_a_few_defective_parts_do_not_alarm() -> None:
    random, level, audits = np.random.default_rng(13), 0.1, 100
    alarms = 0
    for _ in range(audits):
        scores = random.normal(size=(4, PARTS))
        scores[random.random(scores.shape) < 0.05] += 8.0  # 5% of the parts far above the others, without a label
        alarms += first_alarm(random.normal(size=REFERENCES), scores, level) is not None
    assert alarms <= binom.ppf(0.999, audits, level)


@pytest.mark.parametrize(
    ("shift", "spread", "least"),
    [(1.5, 1.0, 0.80), (-1.5, 1.0, 0.80), (0.0, 8.0, 0.50)],
    ids=["up", "down", "wider"],
)
def test_it_sees_a_change_within_two_lots(shift: float, spread: float, least: float) -> None:
    random, audits = np.random.default_rng(14), 100
    seen = 0
    for _ in range(audits):
        scores = random.normal(size=(5, PARTS))
        scores[3:] = shift + spread * scores[3:]
        seen += first_alarm(random.normal(size=REFERENCES), scores, 0.01) in (4, 5)
    assert seen / audits >= least


@pytest.mark.parametrize(("references", "parts"), [(6, 40), (20, 25)])
def test_p_values_are_no_smaller_than_chance_makes_them(references: int, parts: int) -> None:
    random, count = np.random.default_rng(15), 800
    found = [compare_scores(random.normal(size=references), random.normal(size=parts)) for _ in range(count)]
    for level in (0.1, 0.02):
        assert sum(p <= level for p in found) <= binom.ppf(0.999, count, level)


def test_the_coverage_test_is_the_beta_binomial_distributions() -> None:
    order = np.array([0, 1, 0, 0, 1, 1, 0, 1, 0, 0], bool)  # between the outer references lie 3 of 6 parts
    expected = betabinom(6, 3, 2)  # 4 references, of which one bounds each side: 4 + 1 - 2 and 2
    assert _p_of_spread(order) == pytest.approx(min(1.0, 2 * min(expected.cdf(3), expected.sf(2))))


def test_the_levels_of_all_batches_add_up_to_the_level() -> None:
    levels = [batch_level(0.01, number) for number in range(1, 10_001)]
    assert 0.00999 < sum(levels) < 0.01
    assert levels == sorted(levels, reverse=True)


# --- what is compared -------------------------------------------------------------------------------------------------


def test_an_alarm_names_the_lot_and_does_not_depend_on_later_ones() -> None:
    random = np.random.default_rng(1)
    references, scores = random.normal(5.0, 0.5, size=30), random.normal(5.0, 0.5, size=(4, PARTS))
    scores[2] += 1.5
    whole, begun = judged(references, scores), judged(references, scores[:3])
    assert [batch.alarm for batch in whole.batches] == [False, False, True, False]
    assert whole.batches[:3] == begun.batches
    assert whole.alarm is True
    assert whole.batches[2].quartiles is not None
    assert whole.batches[2].quartiles[1] > 2.0  # in spreads, not in the raw unit
    assert whole.quartiles is not None
    assert whole.quartiles[1] == pytest.approx(0.0)


def test_batches_are_lots_at_stations_and_windows_where_there_are_no_lots() -> None:
    records = [made(n, score=n / 7, product="nut", lot="A", station=f"s{n % 2}") for n in range(1, 61)]
    records += [made(n, score=n / 7, product="nut") for n in range(61, 61 + WINDOW + 30)]
    records += [made(n, score=n / 7, product="bolt") for n in range(300, 340)]
    nut, bolt = find_drift(records, enrolment(np.arange(10.0)))
    told = [(batch.lot, batch.station, batch.first_line, batch.parts) for batch in nut.batches]
    assert told == [("A", "s1", 1, 30), ("A", "s0", 2, 30), (None, None, 61, WINDOW), (None, None, 61 + WINDOW, 30)]
    assert (bolt.alarm, bolt.reason) == (None, "no enrolled product to compare with")
    assert [batch.level for batch in nut.batches] == [batch_level(0.01, k) for k in (1, 2, 3, 4)]


def test_what_says_nothing_of_good_parts_is_left_out() -> None:
    records = [made(n, score=n / 7, product="nut", lot="A") for n in range(1, 31)]
    records.append(made(31, score=99.0, product="nut", lot="A", label="scratch"))
    records.append(made(32, error="timeout", product="nut", lot="A"))
    records.append(made(33, score=99.0, product="nut", lot="A", picture="1"))  # the picture of line 1 once more
    records.append(made(34, "NG", score=5.0, product="nut", lot="A"))  # called NG: that may be the drift itself
    (found,) = find_drift(records, enrolment(np.arange(10.0)))
    assert (found.batches[0].parts, found.batches[0].left_out) == (31, 3)


def test_small_batches_are_not_tested_and_spend_nothing() -> None:
    random = np.random.default_rng(2)
    records = [made(n, score=50.0 + n, product="nut", lot="small") for n in range(1, MIN_PARTS)]
    records += [made(100 + n, score=float(random.normal()), product="nut", lot="large") for n in range(MIN_PARTS)]
    (found,) = find_drift(records, enrolment(random.normal(size=20)))
    assert [(batch.alarm, batch.level) for batch in found.batches] == [(None, None), (False, batch_level(0.01, 1))]
    (alone,) = find_drift(records[: MIN_PARTS - 1], enrolment(random.normal(size=20)))
    assert (alone.alarm, alone.reason) == (None, f"no batch has {MIN_PARTS} parts to compare")


def test_what_cannot_be_compared_is_said_and_not_passed() -> None:
    few = judged(np.arange(4.0), np.ones((1, 50)))
    assert (few.alarm, few.batches[0].p_value) == (None, None)
    assert "4 references" in few.reason
    stale = {"nut": Enrolment("nut", "b" * 64, tuple(range(20)))}
    (found,) = find_drift(lots(np.ones((1, 50))), stale)
    assert found.alarm is None
    assert "enrolled anew" in found.reason
    (unseen,) = find_drift([made(1, error="input", product="nut")], enrolment(np.arange(9.0)))
    assert unseen.reason == "no line has a score"
    assert find_drift([], {}) == ()


@pytest.mark.parametrize("level", [0.0, 1.0, -1.0, float("nan")])
def test_a_level_is_a_probability(level: float) -> None:
    with pytest.raises(ConfigError):
        find_drift([], {}, level=level)


def test_scores_all_alike_alarm_only_where_they_differ_from_the_references() -> None:
    found = judged(np.full(10, 2.0), np.full((1, 30), 2.0))  # ties everywhere say nothing either way
    assert found.alarm is False
    assert judged(np.full(10, 2.0), np.full((1, 30), 3.0)).alarm is True


def test_the_table_fits_and_hides_no_alarm() -> None:
    random = np.random.default_rng(3)
    scores = random.normal(size=(60, 20))
    scores[1] += 9.0
    console = Console(file=io.StringIO(), width=WIDTH, highlight=False)
    for table in drift_tables([judged(random.normal(size=20), scores)]):
        console.print(table)
    text = console.file.getvalue()
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    assert text.count("DRIFT") == 1
    assert "40 more" in text
