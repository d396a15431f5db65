"""Shards of one audit become one folder, as if a single run had written it."""

from __future__ import annotations

import heapq
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..agent.errors import ConfigError, InputError
from ..agent.home import storage_errors, write_json_atomically
from .folder import HEADER_NAME, AuditSummary, locked, read_header, rewrite
from .pictures import FOLDER
from .record_file import RECORDS_NAME, RecordHead, read_heads
from .records import AuditHeader


def merge_audits(shards: Sequence[Path], out: Path) -> AuditSummary:
    """Merge finished shards.

    Args:
        shards: their folders; all of one worklist, each once.
        out: a folder without an audit; pictures are copied into it.

    Raises:
        ConfigError: they are no shards of one worklist, one is missing or not finished, or ``out`` has an audit.
        InputError: a folder holds no audit, or a damaged one.
        StorageError: the disk refuses.
    """
    headers = [_header(shard) for shard in shards]
    _refuse_strangers(shards, headers)
    if (out / RECORDS_NAME).exists():
        raise ConfigError(f"{out} holds an audit already.", hint="Give another --out.")
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    summary = AuditSummary(lines=sum(header.lines for header in headers))
    with locked(out):
        for shard in shards:
            if (shard / FOLDER).is_dir():
                with storage_errors(out):
                    shutil.copytree(shard / FOLDER, out / FOLDER, dirs_exist_ok=True)
        first = headers[0]
        names = tuple(str(shard) for shard in shards)
        merged = first.model_copy(update={"shard": (1, 1), "lines": summary.lines, "limit": None, "merged": names})
        write_json_atomically(out / HEADER_NAME, merged.model_dump(mode="json"))
        rewrite(out / RECORDS_NAME, _merged(shards, headers, summary))
    return summary


def _header(shard: Path) -> AuditHeader:
    header = read_header(shard)
    if header is None:
        raise InputError(f"{shard} holds no audit.", hint="Name the folders that were given as --out.")
    return header


def _refuse_strangers(shards: Sequence[Path], headers: Sequence[AuditHeader]) -> None:
    first = headers[0]
    for shard, header in zip(shards, headers, strict=True):
        if (header.worklist_sha256, header.shard[1]) != (first.worklist_sha256, first.shard[1]):
            raise ConfigError(f"{shard} is no shard of the same worklist as {shards[0]}.")
    have = sorted(header.shard[0] for header in headers)
    count = first.shard[1]
    if len(set(have)) != len(have):
        raise ConfigError("a shard is named twice.")
    if missing := sorted(set(range(1, count + 1)) - set(have)):
        raise ConfigError(f"shard {missing[0]}/{count} is missing.")


def _merged(shards: Sequence[Path], headers: Sequence[AuditHeader], summary: AuditSummary) -> Iterator[bytes]:
    """Lines of all shards by their place in the worklist."""
    settings: dict[str | None, str] = {}

    def numbered(shard: Path, header: AuditHeader) -> Iterator[tuple[int, RecordHead, bytes]]:
        count = 0
        for head, raw in read_heads(shard / RECORDS_NAME):
            if settings.setdefault(head.line.product, head.settings_sha256) != head.settings_sha256:
                raise ConfigError(f"{shard} was made with other settings, products or versions than the others.")
            yield head.line.number, head, raw
            count += 1
        if count < header.lines:
            raise ConfigError(
                f"{shard} is not finished: {count} of {header.lines} lines.",
                hint="Run that audit again, without --limit.",
            )

    streams = [numbered(shard, header) for shard, header in zip(shards, headers, strict=True)]
    for _, head, raw in heapq.merge(*streams, key=lambda item: item[0]):
        summary.done += 1
        summary.count(head.verdict, head.error, head.line)
        yield raw
