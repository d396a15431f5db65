"""Coordinates, places, rivals and weights by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from flawscope.tools.ad_expert.expert import ExpertConfig, ReferenceFit
from flawscope.tools.ad_expert.memory_bank import MemoryBank
from flawscope.tools.ad_expert.reference_views import is_natural
from flawscope.tools.ad_expert.token_frame import (
    SUBSPACE_DIM,
    TokenFrame,
    fit_frame,
    measure_rivals,
    rival_weights,
    same_place_share,
)


def unit(count: int, dim: int, seed: int = 0) -> NDArray[np.float32]:
    tokens = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return np.asarray(tokens / np.linalg.norm(tokens, axis=1, keepdims=True), np.float32)


def test_a_subspace_that_holds_all_tokens_changes_no_distance() -> None:
    tokens, query = unit(50, 20), unit(9, 20, seed=1)
    frame = fit_frame(tokens, 0.0)
    owners = np.zeros(50, np.int32)
    whole = MemoryBank(tokens, owners).distances(query)
    inside = MemoryBank(frame.coordinates(tokens, None), owners, frame).distances(query)
    np.testing.assert_allclose(inside, whole, atol=1e-5)


def test_what_lies_outside_the_subspace_counts() -> None:
    """Good tokens span the first axis; a query at a right angle to it is at the distance of two unit vectors."""
    frame = TokenFrame(np.eye(3, 1, dtype=np.float32))
    bank = MemoryBank(np.ones((1, 1), np.float32), np.zeros(1, np.int32), frame)
    found = bank.distances(np.array([[1, 0, 0], [0, 1, 0], [0.6, 0.8, 0]], np.float32))
    np.testing.assert_allclose(found, np.sqrt([0.0, 2.0, 2 - 2 * 0.6]), atol=1e-6)


def test_the_basis_is_orthonormal_and_of_the_stated_size() -> None:
    basis = fit_frame(unit(300, 100), 0.0).basis
    assert basis.shape == (100, SUBSPACE_DIM)
    np.testing.assert_allclose(basis.T @ basis, np.eye(SUBSPACE_DIM), atol=1e-5)


def test_places_by_hand() -> None:
    """Two equal patches of a 1x2 grid are half a picture apart: a weight of 2 puts them 1 apart."""
    frame = TokenFrame(np.eye(2, 2, dtype=np.float32), place_weight=2.0)
    tokens = np.array([[1, 0], [0, 1]], np.float32)
    bank = MemoryBank(frame.coordinates(tokens, (1, 2)), np.zeros(2, np.int32), frame)
    np.testing.assert_allclose(bank.distances(tokens, (1, 2)), [0, 0], atol=1e-3)
    np.testing.assert_allclose(bank.distances(tokens[::-1].copy(), (1, 2)), [1, 1], atol=1e-6)


def test_a_pose_is_shared_or_not() -> None:
    grid = (9, 9)
    first, other = unit(81, 30), unit(81, 30, seed=2)
    assert same_place_share([first, first], [grid, grid]) == 1.0
    shuffled = first[np.random.default_rng(0).permutation(81)]
    assert same_place_share([first, shuffled], [grid, grid]) < 0.6
    assert same_place_share([first, other], [grid, (3, 27)]) == 0.0  # no two of one grid
    assert same_place_share([first], [grid]) == 0.0


def test_rivals_by_hand() -> None:
    tokens = np.array([[0.0], [0.1], [1.0], [3.0]], np.float32)
    rivals = measure_rivals(tokens, np.array([0, 0, 1, 2], np.int32), np.arange(4))
    np.testing.assert_allclose(rivals.distances, [[1.0, 3.0], [0.9, 2.9], [0.9, 2.0], [2.0, 2.9]], atol=1e-5)
    np.testing.assert_array_equal(rivals.owners, [[1, 2], [1, 2], [0, 2], [1, 0]])
    np.testing.assert_allclose(rivals.without(1), [3.0, 2.9, 0.9, 2.9], atol=1e-5)
    some = measure_rivals(tokens, np.array([0, 0, 1, 2], np.int32), np.array([3, 1]))
    np.testing.assert_array_equal(some.owners, rivals.owners[[3, 1]])
    np.testing.assert_array_equal(some.distances, rivals.distances[[3, 1]])
    alone = measure_rivals(tokens, np.zeros(4, np.int32), np.arange(4))
    assert np.isinf(alone.distances).all()


def test_weights_by_hand() -> None:
    apart = np.array([0.2, 0.4, 0.0, np.inf], np.float32)
    np.testing.assert_allclose(rival_weights(apart, 0.2), [1.0, 0.8, 4 / 3, 1.0], rtol=1e-6)
    np.testing.assert_array_equal(rival_weights(apart, 0.0), np.ones(4))  # copies of one picture


@given(st.lists(st.floats(0, 2), min_size=1, max_size=20), st.floats(0.01, 1))
def test_weights_fall_as_good_parts_differ_more(apart: list[float], typical: float) -> None:
    weights = rival_weights(np.sort(np.array(apart, np.float32)), typical)
    assert (np.diff(weights) <= 1e-6).all()
    assert (weights > 0).all()
    assert (weights <= 4 / 3 + 1e-6).all()


def test_copies_of_one_reference_still_find_a_defect() -> None:
    tokens = unit(30, 12)
    fit = ReferenceFit([tokens, tokens.copy()], range(2), ExpertConfig())
    assert fit.expert.bank.distances(unit(5, 12, seed=7)).min() > 0.1


def test_leaving_one_out_forgets_it_as_a_rival_too() -> None:
    """Two near references and a far one: without its near twin a reference's nearest rival is the far one."""
    near, far = unit(20, 12), unit(20, 12, seed=5)
    twin = near + np.float32(0.01) * unit(20, 12, seed=6)
    twin /= np.linalg.norm(twin, axis=1, keepdims=True)
    fit = ReferenceFit([near, twin, far], range(3), ExpertConfig())
    assert fit.expert.bank.weights is not None
    without = fit.without(1).bank
    assert without.weights is not None
    kept = fit.expert.bank.weights[fit.expert.bank.owners == 0]
    assert (without.weights[without.owners == 0] < kept).all()


def test_mirror_images_are_natural_where_the_others_look_like_them() -> None:
    tokens = [unit(40, 8, seed) for seed in range(3)]
    assert is_natural(tokens, tokens)
    assert not is_natural([tokens[0], tokens[0], tokens[0]], [unit(40, 8, seed=9)])


def test_a_grid_is_needed_where_places_count() -> None:
    frame = TokenFrame(np.eye(2, 2, dtype=np.float32), place_weight=1.0)
    with pytest.raises(AssertionError):
        frame.coordinates(np.eye(2, dtype=np.float32), None)
