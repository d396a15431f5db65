"""In which coordinates patch tokens are compared, and how much a distance to each of them counts.

Three things that the references themselves tell, without any defect:

* the subspace that their tokens span: the comparison needs half of the dimensions;
* whether their parts share a pose: then a patch's place belongs to what it is, and a lead in the wrong hole is far from
  good even if it looks like a lead;
* how far apart good parts are from each other around each token: where they differ much, a distance means less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SUBSPACE_DIM = 64
"""Of the 120 dimensions of the embedded backbone's deepest stage; see docs/ad_expert.md for what fewer cost."""
PLACE_WEIGHT = 2.0
"""Distance of two equal patches at opposite edges of the picture; patches of good parts are about 0.3 apart."""
PLACED_SHARE = 0.6
"""Share of nearest neighbours at the same place from which on the place counts."""
NEIGHBOURHOOD = 2
"""Patches around its own place within which a nearest neighbour counts as at the same place."""
ALIGNMENT_PAIRS = 12
"""Pairs of references that the pose is read from."""
SOFTENING = 3.0
"""Of the typical distance between good parts, added to each token's own before dividing by it."""
SAME = 1e-3
"""Distance below which two tokens are copies, about what float32 leaves of zero."""
RIVAL_POOL = 12_000
"""Tokens that stand for all references when the distances between them are measured."""


@dataclass(frozen=True)
class TokenFrame:
    """Coordinates of patch tokens.

    Attributes:
        basis: float32 (D, K), orthonormal columns.
        place_weight: of a patch's place; 0 where parts do not share a pose.
    """

    basis: NDArray[np.float32]
    place_weight: float = 0.0

    def coordinates(self, patch_tokens: NDArray[np.float32], grid: tuple[int, int] | None) -> NDArray[np.float32]:
        """Coordinates of the tokens of one picture.

        Args:
            patch_tokens: float32 (N, D), unit rows, raster order.
            grid: (h, w), h * w = N; needed where places count.

        Returns:
            float32 (N, K), or (N, K + 2) with the weighted place.
        """
        inside = patch_tokens @ self.basis
        return np.column_stack([inside, _places(grid, self.place_weight)]) if self.place_weight else inside

    def squares(self, grid: tuple[int, int] | None) -> NDArray[np.float32]:
        """Squared length of whole tokens, what lies outside the subspace included, float32 (N,) or (1,).

        A part of a token outside the span of good parts is a difference from every one of them, so it must count.
        """
        if not self.place_weight:
            return np.ones(1, np.float32)
        return np.asarray(1.0 + (_places(grid, self.place_weight) ** 2).sum(axis=1), dtype=np.float32)


@lru_cache(maxsize=8)  # every picture of a product has the same grid
def _places(grid: tuple[int, int] | None, weight: float) -> NDArray[np.float32]:
    """Weighted place of each patch, float32 (h * w, 2), rows first."""
    assert grid is not None  # noqa: S101  # only whole pictures are enrolled with places
    rows, columns = np.mgrid[: grid[0], : grid[1]]
    places = np.stack([(rows + 0.5) / grid[0], (columns + 0.5) / grid[1]], axis=-1).reshape(-1, 2)
    weighted = np.asarray(weight * places, dtype=np.float32)
    weighted.flags.writeable = False  # shared by every caller
    return weighted


def fit_frame(tokens: NDArray[np.float32], place_weight: float) -> TokenFrame:
    """The subspace that holds most of the tokens' squared length.

    Args:
        tokens: float32 (T, D), unit rows, of all references.
        place_weight: stored.
    """
    _, directions = np.linalg.eigh((tokens.T @ tokens).astype(np.float64))  # ascending
    return TokenFrame(np.ascontiguousarray(directions[:, ::-1][:, :SUBSPACE_DIM], dtype=np.float32), place_weight)


