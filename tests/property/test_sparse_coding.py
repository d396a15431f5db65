"""What holds for every query and every dictionary."""

import itertools

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flawscope.tools.ad_expert.sparse_coding import lipschitz, objective, row_lambdas, sparse_codes

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
numbers = st.floats(-100, 100).map(lambda x: 0.0 if abs(x) < 1e-6 else x)
rhos = st.floats(0, 1.5)


@st.composite
def problems(draw, max_atoms=9, max_dim=6):
    """Arbitrary rows: more atoms than dimensions, zero rows, repeated atoms and wildly different norms included."""
    rows, atoms, dim = draw(st.integers(1, 4)), draw(st.integers(1, max_atoms)), draw(st.integers(1, max_dim))
    dictionary = draw(arrays(np.float64, (atoms, dim), elements=numbers))
    if draw(st.booleans()):
        dictionary = np.concatenate([dictionary, dictionary[:1]])
    return draw(arrays(np.float64, (rows, dim), elements=numbers)), dictionary


@st.composite
def independent(draw):
    """Queries and well-conditioned, linearly independent unit atoms: a rotation, tilted by less than a third."""
    seed, atoms = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 5))
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(7, 7)))[0][:atoms]
    tilted = basis + 0.3 * rng.uniform(-1, 1, size=(atoms, atoms)) @ basis / atoms
    return rng.normal(size=(3, 7)), tilted / np.linalg.norm(tilted, axis=1, keepdims=True)


@QUICK
@given(problems(), rhos)
def test_no_step_raises_the_objective(problem, rho):
    queries, dictionary = problem
    values = [
        objective(queries, dictionary, sparse_codes(queries, dictionary, rho=rho, steps=n), rho=rho) for n in range(12)
    ]
    slack = 1e-12 * (1 + (queries**2).sum(axis=1))
    for before, after in itertools.pairwise(values):
        assert (after <= before + slack).all()


@QUICK
@given(independent())
def test_without_sparsity_the_code_is_least_squares(problem):
    queries, dictionary = problem
    codes = sparse_codes(queries, dictionary, rho=0.0, steps=4000)
    np.testing.assert_allclose(codes, queries @ np.linalg.pinv(dictionary), atol=1e-10)


@QUICK
@given(problems(), st.floats(1, 10), st.integers(0, 30))
def test_lambda_at_the_largest_correlation_leaves_exactly_nothing(problem, rho, steps):
    queries, dictionary = problem
    assert (sparse_codes(queries, dictionary, rho=rho, steps=steps) == 0).all()


@QUICK
@given(independent(), st.floats(0.01, 0.95))
def test_the_solution_meets_the_optimality_conditions(problem, rho):
    queries, dictionary = problem
    codes = sparse_codes(queries, dictionary, rho=rho, steps=4000)
    slopes = (queries - codes @ dictionary) @ dictionary.T
    lambdas = np.broadcast_to(row_lambdas(queries, dictionary, rho), slopes.shape)
    assert (np.abs(slopes) <= lambdas + 1e-9).all()
    used = codes != 0
    np.testing.assert_allclose(slopes[used], (lambdas * np.sign(codes))[used], atol=1e-9)
    assert used.any(axis=1).all()


@QUICK
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.floats(0, 1))
def test_orthonormal_atoms_are_solved_in_one_step(seed, atoms, rho):
    rng = np.random.default_rng(seed)
    dictionary = np.linalg.qr(rng.normal(size=(6, 6)))[0][:atoms]
    queries = rng.normal(size=(3, 6))
    correlations = queries @ dictionary.T
    soft = np.sign(correlations) * np.maximum(np.abs(correlations) - row_lambdas(queries, dictionary, rho), 0)
    for steps in (1, 50):
        np.testing.assert_allclose(sparse_codes(queries, dictionary, rho=rho, steps=steps), soft, atol=1e-12)


@QUICK
@given(problems(), rhos)
def test_repeated_atoms_share_the_code_and_change_no_reconstruction(problem, rho):
    queries, dictionary = problem
    twice = sparse_codes(queries, np.concatenate([dictionary, dictionary]), rho=rho, steps=60)
    half = len(dictionary)
    scale = 1 + np.abs(twice).max()
    np.testing.assert_allclose(twice[:, :half], twice[:, half:], atol=1e-9 * scale)
    assert np.isfinite(twice).all()


@QUICK
@given(problems(), rhos, st.integers(0, 120))
def test_codes_are_finite_and_a_zero_query_has_none(problem, rho, steps):
    queries, dictionary = problem
    codes = sparse_codes(np.concatenate([queries, 0 * queries[:1]]), dictionary, rho=rho, steps=steps)
    assert np.isfinite(codes).all()
    assert (codes[-1] == 0).all()


@QUICK
@given(st.integers(0, 2**32 - 1), rhos)
def test_more_atoms_than_dimensions_stay_finite(seed, rho):
    rng = np.random.default_rng(seed)
    dictionary = rng.normal(size=(40, 5))
    dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
    codes = sparse_codes(rng.normal(size=(4, 5)), dictionary, rho=rho, steps=500)
    assert np.isfinite(codes).all()


@QUICK
@given(independent(), rhos, st.floats(1e-3, 1e3))
def test_a_query_of_another_scale_has_the_code_of_that_scale(problem, rho, factor):
    queries, dictionary = problem
    codes = sparse_codes(queries, dictionary, rho=rho, steps=30)
    scaled = sparse_codes(factor * queries, dictionary, rho=rho, steps=30)
    np.testing.assert_allclose(scaled, factor * codes, atol=1e-10 * factor)


@QUICK
@given(independent(), rhos)
def test_rows_do_not_see_each_other(problem, rho):
    queries, dictionary = problem
    together = sparse_codes(queries, dictionary, rho=rho)
    alone = np.concatenate([sparse_codes(row[None], dictionary, rho=rho) for row in queries])
    np.testing.assert_allclose(together, alone, atol=1e-12)


@QUICK
@given(problems())
def test_no_direction_is_stretched_beyond_the_lipschitz_constant(problem):
    queries, dictionary = problem
    stretched = np.linalg.norm(queries @ dictionary.T, axis=1) ** 2
    assert (stretched <= lipschitz(dictionary) * (queries**2).sum(axis=1) * (1 + 1e-9) + 1e-9).all()
