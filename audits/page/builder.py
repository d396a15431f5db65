"""Makes the page of an audit from its records: rows and reports in one pass, then pictures until the file is full."""

from __future__ import annotations

import heapq
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

from ...agent.errors import InputError
from ...agent.home import write_atomically
from ..drift import ProductDrift
from ..folder import read_header
from ..record_file import read_records
from ..records import AuditHeader, AuditRecord
from .document import data_block, deflated, frame, json_text
from .pictures import THUMBNAIL_PX, Small, large_of, small_of
from .rows import SHORT_ID, VERDICTS, Rows, cleaned, detail_of, visible

MAX_BYTES = 64_000_000
"""A file that mail and browsers still take; large views fill what the thumbnails leave."""
CHUNKS = {"rows": 1000, "small": 40, "detail": 40}
"""Records of a block. Parsing one takes a few milliseconds, so no block stops the page."""
IN_FLIGHT = 64
"""Pictures that are read at a time: memory stays small however many there are."""

T = TypeVar("T")
R = TypeVar("R")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PageFacts:
    """What was written.

    Attributes:
        path: the file.
        size_bytes: of it.
        records: on the page.
        thumbnails: records with one.
        large: records with a large view, the most urgent first: NG, REVIEW, OK.
    """

    path: Path
    size_bytes: int
    records: int
    thumbnails: int
    large: int


@dataclass
class _Read:
    """What the first pass over the records keeps."""

    rows: Rows = field(default_factory=Rows)
    details: list[str] = field(default_factory=list)
    versions: dict[str, set[str]] = field(default_factory=dict)
    settings: set[str] = field(default_factory=set)
    last: str = ""
    asked_done: int = 0


def build_page(
    audit: Path,
    out: Path,
    *,
    drift: Sequence[ProductDrift] = (),
    max_bytes: int = MAX_BYTES,
    progress: Progress | None = None,
) -> PageFacts:
    """Write the page of an audit.

    Every record is on the page with its report. Thumbnails with their maps come next, then large views, as far as
    ``max_bytes`` goes: NG first, then REVIEW, then OK, those nearest to their threshold first.

    Args:
        audit: the audit's folder, or its ``records.jsonl``.
        out: the file to write; it appears whole or not at all.
        drift: what ``find_drift`` found, for the chart.
        max_bytes: about the largest size of the file; rows and reports are written whatever it says.
        progress: told of the pictures.

    Raises:
        InputError: the records cannot be read, or were written anew meanwhile.
        StorageError: the disk refuses.
    """
    folder = audit if audit.is_dir() else audit.parent
    header = read_header(folder)
    read = _read_all(audit, out, header)
    count = len(read.rows)
    title = visible(f"Audit {folder.absolute().name}".strip())
    subtitle = _subtitle(read, header)
    index = _index(read, {"title": title, "subtitle": subtitle, "about": _about(read, header), "drift": _plain(drift)})
    before, after = frame(title, subtitle, _version(), index)
    details = [data_block(f"detail-{number}", text) for number, text in enumerate(read.details)]
    left = max_bytes - sum(len(part.encode()) for part in (before, after)) - sum(map(len, details))

    urgency = _urgency(read.rows)
    smalls = _smalls(_again(audit, read.rows), folder, left, urgency, progress)
    blocks = [
        data_block(f"small-{number}", json_text([[each.thumbnail, each.map] for each in chunk]))
        for number, chunk in enumerate(_chunked(smalls, CHUNKS["small"]))
    ]
    left -= sum(map(len, blocks))
    large = 0

    def write(temporary: Path) -> None:
        nonlocal large
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(before)
            file.writelines(blocks)
            file.writelines(details)
            large = _write_large(file, _again(audit, read.rows), folder, left, urgency, progress)
            file.write(after)

    write_atomically(out, write)
    thumbnails = sum(each.thumbnail is not None for each in smalls)
    return PageFacts(out, out.stat().st_size, count, thumbnails, large)


# --- records ----------------------------------------------------------------------------------------------------------