def same_place_share(tokens: Sequence[NDArray[np.float32]], grids: Sequence[tuple[int, int]]) -> float:
    """How far the references show their parts in the same pose.

    A patch's nearest neighbour in another reference then lies near its own place. In a texture it may lie anywhere.

    Args:
        tokens: float32 (N, D) per reference, unit rows.
        grids: their (h, w).

    Returns:
        Share of inner patches whose nearest neighbour lies within NEIGHBOURHOOD, mean over pairs of references of one
        grid; 0 without such a pair.
    """
    pairs = [(i, i + 1) for i in range(len(tokens) - 1) if grids[i] == grids[i + 1]][:ALIGNMENT_PAIRS]
    shares = []
    for first, second in pairs:
        h, w = grids[first]
        nearest = (tokens[first] @ tokens[second].T).argmax(axis=1)
        row, column = np.divmod(np.arange(h * w), w)
        near = (np.abs(nearest // w - row) <= NEIGHBOURHOOD) & (np.abs(nearest % w - column) <= NEIGHBOURHOOD)
        # Patches at the border see the padding and find each other in any texture.
        inner = (np.minimum(row, h - 1 - row) > NEIGHBOURHOOD) & (np.minimum(column, w - 1 - column) > NEIGHBOURHOOD)
        if inner.any():
            shares.append(float(near[inner].mean()))
    return float(np.mean(shares)) if shares else 0.0


@dataclass(frozen=True)
class Rivals:
    """Of each token, the two nearest other references: how far apart good parts are around it.

    Attributes:
        distances: float32 (T, 2), ascending; infinite where there is no such reference.
        owners: int32 (T, 2), -1 likewise.
    """

    distances: NDArray[np.float32]
    owners: NDArray[np.int32]

    def without(self, owner: int | None) -> NDArray[np.float32]:
        """Distance of each token to the nearest other reference when one of them is left out, float32 (T,)."""
        return np.asarray(np.where(self.owners[:, 0] == owner, self.distances[:, 1], self.distances[:, 0]))


def measure_rivals(
    tokens: NDArray[np.float32], owners: NDArray[np.int32], asked: NDArray[np.intp], seed: int = 0
) -> Rivals:
    """Find the rivals of tokens among the other references.

    Args:
        tokens: float32 (M, K), coordinates of all references.
        owners: int32 (M,).
        asked: (T,), the tokens whose rivals are wanted.
        seed: of the random thinning to RIVAL_POOL.
    """
    pool = np.random.default_rng(seed).permutation(len(tokens))[:RIVAL_POOL]
    pool = pool[np.argsort(owners[pool], kind="stable")]
    present, starts = np.unique(owners[pool], return_index=True)
    rivals, squares = tokens[pool], (tokens[pool] ** 2).sum(axis=1)
    distances = np.full((len(asked), 2), np.inf, np.float32)
    nearest = np.full((len(asked), 2), -1, np.int32)
    for start in range(0, len(asked), 512):
        chunk = asked[start : start + 512]
        part, own = tokens[chunk], owners[chunk]
        squared = np.minimum.reduceat(squares - 2.0 * (part @ rivals.T), starts, axis=1)
        squared += (part**2).sum(axis=1)[:, None]
        squared[own[:, None] == present] = np.inf
        order = np.argsort(squared, axis=1, kind="stable")[:, :2]
        found = np.take_along_axis(squared, order, axis=1)
        there = np.isfinite(found)
        rows = slice(start, start + len(part))
        distances[rows, : order.shape[1]] = np.where(there, np.sqrt(np.maximum(found, 0.0)), np.inf)
        nearest[rows, : order.shape[1]] = np.where(there, present[order], -1)
    return Rivals(distances, nearest)


def rival_weights(apart: NDArray[np.float32], typical: float) -> NDArray[np.float32]:
    """Factor on the distance to each token: below 1 where good parts differ more than typically, above 1 where less.

    Args:
        apart: float32 (M,), distance of each token to the nearest other reference, infinite where unknown.
        typical: the middle of such distances.

    Returns:
        float32 (M,), 1 where nothing is known, and everywhere when good parts are copies of each other.
    """
    if typical < SAME:
        return np.ones(len(apart), np.float32)
    known = np.where(np.isfinite(apart), apart, typical)
    return np.asarray((1.0 + SOFTENING) * typical / (known + SOFTENING * typical), dtype=np.float32)
