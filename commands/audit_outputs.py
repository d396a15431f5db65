"""What an audit's records are made into: ``audit export``, ``audit summary``, ``audit diff``, ``audit drift``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..agent.errors import ConfigError, ProductError
from .shared import HomeOption, make_console, print_error, print_line, settings

if TYPE_CHECKING:
    from ..audits.drift import Enrolment
    from ..audits.records import AuditRecord

EXIT_DIFFERS = EXIT_DRIFT = 1
EXIT_NOT_TESTED = 3

AuditArgument = Annotated[Path, typer.Argument(metavar="AUDIT", help="Folder of an audit, or its records.jsonl.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


class ReviewChoice(StrEnum):
    """What REVIEW becomes in a JUnit report; it never passes."""

    FAILURE = "failure"
    SKIPPED = "skipped"


class MatchChoice(StrEnum):
    """What makes lines of two audits the same."""

    IMAGE = "image"
    CONTENT = "content"
    SERIAL = "serial"


def audit_export(
    audit: AuditArgument,
    csv: Annotated[Path | None, typer.Option("--csv", help="Table for spreadsheets.")] = None,
    parquet: Annotated[Path | None, typer.Option("--parquet", help="Table with types (extra 'parquet').")] = None,
    coco: Annotated[Path | None, typer.Option("--coco", help="Data set of NG and REVIEW areas, JSON.")] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Test report, XML: a case per part.")] = None,
    review: Annotated[
        ReviewChoice, typer.Option("--review", help="What REVIEW is in the test report.")
    ] = ReviewChoice.FAILURE,
) -> None:
    """Write an audit's records as CSV, Parquet, COCO or JUnit XML; records.jsonl stays the truth."""
    wanted = [path for path in (csv, parquet, coco, junit) if path is not None]
    if not wanted:
        raise ConfigError("nothing to write.", hint="Give --csv, --parquet, --coco or --junit with a file.")
    check_targets(audit, wanted)
    from ..audits.coco import export_coco
    from ..audits.exports import export_csv, export_parquet
    from ..audits.junit import export_junit

    if csv is not None:
        print_line(f"{csv}: {export_csv(_records(audit), csv):,} rows")
    if parquet is not None:
        print_line(f"{parquet}: {export_parquet(_records(audit), parquet):,} rows")
    if coco is not None:
        found = export_coco(_records(audit), coco)
        masks = f"{found.annotations:,} areas, {found.masks:,} with masks"
        left_out = f"; left out for want of a picture: {found.left_out:,}" if found.left_out else ""
        print_line(f"{coco}: {found.images:,} pictures, {masks}{left_out}")
    if junit is not None:
        name = audit.resolve().name if audit.is_dir() else audit.resolve().parent.name
        cases = export_junit(_records(audit), junit, name=name, review=review.value)
        told = f"{cases.failures:,} failures, {cases.errors:,} errors, {cases.skipped:,} skipped"
        print_line(f"{junit}: {cases.tests:,} cases, {told}")


def audit_summary(audit: AuditArgument, as_json: JsonOption = False) -> None:
    """Count verdicts, escapes and overkill (where labels are known), and defect types, by lot and station."""
    from ..audits.summary import summarise
    from ..audits.tables import summary_tables

    found = summarise(_records(audit))
    _tell_unfinished(audit, found.whole.counts.parts)
    _show(asdict(found), summary_tables(found), as_json)