def _read_all(audit: Path, out: Path, header: AuditHeader | None) -> _Read:
    read = _Read()
    waiting: list[dict[str, Any]] = []
    for record in read_records(audit):
        read.rows.add(record)
        read.asked_done += header is not None and header.asks(record.line)
        read.settings.add(record.settings_sha256)
        read.last = max(read.last, record.timing.finished)
        for name, version in record.versions.items():
            read.versions.setdefault(name, set()).add(version or "none")
        waiting.append(detail_of(record, out))
        if len(waiting) == CHUNKS["detail"]:
            read.details.append(deflated(waiting))
            waiting = []
    if waiting:
        read.details.append(deflated(waiting))
    read.rows.finish()
    return read


def _again(audit: Path, rows: Rows) -> Iterator[AuditRecord]:
    """The records of the first pass once more: an audit that still runs has written others behind them.

    Raises:
        InputError: they are others by now, so that a part would get another one's picture.
    """
    count = 0
    known = zip(rows.columns.get("id", ()), rows.columns.get("n", ()), strict=True)
    for place, record in zip(known, read_records(audit), strict=False):
        if place != (record.id[:SHORT_ID], record.line.number):
            break
        yield record
        count += 1
    if count < len(rows):
        raise InputError(f"the records of {audit} were written anew meanwhile.", hint="Make the page once more.")


def _index(read: _Read, facts: dict[str, Any]) -> list[str]:
    """The blocks that the page reads at once."""
    columns, words = read.rows.columns, {name: read.rows.words.get(name, []) for name in Rows.WORDS}
    said = {**facts, "count": len(read.rows), "columns": list(Rows.ALL), "words": words, "chunks": CHUNKS}
    blocks = [data_block("audit", json_text({**said, "thumbnail_px": THUMBNAIL_PX}))]
    for number, start in enumerate(range(0, len(read.rows), CHUNKS["rows"])):
        part = {name: values[start : start + CHUNKS["rows"]] for name, values in columns.items()}
        blocks.append(data_block(f"rows-{number}", json_text(part)))
    return blocks


def _urgency(rows: Rows) -> list[int]:
    """Rows in the order in which they get pictures."""
    columns = rows.columns

    def key(row: int) -> tuple[int, float, int]:
        score, limit = columns["score"][row], columns["limit"][row]
        distance = abs(score / limit - 1) if score is not None and limit else float("inf")
        return columns["v"][row], distance, row

    return sorted(range(len(rows)), key=key)


def _subtitle(read: _Read, header: AuditHeader | None) -> str:
    by_verdict = [read.rows.columns.get("v", []).count(number) for number in range(len(VERDICTS))]
    failed = sum(error >= 0 for error in read.rows.columns.get("error", []))
    named = [f"{count:,} {name}" for count, name in zip(by_verdict, VERDICTS, strict=True)]
    if failed:
        named[1] += f" ({failed:,} not inspected)"
    counts = ", ".join(named)
    products = read.rows.words.get("product", [])
    made = read.last[:16].replace("T", " ")
    parts = [f"{len(read.rows):,} picture{'' if len(read.rows) == 1 else 's'}: {counts}"]
    if products:
        parts.append(products[0] if len(products) == 1 else f"{len(products)} products")
    if made:
        parts.append(f"watched until {made} UTC" if header is not None and header.watched else f"finished {made} UTC")
    if header is not None and header.asked > read.asked_done:
        parts.append(f"unfinished: {header.asked:,} lines to do")
    elif header is not None and header.lines > len(read.rows):
        parts.append(f"limited: {len(read.rows):,} of {header.lines:,} lines")
    if header is not None and header.shard != (1, 1):
        parts.append(f"part {header.shard[0]} of {header.shard[1]}")
    return ", ".join(parts) + "."


