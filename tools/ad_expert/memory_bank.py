"""The memory_bank: patch tokens of good references and the distance to the nearest of them.

After PatchCore (Roth et al., 2022): nearest neighbours of locally averaged patch tokens, thinned by a greedy k-centre
coreset. Tokens are unit vectors, so the distance is the chord ``sqrt(2 - 2 cos)`` in [0, 2].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import ProductError

POOL_TO = 3
"""Candidates per kept token in the greedy selection; thinning at random first keeps enrolment quick."""
PROJECTION_DIM = 32
"""The greedy selection works on a random projection, which keeps distances within a few percent."""
CHUNK = 192
"""Patches compared at once: their cosines with a full bank stay in the cache, a whole picture's would not."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class MemoryBank:
    """Patch tokens of good references.

    Attributes:
        tokens: float32 (M, D), unit rows.
        owners: int32 (M,), which reference each token comes from.
    """

    tokens: NDArray[np.float32]
    owners: NDArray[np.int32]

    def __post_init__(self) -> None:
        sound = self.tokens.ndim == 2 and self.owners.shape == (len(self.tokens),)
        if not sound or not np.isfinite(self.tokens).all():
            raise ProductError("the memory bank of this product is damaged.", hint="Enrol the product again.")
        if len(self.tokens) == 0:
            raise ProductError("the memory bank is empty.", hint="Enrol the product with good references.")

    def distances(self, patch_tokens: NDArray[np.float32]) -> NDArray[np.float32]:
        """Distance of each patch to its nearest neighbour in the bank.

        Args:
            patch_tokens: float32 (N, D), unit rows.

        Returns:
            float32 (N,), in [0, 2].
        """
        cosines = np.empty(len(patch_tokens), np.float32)
        for start in range(0, len(patch_tokens), CHUNK):
            (patch_tokens[start : start + CHUNK] @ self.tokens.T).max(axis=1, out=cosines[start : start + CHUNK])
        return np.asarray(np.sqrt(np.maximum(2.0 - 2.0 * cosines, 0.0)), dtype=np.float32)

    def subset(self, keep: NDArray[np.bool_]) -> MemoryBank:
        """The bank of some of its tokens."""
        return MemoryBank(self.tokens[keep], self.owners[keep])


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


def assign(tokens: NDArray[np.float32], centres: NDArray[np.float32], chunk: int = 4096) -> NDArray[np.intp]:
    """Index of the most similar centre of each token, (M,); in chunks, so that memory stays bounded."""
    return np.concatenate(
        [(tokens[start : start + chunk] @ centres.T).argmax(axis=1) for start in range(0, len(tokens), chunk)]
    )
