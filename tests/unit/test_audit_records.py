"""Records of an audit: the committed schema, and a file that survives a killed process and a full disk."""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from flawscope.agent.errors import InputError, StorageError
from flawscope.agent.schemas import Verdict
from flawscope.audits.record_file import RecordWriter, read_records
from flawscope.audits.records import AuditRecord, RecordError, Timing, WorklistLine, record_schema

SCHEMA = Path(__file__).parents[2] / "docs" / "audit-record.schema.json"


def record(number: int, verdict: Verdict = Verdict.OK, image: str = "part.png") -> AuditRecord:
    return AuditRecord(
        id=f"{number:032x}",
        line=WorklistLine(number=number, image=image),
        sha256="0" * 64,
        verdict=verdict,
        image_score=0.5,
        settings_sha256="1" * 64,
        timing=Timing(seconds=0.1, finished="2026-01-01T00:00:00Z"),
    )


def test_the_committed_schema_is_the_models() -> None:
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == record_schema(), (
        "docs/audit-record.schema.json is stale. If the change is meant: "
        'python -c "import json; from flawscope.audits.records import record_schema as s; '
        'print(json.dumps(s(), indent=2, sort_keys=True))" > docs/audit-record.schema.json'
    )


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    odd = "b\udcffd \u2028\n name.png"
    with RecordWriter(tmp_path / "records.jsonl") as writer:
        writer.append([record(1), record(2, image=odd)])
    with RecordWriter(tmp_path / "records.jsonl") as writer:
        writer.append([record(3)])
    found = list(read_records(tmp_path))
    assert [item.line.number for item in found] == [1, 2, 3]
    assert found[1].line.image == "b\\xffd \u2028\n name.png"


@pytest.mark.parametrize("tail", [b'{"schema_version":"1.0","id"', b"\0" * 100_000, b"x" * 200_000])
def test_an_unfinished_last_line_is_passed_over_and_then_cut(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "records.jsonl"
    with RecordWriter(path) as writer:
        writer.append([record(1), record(2)])
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    assert len(list(read_records(path))) == 2
    with RecordWriter(path) as writer:
        assert path.read_bytes() == whole
        writer.append([record(3)])
    assert [item.line.number for item in read_records(path)] == [1, 2, 3]


def test_every_cut_leaves_whole_records(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with RecordWriter(path) as writer:
        writer.append([record(1), record(2)])
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(0, len(whole) + 1, 7):
        path.write_bytes(whole[:length])
        RecordWriter(path).close()
        assert path.stat().st_size == (0 if length < first else first if length < len(whole) else len(whole))


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'{"schema_version":"9"}\n')
    with pytest.raises(InputError, match=r"line 1 of .*records.jsonl is not a record of version 1.0"):
        list(read_records(tmp_path))
    with pytest.raises(InputError, match="cannot be read"):
        list(read_records(tmp_path / "missing"))


@pytest.fixture
def small_files() -> Iterator[int]:
    """No file may grow beyond 4,000 bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, before[1]))
    yield 4_000
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_takes_back_what_was_half_written(tmp_path: Path, small_files: int) -> None:
    path, written = tmp_path / "records.jsonl", 0
    with RecordWriter(path) as writer:
        while path.stat().st_size + 600 < small_files:
            written += 1
            writer.append([record(written)])
        with pytest.raises(StorageError, match="cannot write"):
            writer.append([record(90), record(91)])
    assert [item.line.number for item in read_records(path)] == [*range(1, written + 1)]
    assert path.read_bytes().endswith(b"\n")


def test_a_failure_is_never_a_judgement() -> None:
    failed = RecordError(kind="timeout", message="took longer than 60 s", exit_code=7)
    with pytest.raises(ValueError, match="never a judgement"):
        AuditRecord.model_validate({**record(1).model_dump(), "error": failed})


@pytest.mark.parametrize(
    ("label", "expected", "kind"),
    [
        (None, None, None),
        (" ", None, None),
        ("Good", "OK", None),
        ("0", "OK", None),
        ("0.0", "OK", None),
        ("1.0", "NG", None),
        ("i.O.", "OK", None),
        ("n.i.O.", "NG", None),
        ("NG", "NG", None),
        ("Bent Lead", "NG", "bent_lead"),
        ("bent-lead", "NG", "bent_lead"),
    ],
)
def test_what_labels_expect(label: str | None, expected: str | None, kind: str | None) -> None:
    line = WorklistLine(number=1, image="a.png", label=label)
    assert (line.expected, line.expected_type) == (expected, kind)
