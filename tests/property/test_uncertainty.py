"""What holds of every sign of doubt and of every threshold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flawscope.agent.uncertainty import agreement, features, thresholds
from flawscope.agent.uncertainty.records import Answered
from flawscope.agent.vision_language.base import normalised_entropy
from flawscope.benchmarks import detection_metrics as dm

shares = st.floats(0.0, 1.0)
weights = st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=6)
letters = st.sampled_from("ABC")


@given(st.integers(2, 40))
def test_uniform_is_all_doubt_and_one_option_none(n: int) -> None:
    uniform = {f"o{i}": 1 / n for i in range(n)}
    certain = {f"o{i}": float(i == 0) for i in range(n)}
    for temperature in (0.3, 1.0, 5.0):
        assert normalised_entropy(features.tempered(uniform, temperature).values()) == pytest.approx(1.0)
        assert normalised_entropy(features.tempered(certain, temperature).values()) == pytest.approx(0.0, abs=1e-12)
    assert agreement.semantic_entropy([f"m{i}" for i in range(n)]) == pytest.approx(1.0)
    assert agreement.semantic_entropy(["m"] * n) == 0.0


@given(weights, st.floats(0.1, 10.0))
def test_heat_keeps_the_order_and_adds_doubt(raw: list[float], temperature: float) -> None:
    given_shares = {f"o{i}": w / sum(raw) for i, w in enumerate(raw)}
    warmer = features.tempered(given_shares, temperature * 1.5)
    cooler = features.tempered(given_shares, temperature)
    assert math.isclose(sum(warmer.values()), 1.0, abs_tol=1e-9)
    assert normalised_entropy(warmer.values()) >= normalised_entropy(cooler.values()) - 1e-9
    assert warmer[max(given_shares, key=lambda k: given_shares[k])] == max(warmer.values())


@given(st.lists(st.none() | st.sampled_from("abc"), max_size=12), st.randoms())
def test_semantic_entropy_is_a_share_that_no_order_changes(meanings: list[str | None], random: Any) -> None:
    found = agreement.semantic_entropy(meanings)
    assert (found is None) == (len(meanings) < 2)
    if found is not None:
        assert 0.0 <= found <= 1.0
        shuffled = list(meanings)
        random.shuffle(shuffled)
        assert agreement.semantic_entropy(shuffled) == pytest.approx(found, abs=1e-12)


@given(st.text(max_size=80) | st.text('{}":, verdictNGOKR1', max_size=80))
def test_any_text_has_a_meaning_or_none(text: str) -> None:
    found = agreement.meaning_of(text, {"R1": "left"})
    assert found is None or found.verdict in {"OK", "NG", "REVIEW"}


@given(st.permutations("ABCDE").map(tuple), st.sampled_from("ABCDE"))
def test_mapping_back_undoes_any_order(order: tuple[str, ...], letter: str) -> None:
    options = {key: f"text {key}" for key in "ABCDE"}
    shown = agreement.reordered(options, order)
    assert options[agreement.mapped_back(letter, tuple(options), order) or ""] == shown[letter]


@given(
    st.builds(
        dict,
        entropy=st.none() | shares,
        p_defect=st.none() | shares,
        s_cal=st.none() | shares,
        retrieval_similarity=st.none() | st.floats(-1.0, 1.0),
        permuted=st.lists(st.none() | letters, max_size=4),
        samples=st.lists(st.none() | letters, max_size=6),
        answer=st.none() | letters,
    ),
    st.lists(st.floats(-1.0, 1.0), max_size=9).map(sorted),
)
def test_every_sign_is_a_share_or_unknown(known: dict[str, Any], similarities: list[float]) -> None:
    found = features.signs_of_doubt(Answered(task="x", product="y", **known), None, similarities)
    assert all(value is None or 0.0 <= value <= 1.0 for value in found.values())


@given(st.integers(0, 200), st.integers(1, 200), st.floats(0.5, 0.999))
def test_bounds_rise_with_errors_and_fall_with_answers(errors: int, right: int, confident: float) -> None:
    n = errors + right
    at = lambda k, m: float(thresholds.error_bounds(np.array([k]), np.array([m]), confident)[0])  # noqa: E731
    assert errors / n < at(errors, n) <= 1.0
    assert at(errors, n) < at(errors + 1, n) or at(errors, n) == 1.0
    assert at(errors, n + 1) < at(errors, n)
    assert at(errors, n) == pytest.approx(dm.clopper_pearson(errors, n, 2 * confident - 1)[1])


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.none() | st.floats(0.0, 1.0), st.booleans()), min_size=60, max_size=150),
    st.floats(0.02, 0.5),
)
def test_what_stands_is_bounded_and_more_stands_for_a_looser_target(
    answers: list[tuple[float | None, bool]], target: float
) -> None:
    doubts, correct = [d for d, _ in answers], [c for _, c in answers]
    strict = thresholds.choose_threshold(doubts, correct, target)
    loose = thresholds.choose_threshold(doubts, correct, min(1.0, target * 1.5))
    assert strict.decided <= loose.decided
    if strict.low is not None:
        stands = [c for d, c in answers if d is not None and d <= strict.low]
        assert len(stands) == strict.decided
        assert sum(not c for c in stands) == strict.errors
        assert strict.bound is not None
        assert strict.errors / strict.decided <= strict.bound <= target
