"""Sparse codes of feature rows over a learnt dictionary, in NumPy: the hierarchical sparse prompt without torch.

The problem is the paper's equation 9 (ADSeeker, arXiv 2508.03088), per row q of the queries and row-wise code p::

    J(p) = 1/2 ||q - p D||^2 + lambda ||p||_1

solved by iterative soft-thresholding (Daubechies et al., 2004). The paper prints the gradient as ``-mu E_q^T P E_l``,
which has not even the shape of P; the gradient of J is ``-(q - p D) D^T``, and that is what is used here. Lambda is
relative: ``rho`` times the largest correlation of the row with an atom, the smallest lambda that would leave nothing of
it. So ``rho`` means the same for every row, layer and scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...agent.errors import InputError

LIPSCHITZ_FLOOR = 1e-6
"""Keeps the step finite for an empty dictionary; a larger constant than needed only makes smaller steps."""

Matrix = NDArray[np.float64]


def _checked(queries: ArrayLike, dictionary: ArrayLike, rho: float) -> tuple[Matrix, Matrix]:
    q, atoms = np.asarray(queries, np.float64), np.asarray(dictionary, np.float64)
    if q.ndim != 2 or atoms.ndim != 2 or q.shape[1] != atoms.shape[1] or len(atoms) == 0:
        raise InputError(f"queries (B, d) and dictionary (K, d) expected, got {q.shape} and {atoms.shape}.")
    if not (np.isfinite(q).all() and np.isfinite(atoms).all()):
        raise InputError("queries and dictionary must be finite.")
    if not rho >= 0:
        raise InputError(f"rho must be at least 0, got {rho}.")
    return q, atoms


def lipschitz(dictionary: ArrayLike) -> float:
    """The Lipschitz constant of the gradient: the largest eigenvalue of the Gram matrix of the atoms.

    Exact, since a power iteration comes from below, and a step that is too long may raise the objective.

    Args:
        dictionary: (K, d).

    Returns:
        At least ``LIPSCHITZ_FLOOR``.
    """
    atoms = np.asarray(dictionary, np.float64)
    return max(float(np.linalg.eigvalsh(atoms @ atoms.T)[-1]), LIPSCHITZ_FLOOR)


def row_lambdas(queries: ArrayLike, dictionary: ArrayLike, rho: float) -> Matrix:
    """The weight of the L1 term of each row: ``rho * max_j |q . d_j|``.

    Args:
        queries: (B, d).
        dictionary: (K, d).
        rho: 0 is least squares (a dense code), 1 and above leave nothing.

    Returns:
        float64 (B, 1).

    Raises:
        InputError: shapes do not match, a value is not finite or rho is negative.
    """
    q, atoms = _checked(queries, dictionary, rho)
    return np.asarray(rho * np.abs(q @ atoms.T).max(axis=1, keepdims=True), np.float64)


def sparse_codes(queries: ArrayLike, dictionary: ArrayLike, *, rho: float = 0.1, steps: int = 100) -> Matrix:
    """Sparse codes by iterative soft-thresholding from zero; no step raises the objective.

    Args:
        queries: (B, d), any scale; a row of zeros has the code zero.
        dictionary: (K, d), one atom a row; K may exceed d, rows may repeat.
        rho: relative lambda, see ``row_lambdas``.
        steps: iterations.

    Returns:
        float64 (B, K).

    Raises:
        InputError: shapes do not match, a value is not finite, rho or steps is negative.
    """
    q, atoms = _checked(queries, dictionary, rho)
    if steps < 0:
        raise InputError(f"steps must be at least 0, got {steps}.")
    # Residual correlations (q - p D) D^T are q D^T - p G: with few atoms the Gram matrix is far cheaper than residuals.
    gram, correlations = atoms @ atoms.T, q @ atoms.T
    step = 1.0 / lipschitz(atoms)
    # The rounding of rho * max * step may differ from that of max * step by an ulp; at rho >= 1 zero must be exact.
    limits = np.abs(step * correlations).max(axis=1, keepdims=True) * rho
    codes = np.zeros_like(correlations)
    for _ in range(steps):
        moved = codes + step * (correlations - codes @ gram)
        codes = np.sign(moved) * np.maximum(np.abs(moved) - limits, 0.0)
    return codes


def objective(queries: ArrayLike, dictionary: ArrayLike, codes: ArrayLike, *, rho: float = 0.1) -> Matrix:
    """J of equation 9 for each row.

    Args:
        queries: (B, d).
        dictionary: (K, d).
        codes: (B, K).
        rho: as in ``sparse_codes``.

    Returns:
        float64 (B,).

    Raises:
        InputError: shapes do not match, a value is not finite or rho is negative.
    """
    q, atoms = _checked(queries, dictionary, rho)
    p = np.asarray(codes, np.float64)
    if p.shape != (len(q), len(atoms)):
        raise InputError(f"codes must be {(len(q), len(atoms))}, got {p.shape}.")
    residual = q - p @ atoms
    price = row_lambdas(q, atoms, rho)[:, 0] * np.abs(p).sum(axis=1)
    return np.asarray(0.5 * (residual**2).sum(axis=1) + price, np.float64)


def hierarchical_prompt(
    weights: Mapping[str, NDArray[np.floating[Any]]],
    stages: Sequence[NDArray[np.floating[Any]]],
    significance: Sequence[NDArray[np.floating[Any]] | None] | None = None,
    *,
    top_share: float = 0.2,
    steps: int = 100,
) -> tuple[Matrix, Matrix]:
    """A trained ``hsp.HierarchicalSparsePrompts`` (solver ISTA) without torch.

    Args:
        weights: its state, by the names of its ``state_dict``.
        stages: per stage patch tokens (B, N_s, D_s), shallow to deep.
        significance: per stage scores (B, N_s) of the patches, or None for the stage's own linear head (the first
            stage has none and takes all patches).
        top_share: share of the patches that the query of a stage is the mean of.
        steps: iterations.

    Returns:
        Of the last stage, the prompt E_f and the residual E_q - E_f, float64 (B, d) each.

    Raises:
        InputError: the number of stages does not match the weights, they are of a LISTA, or a value is not finite.
    """
    depth = sum(name.endswith(".solver.dictionary") for name in weights)
    if len(stages) != depth or depth == 0:
        raise InputError(f"{len(stages)} stages for prompts of {depth}.")
    if any(name.endswith(".solver.maps") for name in weights):
        raise InputError("these prompts have learnt iterations (LISTA), which need torch.")
    given = significance if significance is not None else [None] * len(stages)
    prompt = query = np.zeros(0)
    for index, (tokens, scores) in enumerate(zip(stages, given, strict=True)):
        x = np.asarray(tokens, np.float64)
        if scores is None and index > 0:
            head = f"significance.{index - 1}."
            scores = x @ weights[head + "weight"][0].astype(np.float64) + float(weights[head + "bias"][0])
        pooled = x.mean(axis=1) if scores is None else top_mean(x, np.asarray(scores, np.float64), top_share)
        stage = f"stages.{index}."
        query = pooled @ weights[stage + "query.weight"].T.astype(np.float64) + weights[stage + "query.bias"]
        query = query + prompt if index > 0 else query
        dictionary = weights[stage + "solver.dictionary"]
        prompt = sparse_codes(
            query, dictionary, rho=float(weights[stage + "solver.rho"]), steps=steps
        ) @ dictionary.astype(np.float64)
    return prompt, query - prompt


def top_mean(tokens: Matrix, scores: Matrix, share: float) -> Matrix:
    """Mean of the tokens with the highest scores; ties at the boundary all count, so constant scores take everything.

    Args:
        tokens: (B, N, D).
        scores: (B, N).
        share: of the tokens, in (0, 1]; at least one.

    Returns:
        float64 (B, D).
    """
    count = max(1, round(share * tokens.shape[1]))
    lowest = np.partition(scores, -count, axis=1)[:, -count, None]
    chosen = (scores >= lowest).astype(np.float64)
    return np.asarray(np.einsum("bn,bnd->bd", chosen / chosen.sum(axis=1, keepdims=True), tokens), np.float64)
