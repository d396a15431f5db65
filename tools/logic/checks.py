"""Count, presence and arrangement of a picture's parts against the product's good references.

Each check gives a number in units of the references: how far a picture deviates over how far references deviate from
each other at most. Above 1 a picture deviates more than any reference did. The unit is not a probability: with n
references, one more good part exceeds it with a probability of 1 / (n + 1) for each check.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import ProductError
from .parts import Parts, fit_kinds, parts_of, spatial_histogram

Check = Literal["count", "presence", "arrangement"]
CHECKS: tuple[Check, ...] = ("count", "presence", "arrangement")
CELLS = 10
MIN_REFERENCES = 3


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        check: which.
        score: in units of the references; above 1 no reference deviates as much.
        text: one sentence.
        box_grid: XYXY half-open in patches of the strongest place; None where the check has none.
        values: the numbers behind it.
    """

    check: Check
    score: float
    text: str
    box_grid: tuple[int, int, int, int] | None
    values: Mapping[str, float | int]


@dataclass(frozen=True)
class LogicModel:
    """What good parts hold, and where.

    Attributes:
        centres: float32 (K, D), kinds of patches.
        counts: int (n, K), components of each reference.
        shares: float64 (n, K), of patches.
        tokens: float32 (n, cy, cx, D), mean token of each cell of each reference.
        histograms: float64 (n, cy, cx, K).
        units: largest leave-one-out deviation of a reference by check.
    """

    centres: NDArray[np.float32]
    counts: NDArray[np.intp]
    shares: NDArray[np.float64]
    tokens: NDArray[np.float32]
    histograms: NDArray[np.float64]
    units: dict[Check, float]

    def check(
        self, tokens: NDArray[np.float32], grid: tuple[int, int], asked: Sequence[Check] = CHECKS
    ) -> list[Finding]:
        """Run checks on a picture.

        Args:
            tokens: float32 (h * w, D), unit rows, of the same backbone and frame as the references'.
            grid: (h, w).
            asked: which checks.
        """
        parts = parts_of(tokens, grid, self.centres)
        look = {"count": self._count, "presence": self._presence}
        return [self._arrangement(tokens, parts) if check == "arrangement" else look[check](parts) for check in asked]

    def _count(self, parts: Parts) -> Finding:
        raw = count_deviation(parts.counts, self.counts)
        kind = int(raw.argmax())
        low, high, seen = int(self.counts[:, kind].min()), int(self.counts[:, kind].max()), int(parts.counts[kind])
        text = f"{seen} areas look like part {kind + 1}; good parts have {low} to {high}."
        values = {"part": kind + 1, "count": seen, "lowest": low, "highest": high}
        return Finding("count", float(raw[kind]) / self.units["count"], text, None, values)

    def _presence(self, parts: Parts) -> Finding:
        raw = share_deviation(parts.shares, self.shares)
        kind = int(raw.argmax())
        low, high = (100 * float(v) for v in (self.shares[:, kind].min(), self.shares[:, kind].max()))
        seen = 100 * float(parts.shares[kind])
        text = f"Part {kind + 1} covers {seen:.1f}% of the picture; on good parts {low:.1f}% to {high:.1f}%."
        values = {"part": kind + 1, "percent": seen, "lowest": low, "highest": high}
        return Finding("presence", float(raw[kind]) / self.units["presence"], text, None, values)

    def _arrangement(self, tokens: NDArray[np.float32], parts: Parts) -> Finding:
        grid = (parts.labels.shape[0], parts.labels.shape[1])
        field = cell_deviation(
            cell_means(tokens, grid),
            spatial_histogram(parts.labels, len(self.centres), CELLS),
            self.tokens,
            self.histograms,
        )
        row, column = (int(v) for v in np.unravel_index(int(field.argmax()), field.shape))
        score = float(field.max()) / self.units["arrangement"]
        ys, xs = (np.linspace(0, n, m + 1).round().astype(int) for n, m in zip(grid, field.shape, strict=True))
        box = (int(xs[column]), int(ys[row]), int(xs[column + 1]), int(ys[row + 1]))
        expected = int(self.histograms[:, row, column].mean(axis=0).argmax()) + 1
        seen = int(spatial_histogram(parts.labels, len(self.centres), CELLS)[row, column].argmax()) + 1
        told = f"part {seen} where good parts have part {expected}" if seen != expected else f"another part {seen}"
        text = f"At field row {row + 1}, column {column + 1} of {field.shape[0]} x {field.shape[1]} there is {told}."
        return Finding(
            "arrangement", score, text, box, {"row": row + 1, "column": column + 1, "seen": seen, "expected": expected}
        )


