"""A snapshot holds everything, comes back as it was, and nothing else comes in through it."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import texture
from PIL import Image

from flawscope.agent.errors import KnowledgeError, StorageError
from flawscope.tools.knowledge import snapshot
from flawscope.tools.knowledge.guard import LeakGuard
from flawscope.tools.knowledge.plant import FOLDER, PlantStore
from flawscope.tools.knowledge.plant_page import page_from_note
from flawscope.tools.knowledge.snapshot import restore_snapshot, write_snapshot


def picture(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(texture(seed)).save(file, "PNG")
    return file.getvalue()


def add(folder: Path, name: str, seed: int) -> None:
    store = PlantStore(folder / FOLDER)
    page = page_from_note(
        "burr", "plate", type_name=None, doc_id=name, taken=(), author="Ada", created="c", box=None,
        picture_name="picture.png",
    )  # fmt: skip
    with store.locked():
        store.add(page, picture(seed), "0" * 16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pages, one of them removed, one with two versions, and a guard."""
    folder = tmp_path / "knowledge"
    for number, name in enumerate(["plate.burr.1", "plate.burr.1", "plate.dent.1"]):
        add(folder, name, number)
    store = PlantStore(folder / FOLDER)
    with store.locked():
        store.remove("plate.dent.1", "Bob")
    (tmp_path / "test.png").write_bytes(picture(9))
    LeakGuard(folder).add("plates", [("test.png", tmp_path / "test.png")])
    return folder