def audit_diff(
    before: Annotated[Path, typer.Argument(help="Folder of the first audit, or its records.jsonl.")],
    after: Annotated[Path, typer.Argument(help="Folder of the second.")],
    match: Annotated[
        MatchChoice, typer.Option("--match", help="What makes two lines the same: path, content or serial number.")
    ] = MatchChoice.IMAGE,
    tolerance: Annotated[
        float | None, typer.Option("--tolerance", help="Relative difference that scores may have (0.0001).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two audits of the same parts. Exit code: 0 if all lines agree, 1 if any differs."""
    from ..audits.compare import TOLERANCE, compare
    from ..audits.tables import comparison_tables

    near = TOLERANCE if tolerance is None else tolerance
    found = compare(before, after, match=match.value, tolerance=near)
    _tell_unfinished(before, found.lines_before)
    _tell_unfinished(after, found.lines_after)
    _show(asdict(found), comparison_tables(found), as_json)
    raise typer.Exit(EXIT_DIFFERS if found.changes else 0)


def audit_drift(
    audit: AuditArgument,
    level: Annotated[
        float | None, typer.Option("--level", help="Probability of an alarm without drift, per product (0.01).")
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Compare each batch's scores with enrolment. Exit code: 1 drift, 3 if a product could not be tested, else 0."""
    from ..audits.drift import LEVEL, find_drift
    from ..audits.tables import drift_tables

    enrolments = enrolments_of(settings(home=home).home.products, audit)
    found = find_drift(_records(audit), enrolments, level=LEVEL if level is None else level)
    _show([asdict(drift) for drift in found], drift_tables(found), as_json)
    alarms = {drift.alarm for drift in found}
    raise typer.Exit(EXIT_DRIFT if True in alarms else EXIT_NOT_TESTED if None in alarms or not found else 0)


def register(app: typer.Typer) -> None:
    """Put these commands under ``audit``."""
    for name, command in (
        ("export", audit_export),
        ("summary", audit_summary),
        ("diff", audit_diff),
        ("drift", audit_drift),
    ):
        app.command(name)(command)


def check_targets(audit: Path, wanted: list[Path]) -> None:
    """Nothing that an audit lives from is written over, and no file of one command over another.

    Raises:
        ConfigError: it would be.
    """
    from ..audits.folder import HEADER_NAME, LOCK_NAME, SUPERSEDED_NAME
    from ..audits.record_file import records_path

    records = records_path(audit).resolve()
    own = {records, *(records.parent / name for name in (HEADER_NAME, LOCK_NAME, SUPERSEDED_NAME))}
    for number, path in enumerate(wanted):
        if path.resolve() in own:
            raise ConfigError(f"{path} belongs to the audit itself.", hint="Name another file.")
        if path.resolve() in {other.resolve() for other in wanted[:number]}:
            raise ConfigError(f"{path} is named twice.", hint="Name a file for each table.")


def _records(audit: Path) -> Iterator[AuditRecord]:
    from ..audits.record_file import read_records

    return read_records(audit)


def _tell_unfinished(audit: Path, count: int) -> None:
    """Say on standard error when records are missing, or will be added: the numbers will change.

    Args:
        audit: its folder or records.
        count: records.
    """
    from ..audits.folder import read_header
    from ..audits.record_file import read_heads, records_path

    path = records_path(audit)
    header = read_header(path.parent)
    if header is not None and header.watched:
        print_error(f"{audit} is a folder of watch: {count:,} pictures so far.")
    elif header is not None and count < header.lines:
        done = count if header.limit is None else sum(header.asks(head.line) for head, _ in read_heads(path))
        if done < header.asked:
            print_error(f"{audit} is unfinished: {done:,} of {header.asked:,} lines have a record.")
        else:
            print_error(f"{audit} was limited: {count:,} of {header.lines:,} lines have a record.")


def enrolments_of(products: Path, audit: Path) -> dict[str, Enrolment | str]:
    """The enrolments of the products that the records name, or why there is none to compare with."""
    from ..audits.drift import read_enrolment

    found: dict[str, Enrolment | str] = {}
    for name in sorted({record.line.product for record in _records(audit) if record.line.product}):
        try:
            found[name] = read_enrolment(products, name)
        except (ConfigError, ProductError) as error:
            found[name] = error.message.rstrip(".")
    return found


def _show(plain: Any, tables: Iterable[Any], as_json: bool) -> None:
    if as_json:
        print_line(json.dumps(plain, indent=2, allow_nan=False))
        return
    from ..audits.tables import WIDTH

    console = make_console()
    console = make_console(width=min(console.width, WIDTH) if console.is_terminal else WIDTH)
    for table in tables:
        console.print(table)
