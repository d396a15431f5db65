"""kill -9 while pages change: what was acknowledged is there, nothing is half there, and nothing is at fault."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import FEW_DOCUMENTS
from fakes import PatchStatistics

from flawscope.tools.knowledge import builder, schema
from flawscope.tools.knowledge.plant import FOLDER, PlantStore
from flawscope.tools.knowledge.snapshot import restore_snapshot, write_snapshot
from flawscope.tools.knowledge.verification import verify_knowledge

OPERATIONS = ("add", "import", "edit", "snapshot", "restore")
KILLS = 20
FEW = tuple(page for page in schema.load_documents() if page.doc_id in FEW_DOCUMENTS)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Each operation is killed in a process and a home of its own, all at the same time."""
    script = Path(__file__).parents[1] / "kills.py"
    folders = {what: tmp_path_factory.mktemp(what) for what in OPERATIONS}
    running = {
        what: subprocess.Popen(
            [sys.executable, str(script), what, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for what, folder in folders.items()
    }
    try:
        yield {what: (folders[what], process) for what, process in running.items()}
    finally:
        for process in running.values():
            process.kill()
            process.communicate()


def acknowledged(killed: dict[str, Any], what: str) -> tuple[Path, list[str]]:
    folder, process = killed[what]
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    lines: list[str] = json.loads(out)
    return folder, lines


def sound(folder: Path) -> dict[str, Any]:
    """The pages that count, after all that is on disk was looked at, before and after a base is opened on it."""
    knowledge = folder / "home" / "knowledge"
    store = PlantStore(knowledge / FOLDER)
    there = {document.page.doc_id: document for document in store.current()}
    for document in there.values():
        store.picture(document)
    assert verify_knowledge(knowledge, PatchStatistics(), milvus=True, documents=FEW).problems == []
    base = builder.open_knowledge_base(knowledge, PatchStatistics(), documents=FEW)  # finishes what was cut off
    try:
        assert base._store.doc_ids() == {*FEW_DOCUMENTS, *there}
    finally:
        base.close()
    after = verify_knowledge(knowledge, PatchStatistics(), milvus=True, documents=FEW)
    assert (after.problems, after.notes) == ([], [])
    assert after.counts["records in Milvus"] == len(FEW) + len(there)
    return there


def test_twenty_kills_while_pages_are_added(killed: dict[str, Any]) -> None:
    folder, lines = acknowledged(killed, "add")
    names = {found[1] for line in lines if (found := re.match(r"(plate\.burr\.\S+): added for plate", line))}
    assert len(names) >= KILLS // 2
    assert names <= set(sound(folder))


def test_twenty_kills_while_tables_are_imported(killed: dict[str, Any]) -> None:
    folder, lines = acknowledged(killed, "import")
    tables = [found[1] for line in lines if (found := re.match(r"(\S+)\.csv: 3 new, 0 changed, .* 0 refused", line))]
    assert len(tables) >= KILLS // 2
    there = sound(folder)
    assert {f"plate.{table}.{row}" for table in tables for row in range(3)} <= set(there)
    assert all((document.picture is not None) == name.endswith(".0") for name, document in there.items())


def test_twenty_kills_while_pages_are_edited(killed: dict[str, Any]) -> None:
    folder, lines = acknowledged(killed, "edit")
    done = [found for line in lines if (found := re.match(r"(plate\.page\.\d+): edited as version (\d+)", line))]
    assert len(done) >= KILLS // 2
    assert len(sound(folder)) == KILLS
    store = PlantStore(folder / "home" / "knowledge" / FOLDER)
    for found in done:
        version = store.history(found[1])[int(found[2]) - 1]
        assert (version.action, version.author) == ("edit", "Bob")
        assert store.read(version).page.action == f"Step {version.number - 2}."


def test_twenty_kills_while_snapshots_are_taken(killed: dict[str, Any], tmp_path: Path) -> None:
    folder, lines = acknowledged(killed, "snapshot")
    done = dict(found.groups() for line in lines if (found := re.search(r"(\d+-\d+\.tar): .* sha256 (\w+)$", line)))
    assert len(done) >= KILLS // 2
    assert len(sound(folder)) == KILLS
    taken = {path.name: path for path in folder.glob("[!.]*.tar")}
    assert set(done) <= set(taken)
    whole = {hashlib.sha256(path.read_bytes()).hexdigest() for path in taken.values()}
    assert whole == set(done.values())  # the pages did not change, so each archive is the same, and none is half
    assert len(whole) == 1
    with PlantStore(tmp_path / FOLDER).locked():
        assert restore_snapshot(tmp_path, next(iter(taken.values()))).pages == KILLS


def test_twenty_kills_while_snapshots_are_restored(killed: dict[str, Any], tmp_path: Path) -> None:
    folder, lines = acknowledged(killed, "restore")
    done = [found[1] for line in lines if (found := re.search(r"(old|new)\.tar: 20 pages restored", line))]
    assert len(done) >= KILLS // 2
    said = {document.page.description for document in sound(folder).values()}
    assert said in ({"burr"}, {"changed"})  # one state or the other, never some pages of each
    now = tmp_path / "now.tar"
    with PlantStore(folder / "home" / "knowledge" / FOLDER).locked():
        write_snapshot(folder / "home" / "knowledge", now)
    assert now.read_bytes() == (folder / ("old.tar" if said == {"burr"} else "new.tar")).read_bytes()
