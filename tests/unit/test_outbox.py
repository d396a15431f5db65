"""The outbox: filled from the records without loss or repetition, bounded, in order per part, decided by people."""

from __future__ import annotations

import json
import sqlite3
import stat
from pathlib import Path

import pytest
from edges_plant import record
from hypothesis import given, settings
from hypothesis import strategies as st

from flawscope.agent.errors import ConfigError, StorageError
from flawscope.audits.record_file import RecordWriter
from flawscope.edges.message import message_of, message_schema, part_of
from flawscope.edges.outbox import Outbox

SCHEMA = Path(__file__).parents[2] / "docs" / "verdict-message.schema.json"
THERE, ELSEWHERE = "mqtt://a/t", "https://b/"


@pytest.fixture
def records(tmp_path: Path) -> Path:
    return tmp_path / "records.jsonl"


def _write(path: Path, *numbers: int, serial: str | None = None) -> None:
    with RecordWriter(path) as writer:
        writer.append(record(number, serial) for number in numbers)


def test_the_committed_schema_is_the_messages() -> None:
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == message_schema(), (
        "docs/verdict-message.schema.json is stale: python -c 'import json; from flawscope.edges.message import"
        " message_schema as m; print(json.dumps(m(), indent=2, sort_keys=True))' > docs/verdict-message.schema.json"
    )


def test_a_message_is_made_of_the_record_alone() -> None:
    one = record(3, "S1")
    message = message_of(one)
    assert message == message_of(one)
    assert (message.idempotency_key, message.sequence, message.part) == (one.id, 3, "S1")
    assert (message.verdict.value, message.product, message.defect_type) == ("OK", "plate", None)
    assert part_of(record(1, None, "lot/a.b.png")) == "a.b"
    assert part_of(record(1, None, ".png")) == ".png"


def test_what_was_recorded_before_a_destination_is_named_is_not_sent(tmp_path: Path, records: Path) -> None:
    _write(records, 1, 2)
    with Outbox(tmp_path) as outbox:
        outbox.begin(THERE, records)
        assert outbox.fill(THERE, records, 10.0) == 0
        _write(records, 3)
        assert outbox.fill(THERE, records, 10.0) == 1
        assert outbox.fill(THERE, records, 10.0) == 0
        (message,) = outbox.due(THERE, 10.0, (), 5)
    assert (message.key, message.part, message.attempts, message.state) == (record(3).id, "3-3", 0, "pending")
    assert json.loads(message.body)["sequence"] == 3


def test_each_destination_reads_on_by_itself_and_over_restarts(tmp_path: Path, records: Path) -> None:
    with Outbox(tmp_path) as outbox:
        outbox.begin(THERE, records)
        _write(records, 1, 2)
        outbox.begin(ELSEWHERE, records)
        _write(records, 3)
        assert outbox.fill(THERE, records, 1.0) == 3
    with Outbox(tmp_path) as outbox:
        outbox.begin(THERE, records)  # begins where it was, not at the end
        outbox.begin(ELSEWHERE, records)
        assert outbox.fill(THERE, records, 2.0) == 0
        assert outbox.fill(ELSEWHERE, records, 2.0) == 1
        assert [message.key for message in outbox.messages()] == [record(n).id for n in (1, 2, 3, 3)]


