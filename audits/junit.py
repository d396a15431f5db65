"""An audit as a JUnit report, which build servers and test dashboards show: one test case a part.

NG is a failure, an error is an error, OK passes. REVIEW is undecided and never passes: it is a failure of type
``REVIEW``, or a skipped case, as asked.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal
from xml.sax.saxutils import escape, quoteattr

from ..agent.home import write_atomically
from ..agent.schemas import Verdict
from .records import AuditRecord

ReviewAs = Literal["failure", "skipped"]
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML 1.0 document may hold, escaped or not."""


@dataclass
class JunitCounts:
    """Test cases of a report by result."""

    tests: int = 0
    failures: int = 0
    errors: int = 0
    skipped: int = 0
    seconds: float = 0.0


def export_junit(records: Iterable[AuditRecord], path: Path, *, name: str, review: ReviewAs = "failure") -> JunitCounts:
    """Write the report, a record at a time.

    Args:
        records: of an audit.
        path: the file.
        name: of the test suite.
        review: what REVIEW becomes.

    Raises:
        StorageError: the disk refuses.
    """
    counts = JunitCounts()

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8") as file, tempfile.TemporaryFile("w+", encoding="utf-8") as cases:
            for record in records:
                _write_case(cases, record, review, counts)
            cases.seek(0)
            told = (
                f"name={_attribute(name)} tests={_attribute(counts.tests)} failures={_attribute(counts.failures)} "
                f"errors={_attribute(counts.errors)} skipped={_attribute(counts.skipped)} "
                f"time={_attribute(f'{counts.seconds:.3f}')}"
            )
            file.write(f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites {told}>\n<testsuite {told}>\n')
            shutil.copyfileobj(cases, file)
            file.write("</testsuite>\n</testsuites>\n")

    write_atomically(path, write)
    return counts


def _write_case(file: IO[str], record: AuditRecord, review: ReviewAs, counts: JunitCounts) -> None:
    line, seconds = record.line, record.timing.seconds or 0.0
    counts.tests += 1
    counts.seconds += seconds
    group = ".".join(part for part in (line.product, line.lot, line.station) if part) or "audit"
    title = f"{line.number} {f'{line.serial} ' if line.serial else ''}{line.image}"
    outcome = _outcome(record, review, counts)
    case = f"<testcase classname={_attribute(group)} name={_attribute(title)} time={_attribute(f'{seconds:.3f}')}"
    file.write(f"{case}>{outcome}</testcase>\n" if outcome else f"{case}/>\n")


def _outcome(record: AuditRecord, review: ReviewAs, counts: JunitCounts) -> str:
    if record.error is not None:
        counts.errors += 1
        return f"<error type={_attribute(record.error.kind)} message={_attribute(record.error.message)}/>"
    if record.verdict is Verdict.OK:
        return ""
    kind = record.defect_type.name if record.defect_type else None
    reason = record.texts["verdict"].text if "verdict" in record.texts else ""
    message = ": ".join(part for part in (record.verdict.value, kind, reason) if part)
    if record.verdict is Verdict.REVIEW and review == "skipped":
        counts.skipped += 1
        return f"<skipped message={_attribute(message)}/>"
    counts.failures += 1
    body = "\n".join(said.text for field, said in record.texts.items() if field != "verdict")
    told = f"type={_attribute(record.verdict.value)} message={_attribute(message)}"
    return f"<failure {told}>{escape(legal(body))}</failure>"


def legal(text: str) -> str:
    """Text with a stand-in for each character that XML forbids."""
    return NOT_XML.sub("\ufffd", text)


def _attribute(value: str | int) -> str:
    return quoteattr(legal(str(value)), {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})
