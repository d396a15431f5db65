"""Sparse codes on numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from flawscope.agent.errors import InputError
from flawscope.tools.ad_expert.sparse_coding import lipschitz, objective, row_lambdas, sparse_codes, top_mean


def test_two_orthonormal_atoms_by_hand() -> None:
    # correlations 3 and -1; lambda = 0.5 * 3 = 1.5; soft(3) = 1.5, soft(-1) = 0
    codes = sparse_codes([[3.0, -1.0, 2.0]], [[1, 0, 0], [0, 1, 0]], rho=0.5, steps=1)
    np.testing.assert_array_equal(codes, [[1.5, 0.0]])
    # residual (1.5, -1, 2): half of 7.25, and 1.5 * 1.5 for the code
    np.testing.assert_allclose(objective([[3.0, -1.0, 2.0]], [[1, 0, 0], [0, 1, 0]], codes, rho=0.5), [5.875])


def test_two_oblique_atoms_reach_the_solution_by_hand() -> None:
    # atoms a = (1, 0), b = (.6, .8), q = (2, 1): correlations 2 and 2, Gram off-diagonal .6, lambda .1 * 2 = .2; both
    # atoms are used, so 1.6 p = 2 - .2 for each of two equal entries
    codes = sparse_codes([[2.0, 1.0]], [[1.0, 0.0], [0.6, 0.8]], rho=0.1, steps=200)
    np.testing.assert_allclose(codes, [[1.125, 1.125]], atol=1e-12)


def test_the_lipschitz_constant_is_the_largest_eigenvalue_and_has_a_floor() -> None:
    assert lipschitz([[1.0, 0.0], [0.6, 0.8]]) == pytest.approx(1.6, abs=1e-12)
    assert lipschitz(np.ones((3, 4))) == pytest.approx(12.0, abs=1e-12)
    assert lipschitz(np.zeros((2, 4))) == 1e-6


def test_lambda_is_relative_to_each_row() -> None:
    rows = np.array([[1.0, 2.0], [10.0, 20.0], [0.0, 0.0]])
    np.testing.assert_allclose(row_lambdas(rows, np.eye(2), 0.25), [[0.5], [5.0], [0.0]])


def test_a_constant_score_takes_every_token_and_a_peak_only_its_own() -> None:
    tokens = np.arange(10.0).reshape(1, 5, 2)
    np.testing.assert_allclose(top_mean(tokens, np.zeros((1, 5)), 0.2), [[4.0, 5.0]])
    np.testing.assert_allclose(top_mean(tokens, np.array([[0.0, 3.0, 1.0, 2.0, 0.0]]), 0.2), [[2.0, 3.0]])
    np.testing.assert_allclose(top_mean(tokens, np.array([[0.0, 3.0, 1.0, 2.0, 0.0]]), 0.4), [[4.0, 5.0]])


@pytest.mark.parametrize(
    ("queries", "dictionary", "rho", "steps"),
    [
        (np.zeros((2, 3)), np.zeros((4, 2)), 0.1, 5),
        (np.zeros(3), np.zeros((4, 3)), 0.1, 5),
        (np.zeros((2, 3)), np.zeros((0, 3)), 0.1, 5),
        (np.full((2, 3), np.nan), np.zeros((4, 3)), 0.1, 5),
        (np.zeros((2, 3)), np.full((4, 3), np.inf), 0.1, 5),
        (np.zeros((2, 3)), np.zeros((4, 3)), -0.1, 5),
        (np.zeros((2, 3)), np.zeros((4, 3)), float("nan"), 5),
        (np.zeros((2, 3)), np.zeros((4, 3)), 0.1, -1),
    ],
)
def test_nonsense_is_refused(queries: object, dictionary: object, rho: float, steps: int) -> None:
    with pytest.raises(InputError):
        sparse_codes(queries, dictionary, rho=rho, steps=steps)


def test_codes_of_another_shape_have_no_objective() -> None:
    with pytest.raises(InputError):
        objective(np.zeros((2, 3)), np.eye(3), np.zeros((2, 2)))
