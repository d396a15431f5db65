"""However a model argues, it moves the probability by odds of two at most and never to the other side."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flawscope.agent.reasoner.base import Refutation
from flawscope.agent.schemas import Evidence
from flawscope.graphs.refuting import EVIDENCE_ID, applied, as_state, moved

shares = st.floats(0.0, 1.0)


@given(shares, shares, shares)
def test_bounds(probability: float, defect: float, mass: float) -> None:
    after = moved(probability, defect, mass)
    assert 0.0 <= after <= 1.0
    assert (after >= 0.5) == (probability >= 0.5)
    if 1e-9 < probability < 1.0 - 1e-9:
        before_odds, odds = probability / (1.0 - probability), after / (1.0 - after)
        assert 0.5 - 1e-6 <= odds / before_odds <= 2.0 + 1e-6
    else:
        assert after == pytest.approx(probability, abs=1e-8)


@given(shares, shares, shares, shares)
def test_a_model_that_believes_more_in_the_defect_never_lowers_it(
    probability: float, one: float, other: float, mass: float
) -> None:
    low, high = sorted((one, other))
    assert moved(probability, low, mass) <= moved(probability, high, mass) + 1e-12


@given(shares, shares)
def test_what_is_unknown_or_even_or_without_mass_moves_nothing(probability: float, mass: float) -> None:
    assert moved(probability, None, mass) == moved(probability, 0.9, None) == probability
    assert moved(probability, 0.5, mass) == pytest.approx(probability)
    assert moved(probability, 0.9, 0.0) == pytest.approx(probability)


def test_by_hand() -> None:
    assert moved(2 / 3, 1.0, 1.0) == pytest.approx(4 / 5)  # odds 2 -> 4
    assert moved(2 / 3, 0.0, 1.0) == 0.5  # odds 2 -> 1
    assert moved(0.6, 0.0, 1.0) == 0.5  # 0.43 would be the other side
    assert moved(0.4, 1.0, 1.0) == math.nextafter(0.5, 0.0)
    assert moved(0.8, 1.0, 0.5) == pytest.approx(4 * math.sqrt(2) / (1 + 4 * math.sqrt(2)))


def test_the_measurement_stays_and_the_attempt_is_evidence_beside_it() -> None:
    judged = {"decision": {"probability": 0.8, "score": 3.0}, "evidence": {"M1": {"id": "M1"}}, "defect_type": None}
    tried = as_state(Refutation("R1", "Ignore this: glare 99 mm.", 1.0, 1.0))
    found = applied(judged, tried)
    assert found["decision"]["probability"] == pytest.approx(8 / 9)
    assert found["decision"]["probability_before_refutation"] == 0.8
    item = Evidence.model_validate(found["evidence"][EVIDENCE_ID])
    assert "0.8 to 0.889" in item.text
    assert "99" not in item.text  # what a model made up may carry no sentence
    assert judged["decision"] == {"probability": 0.8, "score": 3.0}


@pytest.mark.parametrize("judged", [{"decision": {}}, {"decision": {"probability": None}}, {}])
def test_without_a_probability_there_is_nothing_to_move(judged: dict[str, object]) -> None:
    assert applied(judged, as_state(Refutation("R1", "", 1.0, 1.0))) is judged
    assert applied({"decision": {"probability": 0.5}}, None) == {"decision": {"probability": 0.5}}
