"""``kb add`` and what belongs to it: one photo and one note, and the next inspection cites it."""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import save
from fakes import texture, with_square
from PIL import Image

BLUE = (40, 60, 235)


@pytest.fixture
def photo(cli: Any) -> Path:
    """A defect that no page speaks of yet: a blue square."""
    return save(cli.folder, "photo.png", with_square(texture(301), 40, 40, colour=BLUE))


@pytest.fixture
def similar(cli: Any) -> Path:
    """The same defect on another part."""
    return save(cli.folder, "similar.png", with_square(texture(302), 42, 38, colour=BLUE))


def add(cli: Any, picture: Path, note: str = "burr on edge, due to dull punch, rework", *more: object) -> Any:
    return cli("kb", "add", picture, "--note", note, "--product", "plate", "--author", "Ada", *more)


def inspect(cli: Any, picture: Path, **env: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(cli("inspect", picture, "--product", "plate", "--json", **env).out)
    return report


def sources(report: dict[str, Any]) -> dict[str, str]:
    """Evidence id of each document by doc_id."""
    return {item["source"]: item["id"] for item in report["evidence"] if item["kind"] == "document"}


def test_the_next_inspection_cites_the_new_page(cli: Any, photo: Path, similar: Path) -> None:
    before = inspect(cli, similar)
    added = add(cli, photo, "burr on edge, due to dull punch, rework", "--box", "200,200,300,300")
    assert (added.code, added.err) == (0, "")
    assert "plate.burr.1: added for plate, type burr, box [200, 200, 300, 300]" in added.out
    assert "cause: dull punch" in added.out
    after = inspect(cli, similar)
    assert "plate.burr.1" not in sources(before)
    (cause,) = [claim for claim in after["claims"] if claim["field"] == "root_cause"]
    assert after["verdict"] == before["verdict"] == "NG"
    assert sources(after)["plate.burr.1"] == "D1"  # the nearest of all pages
    assert "D1" in cause["evidence_ids"]
    assert after["provenance"]["knowledge"] != before["provenance"]["knowledge"]


def test_a_named_type_is_explained_by_the_plants_own_page(cli: Any, photo: Path) -> None:
    add(cli, photo, "hole punched off centre, due to dull punch, rework")
    report = inspect(cli, cli.plant.square)
    assert report["defect_type"]["name"] == "hole"
    own = sources(report)["plate.hole.1"]
    assert report["root_cause"] == "Likely causes of hole: dull punch."
    assert own in {i for claim in report["claims"] if claim["field"] == "root_cause" for i in claim["evidence_ids"]}


def test_what_a_note_leaves_out_comes_from_the_general_page(cli: Any, photo: Path) -> None:
    before = inspect(cli, cli.plant.square)
    add(cli, photo, "hole beside the rim")
    after = inspect(cli, cli.plant.square)
    assert "hole beside the rim" in after["description"]
    assert after["root_cause"] == before["root_cause"] != ""
    assert after["action"] == before["action"] != ""


def test_only_what_changed_is_embedded(cli: Any, photo: Path, similar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fakes import PatchStatistics

    add(cli, photo)
    seen: list[Any] = []
    encode = PatchStatistics.encode_image
    monkeypatch.setattr(PatchStatistics, "encode_image", lambda self, batch: seen.append(batch) or encode(self, batch))
    add(cli, similar, "dent on edge")
    assert len(seen) == 1
    cli("kb", "remove", "plate.burr.1", "--yes")
    cli("kb", "rollback", "plate.burr.1", "1")
    assert len(seen) == 1


def test_a_twin_is_refused_by_name(cli: Any, photo: Path) -> None:
    add(cli, photo)
    add(cli, photo, "dent").refused(6, "the picture is there already, as plate.burr.1")
    with Image.open(photo) as picture:
        picture.resize((240, 240)).save(cli.folder / "smaller.jpg", quality=70)
    add(cli, cli.folder / "smaller.jpg", "dent").refused(6, "as plate.burr.1")
    other = save(cli.folder, "other.png", with_square(texture(303), 10, 60, colour=BLUE))
    assert add(cli, other).out.startswith("plate.burr.2")


def test_unknown_stays_unknown(cli: Any, photo: Path) -> None:
    added = add(cli, photo, "a scratch and a dent")
    assert added.out.startswith("plate.unknown.1")
    assert "the note names scratch, dent. Choose one with --type." in " ".join(added.err.split())


def test_removed_rolled_back_and_the_history_of_it(cli: Any, photo: Path, similar: Path) -> None:
    add(cli, photo)
    assert cli("kb", "remove", "plate.burr.1", "--yes", "--author", "Bob").out == "plate.burr.1: removed as version 2\n"
    assert "plate.burr.1" not in sources(inspect(cli, similar))
    back = cli("kb", "rollback", "plate.burr.1", "1", "--author", "Cy")
    assert back.out == "plate.burr.1: version 3 is version 1 again\n"
    assert "plate.burr.1" in sources(inspect(cli, similar))
    lines = cli("kb", "history", "plate.burr.1").out.splitlines()
    assert [line.split()[:2] for line in lines] == [["1", "add"], ["2", "remove"], ["3", "rollback"]]
    assert [name in line for name, line in zip(("Ada", "Bob", "Cy"), lines, strict=True)] == [True] * 3
    assert cli("kb", "verify").code == 0


def test_unknown_names_get_a_suggestion(cli: Any, photo: Path) -> None:
    add(cli, photo)
    cli("kb", "remove", "plate.bur.1", "--yes").refused(6, "no page 'plate.bur.1'", "Did you mean 'plate.burr.1'?")
    cli("kb", "history", "general.scratch").refused(6, "shipped with Flawscope")
    cli("kb", "rollback", "plate.burr.1", "9").refused(6, "no version 9", "It has 1 to 1.")
    cli("kb", "remove", "plate.burr.1").refused(2, "Add --yes")
    add(cli, cli.plant.square, "dent", "--id", "general.scratch").refused(
        6, "there is a page 'general.scratch' already"
    )


def test_bad_arguments_leave_nothing_behind(cli: Any, photo: Path) -> None:
    add(cli, photo, "burr", "--box", "1,2,3").refused(2, "--box takes four numbers")
    add(cli, photo, "burr", "--box", "5,5,5,9").refused(2, "480 x 480 px")
    add(cli, photo, "burr", "--box", "0,0,481,9").refused(2, "480 x 480 px")
    add(cli, cli.folder / "nowhere.png").refused(4, "nowhere.png")
    (cli.folder / "text.png").write_text("no picture")
    add(cli, cli.folder / "text.png").refused(4, "text.png")
    add(cli, photo, "   ").refused(6, "no words")
    assert cli("kb", "history", "plate.burr.1").code == 6


def test_a_locked_base_is_one_line_and_nothing_is_written(cli: Any, photo: Path) -> None:
    cli("doctor", FLAWSCOPE_STORE="milvus")
    (database,) = (cli.home / "knowledge").glob("*/kb.db")
    with (database / "LOCK").open("rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        locked = cli("kb", "add", photo, "--note", "burr", "--product", "plate", FLAWSCOPE_STORE="milvus")
        locked.refused(6, "open in another process")
        cli("kb", "verify", FLAWSCOPE_STORE="milvus").refused(6, "open in another process")
    assert list((cli.home / "knowledge" / "plant").iterdir()) == [cli.home / "knowledge" / "plant" / ".lock"]


def test_a_full_disk_is_one_line_and_nothing_is_added(cli: Any, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flawscope.tools.knowledge import plant_index

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(plant_index.np, "savez", full)  # the page is written, its vector is not
        add(cli, photo).refused(10, "No space left")
    assert cli("kb", "history", "plate.burr.1").code == 6
    assert add(cli, photo).code == 0


def test_verify_names_each_fault(cli: Any, photo: Path) -> None:
    milvus = {"FLAWSCOPE_STORE": "milvus"}
    cli("kb", "add", photo, "--note", "burr", "--product", "plate", **milvus)
    clean = cli("kb", "verify", **milvus)
    assert (clean.code, clean.err) == (0, "")
    assert "6 shipped pages, 1 plant versions, 1 plant pages, 7 vectors, 7 records in Milvus" in clean.out
    base = next((cli.home / "knowledge").glob("*/kb.db")).parent

    from flawscope.tools.knowledge.milvus import MilvusLiteStore
    from flawscope.tools.knowledge.store import LockRecord

    with np.load(base / "vectors.npz") as file:
        vectors = file["vectors"]
    store = MilvusLiteStore(base, vectors.shape[1])
    store.delete(["general.hole"])
    store.upsert([LockRecord("plate.ghost.1", vectors[0], "plate", "ghost")])
    store.upsert([LockRecord("plate.burr.1", -vectors[0], "plate", "burr")])
    store.close()
    wrong = cli("kb", "verify", **milvus)
    assert wrong.code == 6
    assert "FAULT general.hole: missing in the Milvus store" in wrong.out
    assert "FAULT plate.ghost.1: in the Milvus store, but no page has that name" in wrong.out
    assert "FAULT plate.burr.1: its vector in the Milvus store is another one" in wrong.out
    assert wrong.err == "flawscope: the knowledge base has 3 faults, listed above.\n"


@pytest.mark.parametrize("name", ["page.yaml", "version.json", "picture.png"])
def test_verify_sees_a_damaged_file(cli: Any, photo: Path, name: str) -> None:
    add(cli, photo)
    path = cli.home / "knowledge" / "plant" / "plate.burr.1" / "0001" / name
    path.write_bytes(path.read_bytes()[:-9])
    found = cli("kb", "verify")
    assert found.code == 6
    assert "FAULT plate.burr.1: version 1 of the plant's page plate.burr.1 is damaged" in found.out
    shutil.rmtree(path.parent.parent)
    assert cli("kb", "verify").code == 0


def test_damaged_pages_are_removed_one_by_one(cli: Any, photo: Path, similar: Path) -> None:
    add(cli, photo)
    add(cli, similar, "dent")
    for name in ("plate.burr.1", "plate.dent.1"):
        (cli.home / "knowledge" / "plant" / name / "0001" / "page.yaml").write_text("nothing")
    cli("inspect", cli.plant.square, "--product", "plate").refused(6, "plate.burr.1 is damaged", "kb remove")
    for name in ("plate.burr.1", "plate.dent.1"):
        assert cli("kb", "remove", name, "--yes").code == 0
    assert cli("inspect", cli.plant.square, "--product", "plate").code == 1


def test_the_milvus_store_follows_on_the_next_inspection(cli: Any, photo: Path) -> None:
    milvus = {"FLAWSCOPE_STORE": "milvus"}
    cli("kb", "add", photo, "--note", "burr", "--product", "plate", **milvus)
    cli("kb", "remove", "plate.burr.1", "--yes", **milvus)
    seen = cli("kb", "verify", **milvus)
    assert (seen.code, seen.err) == (0, "")
    assert "plate.burr.1: the next inspection takes it out of the Milvus store" in seen.out
    inspect(cli, cli.plant.square, **milvus)
    assert "6 records in Milvus\nno faults" in cli("kb", "verify", **milvus).out
