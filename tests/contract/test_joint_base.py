"""A base of a backbone with a text tower: what it keeps for words, and that other bases keep what they kept."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FEW_DOCUMENTS
from fakes import ColourWords, PatchStatistics

from flawscope.agent.errors import KnowledgeError
from flawscope.tools.knowledge import builder
from flawscope.tools.knowledge.bm25 import WordIndex
from flawscope.tools.knowledge.builder import content_hash, open_knowledge_base
from flawscope.tools.knowledge.fusion import fuse
from flawscope.tools.knowledge.schema import load_documents
from flawscope.tools.knowledge.search import DEPTH

FEW = tuple(page for page in load_documents() if page.doc_id in FEW_DOCUMENTS)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("joint")
    open_knowledge_base(folder, ColourWords(), documents=FEW, store="memory").close()
    return folder


def arrays(folder: Path, backbone: Any) -> dict[str, np.ndarray]:
    with np.load(folder / content_hash(FEW, backbone)[:16] / "vectors.npz") as file:
        return dict(file)


def test_pages_with_a_picture_keep_a_vector_for_words(built: Path) -> None:
    kept = arrays(built, ColourWords())
    lengths = np.linalg.norm(kept["joint"], axis=1)
    assert kept["joint"].shape == (len(FEW), ColourWords.dim)
    assert kept["joint"].dtype == np.float32
    assert [length == pytest.approx(1.0) for length in lengths] == [page.drawing is not None for page in FEW]


def test_a_base_without_a_text_tower_keeps_what_it_kept(tmp_path: Path) -> None:
    base = open_knowledge_base(tmp_path, PatchStatistics(), documents=FEW, store="memory")
    assert not base.reads_pictures
    assert set(arrays(tmp_path, PatchStatistics())) == {"vectors", "mean", "spread"}


def test_what_is_kept_for_words_is_versioned_where_there_is_any(monkeypatch: pytest.MonkeyPatch) -> None:
    before = content_hash(FEW, ColourWords()), content_hash(FEW, PatchStatistics())
    monkeypatch.setattr(builder, "JOINT_FORMAT", 99)
    assert content_hash(FEW, ColourWords()) != before[0]
    assert content_hash(FEW, PatchStatistics()) == before[1]


def test_an_opened_base_ranks_by_what_its_pictures_show(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any) -> None:
        raise AssertionError("embedded again")

    monkeypatch.setattr(builder, "drawing_features", never)
    base = open_knowledge_base(built, ColourWords(), documents=FEW, store="memory")
    assert base.reads_pictures
    pictured = [page.doc_id for page in FEW if page.drawing]
    hits = base.search("xylophone", k=9)
    assert {hit.page.doc_id for hit in hits} == set(pictured)  # no page holds the word
    assert [hit.ranks for hit in hits] == [{"words_to_picture": n} for n in range(1, len(pictured) + 1)]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert [hit.page.defect_type for hit in base.search("xylophone", type_name="crack")] == ["crack"]
    said = next(hit for hit in base.search("light thread", k=9) if hit.page.doc_id == "textile.good")
    assert set(said.ranks) == {"words"}


def test_damage_to_what_is_kept_for_words_is_damage(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    kept = arrays(tmp_path, ColourWords())
    path = tmp_path / content_hash(FEW, ColourWords())[:16] / "vectors.npz"
    kept["joint"][0, 0] += 1.0
    np.savez(path, **kept)
    with pytest.raises(KnowledgeError, match="damaged"):
        open_knowledge_base(tmp_path, ColourWords(), documents=FEW, store="memory")


def test_pictures_that_tell_nothing_cost_pages_without_one_little() -> None:
    pages = load_documents()
    index = WordIndex([page.model_copy(update={"description": ""}).searchable_text() for page in pages])
    drawn = [n for n, page in enumerate(pages) if page.drawing]
    undrawn = {page.doc_id for page in pages if not page.drawing}
    rng, right = np.random.default_rng(0), {"words": 0, "plain": 0, "as built": 0}
    asked = [page for page in pages if page.defect_type != "good"][::3]
    for page in asked:
        scores = index.scores(page.description)
        words = [pages[n].doc_id for n in np.argsort(-scores, kind="stable")[:DEPTH] if scores[n] > 0]
        pictures = [pages[n].doc_id for n in rng.permutation(drawn)][:DEPTH]
        orders = {"words": [words], "plain": [words, pictures], "as built": [words, pictures]}
        for way, rankings in orders.items():
            fused = fuse(rankings, undrawn if way == "as built" else ())
            right[way] += page.doc_id in {doc_id for doc_id, _ in fused[:4]}
    assert right["as built"] > 0.8 * right["words"]
    assert right["plain"] < 0.4 * right["words"]  # what the place counted twice is for
