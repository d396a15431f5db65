"""What differs between two audits of the same parts: another version, other settings, another enrolment.

Lines are matched by picture (or serial number), not by place, so added and removed ones disturb nothing. The first
audit is kept in memory in short form, some 700 bytes a line; the second passes by.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..agent.errors import ConfigError
from .folder import read_header
from .record_file import read_records, records_path
from .records import AuditRecord

Match = Literal["image", "content", "serial"]
ChangeKind = Literal["verdict", "type", "score", "error", "picture", "added", "removed"]
TOLERANCE = 1e-4
"""Scores differ when they are farther apart than this, relative to the larger one (absolute below 1): sums in another
order of the same numbers stay below it by far."""
ABSENT = "absent"
OF_A_PRODUCT = frozenset({"product", "plan"})
"""Versions that each product has its own of."""


@dataclass(frozen=True, slots=True)
class Side:
    """A line as one audit has it.

    Attributes:
        number: in its worklist.
        result: OK, NG, REVIEW or ``error``.
        defect_type: named one.
        image_score: None when not inspected.
        error: its kind.
        picture: first 16 digits of the file's sha256.
    """

    number: int
    result: str
    defect_type: str | None
    image_score: float | None
    error: str | None
    picture: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """A line that differs.

    Attributes:
        image: the path, of the second audit where both have it.
        serial: the part's serial number.
        expected: what its label asks for, None without one.
        kinds: what differs.
        before: in the first audit, None when added.
        after: in the second, None when removed.
    """

    image: str
    serial: str | None
    expected: Literal["OK", "NG"] | None
    kinds: tuple[ChangeKind, ...]
    before: Side | None
    after: Side | None


@dataclass(frozen=True)
class SettingChange:
    """A setting or version with the values that each audit has used; several where lines differ in it.

    Attributes:
        name: of the setting, or of the version and its product.
        before: in the first audit.
        after: in the second.
    """

    name: str
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Two audits side by side.

    Attributes:
        lines_before: of the first audit.
        lines_after: of the second.
        unchanged: lines that agree in all that is compared.
        transitions: how many lines went from which result to which (``absent`` for added and removed ones), only
            where it changed, the most frequent first.
        changes: every line that differs, in the order of the second audit, removed ones last.
        settings: what the audits were run with, where it differs.
    """

    lines_before: int
    lines_after: int
    unchanged: int
    transitions: tuple[tuple[str, str, int], ...]
    changes: tuple[Change, ...]
    settings: tuple[SettingChange, ...]

    def count(self, kind: ChangeKind) -> int:
        """Lines that differ in this."""
        return sum(kind in change.kinds for change in self.changes)

    def turned(self, expected: Literal["OK", "NG"], result: str) -> tuple[int, int]:
        """Labelled lines that turned into a result and away from it: ``("NG", "OK")`` counts new and mended escapes."""
        came = went = 0
        for change in self.changes:
            if change.expected == expected and change.before is not None and change.after is not None:
                before, after = change.before.result == result, change.after.result == result
                came, went = came + (after and not before), went + (before and not after)
        return came, went


