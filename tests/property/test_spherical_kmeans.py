"""What must hold of spherical k-means whatever the keys and seeds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flawscope.agent.errors import InputError
from flawscope.tools.ad_expert.spherical_kmeans import MAX_ITERATIONS, spherical_kmeans

VALUES = st.floats(-10, 10, allow_nan=False, width=32).map(lambda v: v + 0.01 if v == 0 else v)


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    width = draw(st.integers(1, 5))
    keys = draw(arrays(np.float64, (draw(st.integers(1, 25)), width), elements=VALUES))
    seeds = draw(arrays(np.float64, (draw(st.integers(1, 6)), width), elements=VALUES))
    return keys, seeds


@settings(max_examples=200, deadline=None)
@given(problems())
def test_the_objective_never_falls_and_the_result_is_consistent(problem: tuple[np.ndarray, np.ndarray]) -> None:
    keys, seeds = problem
    found = spherical_kmeans(keys, seeds)
    assert (np.diff(found.objective) >= -1e-9).all()
    assert 2 <= len(found.objective) <= MAX_ITERATIONS + 1
    np.testing.assert_allclose(np.linalg.norm(found.centres, axis=1), 1, atol=1e-9)
    x = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    cosines = x @ found.centres.T
    assert found.objective[-1] == pytest.approx(cosines.max(axis=1).sum(), abs=1e-9)
    own = cosines[np.arange(len(keys)), found.assignment]
    np.testing.assert_allclose(own, cosines.max(axis=1), atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(problems(), st.floats(1e-3, 1e3))
def test_lengths_do_not_matter_and_there_is_no_chance(problem: tuple[np.ndarray, np.ndarray], scale: float) -> None:
    keys, seeds = problem
    first, again = spherical_kmeans(keys, seeds), spherical_kmeans(keys, seeds)
    np.testing.assert_array_equal(first.centres, again.centres)
    power = 2.0 ** np.round(np.log2(scale))  # a power of two changes no digit
    np.testing.assert_array_equal(spherical_kmeans(keys * power, seeds).centres, first.centres)


def test_a_seed_without_keys_stays() -> None:
    found = spherical_kmeans(np.array([[1.0, 0.1], [1.0, -0.1]]), np.array([[2.0, 0.0], [-3.0, 0.0], [0.0, 5.0]]))
    np.testing.assert_allclose(found.centres, [[1, 0], [-1, 0], [0, 1]], atol=1e-12)
    assert found.assignment.tolist() == [0, 0]


def test_a_worked_example() -> None:
    # (0, 1) goes to the seed (1, 1) at first; the centre turns to (0.8, 0.6) + (0, 1), which keeps it
    keys = np.array([[0.8, 0.6], [0.0, 1.0], [1.0, 0.0]])
    found = spherical_kmeans(keys, np.array([[1.0, 1.0], [1.0, -0.2]]))
    turned = np.array([0.8, 1.6]) / np.hypot(0.8, 1.6)
    assert found.assignment.tolist() == [0, 0, 1]
    np.testing.assert_allclose(found.centres, [turned, [1, 0]], atol=1e-12)
    s2, s104 = np.sqrt(2), np.sqrt(1.04)
    assert found.objective[0] == pytest.approx(1.4 / s2 + 1 / s2 + 1 / s104)
    assert found.objective[-1] == pytest.approx(np.hypot(0.8, 1.6) + 1)


def test_keys_that_cancel_out_leave_the_centre() -> None:
    found = spherical_kmeans(np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([[0.0, 1.0]]))
    np.testing.assert_array_equal(found.centres, [[0, 1]])


@pytest.mark.parametrize(
    ("keys", "seeds"),
    [
        (np.ones((2, 3)), np.ones((2, 2))),
        (np.zeros((1, 2)), np.ones((1, 2))),
        (np.full((1, 2), np.nan), np.ones((1, 2))),
        (np.ones((0, 2)), np.ones((1, 2))),
        (np.ones((1, 2)), np.ones((0, 2))),
        (np.ones(2), np.ones((1, 2))),
    ],
)
def test_what_cannot_be_clustered_is_refused(keys: np.ndarray, seeds: np.ndarray) -> None:
    with pytest.raises(InputError):
        spherical_kmeans(keys, seeds)