def _about(read: _Read, header: AuditHeader | None) -> list[list[Any]]:
    """Titled tables of text."""
    run: list[list[str]] = []
    settings: list[list[str]] = []
    if header is not None:
        facts = header.model_dump(mode="json", exclude={"settings", "schema_version", "shard"})
        facts["part"] = f"{header.shard[0]} of {header.shard[1]}"
        run = [[name.replace("_", " "), _spoken(value)] for name, value in facts.items() if value not in (None, [])]
        settings = [[name, _spoken(value)] for name, value in header.settings.items()]
    run += [["settings hash", value] for value in sorted(read.settings)[:20]]
    versions = [[name, ", ".join(sorted(found)[:20])] for name, found in sorted(read.versions.items())]
    page = [
        ["made by", f"Flawscope {_version()}"],
        ["network", "none: the page's policy forbids every request"],
        ["thumbnails", f"at most {THUMBNAIL_PX} px, WebP"],
    ]
    shown = [["This page", page], ["Run", run], ["Versions", versions], ["Settings", settings]]
    result: list[list[Any]] = cleaned(shown)
    return result


def _spoken(value: Any) -> str:
    if isinstance(value, dict) and set(value) == {"value", "origin"}:
        return f"{_spoken(value['value'])} ({value['origin']})"
    if isinstance(value, list | tuple):
        return ", ".join(map(_spoken, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _plain(drift: Sequence[ProductDrift]) -> Any:
    return cleaned([asdict(each) for each in drift])


def _version() -> str:
    from importlib.metadata import version

    return version("flawscope")


# --- pictures ---------------------------------------------------------------------------------------------------------


def _smalls(
    records: Iterable[AuditRecord], folder: Path, room: int, urgency: Sequence[int], progress: Progress | None
) -> list[Small]:
    """Thumbnails in the order of the records; when the file is full, the least urgent records lose theirs."""
    rank = {row: place for place, row in enumerate(urgency)}
    smalls: list[Small] = []
    kept: list[tuple[int, int]] = []  # a heap: the least urgent record is on top
    for row, small in enumerate(_mapped(lambda record: small_of(record, folder), records)):
        smalls.append(small)
        room -= small.size_bytes
        heapq.heappush(kept, (-rank[row], row))
        while room < 0 and kept:
            _, dropped = heapq.heappop(kept)
            room += smalls[dropped].size_bytes
            smalls[dropped] = Small(None, None)
        if progress is not None:
            progress("thumbnails", row + 1, len(urgency))
    return smalls


def _write_large(
    file: IO[str],
    records: Iterable[AuditRecord],
    folder: Path,
    room: int,
    rows: Sequence[int],
    progress: Progress | None,
) -> int:
    """Large views of these rows, in their order, as long as there is room; how many were written."""
    written = 0
    wanted = rows[: _affordable(room)]
    picked = _picked(records, wanted)
    for done, (row, text) in enumerate(
        zip(wanted, _mapped(lambda row: large_of(picked[row], folder), wanted), strict=True), start=1
    ):
        if text is not None:
            block = data_block(f"large-{row}", text)
            room -= len(block)
            if room < 0:
                break
            file.write(block)
            written += 1
        if progress is not None:
            progress("large views", done, len(wanted))
    return written


def _affordable(room: int) -> int:
    """How many large views could fit at the very most: none is below some kilobytes."""
    return max(0, room // 2_000)


def _picked(records: Iterable[AuditRecord], rows: Sequence[int]) -> dict[int, AuditRecord]:
    wanted = set(rows)
    # Without reports, which are most of a record and not needed for its pictures.
    return {
        row: record.model_copy(update={"report": None, "masks": {}})
        for row, record in enumerate(records)
        if row in wanted
    }


def _mapped(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Work on items by a few threads, results in order, at most ``IN_FLIGHT`` ahead; Pillow lets threads decode."""
    todo = iter(items)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        running = [pool.submit(work, item) for item in islice(todo, IN_FLIGHT)]
        while running:
            yield running.pop(0).result()
            running.extend(pool.submit(work, item) for item in islice(todo, 1))


def _chunked(items: Sequence[Small], size: int) -> Iterator[Sequence[Small]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