def compare(before: Path, after: Path, *, match: Match = "image", tolerance: float = TOLERANCE) -> Comparison:
    """Compare two audits.

    Args:
        before: folder or records of the first.
        after: of the second.
        match: what makes two lines the same: the path and serial number, the file's content (for moved folders), or
            the serial number and station (for new pictures of the same parts). Lines alike in it are matched in order;
            a line without it is matched by its path.
        tolerance: relative difference up to which scores are the same.

    Raises:
        ConfigError: the tolerance is none.
        InputError: an audit cannot be read.
    """
    if not 0.0 <= tolerance < 1.0:
        raise ConfigError("the tolerance of scores is a number from 0 to below 1, such as 0.0001.")
    versions: tuple[_Versions, _Versions] = (_Versions(), _Versions())
    known: dict[tuple[str, str], list[_Entry]] = {}
    lines_before = lines_after = 0
    for record in versions[0].noting(read_records(before)):
        lines_before += 1
        known.setdefault(_key(record, match), []).append(_entry(record))
    for entries in known.values():
        entries.reverse()  # lines alike are taken from the end, the first one first
    changes: list[Change] = []
    transitions: Counter[tuple[str, str]] = Counter()
    for record in versions[1].noting(read_records(after)):
        lines_after += 1
        key = _key(record, match)
        old = known[key].pop() if known.get(key) else None
        change = _change(old, _entry(record), tolerance)
        if change is not None:
            changes.append(change)
    changes += [_removed(entry) for entries in known.values() for entry in reversed(entries)]
    for change in changes:
        results = tuple(side.result if side else ABSENT for side in (change.before, change.after))
        if results[0] != results[1]:
            transitions[results[0], results[1]] += 1
    return Comparison(
        lines_before=lines_before,
        lines_after=lines_after,
        unchanged=lines_after - sum(change.after is not None for change in changes),
        transitions=tuple((*pair, count) for pair, count in transitions.most_common()),
        changes=tuple(changes),
        settings=_setting_changes(
            _header_facts(before) | versions[0].facts(), _header_facts(after) | versions[1].facts()
        ),
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    image: str
    serial: str | None
    expected: Literal["OK", "NG"] | None
    side: Side


def _entry(record: AuditRecord) -> _Entry:
    line = record.line
    side = Side(
        number=line.number,
        result=sys.intern("error" if record.error else record.verdict.value),
        defect_type=sys.intern(record.defect_type.name) if record.defect_type else None,
        image_score=record.image_score,
        error=sys.intern(record.error.kind) if record.error else None,
        picture=record.sha256[:16] if record.sha256 else None,
    )
    return _Entry(line.image, line.serial, line.expected, side)


def _key(record: AuditRecord, match: Match) -> tuple[str, str]:
    line = record.line
    if match == "content" and record.sha256 is not None:
        return record.sha256, ""
    if match == "serial" and line.serial is not None:
        return line.serial, line.station or ""
    return line.image, line.serial or ""


def _change(old: _Entry | None, new: _Entry, tolerance: float) -> Change | None:
    if old is None:
        return Change(new.image, new.serial, new.expected, ("added",), None, new.side)
    kinds = tuple(_differences(old.side, new.side, tolerance))
    return Change(new.image, new.serial, new.expected, kinds, old.side, new.side) if kinds else None


def _removed(old: _Entry) -> Change:
    return Change(old.image, old.serial, old.expected, ("removed",), old.side, None)


def _differences(old: Side, new: Side, tolerance: float) -> Iterator[ChangeKind]:
    if old.result != new.result and "error" not in (old.result, new.result):
        yield "verdict"
    if old.result == new.result and old.defect_type != new.defect_type:
        yield "type"
    if not _same_score(old.image_score, new.image_score, tolerance) and old.error is None and new.error is None:
        yield "score"
    if old.error != new.error:
        yield "error"
    if old.picture != new.picture and None not in (old.picture, new.picture):
        yield "picture"


def _same_score(old: float | None, new: float | None, tolerance: float) -> bool:
    if old is None or new is None:
        return old is new
    return abs(old - new) <= tolerance * max(1.0, abs(old), abs(new))


# --- what they were run with ------------------------------------------------------------------------------------------

Facts = dict[str, tuple[str, ...]]


@dataclass
class _Versions:
    """The versions that the records of an audit name, by product."""

    seen: dict[str, set[str]] = field(default_factory=dict)

    def noting(self, records: Iterable[AuditRecord]) -> Iterator[AuditRecord]:
        for record in records:
            for name, value in record.versions.items():
                place = f"{name} ({record.line.product})" if name in OF_A_PRODUCT and record.line.product else name
                self.seen.setdefault(place, set()).add("none" if value is None else value)
            yield record

    def facts(self) -> Facts:
        return {name: tuple(sorted(values)) for name, values in self.seen.items()}


def _header_facts(where: Path) -> Facts:
    header = read_header(records_path(where).parent)
    if header is None:
        return {}
    facts: Facts = {"flawscope": (header.flawscope,)}
    for name, setting in header.settings.items():
        value = setting.get("value") if isinstance(setting, dict) else setting
        facts[name] = (str(value),)
    return facts


def _setting_changes(before: Facts, after: Facts) -> tuple[SettingChange, ...]:
    names = sorted(set(before) | set(after))
    return tuple(
        SettingChange(name, before.get(name, ()), after.get(name, ()))
        for name in names
        if before.get(name) != after.get(name)
    )