def test_a_half_written_line_waits_for_its_end(tmp_path: Path, records: Path) -> None:
    line = record(1).model_dump_json().encode() + b"\n"
    with Outbox(tmp_path) as outbox:
        outbox.begin(THERE, records)
        for end in (1, len(line) // 2, len(line) - 1):
            records.write_bytes(line[:end])
            assert outbox.fill(THERE, records, 1.0) == 0
        records.write_bytes(line)
        assert outbox.fill(THERE, records, 1.0) == 1


def test_records_that_shrank_or_are_none_are_said(tmp_path: Path, records: Path) -> None:
    with Outbox(tmp_path) as outbox:
        _write(records, 1)
        outbox.begin(THERE, records)
        kept = records.read_bytes()
        records.write_bytes(b"")
        with pytest.raises(StorageError, match="shorter"):
            outbox.fill(THERE, records, 1.0)
        records.write_bytes(kept + b"nonsense\n")
        with pytest.raises(StorageError, match=f"damaged at byte {len(kept)}"):
            outbox.fill(THERE, records, 1.0)
        assert outbox.messages() == []


def test_it_is_bounded_and_what_is_behind_waits_in_the_records(tmp_path: Path, records: Path) -> None:
    with Outbox(tmp_path, limit=3) as outbox:
        outbox.begin(THERE, records)
        _write(records, *range(1, 8))
        assert outbox.fill(THERE, records, 1.0) == 3
        assert outbox.fill(THERE, records, 1.0) == 0
        taken = []
        while found := outbox.due(THERE, 1.0, (), 2):
            for message in found:
                taken.append(json.loads(message.body)["sequence"])
                outbox.delivered(message)
            outbox.fill(THERE, records, 1.0)
    assert taken == list(range(1, 8))


def test_of_a_part_only_the_oldest_goes_and_a_dead_letter_lets_the_next_pass(tmp_path: Path, records: Path) -> None:
    with Outbox(tmp_path) as outbox:
        outbox.begin(THERE, records)
        _write(records, 1, 2, serial="A")
        _write(records, 3, serial="B")
        outbox.fill(THERE, records, 1.0)
        first, other = outbox.due(THERE, 1.0, (), 9)
        assert (first.part, other.part) == ("A", "B")
        assert [message.part for message in outbox.due(THERE, 1.0, {"A"}, 9)] == ["B"]
        outbox.failed(first, "HTTP 500", due=7.0)
        assert [message.part for message in outbox.due(THERE, 1.0, (), 9)] == ["B"]
        assert outbox.next_due(THERE, {"B"}) == 7.0
        assert outbox.due(THERE, 7.0, {"B"}, 9)[0].attempts == 1
        outbox.refused(first, "HTTP 422")
        assert json.loads(outbox.due(THERE, 1.0, {"B"}, 9)[0].body)["sequence"] == 2
        assert [(m.id, m.problem, m.attempts) for m in outbox.messages("dead")] == [(first.id, "HTTP 422", 2)]
        depth = outbox.depth(THERE)
    assert (depth.pending, depth.dead, depth.oldest) == (2, 1, 1.0)


def test_people_retry_and_drop(tmp_path: Path, records: Path) -> None:
    with Outbox(tmp_path) as outbox:
        outbox.begin(THERE, records)
        _write(records, 1, 2, 3)
        outbox.fill(THERE, records, 1.0)
        one, two, three = outbox.messages()
        outbox.refused(one, "HTTP 422")
        outbox.refused(two, "HTTP 422")
        with pytest.raises(ConfigError, match=f"{three.id} is not the id of a dead letter"):
            outbox.retry([one.id, three.id], 5.0)
        assert [message.id for message in outbox.messages("dead")] == [one.id, two.id]
        assert outbox.retry([one.id], 5.0) == 1
        again = outbox.messages("pending")[0]
        assert (again.id, again.attempts, again.created, again.due) == (one.id, 0, 5.0, 5.0)
        assert outbox.retry(None, 6.0) == 1
        with pytest.raises(ConfigError, match="77 is not the id of a message"):
            outbox.drop([one.id, 77])
        assert outbox.drop([one.id, three.id, one.id]) == 2  # named twice, dropped once
        assert [message.id for message in outbox.messages()] == [two.id]
        assert outbox.fill(THERE, records, 7.0) == 0  # a dropped message does not come back


def test_a_damaged_or_newer_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "outbox.sqlite").write_bytes(b"no database at all, but long enough to be taken for one" * 10)
    with pytest.raises(StorageError, match=r"outbox\.sqlite"):
        Outbox(tmp_path)
    (tmp_path / "outbox.sqlite").unlink()
    with sqlite3.connect(tmp_path / "outbox.sqlite") as db:
        db.execute("PRAGMA user_version=9")
    db.close()
    with pytest.raises(StorageError, match="version 9"):
        Outbox(tmp_path)


def test_every_commit_waits_for_the_disk(tmp_path: Path) -> None:
    with Outbox(tmp_path) as outbox:
        assert outbox._db.execute("PRAGMA synchronous").fetchone()[0] == 2
        assert stat.S_ISREG(outbox.path.stat().st_mode)


@settings(max_examples=12, deadline=None)
@given(
    parts=st.lists(st.sampled_from("ABC"), min_size=1, max_size=12),
    answers=st.lists(st.sampled_from(["delivered", "failed", "refused", "restart"]), min_size=30, max_size=60),
    limit=st.integers(1, 4),
)
def test_whatever_happens_each_part_goes_in_order_and_nothing_is_lost(
    parts: list[str], answers: list[str], limit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("outbox")
    path = folder / "records.jsonl"
    outbox = Outbox(folder, limit=limit)
    outbox.begin(THERE, path)
    with RecordWriter(path) as writer:
        writer.append(record(number, part) for number, part in enumerate(parts, start=1))
    done: list[tuple[str, int]] = []
    refused = 0
    for answer in [*answers, *["delivered"] * len(parts)]:
        outbox.fill(THERE, path, 1.0)
        assert outbox.depth(THERE).pending <= limit
        if answer == "restart":
            outbox.close()
            outbox = Outbox(folder, limit=limit)
            outbox.begin(THERE, path)
        for message in outbox.due(THERE, 1.0, (), 1):
            if answer == "delivered":
                done.append((message.part, json.loads(message.body)["sequence"]))
                outbox.delivered(message)
            elif answer == "failed":
                outbox.failed(message, "away", 1.0)
            elif answer == "refused":
                outbox.refused(message, "no")
                refused += 1
    assert len(done) + refused == len(parts)
    for part in "ABC":
        of_part = [sequence for name, sequence in done if name == part]
        assert of_part == sorted(set(of_part))
    outbox.close()
