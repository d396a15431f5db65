"""Intervals and tests of the answers, on numbers worked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from flawscope.benchmarks.mmad.statistics import (
    AnswerCounts,
    bootstrap_average,
    bootstrap_difference,
    error_auroc,
    flips,
    holm,
)


def line(number: int, correct: bool, **fields: Any) -> dict[str, Any]:
    given = {"id": str(number), "image": f"i{number}", "dataset": "VisA", "task": "Object Analysis", "normal": False}
    return {**given, "correct": correct, "entropy": None, **fields}


def test_the_average_is_over_kinds_then_subtasks_then_sets() -> None:
    lines = [
        *(line(n, n < 3, task="Anomaly Detection", normal=True) for n in range(4)),  # 75 of good parts
        line(4, False, task="Anomaly Detection"),  # 0 of defective ones: 37.5
        line(5, True),  # 100: the set's mean is 68.75
        line(6, False, dataset="GoodsAD"),  # 0
    ]
    assert AnswerCounts(lines).average()[0] == pytest.approx(34.375)


def test_certain_answers_have_no_width() -> None:
    found = bootstrap_average([line(n, True) for n in range(20)], draws=200)
    assert (found.value, found.low, found.high) == (100.0, 100.0, 100.0)


def test_the_interval_is_about_that_of_the_binomial() -> None:
    found = bootstrap_average([line(n, n % 2 == 0) for n in range(400)], draws=4000)
    half = 1.96 * 100 * math.sqrt(0.25 / 400)
    assert found.low == pytest.approx(50 - half, abs=0.6)
    assert found.high == pytest.approx(50 + half, abs=0.6)


def test_questions_about_one_picture_are_drawn_together() -> None:
    alone = bootstrap_average([line(n, n % 2 == 0) for n in range(40)], draws=2000)
    together = bootstrap_average([line(n, n % 8 < 4, image=f"i{n // 4}") for n in range(40)], draws=2000)
    assert together.high - together.low > 1.6 * (alone.high - alone.low)  # ten draws instead of forty: twice as wide


def test_a_paired_difference_is_narrower_than_its_parts() -> None:
    before = [line(n, n % 3 == 0) for n in range(120)]
    after = [line(n, n % 3 == 0 or n % 40 == 1) for n in range(120)]
    found = bootstrap_difference(before, after, draws=2000)
    assert found.value == pytest.approx(100 * 2 / 120)  # 1 and 41 are gained; 81 was right before
    assert found.high - found.low < 6
    with pytest.raises(ValueError, match="same questions"):
        bootstrap_difference(before, after[1:])


def test_flips_and_mcnemar() -> None:
    before = [line(n, n < 5) for n in range(12)]
    after = [line(n, n != 0) for n in range(12)]
    found = flips(before, after)
    assert (found.gained, found.lost, found.net, found.total) == (7, 1, 6, 12)
    assert found.p == pytest.approx(2 * (1 + 8) / 2**8)
    assert flips(before, before).p == 1.0


def test_holm_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03, 0.005]) == pytest.approx([0.06, 0.03, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.booleans()), min_size=2, max_size=40))
def test_entropy_auroc_is_that_of_scikit_learn(drawn: list[tuple[float, bool]]) -> None:
    lines = [line(n, right, entropy=entropy) for n, (entropy, right) in enumerate(drawn)]
    found = error_auroc(lines, draws=50)
    wrong = [not right for _, right in drawn]
    if len(set(wrong)) < 2:
        assert found is None
        return
    assert found is not None
    assert found.value == pytest.approx(roc_auc_score(wrong, [entropy for entropy, _ in drawn]))
    assert np.isfinite([found.low, found.high]).all()


def test_unknown_entropies_are_left_out() -> None:
    lines = [line(0, True, entropy=0.1), line(1, False, entropy=0.9), line(2, False)]
    found = error_auroc(lines, draws=50)
    assert found is not None
    assert found.value == 1.0
    assert error_auroc([line(0, True), line(1, False)]) is None
