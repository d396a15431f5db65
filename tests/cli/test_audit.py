"""``audit`` as a user sees it; the workers run in this process, those of tests/contract in their own."""

from __future__ import annotations

import fcntl
import json
import re
import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import enlarged, texture, with_scratch, with_square
from inline_engine import InlineEngine
from PIL import Image

from flawscope.agent.inspector import Inspector
from flawscope.audits import runner
from flawscope.audits.folder import read_header
from flawscope.audits.record_file import read_records
from flawscope.audits.records import AuditRecord
from flawscope.benchmarks.hostile_files import KINDS, hostile_files, odd_names
from flawscope.tools.control_plan.store import PlanStore


class Audit:
    """Runs ``flawscope audit`` in a folder with ``parts``."""

    def __init__(self, cli: Any) -> None:
        self.cli = cli
        self.folder: Path = cli.folder
        self.parts = self.folder / "parts"
        self.parts.mkdir()

    def __call__(self, *arguments: object) -> Any:
        return self.cli("audit", *arguments)

    def run(self, out: str, *more: object, inputs: object = "parts") -> Any:
        return self(inputs, "--product", "plate", "--out", out, *more)

    def records(self, out: str) -> list[AuditRecord]:
        found = list(read_records(self.folder / out))
        assert len({record.id for record in found}) == len(found)
        return found

    def comparable(self, out: str) -> list[dict[str, Any]]:
        return [record.comparable() for record in self.records(out)]

    def good(self, *names: str) -> None:
        for seed, name in enumerate(names, start=200):
            save(self.parts / name, texture(seed))


def save(path: Path, pixels: Any) -> None:
    Image.fromarray(enlarged(pixels)).save(path, format="PNG", compress_level=1)


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


@pytest.fixture
def audit(cli: Any, monkeypatch: pytest.MonkeyPatch) -> Audit:
    monkeypatch.setattr(runner, "LocalEngine", InlineEngine)
    return Audit(cli)


@pytest.fixture
def mixed(audit: Audit) -> Audit:
    """Eight parts, three of them with defects."""
    audit.good(*(f"{number}.png" for number in (1, 2, 4, 5, 7)))
    save(audit.parts / "3.png", with_square(texture(301)))
    save(audit.parts / "6.png", with_scratch(texture(302)))
    shutil.copy(audit.parts / "3.png", audit.parts / "8.png")
    return audit


