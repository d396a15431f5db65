"""A reviewer's verdict on an inspection becomes a page, after confirmation and with where it comes from."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import save
from fakes import texture, with_square

BLUE = (40, 60, 235)


@pytest.fixture
def part(cli: Any) -> Path:
    return save(cli.folder, "part.png", with_square(texture(301), 40, 40, colour=BLUE))


@pytest.fixture
def report(cli: Any, part: Path) -> Path:
    cli("inspect", part, "--product", "plate", "--out", "out", "--no-chat")
    return cli.folder / "out" / "part" / "report.json"


def page(cli: Any, doc_id: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((cli.home / f"knowledge/plant/{doc_id}/0001/page.yaml").read_text())
    return found


def test_the_verdict_becomes_a_page_with_its_provenance(cli: Any, report: Path) -> None:
    added = cli("kb", "from-inspection", report, "--note", "burr, due to dull punch", "--reviewer", "Ada", "--yes")
    assert added.code == 0, added.err
    assert "reviewer: Ada" in added.out
    assert added.out.endswith("plate.burr.1: added for plate, type burr\n")
    kept, judged = page(cli, "plate.burr.1"), json.loads(report.read_text())
    assert kept["box"] == judged["regions"][0]["box"]
    assert re.fullmatch("report [0-9a-f]{16}", kept["inspection"])
    assert kept["source"] == "Ada judged an inspected part NG; the report said NG."
    assert (kept["author"], kept["reviewed"]) == ("Ada", False)
    assert "feedback" in cli("kb", "history", "plate.burr.1").out
    similar = save(cli.folder, "similar.png", with_square(texture(302), 42, 38, colour=BLUE))
    after = json.loads(cli("inspect", similar, "--product", "plate", "--json").out)
    assert "plate.burr.1" in [item["source"] for item in after["evidence"]]


def test_nothing_is_added_unasked(cli: Any, report: Path) -> None:
    seen = cli("kb", "from-inspection", report, "--type", "burr", "--note", "burr")
    assert seen.code == 2
    assert "Add --yes" in seen.err
    assert "plate.burr.1, to be added:" in seen.out
    assert not (cli.home / "knowledge" / "plant" / "plate.burr.1").exists()


def test_a_part_that_is_known_already_is_refused(cli: Any, report: Path) -> None:
    again = ("kb", "from-inspection", report, "--type", "burr", "--note", "burr", "--yes")
    cli(*again)
    cli(*again).refused(6, "the picture is there already, as plate.burr.1")


def test_a_false_alarm_is_kept_as_normal(cli: Any, report: Path) -> None:
    given = ("--verdict", "OK", "--note", "a reflection of the lamp", "--yes")
    assert cli("kb", "from-inspection", report, *given).out.endswith("plate.good.1: added for plate, type good\n")
    cli("kb", "from-inspection", report, *given, "--type", "burr").refused(6, "a part that is OK has no burr")


def test_a_conversation_is_an_inspection_too(cli: Any, part: Path) -> None:
    told = cli("inspect", part, "--product", "plate", "--ask", "this is a burr, add it")
    (line,) = [line for line in told.out.splitlines() if line.startswith("flawscope kb from-inspection")]
    command = shlex.split(line.partition(" [")[0])
    assert command[4:] == ["--type", "burr", "--note", "burr"]
    added = cli(*command[1:], "--yes")
    assert added.out.endswith("plate.burr.1: added for plate, type burr\n")
    assert page(cli, "plate.burr.1")["inspection"] == f"thread {command[3]}"


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ((), 6, "words are missing"),
        (("--note", "x", "--region", "R9"), 6, "no region 'R9'. It has: R1"),
        (("--note", "x", "--region", "R1", "--box", "1,2,3,4"), 2, "not both"),
        (("--note", "x", "--box", "1,2,3,40000"), 2, "no box in a picture"),
        (("--note", "x", "--id", "general.hole"), 6, "there is a page 'general.hole' already"),
    ],
)
def test_what_cannot_be_kept_is_refused(cli: Any, report: Path, more: tuple[str, ...], code: int, words: str) -> None:
    cli("kb", "from-inspection", report, "--yes", *more).refused(code, words)


def test_what_is_no_inspection_is_refused(cli: Any, part: Path) -> None:
    cli("kb", "from-inspection", "0000ffff", "--yes").refused(2, "no conversation with the id '0000ffff'")
    cli("kb", "from-inspection", part, "--yes").refused(2, "holds no report")
    cli("inspect", cli.folder / "gone.png", "--product", "plate", "--out", "out", "--no-chat")
    gone = cli.folder / "out" / "gone" / "report.json"
    cli("kb", "from-inspection", gone, "--note", "x", "--yes").refused(6, "could not be inspected")


def test_another_picture_in_the_same_place_is_refused(cli: Any, report: Path, part: Path) -> None:
    save(cli.folder, part.name, texture(5))
    cli("kb", "from-inspection", report, "--type", "burr", "--note", "burr", "--yes").refused(4, "has changed since")
