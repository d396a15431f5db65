"""The memory_bank: patch tokens of good references and the distance to the nearest of them.

After PatchCore (Roth et al., 2022): nearest neighbours of locally averaged patch tokens, thinned by a greedy k-centre
coreset. Tokens are unit vectors, so the distance is the chord ``sqrt(2 - 2 cos)`` in [0, 2]. A bank may keep them as
coordinates in a subspace, with their place in the picture beside them, and may weigh each of them (``token_frame``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import ProductError
from .token_frame import TokenFrame

POOL_TO = 3
"""Candidates per kept token in the greedy selection; thinning at random first keeps enrolment quick."""
PROJECTION_DIM = 32
"""The greedy selection works on a random projection, which keeps distances within a few percent."""
BLOCK = (256, 4096)
"""Patches and bank tokens compared at once: their 4 MB of cosines stay in the cache, whatever the bank's size."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class MemoryBank:
    """Patch tokens of good references.

    Attributes:
        tokens: float32 (M, K): unit rows, or coordinates in ``frame``.
        owners: int32 (M,), which reference each token comes from.
        frame: how tokens become coordinates; None for tokens as they are.
        weights: float32 (M,), factor on the distance to each token; None for 1 (see ``rival_weights``).
    """

    tokens: NDArray[np.float32]
    owners: NDArray[np.int32]
    frame: TokenFrame | None = None
    weights: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        weights = np.ones(len(self.tokens)) if self.weights is None else self.weights
        sound = self.tokens.ndim == 2 and self.owners.shape == weights.shape == (len(self.tokens),)
        if not sound or not (np.isfinite(self.tokens).all() and np.isfinite(weights).all()):
            raise ProductError("the memory bank of this product is damaged.", hint="Enrol the product again.")
        if len(self.tokens) == 0:
            raise ProductError("the memory bank is empty.", hint="Enrol the product with good references.")

    @cached_property
    def _table(self) -> NDArray[np.float32]:
        return _with_half_squares(self.tokens)

    def distances(self, patch_tokens: NDArray[np.float32], grid: tuple[int, int] | None = None) -> NDArray[np.float32]:
        """Weighted distance of each patch to its nearest neighbour in the bank.

        Args:
            patch_tokens: float32 (N, D), unit rows.
            grid: (h, w) with h * w = N; needed where places count.

        Returns:
            float32 (N,); in [0, 2] without weights and places.
        """
        query, squares = patch_tokens, np.ones(1, np.float32)
        if self.frame is not None:
            query, squares = self.frame.coordinates(patch_tokens, grid), self.frame.squares(grid)
        nearest, products = _nearest(query, self._table)
        distances = np.sqrt(np.maximum(squares - 2.0 * products, 0.0))
        if self.weights is not None:
            distances = distances * self.weights[nearest]
        return np.asarray(distances, dtype=np.float32)


def _with_half_squares(tokens: NDArray[np.float32]) -> NDArray[np.float32]:
    """Tokens with -|b|^2 / 2 as one more column: q.b - |b|^2 / 2 is then one product, highest for the nearest."""
    return np.column_stack([tokens, -0.5 * np.einsum("md,md->m", tokens, tokens)]).astype(np.float32)


def _nearest(query: NDArray[np.float32], table: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Per row of ``query`` the nearest row of ``table`` (the first of equals) and q.b - |b|^2 / 2, block by block."""
    nearest, products = np.zeros(len(query), np.intp), np.full(len(query), -np.inf, np.float32)
    extended = np.column_stack([query, np.ones(len(query), np.float32)])
    for start in range(0, len(query), BLOCK[0]):
        rows = slice(start, start + BLOCK[0])
        for first in range(0, len(table), BLOCK[1]):
            likeness = extended[rows] @ table[first : first + BLOCK[1]].T
            best = likeness.argmax(axis=1)
            found = likeness[np.arange(len(best)), best]
            nearer = found > products[rows]
            products[rows] = np.where(nearer, found, products[rows])
            nearest[rows] = np.where(nearer, first + best, nearest[rows])
    return nearest, products


def greedy_coreset(
    tokens: NDArray[np.float32], size: int, seed: int = 0, progress: Progress | None = None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Choose tokens that cover all others: each next one is the farthest from those chosen (k-centre).

    Args:
        tokens: float32 (M, D).
        size: how many to choose; all when M is not larger.
        seed: of the random thinning and projection.
        progress: told every few hundred steps.

    Returns:
        Indices of the chosen tokens (K,), ascending, and for every token (M,) the position in that list of the chosen
        token that stands for it.
    """
    count = len(tokens)
    if count <= size:
        return np.arange(count), np.arange(count)
    rng = np.random.default_rng(seed)
    pool = np.sort(rng.choice(count, min(count, POOL_TO * size), replace=False))
    projection = rng.normal(size=(tokens.shape[1], PROJECTION_DIM)).astype(np.float32) / np.sqrt(PROJECTION_DIM)
    points = (tokens[pool] @ projection).astype(np.float32)
    squares = (points**2).sum(axis=1)
    nearest = np.full(len(pool), np.inf, np.float32)
    chosen = np.empty(size, np.intp)
    index = int(squares.argmax())
    for step in range(size):
        chosen[step] = index
        np.minimum(nearest, squares + squares[index] - 2.0 * (points @ points[index]), out=nearest)
        nearest[index] = -np.inf
        index = int(nearest.argmax())
        if progress and step % 500 == 0:
            progress("selecting the memory bank", step, size)
    if progress:
        progress("selecting the memory bank", size, size)
    kept = np.sort(pool[chosen])
    return kept, assign(tokens, tokens[kept])


def assign(tokens: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.intp]:
    """Index of the nearest centre of each token, (M,)."""
    return _nearest(tokens, _with_half_squares(centres))[0]
