from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flawscope.agent.errors import InputError
from flawscope.benchmarks import retrieval
from flawscope.benchmarks.retrieval import ARMS, BUDGET_ARMS, KEYS, SCOPES, Arm, render, run_retrieval
from flawscope.benchmarks.retrieval_data import Entry
from flawscope.benchmarks.retrieval_judge import METRICS, Judge, grade, subtopics
from flawscope.benchmarks.retrieval_unknown import Asked, UnknownResult
from flawscope.benchmarks.retrieval_words import WORDINGS, WordsResult, measure_words, without
from flawscope.tools.backbones import VisualFeatures
from flawscope.tools.knowledge.schema import KnowledgeDocument, load_documents

PAGES = {page.doc_id: page for page in load_documents()}


class ColourBackbone:
    """Mean colour of each cell, and its square: enough to tell red from blue."""

    name, weights_sha256, has_text, image_size_px = "colours", "0" * 64, False, None

    def encode_image(self, batch: np.ndarray) -> VisualFeatures:
        b, h, w, c = batch.shape
        cells = batch.reshape(b, h // 16, 16, w // 16, 16, c).mean(axis=(2, 4)).reshape(b, -1, c).astype(np.float32)
        tokens = np.concatenate([cells, cells**2 / 255.0], axis=2)
        return VisualFeatures((tokens,), tokens.mean(axis=1), (h // 16, w // 16))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Leather cuts are red and glue is blue; two references are plain."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    colours = {"train/good": (120, 120, 120), "test/cut": (220, 30, 30), "test/glue": (30, 30, 220)}
    for folder, colour in colours.items():
        (root / "leather" / folder).mkdir(parents=True)
        for number in range(2 if folder.startswith("train") else 4):
            picture = np.full((64, 64, 3), 120, np.uint8) + rng.integers(0, 9, (64, 64, 1), dtype=np.uint8)
            picture[16:48, 16:48] = colour
            Image.fromarray(picture).save(root / "leather" / folder / f"{number:03d}.png")
    (root / "nameless/test/odd").mkdir(parents=True)  # no page describes it
    return root


def page(doc_id: str) -> KnowledgeDocument:
    return PAGES[doc_id]


def test_grades_follow_product_and_type() -> None:
    cut = page("leather.cut")
    general = next(p for p in PAGES.values() if p.scope == "general" and p.defect_type == cut.canonical_type)
    other = next(p for p in PAGES.values() if p.scope == "general" and p.defect_type != cut.canonical_type)
    assert grade(cut, cut) == 2
    assert grade(cut, page("leather.glue")) == 1  # same product
    assert grade(cut, general) == 1  # same general type
    assert grade(cut, other) == 0


def test_subtopics_are_those_of_use_to_the_query() -> None:
    cut = page("leather.cut")
    general = next(p for p in PAGES.values() if p.scope == "general" and p.defect_type == cut.canonical_type)
    assert subtopics(cut, general) == {"type description", "cause"}
    assert subtopics(cut, page("leather.glue")) <= {"product facts", "scenario"}
    other = next(p for p in PAGES.values() if p.scope == "general" and p.defect_type != cut.canonical_type)
    assert subtopics(cut, other) == frozenset()


def test_every_arm_is_measured_and_plain_colours_are_found(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = tuple(p for p in PAGES.values() if p.product == "leather" or p.doc_id in {"general.cut", "general.stain"})
    monkeypatch.setattr(retrieval, "load_documents", lambda: few)
    told: list[str] = []
    result = run_retrieval(data, splits=2, progress=told.append, backbone=ColourBackbone())
    assert "split 2 of 2" in told
    assert result.products == {"leather": 4}
    whole = (KEYS[0], SCOPES[0])
    assert set(result.rows) == {(key, scope, arm.label) for key in KEYS for scope in SCOPES for arm in ARMS} | {
        (*whole, arm.label) for arm in BUDGET_ARMS
    }
    for rows in result.rows.values():
        assert len(rows) == 8  # four queries in each of two splits
        assert all(set(metrics) == set(METRICS) for _, _, metrics in rows)
    for metric in ("seek", "relevance", "subtopic"):
        assert result.mean(*whole, "oracle", metric) >= max(  # type: ignore[operator]
            result.mean(*whole, arm.label, metric) or 0.0 for arm in ARMS
        )
    assert result.mean(*whole, "top_k", "seek") == result.mean(*whole, "top_k", "seek", "leather") == 1.0
    assert result.interval(*whole, "top_k", "seek") == (1.0, 1.0)
    assert result.unknown.asked == []  # without the only product nothing is left to know
    assert result.unknown.empty_refused == 1.0
    text = render(result)
    assert max(len(line) for line in text.splitlines()) <= 120
    assert "key: suspicious area, product unknown" in text
    assert "mmr *, 600 tokens" in text
    assert "100.0 (100.0–100.0)" in text
    assert "[" not in text  # a console would read it as markup


def test_two_products_are_each_unknown_without_their_own_pictures(data: Path, tmp_path: Path) -> None:
    """Red and blue leather, and green tiles: a colour that is in the base is near, the other is not."""
    shutil.copytree(data / "leather", tmp_path / "leather")
    for folder, shade in {"crack": (30, 220, 30), "gray_stroke": (30, 160, 30)}.items():
        (tmp_path / "tile/test" / folder).mkdir(parents=True)
        for number in range(16):
            picture = np.full((64, 64, 3), 200, np.uint8)
            picture[8:56, 8 : 40 + number] = shade
            Image.fromarray(picture).save(tmp_path / "tile/test" / folder / f"{number:03d}.png")
    result = run_retrieval(tmp_path, splits=1, backbone=ColourBackbone())
    assert {row.out for row in result.unknown.asked} == {"leather", "tile"}
    assert result.unknown.auroc("leather") == 1.0
    assert all(row.refused for row in result.unknown.asked if row.out == "leather" and not row.is_known)


def test_an_arm_says_what_differs_from_the_default() -> None:
    assert [Arm("mmr").label, Arm("relevance", budget=600).label] == ["mmr", "relevance, 600 tokens"]


def test_the_oracle_takes_what_is_new_first_and_keeps_to_the_budget() -> None:
    cut, glue, good = page("leather.cut"), page("leather.glue"), page("leather.good")
    general = page(f"general.{cut.canonical_type}")
    entries = [Entry(p.doc_id, p, None, 100) for p in (glue, good, general, cut)]
    judge = Judge(entries, {entry.doc_id: np.ones(2, np.float32) for entry in entries})
    ids = [entry.doc_id for entry in entries]
    assert judge.oracle(cut, ids, 4, None)[0] == "leather.cut"  # tells everything that is of use
    assert len(judge.oracle(cut, ids, 4, 250)) == 2
    assert judge.oracle(cut, ids, 4, 10) == ("leather.cut",)
    without_it = judge.oracle(cut, ids[:3], 2, None)
    assert subtopics(cut, general) <= subtopics(cut, page(without_it[0])) | subtopics(cut, page(without_it[1]))


def test_words_find_a_page_by_what_was_left_out_of_its_index_only_through_other_words() -> None:
    few = [page("general.scratch"), page("general.crack"), page("leather.cut"), page("leather.good")]
    assert without(few[0], WORDINGS[0]).aliases == ()
    assert without(few[0], WORDINGS[1]).description == ""
    result = WordsResult()
    measure_words(result, few, lambda text: None)
    asked = result.words[WORDINGS[1], "all pages", "BM25"]
    assert [doc_id for doc_id, _ in asked] == ["general.scratch", "general.crack", "leather.cut"]  # none for good
    assert all(found == 1.0 for _, found in asked)  # four pages, four places


def test_the_unknown_figure_is_the_probability_that_a_known_picture_is_nearer() -> None:
    rows = [("a", True, 0.9), ("b", True, 0.5), ("c", False, 0.6), ("d", False, 0.1)]
    result = UnknownResult([Asked("x", name, known, value, False) for name, known, value in rows])
    assert result.auroc() == 0.75  # of four pairs one is the wrong way round
    assert result.auroc("another") is None
    bounds = result.auroc_interval()
    assert bounds is not None
    assert 0.0 <= bounds[0] <= 0.75 <= bounds[1] <= 1.0


def test_data_without_described_types_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a folder"):
        run_retrieval(tmp_path / "nowhere", backbone=ColourBackbone())
    (tmp_path / "nameless/test/odd").mkdir(parents=True)
    with pytest.raises(InputError, match="no product"):
        run_retrieval(tmp_path, backbone=ColourBackbone())