def fit_logic(tokens: Sequence[NDArray[np.float32]], grids: Sequence[tuple[int, int]], seed: int = 0) -> LogicModel:
    """Learn what good parts hold.

    Args:
        tokens: one float32 (h * w, D) a reference, unit rows.
        grids: (h, w) of each.
        seed: of the clustering.

    Raises:
        ProductError: fewer than MIN_REFERENCES references, which cannot show how much good parts differ.
    """
    if len(tokens) < MIN_REFERENCES:
        raise ProductError(
            f"{len(tokens)} references cannot show how much the parts of good ones differ.",
            hint=f"Enrol at least {MIN_REFERENCES}.",
        )
    centres = fit_kinds(tokens, seed=seed)
    found = [parts_of(t, g, centres) for t, g in zip(tokens, grids, strict=True)]
    counts, shares = np.stack([p.counts for p in found]), np.stack([p.shares for p in found])
    histograms = np.stack([spatial_histogram(p.labels, len(centres), CELLS) for p in found])
    means = np.stack([cell_means(t, g) for t, g in zip(tokens, grids, strict=True)])
    units: dict[Check, float] = dict.fromkeys(CHECKS, 0.0)
    for own in range(len(tokens)):
        others = np.arange(len(tokens)) != own
        units["count"] = max(units["count"], float(count_deviation(counts[own], counts[others]).max()))
        units["presence"] = max(units["presence"], float(share_deviation(shares[own], shares[others]).max()))
        field = cell_deviation(means[own], histograms[own], means[others], histograms[others])
        units["arrangement"] = max(units["arrangement"], float(field.max()))
    floors: dict[Check, float] = {"count": 0.5, "presence": 0.5, "arrangement": 0.02}  # alike references give no unit
    return LogicModel(centres, counts, shares, means, histograms, {c: max(units[c], floors[c]) for c in CHECKS})


def count_deviation(counts: NDArray[np.intp], references: NDArray[np.intp]) -> NDArray[np.float64]:
    """Distance of each kind's count to the references' median, over one more than their spread.

    Args:
        counts: int (K,).
        references: int (n, K).

    Returns:
        float64 (K,); 1 where there is one part more than every reference has.
    """
    middle = np.median(references, axis=0)
    return np.asarray(np.abs(counts - middle) / (1.0 + references.std(axis=0)), np.float64)


def share_deviation(shares: NDArray[np.float64], references: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of each kind's share to the references' median, in their standard deviations and 0.2% of the picture.

    Args:
        shares: float64 (K,).
        references: float64 (n, K).
    """
    middle = np.median(references, axis=0)
    return np.asarray(np.abs(shares - middle) / (0.002 + references.std(axis=0)), np.float64)


def cell_deviation(
    tokens: NDArray[np.float32],
    histogram: NDArray[np.float64],
    reference_tokens: NDArray[np.float32],
    reference_histograms: NDArray[np.float64],
) -> NDArray[np.float64]:
    """How much each cell differs from the same cell of the most similar reference.

    Args:
        tokens: (cy, cx, D), mean token of each cell.
        histogram: (cy, cx, K).
        reference_tokens: (n, cy, cx, D).
        reference_histograms: (n, cy, cx, K).

    Returns:
        float64 (cy, cx): distance of the mean tokens, and half of that of the histograms in L1.
    """
    by_token = np.square(reference_tokens - tokens).sum(axis=3).min(axis=0)
    by_kind = np.abs(reference_histograms - histogram).sum(axis=3).min(axis=0) / 2.0
    return np.asarray(by_token + HISTOGRAM_WEIGHT * by_kind, np.float64)


HISTOGRAM_WEIGHT = 0.05
"""Of the histograms beside the mean tokens; kinds jump where two are alike, tokens do not."""


def cell_means(tokens: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[np.float32]:
    """Mean token of each cell.

    Args:
        tokens: float32 (h * w, D).
        grid: (h, w).

    Returns:
        float32 (cy, cx, D).
    """
    field = tokens.reshape(*grid, -1)
    rows, columns = (np.array_split(np.arange(n), min(CELLS, n)) for n in grid)
    return np.array([[field[r[0] : r[-1] + 1, c[0] : c[-1] + 1].mean(axis=(0, 1)) for c in columns] for r in rows])


__all__ = ["CHECKS", "Check", "Finding", "LogicModel", "fit_logic"]