def test_the_records_are_the_same_however_it_runs_and_those_of_inspect(
    mixed: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = mixed.run("one")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("8 lines: ")
    for i in (1, 2, 3):
        assert mixed.run(f"shard{i}", "--shard", f"{i}/3").code == 0
    assert mixed("merge", "shard3", "shard1", "shard2", "--out", "merged").code == 0
    first = mixed.comparable("one")
    assert mixed.comparable("merged") == first
    records = mixed.records("one")
    assert [Path(record.line.image).name for record in records] == [f"{number}.png" for number in range(1, 9)]
    assert [record.verdict.value for record in records][2] == "NG"
    assert records[7].id != records[2].id  # the same bytes under another name
    monkeypatch.chdir(mixed.folder)
    with Inspector(mixed.cli.plant.loaded(home=mixed.cli.home)) as inspector:
        for record in records:
            report = inspector.inspect(record.line.image, product="plate").model_dump(mode="json")
            report["provenance"].pop("settings")
            again = AuditRecord.model_validate({**record.model_dump(), "report": report})
            assert again.comparable() == record.comparable()
            assert record.inspection() is not None
    flagged = records[2]
    assert set(flagged.pictures) == {"thumbnail", "image", "overlay", "map"}
    sizes = {kind: size_of(mixed.folder / "merged" / path) for kind, path in flagged.pictures.items()}
    assert sizes["image"] == sizes["overlay"] == sizes["map"] == (480, 480)
    assert max(sizes["thumbnail"]) == 160
    assert flagged.masks.keys() == {region.id for region in flagged.regions}
    assert not records[0].pictures


def test_retry_tries_failures_again_and_nothing_else(audit: Audit) -> None:
    audit.good("a.png", "b.png")
    (audit.parts / "late.png").write_bytes(b"")
    assert audit.run("out").code == 4
    first = audit.records("out")
    save(audit.parts / "late.png", texture(9))
    (audit.parts / "late.png").touch()
    assert audit.run("out", "--retry").code == 0
    second = audit.records("out")
    assert [record.id for record in second[:2]] == [record.id for record in first[:2]]
    assert second[2].error is None


def test_retry_keeps_failures_behind_the_limit(audit: Audit) -> None:
    audit.good("a.png", "c.png")
    for name in ("b.png", "late.png"):
        (audit.parts / name).write_bytes(b"")
    assert audit.run("out").code == 4
    before = audit.records("out")
    save(audit.parts / "b.png", texture(9))
    seen = audit.run("out", "--retry", "--limit", 2)
    assert (seen.code, seen.out.splitlines()[0]) == (0, "2 lines: 2 OK, 0 NG, 0 REVIEW, 0 errors")
    after = audit.records("out")
    assert [record.id for record in after] == [record.id if n != 1 else after[1].id for n, record in enumerate(before)]
    assert [record.error is None for record in after] == [True, True, True, False]


def test_an_audit_goes_on_where_it_was(mixed: Audit) -> None:
    assert mixed.run("whole").code == 0
    assert "3 inspected" in mixed.run("out", "--limit", 3).out
    path = mixed.folder / "out" / "records.jsonl"
    early = path.read_bytes()
    path.write_bytes(early + early[:700])  # a process that was killed while it wrote
    done = mixed.run("out")
    assert "5 inspected" in done.out
    assert "3 kept" in done.out
    assert path.read_bytes().startswith(early)
    assert mixed.comparable("out") == mixed.comparable("whole")
    few = mixed.run("out", "--limit", 2)
    assert mixed("summary", "out").err == ""  # nothing is left to do, and no number will change
    assert few.out.startswith("2 lines: 2 OK, 0 NG, 0 REVIEW, 0 errors\n2 kept")
    assert len(mixed.records("out")) == 8
    again = mixed.run("out").out
    assert "inspected" not in again
    assert "8 kept from an earlier run" in again


def test_header_summary_and_page_agree_on_an_audit_with_a_limit(mixed: Audit) -> None:
    folder = mixed.folder / "out"

    def told() -> tuple[str, str]:
        mixed("page", "out")
        found = re.search(r'"subtitle":"([^"]*)"', (folder / "page.html").read_text())
        assert found is not None
        return mixed("summary", "out").err, found[1]

    mixed.run("out", "--limit", 3)
    header = read_header(folder)
    assert header is not None
    assert (header.lines, header.limit, header.asked) == (8, 3, 3)
    summary, page = told()
    assert summary == "flawscope: out was limited: 3 of 8 lines have a record.\n"
    assert page.endswith("limited: 3 of 8 lines.")

    records = folder / "records.jsonl"
    records.write_bytes(b"".join(records.read_bytes().splitlines(keepends=True)[:2]))  # as after a kill
    summary, page = told()
    assert summary == "flawscope: out is unfinished: 2 of 3 lines have a record.\n"
    assert page.endswith("unfinished: 3 lines to do.")

    more = mixed.run("out", "--limit", 5).out
    assert ("3 inspected" in more, "2 kept" in more) == (True, True)
    assert "limited: 5 of 8 lines" in told()[1]
    mixed.run("out")
    summary, page = told()
    assert (summary, "limited" in page, "unfinished" in page) == ("", False, False)


def test_records_behind_a_limit_do_not_stand_for_missing_ones_before_it(mixed: Audit) -> None:
    mixed.run("out", "--shard", "2/2")
    assert [record.line.number for record in mixed.records("out")] == [2, 4, 6, 8]
    mixed.run("out", "--shard", "2/2", "--limit", 2)
    assert mixed("summary", "out").err == ""
    records = mixed.folder / "out" / "records.jsonl"
    lines = records.read_bytes().splitlines(keepends=True)
    records.write_bytes(b"".join([lines[0], *lines[2:]]))
    assert mixed("summary", "out").err == "flawscope: out is unfinished: 1 of 2 lines have a record.\n"


def test_changed_pictures_and_settings_are_inspected_again_and_the_old_records_kept_aside(mixed: Audit) -> None:
    assert mixed.run("out").code == 0
    save(mixed.parts / "2.png", with_square(texture(400)))
    mixed.good("15.png")
    done = mixed.run("out")
    assert "2 inspected" in done.out
    assert "1 earlier records no longer hold" in done.out
    records = mixed.records("out")
    assert [record.line.number for record in records] == list(range(1, 10))
    assert [Path(record.line.image).stem for record in records] == ["1", "15", "2", "3", "4", "5", "6", "7", "8"]
    assert mixed.run("fresh").code == 0
    assert mixed.comparable("fresh") == mixed.comparable("out")
    assert len((mixed.folder / "out" / "superseded.jsonl").read_text().splitlines()) == 1
    assert "9 inspected" in mixed.run("out", "--false-alarm", "0.3").out
    assert len((mixed.folder / "out" / "superseded.jsonl").read_text().splitlines()) == 10


def test_a_manifest_names_products_and_shares_pictures(mixed: Audit) -> None:
    rows = ["image;product;serial;lot;station;label", "parts/1.png;;S1;L1;A;OK", "parts/3.png;;S2;L1;A;hole"]
    rows += ["parts/3.png;plate;S3;L1;B;NG", "parts/1.png;bottle;S4;L2;B;", ";;S5;;;", "gone.png;;S6;;;"]
    (mixed.folder / "list.csv").write_text("\n".join(rows))
    done = mixed.run("out", inputs="list.csv")
    records = mixed.records("out")
    assert [record.line.serial for record in records] == ["S1", "S2", "S3", "S4", "S5", "S6"]
    kinds = [record.error.kind if record.error else record.verdict.value for record in records]
    assert kinds == ["OK", "NG", "NG", "product", "input", "input"]
    assert (records[1].line.expected, records[1].line.expected_type) == ("NG", "hole")
    assert "  1 product, such as line 5: no product 'bottle'." in done.out
    assert done.code == 5  # of the first failure: there is no such product
    assert "inspected" not in mixed.run("out", inputs="list.csv").out


PLAN = """
control_plan: CP-17
products:
  - product: plate
    characteristics:
      - {characteristic: surface, severity: 2, defects: [{type: scratch}]}
    severity: 8
    disposition: scrap
    reaction_plan: Stop the line.
"""


def test_lines_that_are_equal_to_the_letter_have_a_record_each(audit: Audit) -> None:
    audit.good("a.png")
    rows = ["image", *(["parts/a.png"] * 30)]
    (audit.folder / "list.csv").write_text("\n".join(rows))
    assert "10 inspected" in audit.run("out", "--limit", 10, inputs="list.csv").out
    assert "20 inspected" in audit.run("out", inputs="list.csv").out
    assert [record.line.number for record in audit.records("out")] == list(range(1, 31))


def test_records_say_what_the_control_plan_does_with_a_bad_part(mixed: Audit) -> None:
    assert mixed.run("before").code == 0
    PlanStore(mixed.cli.home / "plans").set("plate", PLAN, author="Ann")
    assert mixed.run("before").out.count("8 inspected") == 1  # another plan may give another result
    records = mixed.records("before")
    assert (records[2].severity, records[2].disposition, records[2].reaction) == (8, "scrap", "Stop the line.")
    assert records[2].texts["action"].evidence_ids
    assert (records[0].severity, records[0].disposition) == (None, None)


def test_hostile_files_among_good_ones_are_records(audit: Audit) -> None:
    audit.good(*(f"good-{number:03d}.png" for number in range(40)))
    hostile_files(audit.parts, 3 * len(KINDS))
    names = [path.name for path in (*odd_names(audit.parts), *sorted(audit.parts.iterdir()))]
    names = list(dict.fromkeys(names))
    (audit.folder / "list.csv").write_text("\n".join(["image", *(f"parts/{name}" for name in names)]))
    done = audit.run("out", inputs="list.csv")
    assert done.code == 4
    records = audit.records("out")
    assert [Path(record.line.image).name for record in records] == names
    for record in records:
        bad = Path(record.line.image).name.startswith(("bad", "odd", "pipe"))
        assert (record.error is not None) == bad, record.line.image
        assert not bad or record.error.kind == "input"  # type: ignore[union-attr]


# --- the folder -------------------------------------------------------------------------------------------------------


def test_two_audits_do_not_write_to_one_folder(audit: Audit) -> None:
    audit.good("a.png")
    (audit.folder / "out").mkdir()
    with (audit.folder / "out" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = audit.run("out")
    assert done.code == 10
    assert "another audit writes to out." in done.err
    assert audit.run("out").code == 0


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 40,000 bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_folder_of_watch_is_left_alone(audit: Audit) -> None:
    audit.good("a.png")
    (audit.folder / "out").mkdir()
    (audit.folder / "out" / "outbox.sqlite").touch()
    audit.run("out").refused(2, "belongs to flawscope watch")
    assert not (audit.folder / "out" / "records.jsonl").exists()


def test_a_full_disk_ends_the_audit(mixed: Audit, small_files: None) -> None:
    done = mixed.run("out", "--pictures", "none")
    done.refused(10, "cannot write out/records.jsonl")
    assert 0 < len(mixed.records("out")) < 8


def test_an_audit_goes_on_when_the_disk_has_room_again(mixed: Audit) -> None:
    assert mixed.run("whole", "--pictures", "none").code == 0
    path = mixed.folder / "out" / "records.jsonl"
    path.parent.mkdir()
    path.write_bytes((mixed.folder / "whole" / "records.jsonl").read_bytes()[:40_000])
    assert mixed.run("out", "--pictures", "none").code == 0
    assert mixed.comparable("out") == mixed.comparable("whole")


def test_a_folder_that_takes_no_pictures_ends_the_audit_too(mixed: Audit) -> None:
    (mixed.folder / "out").mkdir()
    (mixed.folder / "out" / "pictures").write_text("in the way")
    done = mixed.run("out")
    assert done.code == 10
    assert "cannot write" in done.err
    assert {record.verdict.value for record in mixed.records("out")} <= {"OK"}


@pytest.mark.parametrize("out", ["parts/a.png/out", "/proc/no-such-folder/out"])
def test_an_output_that_cannot_be_written_is_said_before_the_first_picture(audit: Audit, out: str) -> None:
    audit.good("a.png")
    done = audit.run(out)
    assert (done.code, done.out) == (10, "")
    assert done.err.startswith("flawscope: cannot write")


def test_a_knowledge_base_that_another_process_owns_is_read_all_the_same(audit: Audit) -> None:
    from flawscope.tools.knowledge.builder import open_knowledge_base

    audit.good("a.png", "b.png")
    deps = audit.cli.plant.deps()
    owner = open_knowledge_base(audit.cli.home / "knowledge", deps.backbone, store="milvus")
    try:
        assert audit.cli("audit", "parts", "-p", "plate", "-o", "out", FLAWSCOPE_STORE="milvus").code == 0
    finally:
        owner.close()
    assert len(audit.records("out")) == 2


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("parts", "--product", "bottle", "--out", "out"), 5, "bottle"),
        (("nowhere", "--product", "plate", "--out", "out", "--shard", "3/2"), 2, "--shard"),
        (("empty", "--product", "plate", "--out", "out"), 4, "no pictures"),
        (("*.bmp", "--product", "plate", "--out", "out"), 4, "no file matches"),
        (("list.csv", "--product", "plate", "--out", "out"), 4, "no manifest"),
        (("parts", "--out", "out", "--fail-on", "never", "--fail-on", "ng"), 2, "--fail-on"),
        (("parts",), 2, "--out"),
        (("merge", "parts", "--out", "out"), 4, "no audit"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    audit: Audit, arguments: tuple[str, ...], code: int, words: str
) -> None:
    audit.good("a.png")
    (audit.folder / "empty").mkdir()
    audit(*arguments).refused(code, words)


def test_exit_codes_follow_fail_on(mixed: Audit) -> None:
    assert mixed.run("out", "--fail-on", "ng").code == 1
    assert mixed.run("out", "--fail-on", "error").code == 0


def test_a_merge_fails_on_what_an_audit_fails_on(mixed: Audit) -> None:
    (mixed.parts / "0.png").write_bytes(b"")  # the first line of shard 1
    assert [mixed.run(f"s{i}", "--shard", f"{i}/2").code for i in (1, 2)] == [4, 0]
    mixed.run("whole")
    asked: tuple[tuple[tuple[str, ...], int], ...] = (
        ((), 4),
        (("--fail-on", "ng"), 1),
        (("--fail-on", "review"), 3),
        (("--fail-on", "ng", "--fail-on", "error"), 4),
        (("--fail-on", "never"), 0),
    )
    for number, (options, code) in enumerate(asked):
        merged = mixed("merge", "s1", "s2", "--out", f"m{number}", *options)
        assert merged.code == mixed.run("whole", *options).code == code
        assert merged.out.startswith("9 lines: ")
        assert len(mixed.records(f"m{number}")) == 9
    mixed("merge", "s1", "s2", "--out", "m", "--fail-on", "never", "--fail-on", "ng").refused(2, "--fail-on")
    assert not (mixed.folder / "m").exists()


def test_shards_that_do_not_belong_together_are_not_merged(mixed: Audit) -> None:
    mixed.run("a", "--shard", "1/2")
    assert mixed.run("a", "--shard", "2/2").code == 2
    assert "shard 2/2 is missing" in mixed("merge", "a", "--out", "m").err
    mixed.run("b", "--shard", "2/2", "--limit", 1)
    assert "is not finished" in mixed("merge", "a", "b", "--out", "m").err
    mixed.run("c", "--shard", "2/2", "--false-alarm", "0.3")
    assert "other settings" in mixed("merge", "a", "c", "--out", "m").err
    assert not (mixed.folder / "m" / "records.jsonl").exists()
    header = json.loads((mixed.folder / "a" / "audit.json").read_text())
    assert (header["shard"], header["lines"]) == ([1, 2], 4)
