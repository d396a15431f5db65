from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from flawscope.agent.errors import ProductError
from flawscope.tools.ad_expert.alignment import BACKGROUND_SHARE, Alignment, captures_differ
from flawscope.tools.ad_expert.appearance import DISAGREEMENT, disagreement
from flawscope.tools.ad_expert.expert import ExpertConfig, ReferenceFit


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def test_tokens_move_by_the_difference_of_the_means() -> None:
    tokens = np.array([[1, 0], [0.6, 0.8]], np.float32)  # mean (0.8, 0.4)
    moved = Alignment(np.array([0.6, 0.6], np.float32)).apply(tokens)
    # by (-0.2, 0.2): (0.8, 0.2) and (0.4, 1.0), then unit length
    np.testing.assert_allclose(moved, unit(np.array([[0.8, 0.2], [0.4, 1.0]], np.float32)), rtol=1e-6)


def test_a_picture_at_the_centre_stays_where_it_is() -> None:
    tokens = unit(np.random.default_rng(1).normal(size=(50, 6)).astype(np.float32) + 0.5)
    np.testing.assert_allclose(Alignment(tokens.mean(axis=0)).apply(tokens), tokens, atol=1e-6)


def test_a_shift_of_the_whole_picture_is_taken_off() -> None:
    rng = np.random.default_rng(2)
    tokens = unit(rng.normal(size=(400, 16)).astype(np.float32) + 1.0)
    shifted = unit(tokens + 0.15 * rng.normal(size=16).astype(np.float32))
    aligned = Alignment(tokens.mean(axis=0)).apply(shifted)
    before, after = (float(np.linalg.norm(other - tokens, axis=1).mean()) for other in (shifted, aligned))
    assert after < 0.25 * before


@given(
    st.lists(st.lists(st.floats(-1, 1), min_size=3, max_size=3), min_size=1, max_size=6),
    st.lists(st.floats(-1, 1), min_size=3, max_size=3),
)
def test_aligned_tokens_are_finite_and_at_most_of_unit_length(rows: list[list[float]], centre: list[float]) -> None:
    tokens = np.array(rows, np.float32)
    tokens /= np.maximum(np.linalg.norm(tokens, axis=1, keepdims=True), 1e-6)
    moved = Alignment(np.array(centre, np.float32)).apply(tokens)
    assert np.isfinite(moved).all()
    assert (np.linalg.norm(moved, axis=1) <= 1 + 1e-5).all()


def statistics(spread_of_means: float, spread_within: float, count: int = 4) -> NDArray[np.float32]:
    means = spread_of_means * np.array([-1.0, 1.0] * (count // 2))[:, None]
    return np.column_stack([means, np.full((count, 1), spread_within)]).astype(np.float32)


def test_captures_differ_from_a_share_of_the_variance_on() -> None:
    # variance between four means of -1, 1, -1, 1 times s is 4/3 s^2; within it is 1
    assert disagreement(statistics(0.05, 1.0)) == pytest.approx(1 / 301, rel=1e-4)
    edge = np.sqrt(0.75 * DISAGREEMENT / (1 - DISAGREEMENT))
    assert captures_differ(statistics(1.01 * edge, 1.0))
    assert not captures_differ(statistics(0.99 * edge, 1.0))
    assert not captures_differ(statistics(0.0, 1.0))


def test_too_few_references_cannot_tell() -> None:
    assert not captures_differ(statistics(1.0, 1.0, count=2))


def test_the_background_is_half_the_median_and_never_the_whole_score() -> None:
    alignment = Alignment(np.zeros(3, np.float32))
    assert alignment.background(np.array([[0.1, 0.2], [0.4, 0.9]], np.float32)) == pytest.approx(0.15)
    scores = np.full((4, 4), 0.3, np.float32)  # wrong everywhere
    assert 0.3 - alignment.background(scores) == pytest.approx((1 - BACKGROUND_SHARE) * 0.3)


def references(brightness: list[float]) -> tuple[list[NDArray[np.float32]], NDArray[np.float32]]:
    """Tokens and statistics of pictures of one texture that differ by a shift of all their tokens."""
    rng = np.random.default_rng(0)
    direction, texture = rng.normal(size=8), rng.normal(size=(36, 8))
    raw = [texture + 0.2 * rng.normal(size=(36, 8)) + level * direction for level in brightness]
    summaries = [np.concatenate([view.mean(axis=0), view.std(axis=0)]) for view in raw]
    return [unit(view.astype(np.float32)) for view in raw], np.array(summaries, np.float32)


def test_a_new_capture_is_aligned_only_where_good_pictures_differ_in_it() -> None:
    new, _ = references([0.0, 0.0, 0.0, 0.0, 1.5])
    for brightness, aligned in (([-0.6, 0.6, -0.3, 0.3], True), ([0.0] * 4, False)):
        tokens, summaries = references(brightness)
        fit = ReferenceFit(tokens, range(4), ExpertConfig(), statistics=summaries)
        alignment = fit.expert.alignment
        assert (alignment is not None) is aligned
        plain = fit.expert.bank.distances(new[-1], (6, 6)).mean()
        found = fit.expert.distances(new[-1], (6, 6)).mean()
        assert bool(found < 0.8 * plain) is aligned


def test_a_left_out_reference_does_not_align_itself() -> None:
    tokens, summaries = references([-0.6, 0.6, -0.3, 0.3])
    fit = ReferenceFit(tokens, range(4), ExpertConfig(), statistics=summaries)
    alignment = fit.without(1).alignment
    assert alignment is not None
    np.testing.assert_allclose(
        alignment.centre, np.mean([tokens[i].mean(axis=0) for i in (0, 2, 3)], axis=0), rtol=1e-5
    )
    windows = ReferenceFit(tokens, range(4), ExpertConfig())
    assert windows.expert.alignment is None  # windows of parts differ in their means because of what they show


@pytest.mark.parametrize("centre", [[[0.0]], [float("nan")]])
def test_a_damaged_alignment_is_refused(centre: list[float]) -> None:
    with pytest.raises(ProductError, match="alignment"):
        Alignment(np.array(centre, np.float32))
