"""Intervals and tests for answers to the same questions: paired bootstrap over pictures, McNemar, Holm, flips.

Questions about one picture are no independent draws, so pictures are drawn, with all their questions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .questions import MERGED
from .scoring import DETECTION

DRAWS = 10_000
CONFIDENCE = 0.95
_CHUNK = 250
"""Draws that are worked on at once."""
Record = Mapping[str, Any]
"""An answer as it is logged: ``id``, ``image``, ``dataset``, ``task``, ``normal``, ``correct``."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate with its bootstrap interval; percent or share, as the statistic is.

    Attributes:
        value: of all pictures.
        low: lower end of the 95% percentile interval.
        high: upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Flips:
    """What became of the answers between two runs.

    Attributes:
        gained: wrong before, right after.
        lost: right before, wrong after.
        total: questions.
        p: two-sided exact McNemar test that both are equally likely.
    """

    gained: int
    lost: int
    total: int
    p: float

    @property
    def net(self) -> int:
        """Gained minus lost."""
        return self.gained - self.lost


class AnswerCounts:
    """Right answers and answers of each cell (set, subtask, kind of part), by picture.

    Args:
        records: answers to the questions of a run, each once.
        images: rows of the counts: the same for runs that are to be compared.
        cells: their columns, likewise.
    """

    def __init__(
        self,
        records: Sequence[Record],
        images: Sequence[str] | None = None,
        cells: Sequence[tuple[str, ...]] | None = None,
    ) -> None:
        self.images = list(images or dict.fromkeys(str(r["image"]) for r in records))
        self.cells = list(cells or sorted({cell_of(r) for r in records}))
        rows = {image: i for i, image in enumerate(self.images)}
        columns = {cell: i for i, cell in enumerate(self.cells)}
        self.right = np.zeros((len(rows), len(columns)))
        self.total = np.zeros((len(rows), len(columns)))
        for record in records:
            at = rows[str(record["image"])], columns[cell_of(record)]
            self.total[at] += 1
            self.right[at] += bool(record["correct"])

    def average(self, weights: Floats | None = None) -> Floats:
        """Strict average, percent: mean over kinds of part, then subtasks, then sets.

        Args:
            weights: float (n, images), how often each picture was drawn; all once when None.

        Returns:
            float (n,).
        """
        drawn = np.ones((1, len(self.images))) if weights is None else weights
        right, total = drawn @ self.right, drawn @ self.total
        with np.errstate(invalid="ignore"):
            share = np.where(total > 0, 100.0 * right / total, np.nan)
        tasks: dict[tuple[str, ...], list[Floats]] = {}
        for column, cell in enumerate(self.cells):
            tasks.setdefault(cell[:2], []).append(share[:, column])
        sets: dict[str, list[Floats]] = {}
        for (name, _), kinds in tasks.items():
            sets.setdefault(name, []).append(_mean(kinds))
        return _mean([_mean(each) for each in sets.values()])


def cell_of(record: Record) -> tuple[str, ...]:
    """Set and subtask of an answer; for detection also the kind of part, since both count alike."""
    task = MERGED.get(record["task"], str(record["task"]))
    kind = ("good" if record["normal"] else "bad",) if task == DETECTION else ()
    return (str(record["dataset"]), task, *kind)


def _mean(values: Sequence[Floats]) -> Floats:
    """Mean of what is known; a draw may hold no picture of a cell."""
    stacked = np.stack(values)
    known = ~np.isnan(stacked)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, stacked, 0.0).sum(axis=0) / known.sum(axis=0), np.float64)


def bootstrap_average(records: Sequence[Record], draws: int = DRAWS, seed: int = 0) -> Interval:
    """Strict average of a run with its interval."""
    counts = AnswerCounts(records)
    found = np.concatenate([counts.average(weights) for weights in _drawn(len(counts.images), draws, seed)])
    return _interval(float(counts.average()[0]), found)


