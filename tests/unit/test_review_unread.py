"""A picture that could not be read shows no part, so nobody can say of it that the part is good."""

from __future__ import annotations

from pathlib import Path

import pytest
from audit_records import made, written

from flawscope.agent.errors import InputError
from flawscope.agent.review.decisions import make_decision
from flawscope.agent.review.desk import ReviewDesk
from flawscope.agent.review.standing import decided
from flawscope.audits.record_file import read_records
from flawscope.audits.records import AuditRecord

OK, NG = make_decision("OK"), make_decision("NG", "hole")


def desk_with(folder: Path, *records: AuditRecord) -> ReviewDesk:
    return ReviewDesk(folder / "reviews", audits=[written(folder / "audit", records)])


@pytest.mark.parametrize(
    ("kind", "hashed", "unread"),
    [
        ("input", True, True),  # its bytes are no picture
        ("input", False, True),  # there are no bytes
        ("product", False, True),  # nobody has looked whether there are any
        ("product", True, False),
        ("timeout", True, False),  # slow, but a person may look at it
        ("crashed", True, False),
    ],
)
def test_only_what_can_be_looked_at_can_be_ok(tmp_path: Path, kind: str, hashed: bool, unread: bool) -> None:
    record = made(1, error=kind)
    desk = desk_with(tmp_path, record if hashed else record.model_copy(update={"sha256": None}))
    (waiting,) = desk.queue()
    assert waiting.item.unread is unread
    if not unread:
        assert desk.decide(waiting.item.id, OK, "Kim").standing.decision == OK
        return
    with pytest.raises(InputError, match="could not be read, so it cannot be OK") as refused:
        desk.decide(waiting.item.id, OK, "Kim")
    assert "Take the picture again" in str(refused.value)
    assert desk.journal.entries() == []
    (left,) = decided(read_records(tmp_path / "audit"), desk.journal)
    assert (left.verdict, left.standing) == ("REVIEW", None)
    assert desk.decide(waiting.item.id, NG, "Kim").standing.decision == NG
    desk.undo(waiting.item.id, "Kim")
    with pytest.raises(InputError, match="cannot be OK"):
        desk.decide(waiting.item.id, OK, "Ada")


def test_a_part_that_was_inspected_can_be_ok(tmp_path: Path) -> None:
    desk = desk_with(tmp_path, made(1, "REVIEW"))
    (waiting,) = desk.queue()
    assert not waiting.item.unread
    assert desk.decide(waiting.item.id, OK, "Kim").standing.decision == OK
