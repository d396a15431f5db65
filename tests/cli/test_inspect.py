"""Reports as lines, exit codes, files, and when a conversation begins."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flawscope.agent.schemas import InspectionReport
from flawscope.agent.session import distinct_names

GOOD, BAD, DOUBT, BROKEN = "good", "bad", "doubt", "broken"


@pytest.fixture
def pictures(cli: Any) -> dict[str, Path]:
    """One picture per outcome."""
    (cli.folder / "broken.png").write_bytes(b"no picture")
    return {GOOD: cli.plant.new_good, BAD: cli.plant.square, DOUBT: cli.plant.flat, BROKEN: Path("broken.png")}


def _expected(kinds: tuple[str, ...]) -> int:
    return 4 if BROKEN in kinds else 1 if BAD in kinds else 3 if DOUBT in kinds else 0


OUTCOMES = [kinds for size in (1, 2) for kinds in itertools.permutations((GOOD, BAD, DOUBT, BROKEN), size)]


@pytest.mark.parametrize("kinds", [*OUTCOMES, (GOOD, DOUBT, BAD, GOOD), (BAD, BROKEN, DOUBT, GOOD)])
def test_exit_codes_and_one_valid_report_a_line_in_order(
    cli: Any, pictures: dict[str, Path], kinds: tuple[str, ...]
) -> None:
    given = [pictures[kind] for kind in kinds]
    result = cli("inspect", *given, "-p", "plate", "--json")
    reports = [InspectionReport.model_validate_json(line) for line in result.out.splitlines()]
    assert [report.image for report in reports] == [str(path) for path in given]
    verdicts = {GOOD: "OK", BAD: "NG", DOUBT: "REVIEW", BROKEN: "REVIEW"}
    assert [report.verdict for report in reports] == [verdicts[kind] for kind in kinds]
    assert [report.error is not None for report in reports] == [kind == BROKEN for kind in kinds]
    assert result.code == _expected(kinds)
    assert result.err.count("\n") == kinds.count(BROKEN)


def test_the_readable_output_has_the_same_exit_code_and_counts(cli: Any, pictures: dict[str, Path]) -> None:
    result = cli("inspect", *pictures.values(), "-p", "plate")
    assert result.code == 4
    assert "4 pictures: 1 OK, 1 NG, 2 REVIEW (1 could not be inspected)" in result.out
    assert result.err.startswith("flawscope: broken.png")


def test_reports_in_a_process_are_the_same_lines_and_nothing_else(cli: Any) -> None:
    command = ("inspect", cli.plant.square, cli.plant.new_good, "--product", "plate", "--json")
    done = cli.process(*command, env={"FLAWSCOPE_STORE": "milvus"})
    assert (done.code, done.err) == (1, "")
    assert [json.loads(line)["verdict"] for line in done.out.splitlines()] == ["NG", "OK"]


def test_references_given_in_place_of_a_product(cli: Any) -> None:
    good = cli.plant.good
    result = cli("inspect", cli.plant.square, cli.plant.new_good, "--reference", *good, "--json")
    assert [json.loads(line)["verdict"] for line in result.out.splitlines()] == ["NG", "OK"]
    folder = cli("inspect", cli.plant.square, "-r", good[0].parent, "--json")
    assert json.loads(folder.out)["verdict"] == "NG"


def test_files_are_written_beside_the_reports(cli: Any, pictures: dict[str, Path]) -> None:
    twin = cli.folder / "other" / "square.png"
    twin.parent.mkdir()
    shutil.copy(cli.plant.square, twin)
    shutil.copy(cli.plant.square, cli.folder / "square.jpg")
    given = [cli.plant.square, twin, "square.jpg", pictures[BROKEN], pictures[GOOD]]
    result = cli("inspect", *given, "-p", "plate", "--json", "--out", "out/deep")
    out = cli.folder / "out" / "deep"
    assert sorted(path.name for path in out.iterdir()) == ["broken", "good", "square", "square-2", "square-3"]
    for line, name in zip(result.out.splitlines(), ["square", "square-2", "square-3", "broken", "good"], strict=True):
        report = json.loads(line)
        assert json.loads((out / name / "report.json").read_text()) == report
        kinds = ["report"] if name == "broken" else ["heatmap", "overlay", "report"]
        assert sorted(report["artifacts"]) == kinds
        assert sorted(path.stem for path in (out / name).iterdir()) == kinds
        for kind in set(kinds) - {"report"}:
            with Image.open(cli.folder / report["artifacts"][kind]) as picture:
                picture.load()
                assert picture.format == "PNG"
                assert min(picture.size) >= 96


def test_names_of_folders_are_numbered_where_they_would_collide() -> None:
    images = [Path(name) for name in ("a.png", "b/a.png", "a-2.png", "a.jpg", "....", "x y/ä ö.png", "é*?.png")]
    assert distinct_names(images) == ["a", "a-2", "a-2-2", "a-3", "picture", "ä_ö", "é_"]


@pytest.mark.parametrize("extra", [[], ["--no-chat"], ["--json"], ["--out", "out"]])
def test_a_pipe_never_waits_for_input(cli: Any, extra: list[str]) -> None:
    result = cli("inspect", cli.plant.square, "-p", "plate", *extra)
    assert result.code == 1
    assert not (cli.home / "threads").exists()


def test_a_question_is_answered_and_can_be_followed_up(cli: Any) -> None:
    result = cli("inspect", cli.plant.square, "-p", "plate", "--ask", "where exactly?")
    assert result.code == 1
    assert "R1: " in result.out
    assert "px in area" in result.out


def test_a_question_leaves_the_lines_alone(cli: Any) -> None:
    given = (cli.plant.square, cli.plant.new_good)
    result = cli("inspect", *given, "-p", "plate", "--json", "--ask", "are you sure?")
    assert len([json.loads(line) for line in result.out.splitlines()]) == len(given)
    assert result.err.count("The probability of a defect is") == len(given)


def test_a_question_about_a_broken_picture_is_not_answered(cli: Any, pictures: dict[str, Path]) -> None:
    cli("inspect", pictures[BROKEN], "-p", "plate", "--ask", "is it good?").refused(4, "broken.png")
