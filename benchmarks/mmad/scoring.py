"""Accuracy per source set and subtask: in the form of the published scripts, and strictly.

The published form (Jiang et al., ICLR 2025, evaluation scripts) leaves an answer without a letter out of the
denominator. It does so while it walks through the list, and so passes over the answer after each one it removes,
whether that had a letter or not; accuracies published for MMAD are of this kind. The strict form counts such an answer
as wrong and passes over none.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .questions import MERGED, NORMAL_FOLDER

LETTERS = frozenset("ABCDE")
DETECTION = "Anomaly Detection"
Row = Mapping[str, Any]
"""An answer as the published scripts store it: ``image``, ``question_type``, ``correct_answer``, ``gpt_answer``."""


@dataclass(frozen=True)
class Scores:
    """A table of accuracies, all in percent.

    Attributes:
        accuracy: set -> subtask -> accuracy; for detection the mean of those on good and on defective parts. None where
            nothing was asked.
        mean: set -> mean over its subtasks.
        overkill: set -> share of good parts called defective.
        miss: set -> share of defective parts called good.
        by_task: subtask -> unweighted mean over sets.
        average: unweighted mean over sets of ``mean``.
        counted: answers in the denominators.
        unreadable: answers without a letter: removed in the published form, wrong in the strict one.
        passed_over: answers that the published form never looks at.
    """

    accuracy: dict[str, dict[str, float | None]]
    mean: dict[str, float | None]
    overkill: dict[str, float | None]
    miss: dict[str, float | None]
    by_task: dict[str, float | None]
    average: float | None
    counted: int
    unreadable: int
    passed_over: int


def official_scores(rows: Sequence[Row]) -> Scores:
    """Score as the published script does, its removal of answers while walking included.

    A subtask that a set lacks counts 0 in its mean, as does detection without good or without defective parts.
    """
    kept, unreadable = _walk(rows)
    return _table(rows, kept, unreadable, len(rows) - len(kept) - unreadable, absent=0.0)


def strict_scores(rows: Sequence[Row]) -> Scores:
    """Score every answer, one without a letter as wrong; what was not asked is left out of the means."""
    unreadable = sum(row["gpt_answer"] not in LETTERS for row in rows)
    return _table(rows, rows, unreadable, 0, absent=None)


def _walk(rows: Sequence[Row]) -> tuple[list[Row], int]:
    """The answers that the published loop counts, and how many it removes."""
    left, position, removed = list(rows), 0, 0
    kept: list[Row] = []
    while position < len(left):
        row = left[position]
        if row["correct_answer"] in LETTERS and row["gpt_answer"] in LETTERS:
            kept.append(row)
        else:
            left.remove(row)  # the first one equal to it, as the script: the rest moves up, under the index's feet
            removed += 1
        position += 1
    return kept, removed


def _table(rows: Sequence[Row], kept: Sequence[Row], unreadable: int, passed_over: int, absent: float | None) -> Scores:
    sets = list(dict.fromkeys(_set_of(row) for row in rows))
    tasks = list(dict.fromkeys(_task_of(row) for row in rows))
    total: Counter[Hashable] = Counter()
    correct: Counter[Hashable] = Counter()
    for row in kept:
        for cell in _cells(row):
            total[cell] += 1
            correct[cell] += row["correct_answer"] == row["gpt_answer"]

    def share(*cell: str) -> float | None:
        return 100.0 * correct[cell] / total[cell] if total[cell] else absent

    accuracy: dict[str, dict[str, float | None]] = defaultdict(dict)
    overkill: dict[str, float | None] = {}
    miss: dict[str, float | None] = {}
    for name in sets:
        for task in tasks:
            accuracy[name][task] = share(name, task)
        good, bad = share(name, DETECTION, "good"), share(name, DETECTION, "bad")
        if DETECTION in tasks:
            accuracy[name][DETECTION] = mean_of([good, bad]) if absent is None else ((good or 0.0) + (bad or 0.0)) / 2.0
        overkill[name] = None if good is None else 100.0 - good
        miss[name] = None if bad is None else 100.0 - bad
    mean = {name: mean_of(accuracy[name].values()) for name in sets}
    return Scores(
        accuracy=dict(accuracy),
        mean=mean,
        overkill=overkill,
        miss=miss,
        by_task={task: mean_of([accuracy[name][task] for name in sets]) for task in tasks},
        average=mean_of(mean.values()),
        counted=len(kept),
        unreadable=unreadable,
        passed_over=passed_over,
    )


def _cells(row: Row) -> Iterator[tuple[str, ...]]:
    task = _task_of(row)
    yield _set_of(row), task
    if task == DETECTION:
        yield _set_of(row), task, "good" if NORMAL_FOLDER in row["image"] else "bad"


def _set_of(row: Row) -> str:
    return str(row["image"]).split("/")[0]


def _task_of(row: Row) -> str:
    return MERGED.get(row["question_type"], str(row["question_type"]))


def mean_of(values: Iterable[float | None]) -> float | None:
    """Mean of what is known; None when nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
