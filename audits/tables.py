"""Summaries, comparisons and drift as tables for a terminal of 100 columns.

Names come from manifests and files: they are shown without control characters and never read as markup.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath
from typing import TYPE_CHECKING

from ..agent.terminal import clean_line
from .compare import ABSENT, Change, ChangeKind, Comparison, SettingChange, Side
from .drift import Batch, ProductDrift, Quartiles
from .summary import Group, Labelled, ParetoRow, Rate, Summary

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

WIDTH = 100
ROWS = 20
"""Rows of a table; JSON holds the others."""
BAR = 24
"""Columns of a full bar."""
CHANGED: dict[ChangeKind, str] = {
    "verdict": "verdicts",
    "error": "errors",
    "type": "defect types",
    "added": "added",
    "removed": "removed",
    "picture": "pictures",
    "score": "scores",
}
"""What may differ, the gravest first."""
HEADINGS = {"product": "By product", "lot": "By lot", "station": "By station", "label": "By label"}


def summary_tables(summary: Summary) -> list[Table | Text]:
    """Verdicts, escapes and overkill, Pareto, and the same by product, lot, station and label."""
    parts: list[Table | Text] = [_heading("Result"), _counts([summary.whole])]
    if summary.error_kinds:
        parts.append(_line("errors: " + ", ".join(f"{count} {kind}" for kind, count in summary.error_kinds)))
    if summary.repeated:
        lines = "1 line shows" if summary.repeated == 1 else f"{summary.repeated:,} lines show"
        parts.append(_line(f"{lines} a picture that came before; every line counts as a part."))
    if summary.whole.labelled is not None:
        parts += [_heading("Escapes and overkill"), _labelled(summary.whole.labelled)]
    if summary.whole.pareto:
        parts += [_heading("Defect types of NG parts"), _pareto(summary.whole.pareto)]
    for dimension, heading in HEADINGS.items():
        groups = [group for group in summary.groups if group.dimension == dimension]
        if dimension == "product" and len(groups) == 1:
            continue
        parts += _by_group(heading, dimension, groups)
    return parts


def _by_group(heading: str, dimension: str, groups: list[Group]) -> list[Table | Text]:
    if not groups:
        return []
    worst = sorted(groups, key=lambda group: -group.counts.ng)[:ROWS]
    parts: list[Table | Text] = [_heading(heading), _counts(worst)]
    if dimension != "label" and any(group.labelled for group in worst):
        parts.append(_labelled_groups(dimension, worst))
    if dimension != "label" and any(group.pareto for group in worst):
        table = _table(dimension, "NG parts by type (share)")
        for group in worst:
            shares = (f"{row.defect_type} {row.count} ({row.share:.0%})" for row in group.pareto[:6])
            table.add_row(_name(group), _text(", ".join(shares) + (", …" if len(group.pareto) > 6 else "")))
        parts.append(table)
    return parts + _more(len(groups) - len(worst))


def _counts(groups: list[Group]) -> Table:
    table = _table(groups[0].dimension or "", "parts", "OK", "NG", "REVIEW", "error", "NG share", numbers=True)
    for group in groups:
        counts = group.counts
        judged = counts.parts - counts.errors
        share = f"{counts.ng / judged:.1%}" if judged else ""
        numbers = (counts.parts, counts.ok, counts.ng, counts.review, counts.errors)
        table.add_row(_name(group), *(f"{number:,}" for number in numbers), share)
    return table


def _labelled(told: Labelled) -> Table:
    table = _table("", "parts", "of", "share", "95% interval", numbers=True)
    for what, rate in (
        ("escapes (defective, called OK)", told.escapes),
        ("overkill (good, called NG)", told.overkill),
        ("defective, to REVIEW", told.defective_review),
        ("good, to REVIEW", told.good_review),
    ):
        share = "none labelled" if rate.share is None else f"{rate.share:.2%}"
        table.add_row(what, f"{rate.count:,}", f"{rate.of:,}", share, _interval(rate))
    return table


def _labelled_groups(dimension: str, groups: list[Group]) -> Table:
    columns = ("escapes", "95% interval", "overkill", "95% interval", "defective, good to REVIEW")
    table = _table(dimension, *columns, numbers=True)
    for group in groups:
        if (told := group.labelled) is None:
            continue
        review = f"{told.defective_review.count:,}, {told.good_review.count:,}"
        escapes, overkill = (f"{rate.count:,} of {rate.of:,}" for rate in (told.escapes, told.overkill))
        table.add_row(_name(group), escapes, _interval(told.escapes), overkill, _interval(told.overkill), review)
    return table


def _interval(rate: Rate) -> str:
    return "" if rate.share is None else f"{rate.low:.2%} to {rate.high:.2%}"


def _pareto(rows: tuple[ParetoRow, ...]) -> Table:
    table = _table("type", "parts", "share", "cumulative", "", numbers=True)
    for row in rows[:ROWS]:
        bar = "█" * round(BAR * row.share) or "▏"
        table.add_row(_text(row.defect_type), f"{row.count:,}", f"{row.share:.1%}", f"{row.cumulative:.1%}", bar)
    if len(rows) > ROWS:
        rest = sum(row.count for row in rows[ROWS:])
        table.add_row(f"{len(rows) - ROWS} more types", f"{rest:,}", "", "", "")
    return table


def drift_tables(found: Iterable[ProductDrift]) -> list[Table | Text]:
    """A table a product: each batch's quartiles beside the references', its p-value and its alarm."""
    parts: list[Table | Text] = []
    for drift in found:
        name = clean_line(drift.product or "no product")
        if drift.reason:
            parts.append(_line(f"{name}: not tested: {drift.reason}."))
        if drift.reason and drift.quartiles is None:
            continue
        references = " / ".join(_quartiles(drift.quartiles))
        parts.append(_heading(f"{name}: scores in spreads of good parts"))
        parts.append(_line(f"{drift.references:,} references: q1 / median / q3 {references}"))
        parts.append(_line(f"alarm level {drift.level:g} over all batches"))
        shown = _alarms_and_last(drift)
        parts += [_batches(shown, tested=not drift.reason), *_more(len(drift.batches) - len(shown))]
    return parts


def _batches(shown: list[Batch], *, tested: bool) -> Table:
    places = [name for name in ("lot", "station") if any(getattr(batch, name) for batch in shown)]
    columns = ("line", "parts", "left out", "q1", "median", "q3", "p", "alarm at", "")
    table = _table("batch", *places, *columns, numbers=True)
    for batch in shown:
        level = "" if batch.level is None else f"{batch.level:.1g}"
        p_value = "" if batch.p_value is None else f"{batch.p_value:.1g}"
        sign = {True: "DRIFT", False: "", None: "too few" if tested else ""}[batch.alarm]
        given = [_text(getattr(batch, name) or "") for name in places]
        numbers = (f"{batch.first_line:,}", f"{batch.parts:,}", f"{batch.left_out:,}", *_quartiles(batch.quartiles))
        style = "bold red" if batch.alarm else None
        table.add_row(str(batch.number), *given, *numbers, p_value, level, sign, style=style)
    return table


def _alarms_and_last(drift: ProductDrift) -> list[Batch]:
    """At most ROWS batches: those that alarm come first into the choice, then the latest."""
    chosen = sorted(drift.batches, key=lambda batch: (not batch.alarm, -batch.number))[:ROWS]
    return sorted(chosen, key=lambda batch: batch.number)


def _quartiles(quartiles: Quartiles | None) -> tuple[str, str, str]:
    if quartiles is None:
        return "", "", ""
    first, median, third = (f"{round(value, 2) + 0.0:.2f}" for value in quartiles)  # no -0.00
    return first, median, third


def comparison_tables(found: Comparison) -> list[Table | Text]:
    """What changed from result to result, line by line, and what the audits were run with."""
    told = ", ".join(f"{found.count(kind):,} {words}" for kind, words in CHANGED.items() if found.count(kind))
    heading = f"{found.lines_before:,} lines before, {found.lines_after:,} after: {found.unchanged:,} unchanged"
    parts: list[Table | Text] = [_line(f"{heading}; changed: {told}." if told else f"{heading}.")]
    for what, (came, went) in (("escapes", found.turned("NG", "OK")), ("overkill", found.turned("OK", "NG"))):
        if came or went:
            parts.append(_line(f"{what} by the labels: {came:,} new, {went:,} mended."))
    if found.transitions:
        table = _table("before", "after", "lines", numbers=True)
        for before, after, count in found.transitions:
            table.add_row(before, _text(after), f"{count:,}")
        parts += [_heading("Results"), table]
    if found.changes:
        order = list(CHANGED)
        gravest = sorted(found.changes, key=lambda change: min(order.index(kind) for kind in change.kinds))[:ROWS]
        parts += [_heading("Changed lines"), _changes(gravest), *_more(len(found.changes) - len(gravest))]
    if found.settings:
        parts += [_heading("What they were run with, where it differs"), _settings(found.settings)]
    return parts


def _changes(changes: list[Change]) -> Table:
    table = _table("line", "image", "what", "before", "after")
    for change in changes:
        number = next(side.number for side in (change.after, change.before) if side is not None)
        name = (
            PurePath(change.image).name if change.serial is None else f"{change.serial} {PurePath(change.image).name}"
        )
        table.add_row(f"{number:,}", _text(name), ", ".join(change.kinds), _side(change.before), _side(change.after))
    return table


def _side(side: Side | None) -> Text:
    if side is None:
        return _text(ABSENT)
    score = "" if side.image_score is None else f"{side.image_score:.4g}"
    return _text(" ".join(part for part in (side.result, side.error, side.defect_type, score) if part))


def _settings(settings: tuple[SettingChange, ...]) -> Table:
    table = _table("setting", "before", "after")
    for change in settings:
        table.add_row(_text(change.name), _values(change.before), _values(change.after))
    return table


def _values(values: tuple[str, ...]) -> Text:
    shown = [value if len(value) <= 36 else f"{value[:28]}…" for value in values[:3]]
    return _text(", ".join(shown) + (f" and {len(values) - 3} more" if len(values) > 3 else "") or "not given")


def _more(count: int) -> list[Table | Text]:
    return [_line(f"… and {count:,} more; --json shows all.")] if count > 0 else []


def _table(first: str, *others: str, numbers: bool = False) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column(first, overflow="fold")
    for name in others:
        words = name in {"rate", "lot", "station", "image", "what", "after", ""} or not numbers
        table.add_column(name, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    return table


def _name(group: Group) -> Text:
    return _text("all" if group.dimension is None else group.value if group.value is not None else "not given")


def _heading(text: str) -> Text:
    from rich.text import Text

    return Text(clean_line(text), style="bold")


def _line(text: str) -> Text:
    return _text(text)


def _text(text: str) -> Text:
    from rich.text import Text

    return Text(clean_line(text))
