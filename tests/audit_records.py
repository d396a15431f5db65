"""Records as an audit writes them, made up: what is tested with them needs no picture."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flawscope.agent.schemas import DefectType, Region, Verdict
from flawscope.audits.record_file import RecordWriter
from flawscope.audits.records import AuditHeader, AuditRecord, RecordError, Said, Timing, WorklistLine

PRODUCT = "a" * 64
"""Fingerprint of the product."""


def made(
    number: int,
    verdict: str = "OK",
    *,
    score: float | None = 0.5,
    kind: str | None = None,
    error: str | None = None,
    regions: Iterable[Region] = (),
    masks: dict[str, str] | None = None,
    picture: str | None = None,
    said: dict[str, str] | None = None,
    versions: dict[str, str | None] | None = None,
    **line: Any,
) -> AuditRecord:
    """One record; ``picture`` are the bytes of its file, ``line`` what the manifest says."""
    line.setdefault("image", f"parts/{number:06d}.png")
    evidence = (
        [] if score is None else [{"id": "M1", "kind": "measurement", "text": "", "values": {"raw_whole": score}}]
    )
    return AuditRecord(
        id=f"{number:032x}",
        line=WorklistLine(number=number, **line),
        sha256=hashlib.sha256((picture or f"{number}").encode()).hexdigest(),
        verdict=Verdict.REVIEW if error else Verdict(verdict),
        image_score=None if error else score,
        threshold=2.0,
        defect_type=DefectType(name=kind, posterior=0.75) if kind else None,
        regions=tuple(regions),
        masks=masks or {},
        texts={field: Said(text=text) for field, text in (said or {}).items()},
        size_px=None if error else (64, 48),
        error=RecordError(kind=error, message=f"the {error} of line {number}", exit_code=4) if error else None,
        settings_sha256="1" * 64,
        versions={"product": PRODUCT} if versions is None else versions,
        report=None if error else {"evidence": evidence},
        timing=Timing(seconds=0.25, finished="2026-01-02T03:04:05Z"),
    )


def written(folder: Path, records: Iterable[AuditRecord], **settings: Any) -> Path:
    """The folder of an audit with these records and settings."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "records.jsonl").unlink(missing_ok=True)
    with RecordWriter(folder / "records.jsonl") as writer:
        writer.append(records)
    count = (folder / "records.jsonl").read_bytes().count(b"\n")
    told = {name: {"value": value, "origin": "flag"} for name, value in settings.items()}
    header = AuditHeader(
        flawscope="0.1.0", started="2026-01-02T03:00:00Z", settings=told, lines=count, worklist_sha256="2" * 64
    )
    (folder / "audit.json").write_text(header.model_dump_json(), encoding="utf-8")
    return folder
