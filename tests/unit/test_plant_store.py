"""The plant's pages on disk: versions, damage, locks and a disk that refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from flawscope.agent.errors import KnowledgeError, KnowledgeLockedError, StorageError
from flawscope.tools.knowledge import plant
from flawscope.tools.knowledge.plant import PlantDocument, PlantStore
from flawscope.tools.knowledge.plant_page import page_from_note

HASH = "00000000000000ff"


def written(store: PlantStore, note: str = "burr on edge", name: str = "plate.burr.1", **changes: Any) -> PlantDocument:
    given: dict[str, Any] = {"type_name": None, "doc_id": name, "taken": (), "author": "Ada", "created": "2026"}
    page = page_from_note(note, "plate", box=None, picture_name="picture.png", **{**given, **changes})
    with store.locked():
        return store.add(page, f"the picture of {note}".encode(), HASH)


@pytest.fixture
def store(tmp_path: Path) -> PlantStore:
    return PlantStore(tmp_path / "plant")


def test_nothing_is_there_at_first(store: PlantStore) -> None:
    assert store.all_ids() == []
    assert store.current() == []
    assert not store.folder.exists()


def test_each_version_is_kept_and_the_last_one_counts(store: PlantStore) -> None:
    first = written(store)
    second = written(store, "burr on two edges")
    assert [document.page.description for document in store.current()] == ["burr on two edges"]
    versions = store.history("plate.burr.1")
    assert [(v.number, v.action, v.author) for v in versions] == [(1, "add", "Ada"), (2, "add", "Ada")]
    assert store.read(versions[0]).page == first.page
    assert first.key != second.key
    assert store.picture(second) == b"the picture of burr on two edges"
    assert store.broken_links("plate.burr.1") == []


def test_removed_and_brought_back(store: PlantStore) -> None:
    first = written(store)
    with store.locked():
        store.remove("plate.burr.1", "Bob")
        assert store.current() == []
        with pytest.raises(KnowledgeError, match="removed already"):
            store.remove("plate.burr.1", "Bob")
        with pytest.raises(KnowledgeError, match="holds none"):
            store.rollback("plate.burr.1", 2, "Bob")
        with pytest.raises(KnowledgeError, match="no version 7"):
            store.rollback("plate.burr.1", 7, "Bob")
        again = store.rollback("plate.burr.1", 1, "Bob")
    assert again.page == first.page
    assert again.key == first.key  # nothing has to be embedded anew
    assert [v.action for v in store.history("plate.burr.1")] == ["add", "remove", "rollback"]
    assert store.broken_links("plate.burr.1") == []


def test_an_unknown_name_is_answered_with_the_nearest(store: PlantStore) -> None:
    written(store)
    with pytest.raises(KnowledgeError, match=r"Did you mean 'plate\.burr\.1'"):
        store.history("plate.bur.1")
    for name in ("../plant", "", "zzz"):
        with pytest.raises(KnowledgeError, match="no page"):
            store.history(name)


@pytest.mark.parametrize("name", ["page.yaml", "version.json"])
def test_a_changed_file_is_damage(store: PlantStore, name: str) -> None:
    path = written(store).picture.with_name(name)
    path.write_bytes(path.read_bytes().replace(b"burr", b"dent"))
    with pytest.raises(KnowledgeError, match="damaged"):
        store.current()
    path.unlink()
    with pytest.raises(KnowledgeError, match="damaged"):
        store.current()


def test_a_changed_picture_is_damage_and_the_page_can_still_be_removed(store: PlantStore) -> None:
    document = written(store)
    document.picture.write_bytes(b"another")
    with pytest.raises(KnowledgeError, match="its picture was changed"):
        store.picture(document)
    (document.picture.parent / "page.yaml").unlink()
    with store.locked():
        store.remove("plate.burr.1", "Bob")
    assert store.current() == []


def test_a_record_rewritten_later_breaks_the_chain(store: PlantStore) -> None:
    path = written(store).picture.with_name("version.json")
    written(store, "burr on two edges")
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "author": "Eve"}))
    assert store.broken_links("plate.burr.1") == [2]


def test_what_a_killed_writer_left_is_no_page_and_is_cleared_away(store: PlantStore) -> None:
    written(store)
    left = store.folder / ".new-abc"
    left.mkdir()
    (left / "page.yaml").write_text("half")
    (store.folder / "plate.dent.1").mkdir()
    assert store.all_ids() == ["plate.burr.1"]
    with store.locked():
        assert not left.exists()


def test_only_one_writes(store: PlantStore) -> None:
    with (
        store.locked(),
        pytest.raises(KnowledgeLockedError, match="another process"),
        PlantStore(store.folder).locked(),
    ):
        raise AssertionError("two writers")
    with store.locked():
        pass


def test_a_full_disk_leaves_the_old_state(store: PlantStore, monkeypatch: pytest.MonkeyPatch) -> None:
    written(store)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="No space left"):
            written(store, "burr on two edges")
    assert [v.number for v in store.history("plate.burr.1")] == [1]
    assert sorted(path.name for path in store.folder.iterdir()) == [".lock", "plate.burr.1"]


def test_what_could_not_take_effect_is_taken_back(store: PlantStore) -> None:
    written(store)
    with store.locked():
        store.retract(store.remove("plate.burr.1", "Bob"))
    assert [v.action for v in store.history("plate.burr.1")] == ["add"]
    assert plant.FOLDER == "plant"