def state(folder: Path) -> dict[str, bytes]:
    plant = folder / FOLDER
    return {
        path.relative_to(plant).as_posix(): path.read_bytes()
        for path in plant.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def restore(folder: Path, source: Path, **options: Any) -> Any:
    with PlantStore(folder / FOLDER).locked():
        return restore_snapshot(folder, source, **options)


def test_there_and_back(folder: Path, tmp_path: Path) -> None:
    before = state(folder)
    done = write_snapshot(folder, tmp_path / "a.tar")
    assert (done.pages, done.files) == (1, len(before))
    again = write_snapshot(folder, tmp_path / "b.tar")
    assert done == again  # the same state, the same bytes
    add(folder, "plate.hole.1", 5)
    (folder / FOLDER / "plate.burr.1" / "0002" / "page.yaml").write_text("damaged")
    LeakGuard(folder).remove("plates")
    assert restore(folder, tmp_path / "a.tar") == done
    assert state(folder) == before
    assert [d.page.doc_id for d in PlantStore(folder / FOLDER).current()] == ["plate.burr.1"]
    assert sorted(path.name for path in folder.iterdir()) == [FOLDER]


def test_into_an_empty_home(folder: Path, tmp_path: Path) -> None:
    write_snapshot(folder, tmp_path / "a.tar")
    restore(tmp_path / "other", tmp_path / "a.tar")
    assert state(tmp_path / "other") == state(folder)


def test_whoever_holds_the_lock_still_holds_it_in_the_restored_folder(folder: Path, tmp_path: Path) -> None:
    write_snapshot(folder, tmp_path / "a.tar")
    store = PlantStore(folder / FOLDER)
    with store.locked():
        restore_snapshot(folder, tmp_path / "a.tar")
        with pytest.raises(KnowledgeError, match="another process"), PlantStore(folder / FOLDER).locked():
            raise AssertionError("two writers")
    with store.locked():
        pass


def test_nothing_and_damage_are_no_snapshot(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match="no pages yet"):
        write_snapshot(tmp_path / "empty", tmp_path / "a.tar")
    (folder / FOLDER / "plate.burr.1" / "0002" / "page.yaml").write_text("damaged")
    with pytest.raises(KnowledgeError, match=r"plate\.burr\.1 is damaged"):
        write_snapshot(folder, tmp_path / "a.tar")
    assert not (tmp_path / "a.tar").exists()
    assert write_snapshot(folder, tmp_path / "a.tar", sound=False).files == len(state(folder))
    with pytest.raises(KnowledgeError, match="damaged"):
        restore(folder, tmp_path / "a.tar")


Change = Callable[[dict[str, bytes]], None]


def packed(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for entry, content in members:
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def entry(name: str, size: int, **more: Any) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.size = size
    for key, value in more.items():
        setattr(made, key, value)
    return made


@pytest.fixture
def parts(folder: Path, tmp_path: Path) -> dict[str, bytes]:
    """Manifest and files of a good snapshot."""
    write_snapshot(folder, tmp_path / "good.tar")
    with tarfile.open(tmp_path / "good.tar") as archive:
        return {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]


def with_file(parts: dict[str, bytes], name: str, content: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    """The snapshot with one file more, which its manifest vouches for."""
    import hashlib

    manifest = json.loads(parts["manifest.json"])
    manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    everything = {**parts, "manifest.json": json.dumps(manifest).encode(), name: content}
    return [(entry(n, len(c)), c) for n, c in everything.items()]


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/evil",
        "plant/../../evil",
        "plant/plate.burr.1/0001/../../../../evil",
        "plant/plate.burr.1/0009/evil.py",
        "plant/.lock",
        "plant/.guard/../x.npz",
        "plant/Plate/0001/page.yaml",
        "other/page.yaml",
        "plant/a/0001/page.yaml\n",
    ],
)
def test_a_path_that_no_snapshot_holds_is_refused(
    folder: Path, tmp_path: Path, parts: dict[str, bytes], name: str
) -> None:
    (tmp_path / "bad.tar").write_bytes(packed(with_file(parts, name, b"x")))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(KnowledgeError, match="no snapshot holds"):
        restore(folder, tmp_path / "bad.tar")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_is_wrong_is_refused_and_nothing_changes(folder: Path, tmp_path: Path, parts: dict[str, bytes]) -> None:
    files = [(entry(name, len(content)), content) for name, content in parts.items()]
    last, content = files[-1]
    good = packed(files)
    deep = b"title: " + b"[" * 200_000
    page = "plant/plate.zzz.1/0001/"
    record = {"doc_id": "plate.zzz.1", "number": 1, "action": "add", "author": "a", "time": "t"}
    record |= {"page_sha256": "", "picture_sha256": "", "picture_hash": "", "previous_sha256": ""}
    hostile = with_file(parts, f"{page}page.yaml", deep)
    hostile = with_file({e.name: c for e, c in hostile}, f"{page}version.json", json.dumps(record).encode())
    cases: dict[str, tuple[bytes, str]] = {
        "no tar": (b"PK\x03\x04 nothing of the kind", "no tar archive"),
        "empty": (b"", "no tar archive"),
        "cut off": (good[: len(good) // 2], "cannot be restored"),
        "gzip": (__import__("gzip").compress(good), "no tar archive"),
        "no manifest": (packed(files[1:]), "does not begin with a manifest"),
        "no JSON": (packed([(entry("manifest.json", 2), b"[}")]), "manifest cannot be read"),
        "nested": (packed([(entry("manifest.json", 90_000), b"[" * 90_000)]), "manifest cannot be read"),
        "list": (packed([(entry("manifest.json", 2), b"[]")]), "manifest cannot be read"),
        "newer": (packed([(entry("manifest.json", 26), b'{"format": 9, "files": {}}')]), "its format is not 1"),
        "nothing": (packed([(entry("manifest.json", 26), b'{"format": 1, "files": {}}')]), "holds no files"),
        "changed": (packed([*files[:-1], (last, bytes([content[0] ^ 1]) + content[1:])]), "does not have its hash"),
        "missing": (packed(files[:-1]), "is missing"),
        "twice": (packed([*files, files[-1]]), "or is there twice"),
        "unlisted": (packed([*files, (entry("plant/x/0001/page.yaml", 1), b"x")]), "not in its manifest"),
        "size": (packed([*files[:-1], (entry(last.name, 1), b"x")]), "another size"),
        "link": (packed([*files, (entry("x", 0, type=tarfile.SYMTYPE, linkname="/etc"), b"")]), "no plain file"),
        "hard link": (packed([*files, (entry("x", 0, type=tarfile.LNKTYPE, linkname="y"), b"")]), "no plain file"),
        "folder": (packed([*files, (entry("x", 0, type=tarfile.DIRTYPE), b"")]), "no plain file"),
        "device": (packed([*files, (entry("x", 0, type=tarfile.CHRTYPE), b"")]), "no plain file"),
        "deep page": (packed(hostile), "is damaged"),
    }
    before = state(folder)
    for what, (blob, why) in cases.items():
        (tmp_path / "bad.tar").write_bytes(blob)
        with pytest.raises(KnowledgeError, match=why):
            restore(folder, tmp_path / "bad.tar")
        assert state(folder) == before, what
        assert sorted(path.name for path in folder.iterdir()) == [FOLDER], what


def test_an_entry_that_claims_more_than_there_is_unfolds_into_nothing(
    folder: Path, tmp_path: Path, parts: dict[str, bytes]
) -> None:
    blob = bytearray(packed([(entry(name, len(content)), content) for name, content in parts.items()]))
    blob[124:136] = b"77777777777\0"  # the first entry's size, octal: 8 GiB
    checksum = sum(blob[:148]) + 8 * 32 + sum(blob[156:512])
    blob[148:156] = f"{checksum:06o}\0 ".encode()
    (tmp_path / "bomb.tar").write_bytes(blob)
    with pytest.raises(KnowledgeError, match="cannot be restored"):
        restore(folder, tmp_path / "bomb.tar")


def test_a_compressed_guard_is_refused(folder: Path, tmp_path: Path, parts: dict[str, bytes]) -> None:
    import numpy as np

    file = io.BytesIO()
    np.savez_compressed(file, names=np.zeros(10_000_000))
    (tmp_path / "bomb.tar").write_bytes(packed(with_file(parts, "plant/.guard/bomb.npz", file.getvalue())))
    with pytest.raises(KnowledgeError, match=r"bomb\.npz is damaged"):
        restore(folder, tmp_path / "bomb.tar")


def test_an_old_version_that_would_end_the_process_is_refused(
    folder: Path, tmp_path: Path, parts: dict[str, bytes]
) -> None:
    deep = with_file(parts, "plant/plate.burr.1/0001/page.yaml", b"title: " + b"[" * 200_000)
    (tmp_path / "deep.tar").write_bytes(packed(deep))
    with pytest.raises(KnowledgeError, match=r"plate\.burr\.1 is damaged"):
        restore(folder, tmp_path / "deep.tar")


@pytest.mark.parametrize(
    "change",
    [
        {"picture_hash": "no hash"},
        {"picture_hash": ""},
        {"picture_hash": 7},
        {"author": ["Ada"]},
        {"number": True},
        {"action": "own"},
        {"previous_sha256": "../x"},
        {"more": ""},
    ],
)
def test_a_record_that_none_would_write_is_refused(
    folder: Path, tmp_path: Path, parts: dict[str, bytes], change: dict[str, Any]
) -> None:
    name = "plant/plate.burr.1/0001/version.json"
    record = json.dumps({**json.loads(parts[name]), **change}).encode()
    (tmp_path / "bad.tar").write_bytes(packed(with_file(parts, name, record)))
    with pytest.raises(KnowledgeError, match="its record cannot be read"):
        restore(folder, tmp_path / "bad.tar")


def test_what_is_no_file_is_not_waited_for(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for source in (tmp_path / "pipe", folder):
        with pytest.raises(KnowledgeError, match="is no file"):
            restore(folder, source)


def test_a_page_with_a_shipped_name_is_refused(folder: Path, tmp_path: Path) -> None:
    write_snapshot(folder, tmp_path / "a.tar")
    with pytest.raises(KnowledgeError, match=r"plate\.burr\.1 has the name of a shipped one"):
        restore(folder, tmp_path / "a.tar", shipped={"plate.burr.1"})


def test_a_full_disk_changes_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_snapshot(folder, tmp_path / "a.tar")
    before = state(folder)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="No space left"):
            restore(folder, tmp_path / "a.tar")
        with pytest.raises(StorageError, match="No space left"):
            write_snapshot(folder, tmp_path / "b.tar")
    assert state(folder) == before
    assert not (tmp_path / "b.tar").exists()


def test_a_restore_that_was_killed_between_two_renames_leaves_the_old_pages(folder: Path, tmp_path: Path) -> None:
    before = state(folder)
    aside = folder / f".{FOLDER}.old-x"
    aside.mkdir()
    (folder / FOLDER).replace(aside / FOLDER)
    assert [d.page.doc_id for d in PlantStore(folder / FOLDER).current()] == ["plate.burr.1"]
    assert state(folder) == before


def test_what_lies_between_pages_is_left_out(folder: Path, tmp_path: Path) -> None:
    (folder / FOLDER / ".new-x").mkdir()
    (folder / FOLDER / ".new-x" / "page.yaml").write_text("half")
    (folder / FOLDER / "notes.txt").write_text("a person's")
    done = write_snapshot(folder, tmp_path / "a.tar")
    assert done.files == len(state(folder)) - 2
    assert snapshot.FORMAT == 1
