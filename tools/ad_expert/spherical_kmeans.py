"""Spherical k-means from given centres: clusters of directions that keep the meaning they were seeded with.

Each key goes to the centre of largest cosine, each centre to the mean direction of its keys. Both steps can only raise
the sum of the cosines, so it ends. Source: Dhillon and Modha, Concept Decompositions for Large Sparse Text Data Using
Clustering (Machine Learning 42, 2001), section 3; the predefined centres are those of ADSeeker (arXiv 2508.03088).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import InputError

MAX_ITERATIONS = 50
LEAST_LENGTH = 1e-9
"""Below it the sum of a cluster's keys has no direction, and the centre stays where it is."""


@dataclass(frozen=True)
class Clusters:
    """Where the centres ended.

    Attributes:
        centres: float64 (C, D), unit rows, in the order of the seeds.
        assignment: (M,) index of each key's centre, the first of equally near ones.
        objective: sum of the cosines of the keys to their centres, before the first step and after each.
    """

    centres: NDArray[np.float64]
    assignment: NDArray[np.intp]
    objective: tuple[float, ...]


def spherical_kmeans(
    keys: NDArray[np.floating[Any]], seeds: NDArray[np.floating[Any]], max_iterations: int = MAX_ITERATIONS
) -> Clusters:
    """Refine centres on keys. There is no chance in it: equal input gives equal output.

    Args:
        keys: (M, D), of any length but zero.
        seeds: (C, D), likewise; the centre of a cluster without keys stays at its seed or where it was last.
        max_iterations: steps at most; it ends sooner when no key changes its centre.

    Raises:
        InputError: shapes that do not match, nothing to cluster, a value that is not finite or a row of zeros.
    """
    x, centres = _directions(keys, "keys"), _directions(seeds, "seeds")
    if x.shape[1] != centres.shape[1]:
        raise InputError(f"keys of width {x.shape[1]} cannot be clustered around seeds of width {centres.shape[1]}.")
    cosines = x @ centres.T
    assignment = cosines.argmax(axis=1)
    objective = [float(cosines.max(axis=1).sum())]
    for _ in range(max_iterations):
        centres = _mean_directions(x, assignment, centres)
        cosines = x @ centres.T
        moved = cosines.argmax(axis=1)
        objective.append(float(cosines.max(axis=1).sum()))
        if (moved == assignment).all():
            break
        assignment = moved
    return Clusters(centres, assignment, tuple(objective))


def _mean_directions(
    x: NDArray[np.float64], assignment: NDArray[np.intp], centres: NDArray[np.float64]
) -> NDArray[np.float64]:
    sums = np.zeros_like(centres)
    np.add.at(sums, assignment, x)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.where(lengths > LEAST_LENGTH, sums / np.maximum(lengths, LEAST_LENGTH), centres)


def _directions(rows: NDArray[np.floating[Any]], what: str) -> NDArray[np.float64]:
    matrix = np.asarray(rows, dtype=np.float64)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise InputError(f"{what} must be a matrix with at least one row, got shape {matrix.shape}.")
    peaks = np.abs(matrix).max(axis=1, keepdims=True)
    if not np.isfinite(peaks).all() or peaks.min() <= 0:
        raise InputError(f"{what} must be finite and no row zero.")
    matrix = matrix / peaks  # by the peak first: squares of tiny or huge values leave the range of floats
    return np.asarray(matrix / np.linalg.norm(matrix, axis=1, keepdims=True))
