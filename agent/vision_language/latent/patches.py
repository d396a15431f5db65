"""Which features of the picture are injected behind the think tokens: where the model looks and the expert points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from .settings import Patches

FLAT = 1e-6
"""Standard deviation below which scores tell no patch from another."""


def standardised(values: torch.Tensor) -> torch.Tensor:
    """Zero mean and unit deviation of (n,); zeros where all are alike."""
    spread = values.std(unbiased=False)
    return torch.zeros_like(values) if float(spread) < FLAT else (values - values.mean()) / spread


def map_on_grid(anomaly_map: NDArray[np.float32], grid: tuple[int, int]) -> torch.Tensor:
    """A map over the picture, highest value in each cell of its merged features.

    Args:
        anomaly_map: float (H, W), calibrated to [0, 1].
        grid: rows and columns.

    Returns:
        float32 (rows * columns,), row by row.
    """
    values = torch.from_numpy(np.ascontiguousarray(anomaly_map, np.float32))[None, None]
    return torch.nn.functional.adaptive_max_pool2d(values, grid).reshape(-1)


def patch_scores(
    mode: Patches,
    *,
    attention: torch.Tensor | None,
    usual: torch.Tensor | None,
    expert: torch.Tensor | None,
    gamma: float = 1.0,
    seed: int = 0,
    count: int = 0,
) -> torch.Tensor:
    """A score for each feature; all zeros when nothing tells them apart.

    Args:
        mode: what counts.
        attention: float (n,), of the think tokens.
        usual: float (n,), for a general description; what is looked at anyway is taken off.
        expert: float (n,), of `map_on_grid`; None for an uncalibrated or empty map.
        gamma: weight of the expert beside the attention.
        seed: of the random control.
        count: n, for the random control.

    Returns:
        float32 (n,).
    """
    if mode == "random":
        return torch.rand(count, generator=torch.Generator().manual_seed(seed))
    looked = torch.zeros(0)
    if mode in ("attention", "both"):
        if attention is None or usual is None:
            raise ValueError("choosing by attention needs the attention")
        looked = standardised(attention.cpu() - usual.cpu())
        if mode == "attention":
            return looked
    pointed = torch.zeros(len(looked) or count) if expert is None else standardised(expert.cpu())
    return pointed if mode == "expert" else looked + gamma * pointed


def pick(scores: torch.Tensor, grid: tuple[int, int], count: int, taken: Sequence[int] = ()) -> tuple[int, ...]:
    """The best patches, none of them beside another of the same pick.

    Args:
        scores: float (n,), row by row.
        grid: rows and columns.
        count: at most.
        taken: injected already.

    Returns:
        Indices, best first; none when all scores are alike.
    """
    if count < 1 or float(scores.std(unbiased=False)) < FLAT:
        return ()
    found: list[int] = []
    for index in torch.argsort(scores, descending=True, stable=True).tolist():
        if index in taken:
            continue
        row, column = divmod(index, grid[1])
        if all(abs(row - other // grid[1]) + abs(column - other % grid[1]) > 1 for other in found):
            found.append(index)
        if len(found) == count:
            break
    return tuple(found)


def share_inside(patches: Sequence[int], grid: tuple[int, int], mask: NDArray[np.bool_]) -> tuple[float | None, float]:
    """How many injected patches touch the defect, and how many would by chance.

    Args:
        patches: indices.
        grid: rows and columns.
        mask: bool (H, W), the defect.

    Returns:
        Share of the patches whose cell holds a pixel of the mask, None for none; share of all cells that do.
    """
    cells = map_on_grid(mask.astype(np.float32), grid) > 0
    inside = [bool(cells[index]) for index in patches]
    return (sum(inside) / len(inside) if inside else None), float(cells.float().mean())
