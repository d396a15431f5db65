"""Two audits side by side."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from audit_records import made, written
from rich.console import Console

from flawscope.agent.errors import ConfigError, InputError
from flawscope.audits.compare import Comparison, SettingChange, compare
from flawscope.audits.records import AuditRecord
from flawscope.audits.tables import WIDTH, comparison_tables


@pytest.fixture
def two(tmp_path: Path):
    def make(before: list[AuditRecord], after: list[AuditRecord], **options: object) -> Comparison:
        first, second = written(tmp_path / "a", before), written(tmp_path / "b", after)
        return compare(first, second, **options)  # type: ignore[arg-type]

    return make


def kinds(found: Comparison) -> dict[str, tuple[str, ...]]:
    return {change.image: change.kinds for change in found.changes}


def test_equal_audits_agree_whatever_their_order(two) -> None:
    records = [made(n, score=n / 7) for n in range(1, 9)]
    found = two(records, list(reversed(records)))
    assert (found.changes, found.transitions, found.unchanged, found.settings) == ((), (), 8, ())


def test_each_kind_of_change_is_named(two) -> None:
    before = [
        made(1, "OK", image="verdict", score=0.5),
        made(2, "NG", image="type", kind="dent", score=3.0),
        made(3, "OK", image="score", score=0.5),
        made(4, "OK", image="rounding", score=0.5),
        made(5, image="broken", score=0.5),
        made(6, image="other error", error="timeout"),
        made(7, image="picture", picture="old"),
        made(8, "NG", image="gone"),
    ]
    after = [
        made(1, "NG", image="verdict", score=0.5),
        made(2, "NG", image="type", kind="hole", score=3.0),
        made(3, "OK", image="score", score=0.5003),
        made(4, "OK", image="rounding", score=0.50001),
        made(5, image="broken", error="input", picture="5"),
        made(6, image="other error", error="memory"),
        made(7, image="picture", picture="new"),
        made(8, "REVIEW", image="new"),
    ]
    found = two(before, after)
    assert kinds(found) == {
        "verdict": ("verdict",),
        "type": ("type",),
        "score": ("score",),
        "broken": ("error",),
        "other error": ("error",),
        "picture": ("picture",),
        "gone": ("removed",),
        "new": ("added",),
    }
    assert set(found.transitions) == {("OK", "NG", 1), ("OK", "error", 1), ("NG", "absent", 1), ("absent", "REVIEW", 1)}
    assert (found.unchanged, found.count("error"), found.count("added")) == (1, 2, 1)


def test_scores_are_compared_relative_to_their_size(two) -> None:
    found = two([made(1, score=1000.0)], [made(1, score=1000.05)])
    assert found.changes == ()
    assert kinds(two([made(1, score=1000.0)], [made(1, score=1000.05)], tolerance=1e-6)) != {}


def test_labels_tell_better_from_worse(two) -> None:
    before = [made(1, "NG", label="dent"), made(2, "OK", label="dent"), made(3, "OK", label="ok"), made(4, "OK")]
    after = [made(1, "OK", label="dent"), made(2, "REVIEW", label="dent"), made(3, "NG", label="ok"), made(4, "NG")]
    found = two(before, after)
    assert found.turned("NG", "OK") == (1, 1)
    assert found.turned("OK", "NG") == (1, 0)


def test_lines_alike_are_matched_in_their_order(two) -> None:
    def same(number: int, verdict: str = "OK", serial: str | None = None) -> AuditRecord:
        return made(number, verdict, image="x.png", picture="x", serial=serial)

    before = [same(1), same(2, "NG"), same(3, serial="S")]
    found = two(before, [same(1, serial="S"), same(2), same(3, "NG"), same(4)])
    assert [(change.kinds, change.after.number) for change in found.changes if change.after] == [(("added",), 4)]


@pytest.mark.parametrize(("match", "expected"), [("content", ()), ("serial", ()), ("image", 4)])
def test_each_way_of_matching(tmp_path: Path, match: str, expected: object) -> None:
    before = [made(n, image=f"/old/{n}.png", serial=f"S{n}", picture=f"p{n}") for n in (1, 2)]
    after = [made(n, image=f"/new/{n}.png", serial=f"S{n}", picture=f"p{n}") for n in (1, 2)]
    found = compare(written(tmp_path / "a", before), written(tmp_path / "b", after), match=match)  # type: ignore[arg-type]
    assert (found.changes if expected == () else len(found.changes)) == expected


def test_settings_and_versions_that_differ_are_told(tmp_path: Path) -> None:
    old = [made(1, product="nut", versions={"product": "a", "knowledge": "k"})]
    new = [
        made(1, product="nut", versions={"product": "b", "knowledge": "k"}),
        made(2, product="nut", versions={"product": "c", "knowledge": "k"}),
    ]
    first, second = written(tmp_path / "a", old, false_alarm=0.1), written(tmp_path / "b", new, false_alarm=0.2)
    assert compare(first, second).settings == (
        SettingChange("false_alarm", ("0.1",), ("0.2",)),
        SettingChange("product (nut)", ("a",), ("b", "c")),
    )


def test_hostile_input(tmp_path: Path) -> None:
    good = written(tmp_path / "good", [made(1), made(2)])
    cut = written(tmp_path / "cut", [made(1), made(2)])
    data = (cut / "records.jsonl").read_bytes()
    (cut / "records.jsonl").write_bytes(data[:-30])
    assert [change.kinds for change in compare(good, cut).changes] == [("removed",)]
    empty = written(tmp_path / "empty", [])
    assert compare(empty, empty) == Comparison(0, 0, 0, (), (), ())
    (cut / "records.jsonl").write_bytes(data.replace(b'"schema_version":"1.0"', b'"schema_version":"9.0"', 1))
    with pytest.raises(InputError, match="line 1"):
        compare(good, cut)
    with pytest.raises(InputError):
        compare(good, tmp_path / "nowhere")
    with pytest.raises(ConfigError):
        compare(good, good, tolerance=float("nan"))
    (good / "audit.json").write_text("{}")
    with pytest.raises(InputError, match=r"audit\.json"):
        compare(good, good)
    (good / "audit.json").unlink()
    assert compare(good, good).unchanged == 2


def test_it_fits_the_terminal(two) -> None:
    odd = "x" * 200 + "\x1b[31m[bold]"
    before = [made(n, "NG", image=f"{odd}{n}", serial=odd, kind="k" * 100, label="ok") for n in range(1, 60)]
    after = [made(n, "OK", image=f"{odd}{n}", serial=odd, label="ok") for n in range(1, 60)]
    console = Console(file=io.StringIO(), width=WIDTH, highlight=False)
    for table in comparison_tables(two(before, after)):
        console.print(table)
    text = console.file.getvalue()
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    assert "\x1b" not in text
    assert "39 more" in text
    assert "overkill by the labels: 0 new, 59 mended" in text
