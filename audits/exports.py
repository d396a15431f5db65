"""Records as tables: CSV for spreadsheets, Parquet for analysis. ``records.jsonl`` stays the truth.

Both have the same columns in the same order, one row a record; Parquet adds the regions as a nested column.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..agent.errors import MissingExtraError
from ..agent.home import write_atomically
from .records import RECORD_VERSION, AuditRecord

Kind = Literal["text", "integer", "number", "time"]
Cell = str | int | float | None
ROWS_PER_GROUP = 5_000
"""Rows that a Parquet export holds in memory at once."""
FORMULA_SIGNS = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "|", "%")
"""A cell that begins with one of them may be run by a spreadsheet."""


@dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes:
        name: its heading, with the unit.
        kind: what its cells hold; any may be empty.
        value: of a record.
    """

    name: str
    kind: Kind
    value: Callable[[AuditRecord], Cell]


def _box(index: int) -> Callable[[AuditRecord], Cell]:
    return lambda record: record.regions[0].box[index] if record.regions else None


def _said(field: str) -> Callable[[AuditRecord], Cell]:
    return lambda record: record.texts[field].text if field in record.texts else None


COLUMNS: tuple[Column, ...] = (
    Column("number", "integer", lambda r: r.line.number),
    Column("image", "text", lambda r: r.line.image),
    Column("product", "text", lambda r: r.line.product),
    Column("serial", "text", lambda r: r.line.serial),
    Column("lot", "text", lambda r: r.line.lot),
    Column("station", "text", lambda r: r.line.station),
    Column("label", "text", lambda r: r.line.label),
    Column("expected", "text", lambda r: r.line.expected),
    Column("verdict", "text", lambda r: r.verdict.value),
    Column("image_score", "number", lambda r: r.image_score),
    Column("threshold", "number", lambda r: r.threshold),
    Column("probability", "number", lambda r: r.probability),
    Column("entropy", "number", lambda r: r.entropy),
    Column("defect_type", "text", lambda r: r.defect_type.name if r.defect_type else None),
    Column("type_posterior", "number", lambda r: r.defect_type.posterior if r.defect_type else None),
    Column("region_count", "integer", lambda r: len(r.regions)),
    Column("x0_px", "integer", _box(0)),
    Column("y0_px", "integer", _box(1)),
    Column("x1_px", "integer", _box(2)),
    Column("y1_px", "integer", _box(3)),
    Column("area_px", "integer", lambda r: r.regions[0].area_px if r.regions else None),
    Column("place", "text", lambda r: r.regions[0].place if r.regions else None),
    Column("severity", "text", lambda r: None if r.severity is None else str(r.severity)),
    Column("disposition", "text", lambda r: r.disposition),
    Column("reaction", "text", lambda r: r.reaction),
    *(
        Column(name, "text", _said(field))
        for name, field in (
            ("reason", "verdict"),
            ("location", "location"),
            ("description", "description"),
            ("root_cause", "root_cause"),
            ("consequence", "consequence"),
            ("action", "action"),
        )
    ),
    Column("flags", "text", lambda r: " ".join(r.flags) or None),
    Column("further_looks", "text", lambda r: " ".join(r.actions) or None),
    Column("error", "text", lambda r: r.error.kind if r.error else None),
    Column("error_message", "text", lambda r: r.error.message if r.error else None),
    Column("width_px", "integer", lambda r: r.size_px[0] if r.size_px else None),
    Column("height_px", "integer", lambda r: r.size_px[1] if r.size_px else None),
    Column("sha256", "text", lambda r: r.sha256),
    Column("settings_sha256", "text", lambda r: r.settings_sha256),
    Column("seconds", "number", lambda r: r.timing.seconds),
    Column("finished", "time", lambda r: r.timing.finished),
    Column("id", "text", lambda r: r.id),
)
"""The strongest region gives the box; all of them are in Parquet's ``regions`` and in COCO."""


def export_csv(records: Iterable[AuditRecord], path: Path) -> int:
    """Write a CSV table (UTF-8 with the mark that spreadsheets look for, commas, CRLF).

    Text that a spreadsheet could take for a formula gets an apostrophe in front.

    Returns:
        How many records were written.

    Raises:
        StorageError: the disk refuses.
    """
    count = 0

    def write(temporary: Path) -> None:
        nonlocal count
        with temporary.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(column.name for column in COLUMNS)
            for record in records:
                cells = (column.value(record) for column in COLUMNS)
                writer.writerow(defused(cell) if isinstance(cell, str) else cell for cell in cells)
                count += 1

    write_atomically(path, write)
    return count


def defused(text: str) -> str:
    """Text as a spreadsheet may show it: nothing is run, and no control character gets through but line breaks."""
    shown = "".join(
        char if char.isprintable() or char in "\t\n" else " " if char == "\r" else "\ufffd" for char in text
    )
    return f"'{shown}" if shown.lstrip().startswith(FORMULA_SIGNS) or shown.startswith(("\t", "\n")) else shown


def export_parquet(records: Iterable[AuditRecord], path: Path) -> int:
    """Write a Parquet table with typed columns and the regions nested.

    Returns:
        How many records were written.

    Raises:
        MissingExtraError: pyarrow is not installed.
        StorageError: the disk refuses.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("A Parquet export", "parquet") from error
    schema, count = _schema(pyarrow), 0

    def write(temporary: Path) -> None:
        nonlocal count
        with parquet.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for rows in _groups(map(_parquet_row, records)):
                writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
                count += len(rows)

    write_atomically(path, write)
    return count


def _schema(pyarrow: Any) -> Any:
    kinds = {
        "text": pyarrow.string(),
        "integer": pyarrow.int64(),
        "number": pyarrow.float64(),
        "time": pyarrow.timestamp("us", tz="UTC"),
    }
    region = pyarrow.struct(
        [
            ("id", pyarrow.string()),
            ("box_px", pyarrow.list_(pyarrow.int64())),
            ("area_px", pyarrow.int64()),
            ("peak", pyarrow.float64()),
            ("place", pyarrow.string()),
            ("mask", pyarrow.string()),
        ]
    )
    fields = [(column.name, kinds[column.kind]) for column in COLUMNS] + [("regions", pyarrow.list_(region))]
    return pyarrow.schema(fields, metadata={"flawscope.record_version": RECORD_VERSION})


def _parquet_row(record: AuditRecord) -> dict[str, Any]:
    row: dict[str, Any] = {column.name: _typed(column.kind, column.value(record)) for column in COLUMNS}
    row["regions"] = [
        {
            "id": region.id,
            "box_px": list(region.box),
            "area_px": region.area_px,
            "peak": region.peak,
            "place": region.place,
            "mask": record.masks.get(region.id),
        }
        for region in record.regions
    ]
    return row


def _typed(kind: Kind, value: Cell) -> Any:
    if kind != "time" or value is None:
        return value
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:  # the truth keeps the text; a typed column cannot
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _groups(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while group := list(itertools.islice(rows, ROWS_PER_GROUP)):
        yield group
