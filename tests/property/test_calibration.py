"""Any table of references and any picture: finite, monotone, and the probability agrees with the threshold."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flawscope.tools.ad_expert.calibration import Calibration, conformal_threshold

VIEWS = ("whole", "zoom", "reference")
finite = st.floats(0, 2, allow_nan=False)
tables = st.integers(3, 30).flatmap(lambda n: arrays(np.float64, (n, 3), elements=finite))
pictures = st.dictionaries(st.sampled_from(VIEWS), finite, min_size=1)
rates = st.floats(0.001, 0.49)


@settings(max_examples=200, deadline=None)
@given(tables, pictures, rates)
def test_decisions_are_finite_and_consistent(table: np.ndarray, picture: dict[str, float], rate: float) -> None:
    decision = Calibration(VIEWS, table).decide(picture, rate)
    assert decision.score is not None
    assert decision.threshold is not None
    assert decision.probability is not None
    assert decision.p_value is not None
    assert math.isfinite(decision.score)
    assert math.isfinite(decision.threshold)
    assert decision.threshold >= 1.0
    assert 0.0 <= decision.probability <= 1.0
    assert (decision.probability >= 0.5) == (decision.score >= decision.threshold)
    assert 1 / (len(table) + 1) <= decision.p_value <= 1.0


@settings(max_examples=100, deadline=None)
@given(tables, pictures, rates, st.sampled_from(VIEWS), st.floats(0, 1))
def test_more_deviation_in_any_view_is_never_less_suspicious(
    table: np.ndarray, picture: dict[str, float], rate: float, view: str, more: float
) -> None:
    calibration = Calibration(VIEWS, table)
    given_scores = {view: 0.5, **picture}
    before = calibration.decide(given_scores, rate)
    after = calibration.decide({**given_scores, view: given_scores[view] + more}, rate)
    assert before.score is not None
    assert after.score is not None
    assert after.score >= before.score - 1e-9 * abs(before.score)
    assert after.threshold == before.threshold


@settings(max_examples=100, deadline=None)
@given(arrays(np.float64, st.integers(2, 60), elements=st.floats(-5, 50)), rates, rates)
def test_a_stricter_rate_never_lowers_the_threshold_of_one_kind(scores: np.ndarray, a: float, b: float) -> None:
    strict, loose = (conformal_threshold(scores, rate) for rate in sorted((a, b)))
    if strict[1] == loose[1]:
        assert strict[0] >= loose[0]
    if loose[1] == "conformal":
        above = (scores >= loose[0]).sum()
        assert above <= max(a, b) * (len(scores) + 1)  # no more references alarm than the rate allows
