"""``kb snapshot`` and ``kb restore``."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import save
from fakes import texture, with_square

BLUE = (40, 60, 235)


@pytest.fixture
def page(cli: Any) -> Path:
    picture = save(cli.folder, "photo.png", with_square(texture(301), 40, 40, colour=BLUE))
    assert cli("kb", "add", picture, "--note", "burr, rework", "--product", "plate").code == 0
    return picture


def sources(cli: Any, picture: Path) -> set[str]:
    report = json.loads(cli("inspect", picture, "--product", "plate", "--json").out)
    return {item["source"] for item in report["evidence"]}


def test_a_lost_page_comes_back_and_is_cited(cli: Any, page: Path) -> None:
    done = cli("kb", "snapshot", "plant.tar")
    assert done.out.startswith("plant.tar: 1 pages, 3 files, sha256 ")
    cli("kb", "snapshot", "plant.tar").refused(2, "exists already")
    assert cli("kb", "snapshot", "plant.tar", "--replace").out == done.out
    cli("kb", "edit", "plate.burr.1", "--action", "Scrap.")
    cli("kb", "remove", "plate.burr.1", "--yes")
    assert "plate.burr.1" not in sources(cli, page)
    back = cli("kb", "restore", "plant.tar")
    assert (back.code, back.err) == (0, "")
    assert back.out.startswith("plant.tar: 1 pages restored")
    assert "plate.burr.1" in sources(cli, page)
    assert cli("kb", "verify").code == 0
    (kept,) = (cli.home / "knowledge" / "snapshots").iterdir()
    assert str(kept) in back.out
    assert cli("kb", "restore", kept).code == 0
    assert [line.split()[1] for line in cli("kb", "history", "plate.burr.1").out.splitlines()] == [
        "add",
        "edit",
        "remove",
    ]
    assert cli("kb", "restore", "plant.tar", "--discard").code == 0
    assert len(list((cli.home / "knowledge" / "snapshots").iterdir())) == 2


def test_refusals_are_one_line(cli: Any, page: Path) -> None:
    (cli.folder / "bad.tar").write_text("nothing of the kind")
    cli("kb", "restore", "bad.tar").refused(6, "bad.tar cannot be restored")
    cli("kb", "restore", "nowhere.tar").refused(6, "nowhere.tar cannot be read")
    cli("kb", "snapshot", cli.folder).refused(2, "exists already")
    assert "plate.burr.1" in sources(cli, page)
    assert not (cli.home / "knowledge" / "snapshots").exists()


def test_an_open_base_is_not_restored_under(cli: Any, page: Path) -> None:
    milvus = {"FLAWSCOPE_STORE": "milvus"}
    cli("kb", "snapshot", "plant.tar")
    cli("doctor", **milvus)
    (database,) = (cli.home / "knowledge").glob("*/kb.db")
    with (database / "LOCK").open("rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cli("kb", "restore", "plant.tar", **milvus).refused(6, "open in another process")
    assert not (cli.home / "knowledge" / "snapshots").exists()


def test_a_home_without_pages_has_no_snapshot(cli: Any) -> None:
    cli("kb", "snapshot", "plant.tar").refused(6, "no pages yet")