def bootstrap_difference(
    before: Sequence[Record], after: Sequence[Record], draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Strict average of a run minus that of another on the same questions, drawn together.

    Raises:
        ValueError: the runs answered different questions.
    """
    if {r["id"] for r in before} != {r["id"] for r in after}:
        raise ValueError("paired runs must answer the same questions")
    one = AnswerCounts(before)
    other = AnswerCounts(after, one.images, one.cells)
    found = np.concatenate([other.average(w) - one.average(w) for w in _drawn(len(one.images), draws, seed)])
    return _interval(float(other.average()[0] - one.average()[0]), found)


def flips(before: Sequence[Record], after: Sequence[Record]) -> Flips:
    """What changed between two runs on the same questions, with McNemar's exact test."""
    from scipy.stats import binomtest

    was = {record["id"]: bool(record["correct"]) for record in before}
    gained = sum(not was[r["id"]] and bool(r["correct"]) for r in after)
    lost = sum(was[r["id"]] and not r["correct"] for r in after)
    p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return Flips(gained, lost, len(after), p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the given order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def error_auroc(records: Sequence[Record], draws: int = DRAWS, seed: int = 0) -> Interval | None:
    """How well the answer's entropy tells wrong answers from right ones, with its interval over pictures.

    Args:
        records: answers; those without an entropy are left out.
        draws: of the bootstrap.
        seed: of the draws.

    Returns:
        The area under the ROC curve; None when all are right, all wrong, or none has an entropy.
    """
    known = [r for r in records if r["entropy"] is not None]
    if len({bool(r["correct"]) for r in known}) < 2:
        return None
    images = {image: i for i, image in enumerate(dict.fromkeys(str(r["image"]) for r in known))}
    known.sort(key=lambda r: float(r["entropy"]))
    _, begins = np.unique([float(r["entropy"]) for r in known], return_index=True)
    wrong = np.array([not r["correct"] for r in known])
    of = np.array([images[str(r["image"])] for r in known])

    def auroc(weights: Floats) -> Floats:
        each = weights[:, of]
        bad = np.add.reduceat(each * wrong, begins, axis=1)
        good = np.add.reduceat(each * ~wrong, begins, axis=1)
        below = good.cumsum(axis=1) - 0.5 * good
        pairs = bad.sum(axis=1) * good.sum(axis=1)
        return np.asarray((bad * below).sum(axis=1) / np.where(pairs > 0, pairs, np.nan), np.float64)

    found = np.concatenate([auroc(weights) for weights in _drawn(len(images), draws, seed)])
    return _interval(float(auroc(np.ones((1, len(images))))[0]), found[~np.isnan(found)])


def _drawn(count: int, draws: int, seed: int) -> Iterator[Floats]:
    """How often each of ``count`` pictures is drawn, chunk by chunk (n, count); the same for the same seed."""
    rng = np.random.default_rng(seed)
    for begin in range(0, draws, _CHUNK):
        size = min(_CHUNK, draws - begin)
        yield rng.multinomial(count, np.full(count, 1.0 / count), size).astype(np.float64)


def _interval(value: float, found: Floats) -> Interval:
    tail = 100.0 * (1.0 - CONFIDENCE) / 2.0
    low, high = np.percentile(found, [tail, 100.0 - tail])
    return Interval(value, float(low), float(high))


def bootstrap_mean(values: Sequence[float], images: Sequence[str], draws: int = DRAWS, seed: int = 0) -> Interval:
    """Mean of values with its interval over pictures.

    Args:
        values: one for each question.
        images: picture of each.
        draws: of the bootstrap.
        seed: of the draws.
    """
    rows = {image: i for i, image in enumerate(dict.fromkeys(images))}
    sums, counts = np.zeros(len(rows)), np.zeros(len(rows))
    for value, image in zip(values, images, strict=True):
        sums[rows[image]] += value
        counts[rows[image]] += 1
    found = np.concatenate([(w @ sums) / (w @ counts) for w in _drawn(len(rows), draws, seed)])
    return _interval(float(sums.sum() / counts.sum()), found)
