"""Component masks: which patches of a picture show which kind of thing, learnt from good references without labels.

Patch tokens of all references are clustered by direction, and every patch takes the label of its nearest centre.
Connected patches of one label are a component. ComAD (Liu et al., 2023) and PSAD (Kim et al., 2024) cluster features
into component masks alike; what follows from the masks is told in ``checks``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import ProductError

KINDS = 6
"""Kinds of things that patches are told apart into."""
MIN_COMPONENT_PATCHES = 4
"""Smaller groups of patches are the fringe of another component."""
_ROUNDS = 25
_SAMPLE = 20_000


@dataclass(frozen=True)
class Parts:
    """What a picture holds.

    Attributes:
        labels: int (h, w), the kind of each patch.
        counts: int (K,), components of each kind.
        shares: float64 (K,), of all patches.
    """

    labels: NDArray[np.intp]
    counts: NDArray[np.intp]
    shares: NDArray[np.float64]


def fit_kinds(tokens: Sequence[NDArray[np.float32]], kinds: int = KINDS, seed: int = 0) -> NDArray[np.float32]:
    """Centres of the kinds.

    Args:
        tokens: one float32 (N, D) a reference, unit rows.
        kinds: how many.
        seed: of the first centres and the sample.

    Returns:
        float32 (K, D), unit rows; fewer than ``kinds`` where the tokens are not that different.

    Raises:
        ProductError: there are no tokens.
    """
    if not tokens:
        raise ProductError("there are no references to learn parts from.")
    rng = np.random.default_rng(seed)
    rows = np.concatenate(list(tokens))
    rows = rows[np.sort(rng.permutation(len(rows))[:_SAMPLE])]
    centres = rows[:1]
    for _ in range(kinds - 1):  # the farthest token begins the next kind, so small parts get one too
        distance = 1.0 - (rows @ centres.T).max(axis=1)
        cut = np.quantile(distance, 0.98)  # not the single farthest, which is a freak
        candidates = np.flatnonzero(distance >= cut)
        if not len(candidates) or cut <= 1e-6:
            break
        fresh = _unit(rows[candidates].mean(axis=0, keepdims=True))
        centres = np.concatenate([centres, fresh])
    for _ in range(_ROUNDS):
        nearest = (rows @ centres.T).argmax(axis=1)
        sums = np.stack([rows[nearest == k].sum(axis=0) for k in range(len(centres))])
        moved = _unit(np.where((nearest[:, None] == np.arange(len(centres))).any(axis=0)[:, None], sums, centres))
        if np.allclose(moved, centres, atol=1e-5):
            break
        centres = moved
    return np.asarray(centres, np.float32)


def parts_of(tokens: NDArray[np.float32], grid: tuple[int, int], centres: NDArray[np.float32]) -> Parts:
    """Label a picture's patches and count its components (8-neighbourhood).

    Args:
        tokens: float32 (h * w, D), unit rows.
        grid: (h, w).
        centres: of `fit_kinds`.
    """
    labels = (tokens @ centres.T).argmax(axis=1).reshape(grid)
    kinds = len(centres)
    counts = np.array([count_components(labels == kind) for kind in range(kinds)], np.intp)
    shares = np.bincount(labels.ravel(), minlength=kinds) / labels.size
    return Parts(labels, counts, shares)


def count_components(mask: NDArray[np.bool_], min_patches: int = MIN_COMPONENT_PATCHES) -> int:
    """Connected groups of at least ``min_patches`` patches.

    Args:
        mask: bool (h, w).
        min_patches: smaller ones are not counted.
    """
    from scipy import ndimage

    labels, _ = ndimage.label(mask, np.ones((3, 3), int))
    return int((np.bincount(labels.ravel())[1:] >= min_patches).sum())


def spatial_histogram(labels: NDArray[np.intp], kinds: int, cells: int) -> NDArray[np.float64]:
    """Share of each kind in each cell of a coarse grid.

    Args:
        labels: int (h, w), h and w at least 1.
        kinds: K.
        cells: along each side, as many as there are patches at most.

    Returns:
        float64 (cells_y, cells_x, K); each cell adds up to 1.
    """
    rows = np.array_split(np.arange(labels.shape[0]), min(cells, labels.shape[0]))
    columns = np.array_split(np.arange(labels.shape[1]), min(cells, labels.shape[1]))
    return np.array(
        [
            [np.bincount(labels[np.ix_(r, c)].ravel(), minlength=kinds) / (len(r) * len(c)) for c in columns]
            for r in rows
        ]
    )


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), np.float32)
