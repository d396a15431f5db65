"""Ctrl-C and kill in every stage: 130 and one line, and what was there before is there afterwards."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

AT = Path(__file__).with_name("stop_at.py")


def _stop(cli: Any, kind: str, where: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    """Run a command that gets the signal when it reaches ``where`` for the second time."""
    command = [sys.executable, str(AT), kind, where, *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        env=cli.environment(),
        cwd=cli.folder,
        timeout=60,
        check=False,
    )


def _interrupted(done: subprocess.CompletedProcess[bytes]) -> None:
    message = b"flawscope: interrupted; everything finished so far is kept.\n"
    assert (done.returncode, done.stderr) == (130, message)


def _leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


ENROLMENT = [
    "reading the references",
    "looking at the references",
    "calibrating",
    "writing",
    "learning the defect types",
]


@pytest.mark.parametrize("where", ENROLMENT)
def test_ctrl_c_while_enrolling_keeps_the_old_product(cli: Any, snapshot: Any, where: str) -> None:
    before = snapshot(cli.home)
    defects = ["--defects", cli.plant.good[0].parents[1] / "defects"]
    _interrupted(_stop(cli, "SIGINT", where, "enroll", "plate", *cli.plant.good, "--replace", *defects))
    assert snapshot(cli.home) == before
    assert _leftovers(cli.home / "products") == []


@pytest.mark.parametrize("where", ["calibrating", "writing"])
def test_ctrl_c_while_enrolling_anew_leaves_no_product(cli: Any, where: str) -> None:
    _interrupted(_stop(cli, "SIGINT", where, "enroll", "new", *cli.plant.good))
    assert [path.name for path in (cli.home / "products").iterdir()] == ["plate"]


def test_ctrl_c_while_fitting_ad_hoc_references(cli: Any, snapshot: Any) -> None:
    before = snapshot(cli.home)
    done = _stop(cli, "SIGINT", "calibrating", "inspect", cli.plant.square, "--reference", *cli.plant.good)
    _interrupted(done)
    assert done.stdout == b""
    assert snapshot(cli.home) == before


@pytest.mark.parametrize("kind", ["SIGINT", "SIGKILL"])
@pytest.mark.parametrize("where", ["building the knowledge base", "writing"])
def test_a_knowledge_base_whose_building_was_stopped_is_built_by_the_next_run(cli: Any, kind: str, where: str) -> None:
    shutil.rmtree(cli.home / "knowledge")
    done = _stop(cli, kind, where, "inspect", cli.plant.square, "-p", "plate", "--json")
    assert done.stdout == b""
    if kind == "SIGINT":
        _interrupted(done)
    else:
        assert done.returncode == -signal.SIGKILL
    assert cli("inspect", cli.plant.square, "-p", "plate", "--json").code == 1
    assert _leftovers(cli.home / "knowledge") == []


def test_ctrl_c_in_the_second_of_five_keeps_the_finished_report(cli: Any) -> None:
    pictures = []
    for number in range(5):
        pictures.append(f"{number}.png")
        (cli.folder / pictures[-1]).write_bytes(cli.plant.square.read_bytes())
    done = _stop(cli, "SIGINT", "locating", "inspect", *pictures, "-p", "plate", "--json", "--out", "out")
    _interrupted(done)
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["image"] == "0.png"
    assert [path.name for path in (cli.folder / "out").iterdir()] == ["0"]
    kept = json.loads((cli.folder / "out" / "0" / "report.json").read_text())
    assert kept["verdict"] == "NG"
    result = cli("inspect", *pictures, "-p", "plate", "--json", "--out", "out")
    assert (result.code, result.out.count("\n")) == (1, 5)


def test_a_killed_enrolment_leaves_the_old_product_and_the_next_one_clears_up(cli: Any, snapshot: Any) -> None:
    before = snapshot(cli.home / "products" / "plate")
    done = _stop(cli, "SIGKILL", "writing", "enroll", "plate", *cli.plant.good, "--replace")
    assert done.returncode == -signal.SIGKILL
    assert snapshot(cli.home / "products" / "plate") == before
    assert len(_leftovers(cli.home / "products")) == 1
    assert cli("products", "list").out == "plate\n"
    assert cli("inspect", cli.plant.square, "-p", "plate", "--json").code == 1
    assert cli("enroll", "plate", *cli.plant.good[:3], "--replace").code == 0
    assert _leftovers(cli.home / "products") == []


def test_killed_between_old_and_new_the_old_product_comes_back(cli: Any, snapshot: Any) -> None:
    before = snapshot(cli.home / "products" / "plate")
    done = _stop(cli, "SIGKILL", "swapping", "enroll", "plate", *cli.plant.good, "--replace")
    assert done.returncode == -signal.SIGKILL
    assert not (cli.home / "products" / "plate").exists()
    assert cli("enroll", "plate", *cli.plant.good, cli.folder / "gone.png", "--replace").code == 4
    assert cli("inspect", cli.plant.square, "-p", "plate", "--json").code == 1
    assert snapshot(cli.home / "products" / "plate") == before


def test_an_enrolment_under_way_is_not_cleared_away_by_another(cli: Any) -> None:
    from flawscope.agent.home import new_folder

    products = cli.home / "products"
    with new_folder(products / "plate") as fresh:
        (fresh / "unfinished").write_text("x")
        assert cli("enroll", "plate", *cli.plant.good[:3], "--replace").code == 0
        assert (fresh / "unfinished").is_file()
        shutil.copytree(products / "plate", fresh, dirs_exist_ok=True)
    assert _leftovers(products) == []
    assert (products / "plate" / "unfinished").is_file()
