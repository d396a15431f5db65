"""What the page knows of a record: a slim row for the gallery and everything else for the moment it is opened.

All text passes through ``visible``: the page only ever sets text nodes, and characters that could reorder or hide
what a reader sees are spelt out here.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, ClassVar
from urllib.parse import quote

from ..records import AuditRecord

VERDICTS = ("NG", "REVIEW", "OK")
"""In the order of urgency; a row's ``v`` counts in it."""
EXPECTED = (None, "OK", "NG")
SHORT_ID = 12
"""Hexadecimal digits of a record's id that links carry: a chance in ten million that two of 5,000 share them."""

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def visible(text: str) -> str:
    """Text with control, bidirectional and invisible characters spelt out, so that a name reads as it is stored."""
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def cleaned(value: Any) -> Any:
    """Plain data with every text in it, keys included, made ``visible``."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(str(key)): cleaned(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(item) for item in value]
    return value


@dataclass
class Rows:
    """Columns of the gallery, one entry a record; texts that repeat are numbers into ``words``.

    Attributes:
        columns: by short name.
        words: the distinct texts of each such column, in the order of first sight.
    """

    WORDS: ClassVar = ("product", "lot", "station", "type", "wanted", "label", "error", "disposition")
    ALL: ClassVar = ("id", "n", "name", "serial", "v", "score", "limit", "p", "h", "s", "sev", "x", "rank", *WORDS)

    columns: dict[str, list[Any]] = field(default_factory=dict)
    words: dict[str, list[str]] = field(default_factory=dict)
    _seen: dict[str, dict[str, int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.columns.get("id", ()))

    def add(self, record: AuditRecord) -> None:
        """Append a record's row."""
        line, found = record.line, record.defect_type
        cells = {
            "id": record.id[:SHORT_ID],
            "n": line.number,
            "name": visible(line.image),
            "serial": visible(line.serial or ""),
            "v": VERDICTS.index(record.verdict.value),
            "score": _rounded(record.image_score),
            "limit": _rounded(record.threshold),
            "p": _rounded(record.probability),
            "h": _rounded(record.entropy),
            "s": _rounded(record.timing.seconds),
            "sev": record.severity if isinstance(record.severity, int) else None,
            "x": EXPECTED.index(line.expected),
        }
        words = {
            "product": line.product,
            "lot": line.lot,
            "station": line.station,
            "type": found.name if found is not None else None,
            "wanted": line.expected_type,
            "label": line.label,
            "error": record.error.kind if record.error is not None else None,
            "disposition": record.disposition,
        }
        for name, cell in cells.items():
            self.columns.setdefault(name, []).append(cell)
        for name, text in words.items():
            self.columns.setdefault(name, []).append(self._word(name, text))

    def _word(self, column: str, text: str | None) -> int:
        """A text's number among its column's, -1 for none."""
        seen, listed = self._seen.setdefault(column, {}), self.words.setdefault(column, [])
        if text is None or not text.strip():
            return -1
        shown = visible(text)
        if shown not in seen:
            seen[shown] = len(listed)
            listed.append(shown)
        return seen[shown]

    def finish(self) -> None:
        """Add each row's rank by name, numbers in it by value, so that the page need not compare thousands of texts."""
        names = self.columns.get("name", [])
        ranked = sorted(range(len(names)), key=lambda row: (_natural(names[row]), row))
        ranks = [0] * len(names)
        for rank, row in enumerate(ranked):
            ranks[row] = rank
        self.columns["rank"] = ranks


def detail_of(record: AuditRecord, page: Path) -> dict[str, Any]:
    """Everything of a record that only its own view shows.

    Args:
        record: of the audit.
        page: the file that is being written; links are relative to it.
    """
    report, found = record.report or {}, record.defect_type
    claims = report.get("claims") or [
        {"field": name, "text": said.text, "evidence_ids": said.evidence_ids} for name, said in record.texts.items()
    ]
    detail = {
        "id": record.id,
        "path": record.line.image,
        "href": _link(record.line.image, page),
        "sha256": record.sha256,
        "size": record.size_px,
        "reason": report.get("verdict_reason", ""),
        "uncertainty": report.get("uncertainty"),
        "candidates": [[each.name, each.posterior] for each in found.candidates] if found is not None else [],
        "regions": [region.model_dump(mode="json") for region in record.regions],
        "claims": [[claim["field"], claim["text"], list(claim["evidence_ids"])] for claim in claims],
        "evidence": report.get("evidence", []),
        "cited": [each.evidence_id for each in record.documents if each.cited],
        "trace": report.get("trace", []),
        "flags": record.flags,
        "severity": record.severity,
        "disposition": record.disposition,
        "reaction": record.reaction,
        "thread": record.thread_id,
        "error": record.error.model_dump(mode="json") if record.error is not None else None,
        "line": record.line.source_line,
        "finished": record.timing.finished,
        "settings": record.settings_sha256,
    }
    # A percent-encoded link hides nothing, and has no character that would be spelt out.
    plain: dict[str, Any] = cleaned(detail)
    return plain


def _link(image: str, page: Path) -> str | None:
    """The way from the page to a picture's file; None where the systems' drives differ.

    It always begins with ``./``, ``../`` or ``file:``, so a file named like a script or an address stays a file.
    """
    try:
        target = Path(image).absolute()
        way = PurePath(os.path.relpath(target, page.absolute().parent))
    except (OSError, ValueError):
        return None
    text = quote(way.as_posix())
    return text if text.startswith("../") else f"./{text}"


def _rounded(value: float | None) -> float | None:
    """Five significant digits: more than anybody reads, half the bytes."""
    return None if value is None else float(f"{value:.5g}")


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A name as numbers and texts: part-9 comes before part-10."""
    parts = re.split(r"([0-9]+)", name.rpartition("/")[2].lower())
    return [(0, int(part[:300]), "") if place % 2 else (1, 0, part) for place, part in enumerate(parts)]
