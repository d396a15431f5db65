"""The knowledge base on disk: built once, read back, killed while it is built, damaged in every file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FEW_DOCUMENTS
from fakes import PatchStatistics, texture, with_square

from flawscope.agent.errors import KnowledgeError, StorageError
from flawscope.tools.knowledge import base as base_module
from flawscope.tools.knowledge import builder
from flawscope.tools.knowledge.builder import KnowledgeBase, content_hash, open_knowledge_base
from flawscope.tools.knowledge.features import image_part
from flawscope.tools.knowledge.schema import load_documents

FEW = tuple(page for page in load_documents() if page.doc_id in FEW_DOCUMENTS)
KEY = image_part(PatchStatistics().encode_image(with_square(texture(1))[None]))


def opened(folder: Path, **changes: Any) -> KnowledgeBase:
    return open_knowledge_base(folder, PatchStatistics(), documents=FEW, **changes)


def home_of(folder: Path) -> Path:
    return folder / content_hash(FEW, PatchStatistics())[:16]


def ids(base: KnowledgeBase, **changes: Any) -> list[str]:
    found = base.retrieve(KEY, "a round hole", product=None, k=3, **changes)
    return [page.doc_id for page in found.documents]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished base; copy it before changing it."""
    folder = tmp_path_factory.mktemp("knowledge")
    opened(folder).close()
    return folder


def test_both_stores_find_the_same_pages(built: Path) -> None:
    with_lock, without = opened(built), opened(built, store="memory")
    try:
        assert ids(with_lock) == ids(without)
        seen = ids(without)
        assert not set(ids(without, exclude=seen)) & set(seen)
        own = without.retrieve(KEY, "", product="textile", k=20)
        assert "textile.good" in {page.doc_id for page in own.documents}
        assert "textile.good" not in {page.doc_id for page in without.retrieve(KEY, "", product=None, k=20).documents}
    finally:
        with_lock.close()
        without.close()


