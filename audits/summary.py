"""What an audit adds up to: verdicts, escapes and overkill where labels are known, and the Pareto of defect types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from ..agent.schemas import Verdict
from .records import AuditRecord

Dimension = Literal["product", "lot", "station", "label"]
DIMENSIONS: tuple[Dimension, ...] = ("product", "lot", "station", "label")
UNNAMED = "unknown"
"""An NG part whose defect has no name."""


@dataclass(frozen=True)
class Counts:
    """Lines by result; ``review`` is without ``errors``, and ``parts`` is the sum of the other four."""

    parts: int
    ok: int
    ng: int
    review: int
    errors: int


@dataclass(frozen=True)
class Rate:
    """A share with its exact 95% interval (Clopper & Pearson 1934).

    Attributes:
        count: how many did.
        of: of how many.
        share: None of nothing.
        low: lower end.
        high: upper end.
    """

    count: int
    of: int
    share: float | None
    low: float
    high: float


@dataclass(frozen=True)
class Labelled:
    """Verdicts against labels. The rates are over the parts that were judged (no error), REVIEW among them.

    Attributes:
        good: parts labelled good.
        defective: parts labelled defective.
        escapes: defective parts that were called OK.
        overkill: good parts that were called NG.
        good_review: good parts that a person must look at; neither right nor wrong.
        defective_review: defective ones.
    """

    good: Counts
    defective: Counts
    escapes: Rate
    overkill: Rate
    good_review: Rate
    defective_review: Rate


@dataclass(frozen=True)
class ParetoRow:
    """One defect type among the NG parts.

    Attributes:
        defect_type: its name, ``unknown`` where none was found.
        count: NG parts of it.
        share: of all NG parts.
        cumulative: share of this type and the more frequent ones.
    """

    defect_type: str
    count: int
    share: float
    cumulative: float


@dataclass(frozen=True)
class Group:
    """The whole audit, or the lines of one product, lot, station or label.

    Attributes:
        dimension: what it was grouped by, None for the whole.
        value: of the dimension, None for lines that give none (and for the whole).
        counts: verdicts.
        labelled: None when no line has a label.
        pareto: defect types of the NG parts, the most frequent first.
    """

    dimension: Dimension | None
    value: str | None
    counts: Counts
    labelled: Labelled | None
    pareto: tuple[ParetoRow, ...]


@dataclass(frozen=True)
class Summary:
    """One pass over an audit.

    Attributes:
        whole: all lines.
        groups: by product, lot, station and label, each in the order of first appearance; a dimension that no line
            gives is left out. The label's groups are its defect type, or ``good`` and ``defective``.
        error_kinds: how often each kind of error came, the most frequent first.
        repeated: judged lines whose picture was judged before; the intervals take every line for a part of its own.
    """

    whole: Group
    groups: tuple[Group, ...]
    error_kinds: tuple[tuple[str, int], ...]
    repeated: int

    def of(self, dimension: Dimension) -> tuple[Group, ...]:
        """The groups of one dimension."""
        return tuple(group for group in self.groups if group.dimension == dimension)


def summarise(records: Iterable[AuditRecord]) -> Summary:
    """Count an audit in one pass; memory grows with the lots and some 60 bytes a record."""
    whole, seen, repeated = _Tally(), set[int](), 0
    errors: Counter[str] = Counter()
    groups: dict[Dimension, dict[str | None, _Tally]] = {dimension: {} for dimension in DIMENSIONS}
    for record in records:
        whole.add(record)
        for dimension in DIMENSIONS:
            groups[dimension].setdefault(_value(record, dimension), _Tally()).add(record)
        if record.error is not None:
            errors[record.error.kind] += 1
        elif record.sha256 is not None:
            picture = int(record.sha256[:16], 16)
            repeated += picture in seen
            seen.add(picture)
    given = {dimension: found for dimension, found in groups.items() if set(found) - {None}}
    return Summary(
        whole=whole.group(None, None),
        groups=tuple(tally.group(name, value) for name, found in given.items() for value, tally in found.items()),
        error_kinds=tuple(_most_frequent(errors)),
        repeated=repeated,
    )


def rate(count: int, of: int) -> Rate:
    """A share with its exact 95% interval."""
    from ..benchmarks.detection_metrics import clopper_pearson

    return Rate(count, of, count / of if of else None, *clopper_pearson(count, of))


def pareto(counts: Counter[str]) -> tuple[ParetoRow, ...]:
    """Types by how often they came, the most frequent first, by name where equal."""
    total, so_far, rows = counts.total(), 0, []
    for name, count in _most_frequent(counts):
        so_far += count
        rows.append(ParetoRow(name, count, count / total, so_far / total))
    return tuple(rows)


def _most_frequent(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _value(record: AuditRecord, dimension: Dimension) -> str | None:
    line = record.line
    if dimension != "label":
        value: str | None = getattr(line, dimension)
        return value
    if line.expected is None:
        return None
    return "good" if line.expected == "OK" else line.expected_type or "defective"


@dataclass
class _Tally:
    """Counts while records pass by."""

    by_result: dict[str | None, Counter[str]] = field(default_factory=dict)
    types: Counter[str] = field(default_factory=Counter)

    def add(self, record: AuditRecord) -> None:
        result = "error" if record.error is not None else record.verdict.value
        self.by_result.setdefault(record.line.expected, Counter())[result] += 1
        if record.verdict is Verdict.NG:
            self.types[record.defect_type.name if record.defect_type else UNNAMED] += 1

    def group(self, dimension: Dimension | None, value: str | None) -> Group:
        whole: Counter[str] = Counter()
        for results in self.by_result.values():
            whole.update(results)
        return Group(dimension, value, _counts(whole), self._labelled(), pareto(self.types))

    def _labelled(self) -> Labelled | None:
        if not set(self.by_result) - {None}:
            return None
        good, defective = (_counts(self.by_result.get(expected, Counter())) for expected in ("OK", "NG"))
        good_judged, defective_judged = (part.parts - part.errors for part in (good, defective))
        return Labelled(
            good=good,
            defective=defective,
            escapes=rate(defective.ok, defective_judged),
            overkill=rate(good.ng, good_judged),
            good_review=rate(good.review, good_judged),
            defective_review=rate(defective.review, defective_judged),
        )


def _counts(results: Counter[str]) -> Counts:
    return Counts(results.total(), results["OK"], results["NG"], results["REVIEW"], results["error"])
