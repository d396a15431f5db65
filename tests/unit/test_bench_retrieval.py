from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flawscope.agent.errors import InputError
from flawscope.benchmarks import retrieval
from flawscope.benchmarks.retrieval import ARMS, KEYS, METRICS, SCOPES, Arm, grade, render, run_retrieval, subtopics
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
    assert told[-1] == "split 2 of 2"
    assert result.products == {"leather": 4}
    assert set(result.rows) == {(key, scope, arm.label) for key in KEYS for scope in SCOPES for arm in ARMS}
    for values in result.rows.values():
        assert set(values) == set(METRICS)
        assert all(len(per_split) == 2 for per_split in values.values())
        assert all(0.0 <= v <= 1.0 for metric in ("seek", "recall", "MRR", "nDCG") for v in values[metric])
    assert result.rows["whole picture", "product given", "top_k"]["seek"] == [1.0, 1.0]
    assert result.by_product["whole picture", "product given", "top_k", "leather"] == [1.0, 1.0]
    text = render(result)
    assert max(len(line) for line in text.splitlines()) <= 120
    assert "key: suspicious area, product unknown" in text
    assert "100.0±0.0" in text
    assert "[" not in text  # a console would read it as markup


def test_an_arm_says_what_differs_from_the_default() -> None:
    assert [Arm("mmr").label, Arm("paper", 16).label, Arm("relevance", budget=600).label] == [
        "mmr",
        "paper, pool 16",
        "relevance, 600 tokens",
    ]


def test_data_without_described_types_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a folder"):
        run_retrieval(tmp_path / "nowhere", backbone=ColourBackbone())
    (tmp_path / "nameless/test/odd").mkdir(parents=True)
    with pytest.raises(InputError, match="no product"):
        run_retrieval(tmp_path, backbone=ColourBackbone())