@pytest.mark.parametrize("kind", ["milvus", "memory"])
def test_a_small_base_finds_from_memory_what_its_store_finds(
    built: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    rng = np.random.default_rng(0)
    keys = [KEY, *(KEY + rng.normal(0.0, 0.5, KEY.shape).astype(np.float32) for _ in range(20))]
    asked = [(product, k, mode) for product in (None, "textile") for k in (1, 4, 60) for mode in ("mmr", "relevance")]

    def answers(base: KnowledgeBase) -> list[Any]:
        return [base.retrieve(key, "", product=p, k=k, mode=mode) for key in keys for p, k, mode in asked]  # type: ignore[arg-type]

    with_store = opened(built, store=kind)
    try:
        searched: list[int] = []
        search = with_store._store.search

        def counted(*given: Any) -> Any:
            searched.append(1)
            return search(*given)

        monkeypatch.setattr(with_store._store, "search", counted)
        near = answers(with_store)
        assert not searched  # a small base does not ask
        monkeypatch.setattr(base_module, "SMALL", 0)
        asked_store = answers(with_store)
        assert len(searched) == len(asked_store)
    finally:
        with_store.close()
    for mine, its in zip(near, asked_store, strict=True):
        assert [page.doc_id for page in mine.documents] == [page.doc_id for page in its.documents]
        np.testing.assert_allclose(mine.similarities, its.similarities, atol=1e-5)


def test_a_key_that_is_no_vector_is_refused_in_memory_too(built: Path) -> None:
    base = opened(built, store="memory")
    with pytest.raises(KnowledgeError):
        base.retrieve(np.full_like(KEY, np.nan), "", product=None, k=3)


def test_it_is_built_once(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr(builder, "drawing_features", never)
    opened(built).close()


def test_another_document_or_backbone_is_another_base() -> None:
    class Other(PatchStatistics):
        weights_sha256 = "1" * 64

    hashes = {
        content_hash(FEW, PatchStatistics()),
        content_hash(FEW[1:], PatchStatistics()),
        content_hash(FEW, Other()),
    }
    assert len(hashes) == 3
    assert content_hash(FEW[::-1], PatchStatistics()) in hashes


def test_progress_goes_from_nothing_to_all(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    opened(tmp_path, store="memory", progress=lambda what, done, total: told.append((done, total))).close()
    assert told[0] == (0, len(FEW))
    assert told[-1] == (len(FEW), len(FEW))


def test_two_that_build_at_once_do_not_destroy_each_others_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing_features, other = builder.drawing_features, []

    def meanwhile(drawing: str, backbone: Any) -> Any:
        if not other:
            other.append(None)
            other.append(opened(tmp_path))  # another process comes, builds and opens the same base
        return drawing_features(drawing, backbone)

    monkeypatch.setattr(builder, "drawing_features", meanwhile)
    mine = opened(tmp_path, store="memory")
    assert ids(other[1]) == ids(mine)
    other[1].close()
    opened(tmp_path).close()


@pytest.mark.parametrize("name", ["vectors.npz", "manifest.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"\xff\xfe\x00garbage", b'{"content_hash": 1}'])
def test_a_damaged_file_is_named_with_the_remedy(built: Path, tmp_path: Path, name: str, content: bytes) -> None:
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    (home_of(tmp_path) / name).write_bytes(content)
    with pytest.raises(KnowledgeError, match="damaged") as raised:
        opened(tmp_path, store="memory")
    assert "Delete that folder" in str(raised.value)
    shutil.rmtree(home_of(tmp_path))
    opened(tmp_path, store="memory").close()  # the remedy works


def test_a_missing_vectors_file_is_damage_and_a_missing_manifest_a_new_build(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    (home_of(tmp_path) / "vectors.npz").unlink()
    with pytest.raises(KnowledgeError, match="damaged"):
        opened(tmp_path)
    (home_of(tmp_path) / "manifest.json").unlink()
    base = opened(tmp_path)
    assert ids(base)
    base.close()


@pytest.mark.parametrize("damage", ["removed", "emptied", "a file", "foreign"])
def test_a_damaged_store_is_named_or_made_again(built: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    database = home_of(tmp_path) / "kb.db"
    shutil.rmtree(database)
    if damage == "emptied":
        database.mkdir()
    elif damage == "a file":
        database.write_bytes(b"SQLite format 3\x00")
    elif damage == "foreign":
        from flawscope.tools.knowledge.milvus import MilvusLiteStore

        MilvusLiteStore(home_of(tmp_path), 3).close()
    with pytest.raises(KnowledgeError) as raised:
        opened(tmp_path)
    assert "\n" not in str(raised.value)
    assert "Delete that folder" in str(raised.value)
    shutil.rmtree(home_of(tmp_path))
    opened(tmp_path).close()


def test_a_disk_that_refuses_leaves_no_lock_and_no_half_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(StorageError, match="No space left"):
            opened(tmp_path)
    assert not home_of(tmp_path).exists()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "touch", full)
        with pytest.raises(StorageError, match="No space left"):
            opened(tmp_path)
    assert run_elsewhere(tmp_path, "print(len(opened().documents))").strip() == str(len(FEW))


SCRIPT = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from fakes import PatchStatistics
from flawscope.tools.knowledge import builder, milvus, schema
few = tuple(page for page in schema.load_documents() if page.doc_id in {few!r})
def opened():
    return builder.open_knowledge_base(Path({folder!r}), PatchStatistics(), documents=few)
def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
{action}
"""


def run_elsewhere(folder: Path, action: str, returncode: int = 0) -> str:
    script = SCRIPT.format(
        tests=str(Path(__file__).parents[1]), few=sorted(FEW_DOCUMENTS), folder=str(folder), action=action
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == returncode, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "moment",
    [
        "builder.write_json_atomically = die",  # vectors are written, the manifest is not
        "whole = milvus.MilvusLiteStore.upsert\n"
        "milvus.MilvusLiteStore.upsert = lambda self, records: (whole(self, records[:2]), die())",  # half full
    ],
    ids=["no manifest", "half a store"],
)
def test_the_next_run_completes_what_a_killed_one_began(tmp_path: Path, moment: str) -> None:
    run_elsewhere(tmp_path, f"{moment}\nopened()", returncode=-9)
    base = opened(tmp_path)
    assert base._store.doc_ids() == FEW_DOCUMENTS
    assert ids(base)
    base.close()


def test_closing_lets_another_process_in(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    first, second = opened(tmp_path), opened(tmp_path)
    first.close()
    probe = "from flawscope.agent.errors import KnowledgeLockedError\n" + (
        "try:\n    opened()\n    print('in')\nexcept KnowledgeLockedError:\n    print('locked')"
    )
    assert run_elsewhere(tmp_path, probe).strip() == "locked"
    second.close()
    assert run_elsewhere(tmp_path, probe).strip() == "in"


def test_a_race_for_the_lock_is_lost_without_a_traceback(built: Path, tmp_path: Path) -> None:
    """Two commands find the lock free, and one is first: the engine logs the other's failure with its whole stack."""
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    first = opened(tmp_path)
    lost = (
        "import contextlib, io\n"
        "from flawscope.agent.errors import KnowledgeLockedError\n"
        "looked, real = [], milvus.refuse_foreign_owner\n"
        "milvus.refuse_foreign_owner = lambda path: real(path) if looked else looked.append(path)\n"
        "said = io.StringIO()\n"
        "with contextlib.redirect_stderr(said):\n"
        "    try:\n        opened()\n    except KnowledgeLockedError:\n        print('locked')\n"
        "print(said.getvalue())"
    )
    assert run_elsewhere(tmp_path, lost).strip() == "locked"
    first.close()
