"""The statistics behind a type model: shrunk whitening, and what is calibrated on left-out examples.

Left-out distances come from models fitted without the example they are of, so they are what a new picture of the same
type would get. Every type counts alike, however many examples it has.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SHRINKAGE = 0.6
"""Share of the identity in the covariance; .1 to .9 name about as well."""
KNOWN_QUANTILE = 0.9
"""Share of the left-out examples that are less strange than where unknown reaches one half; see docs/defect_types.md
for what 0.95 would gain and cost."""
MIN_SOFTNESS = 0.1
"""Least width of the step from known to unknown, in log strangeness."""
TINY = 1e-12
_TEMPERATURES = np.geomspace(1e-3, 10.0, 41)


def shrunk_whitening(residuals: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Whitening by a covariance shrunk towards a multiple of the identity.

    With S the covariance of the residuals and a the shrinkage, C = (1 - a) S + a tr(S)/K I. Up to a factor, C^(-1/2)
    leaves all directions alone that the residuals do not span and damps the others.

    Args:
        residuals: (M, K) differences to the own type's mean, weighted so that S is their sum of outer products.

    Returns:
        Orthonormal directions (R, K) with R at most M, and their gains (R,) in (0, 1).

    Source: Friedman, Regularized Discriminant Analysis (1989).
    """
    _, singular, directions = np.linalg.svd(residuals, full_matrices=False)
    kept = singular > max(1e-9 * float(singular.max()), TINY)
    variances = singular[kept] ** 2
    ridge = SHRINKAGE * variances.sum() / residuals.shape[1]
    return directions[kept], np.sqrt(ridge / ((1 - SHRINKAGE) * variances + ridge))


def whiten(z: NDArray[np.float64], directions: NDArray[np.float64], gains: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply :func:`shrunk_whitening` to vectors (..., K)."""
    return z + ((z @ directions.T) * (gains - 1.0)) @ directions


def unit(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of length 1; a row of zeros stays."""
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), TINY))


def strangeness(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """How badly queries fit all types.

    The nearest distance, discounted when the second nearest is much farther: a query between two types is stranger
    than one that is as far from its type but clearly of it.

    Args:
        distances: (L, C) of L queries to C types, at least 0.

    Returns:
        (L,), at least 0.
    """
    if distances.shape[1] == 1:
        return distances[:, 0]
    ordered = np.sort(distances, axis=1)
    return ordered[:, 0] ** 2 / np.maximum(ordered[:, 1], TINY)


def unknown_share(distances: NDArray[np.float64], unknown_at: float, softness: float) -> float:
    """Probability that a query with these distances (C,) is of no known type: a logistic step in log strangeness."""
    strange = max(float(strangeness(distances[None])[0]), TINY)
    step = np.log(strange / unknown_at) / softness
    return float(0.5 * (1.0 + np.tanh(0.5 * step)))


def calibrate_temperature(
    left_out: NDArray[np.float64], own_type: NDArray[np.int64], counts: NDArray[np.int64]
) -> float:
    """The temperature under which the left-out examples' own types are most likely.

    Args:
        left_out: (L, C) distances of each left-out example to each type.
        own_type: (L,) index of its type.
        counts: (C,) examples per type.

    Returns:
        The temperature of a softmax over distances; 1 when there is nothing to choose between.
    """
    if len(own_type) == 0 or len(counts) < 2:
        return 1.0
    weights = 1.0 / counts[own_type]
    losses = []
    for temperature in _TEMPERATURES:
        logits = -left_out / temperature
        top = logits.max(axis=1)
        log_sum = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        losses.append(float(weights @ (log_sum - logits[np.arange(len(own_type)), own_type])))
    return float(_TEMPERATURES[int(np.argmin(losses))])


def calibrate_unknown(
    left_out: NDArray[np.float64],
    own_type: NDArray[np.int64],
    counts: NDArray[np.int64],
    between_types: NDArray[np.float64],
) -> tuple[float, float]:
    """Where unknown reaches one half, and how soft the step is.

    Args:
        left_out: (L, C), see :func:`calibrate_temperature`; L is 0 when no type has two examples.
        own_type: (L,).
        counts: (C,).
        between_types: distances of pairs of types; used when there is no left-out example.

    Returns:
        ``unknown_at`` and ``softness`` of :func:`unknown_share`.
    """
    if len(own_type) == 0:
        # half way to the next type (a quarter, since distances are squared); for one lone example its own scale
        nearest = float(between_types.min()) / 4 if between_types.size else 1.0
        return max(nearest, TINY), 1.0
    strange = strangeness(left_out)
    order = np.argsort(strange, kind="stable")
    weights = (1.0 / counts[own_type])[order]
    reached = np.cumsum(weights) / weights.sum()
    at, middle = (
        max(float(strange[order][min(int(np.searchsorted(reached, share - 1e-9)), len(order) - 1)]), TINY)
        for share in (KNOWN_QUANTILE, 0.5)
    )
    # a third of the way in log strangeness: at the median example the sigmoid leaves unknown 5%
    return at, max(float(np.log(at / middle)) / 3, MIN_SOFTNESS)
