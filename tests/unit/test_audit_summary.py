"""Counting an audit: verdicts, escapes and overkill, Pareto; in a terminal of 100 columns."""

from __future__ import annotations

import io

import pytest
from audit_records import made
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy.stats import binomtest

from flawscope.audits.records import AuditRecord
from flawscope.audits.summary import Counts, rate, summarise
from flawscope.audits.tables import WIDTH, summary_tables

LOTTED = [
    made(1, label="good", lot="A", station="s1"),
    made(2, "NG", kind="dent", label="good", lot="A", station="s2"),
    made(3, "NG", kind="dent", label="Dent", lot="A", station="s1"),
    made(4, "NG", kind="scratch", label="scratch", lot="B", station="s2"),
    made(5, "NG", label="ng", lot="B", station="s1"),
    made(6, "OK", label="dent", lot="B", station="s2"),
    made(7, "REVIEW", label="dent", station="s1"),
    made(8, "REVIEW", label="good", station="s2"),
    made(9, error="timeout", label="dent", station="s1"),
    made(10, error="timeout"),
    made(11, error="input", picture="1"),
]


def shown(records: list[AuditRecord]) -> str:
    console = Console(file=io.StringIO(), width=WIDTH, highlight=False)
    for table in summary_tables(summarise(records)):
        console.print(table)
    return console.file.getvalue()


def test_escapes_and_overkill_worked_by_hand() -> None:
    found = summarise(LOTTED)
    assert found.whole.counts == Counts(parts=11, ok=2, ng=4, review=2, errors=3)
    told = found.whole.labelled
    assert told is not None
    assert told.good == Counts(parts=3, ok=1, ng=1, review=1, errors=0)
    assert told.defective == Counts(parts=6, ok=1, ng=3, review=1, errors=1)
    assert (told.escapes.count, told.escapes.of) == (1, 5)  # the error is no judgement, the review is
    assert (told.overkill.count, told.overkill.of) == (1, 3)
    assert (told.defective_review.count, told.good_review.count) == (1, 1)
    assert found.error_kinds == (("timeout", 2), ("input", 1))
    assert found.repeated == 0  # line 11 shows the picture of line 1, but was not judged


def test_only_judged_lines_repeat_a_picture() -> None:
    failed = [made(number, error="timeout", picture="same") for number in (1, 2)]
    judged = [made(number, picture="same") for number in (3, 4, 5)]
    assert summarise(failed).repeated == 0
    assert summarise([*failed, judged[0]]).repeated == 0
    assert summarise([*judged, *failed]).repeated == 2
    assert "2 lines show a picture that came before" in shown([failed[0], *judged, failed[1]])


def test_the_interval_is_clopper_and_pearsons() -> None:
    found = rate(3, 40)
    expected = binomtest(3, 40).proportion_ci(method="exact")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    nothing = rate(0, 0)
    assert (nothing.share, nothing.low, nothing.high) == (None, 0.0, 1.0)


def test_pareto_counts_ng_parts_and_adds_up() -> None:
    rows = summarise(LOTTED).whole.pareto
    assert [(row.defect_type, row.count) for row in rows] == [("dent", 2), ("scratch", 1), ("unknown", 1)]
    assert [row.share for row in rows] == [0.5, 0.25, 0.25]
    assert [row.cumulative for row in rows] == [0.5, 0.75, 1.0]


def test_groups_are_the_parts_of_the_whole() -> None:
    found = summarise(LOTTED)
    lots = {group.value: group for group in found.of("lot")}
    assert list(lots) == ["A", "B", None]
    assert [row.defect_type for row in lots["A"].pareto] == ["dent"]
    assert lots["A"].labelled is not None
    assert lots["A"].labelled.overkill.count == 1
    assert [group.value for group in found.of("label")] == ["good", "dent", "scratch", "defective", None]
    assert found.of("product") == ()
    for dimension in ("lot", "station", "label"):
        assert sum(group.counts.parts for group in found.of(dimension)) == len(LOTTED)


def test_an_audit_without_labels_has_no_escapes() -> None:
    found = summarise([made(1), made(2, "NG")])
    assert found.whole.labelled is None
    assert "scapes" not in shown([made(1), made(2, "NG")])


def test_an_empty_audit_is_summed_up() -> None:
    found = summarise([])
    assert found.whole.counts == Counts(0, 0, 0, 0, 0)
    assert (found.groups, found.whole.pareto) == ((), ())
    assert "0" in shown([])


@given(st.lists(st.sampled_from(["dent", "scratch", "hole", None])))
def test_pareto_falls_and_ends_at_one(kinds: list[str | None]) -> None:
    rows = summarise(made(n, "NG", kind=kind) for n, kind in enumerate(kinds, start=1)).whole.pareto
    assert sum(row.count for row in rows) == len(kinds)
    assert [row.count for row in rows] == sorted((row.count for row in rows), reverse=True)
    assert not rows or rows[-1].cumulative == 1.0


def test_hostile_names_stay_on_their_line_and_tables_within_100_columns() -> None:
    odd = "[red]\x1b[2J" + "lot\n" * 30 + "x" * 300
    text = shown([made(n, "NG", kind="k" * 120, lot=f"{odd}{n}", station="s" * 90, label="good") for n in range(1, 40)])
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    assert "\x1b" not in text
    assert "19 more" in text
    assert "[red]" in "".join(text.split())
