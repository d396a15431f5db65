"""``kb search`` by words in pictures with CLIP's own towers: what is kept, what is computed, and what is shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes import texture, with_square
from full.tiny_clip import build_tiny_clip
from PIL import Image

from flawscope.cli import main
from flawscope.prompts import load_prompts
from flawscope.tools.backbones.clip import ClipBackbone, load_clip
from flawscope.tools.knowledge import builder
from flawscope.tools.knowledge.builder import open_knowledge_base
from flawscope.tools.knowledge.drawings import draw_defect
from flawscope.tools.knowledge.features import grid_weights
from flawscope.tools.knowledge.joint import encode_words
from flawscope.tools.knowledge.schema import load_documents

PAGES = ("general.scratch", "general.crack", "general.hole", "textile.good")
FEW = tuple(page for page in load_documents() if page.doc_id in PAGES)
LONG = "a dark narrow line that runs across the whole width of the part and ends at its rim " * 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def backbone(folder: Path) -> ClipBackbone:
    return load_clip(folder, "tiny", image_size_px=48, home_models=Path("/nowhere"), device="cpu")


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def test_the_cosine_is_that_of_the_two_towers(backbone: ClipBackbone, tmp_path: Path) -> None:
    base = open_knowledge_base(tmp_path, backbone, documents=FEW, store="memory")
    (hit,) = base.search("a scratch across the sheet", type_name="scratch")
    variants = []
    for variant in range(builder.VARIANTS):
        drawn = draw_defect(str(hit.page.drawing), variant=variant, size=builder.PICTURE_SIDE_PX)
        seen = backbone.encode_image(drawn.image[None])
        share = grid_weights(drawn.mask, seen.grid).astype(np.float64)
        patches = share @ seen.patch_tokens[-1][0] / share.sum()
        variants.append(unit(unit(seen.global_features[0].astype(np.float64)) + unit(patches)))
    sentences = [s.format(words="a scratch across the sheet") for s in load_prompts("search").sections.values()]
    words = unit(backbone.encode_text(sentences).astype(np.float64).mean(axis=0))
    assert hit.word_similarity == pytest.approx(float(unit(np.mean(variants, axis=0)) @ words), abs=1e-5)
    assert hit.ranks == {"words": 1, "words_to_picture": 1}


def test_a_text_longer_than_clip_reads_is_read_in_pieces(backbone: ClipBackbone) -> None:
    whole = encode_words(backbone, LONG)
    assert np.linalg.norm(whole) == pytest.approx(1.0, abs=1e-5)
    assert float(whole @ encode_words(backbone, LONG[: len(LONG) // 8])) > 0.9


def test_the_command_shows_which_rank_came_from_which(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(builder, "load_documents", lambda: FEW)
    environment = {
        "FLAWSCOPE_HOME": str(tmp_path / "home"),
        "FLAWSCOPE_BACKBONE": "clip",
        "FLAWSCOPE_CLIP_WEIGHTS": str(folder),
        "FLAWSCOPE_CLIP_MODEL": "tiny",
        "FLAWSCOPE_CLIP_IMAGE_SIZE_PX": "48",
        "FLAWSCOPE_STORE": "memory",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    command = runner(monkeypatch, capsys)
    photo = tmp_path / "photo.png"
    Image.fromarray(with_square(texture(5))).save(photo)
    command("kb", "add", photo, "--note", "burr on the edge", "--product", "plate", "--author", "Ada")
    rows = [json.loads(line) for line in command("kb", "search", "burr", "-k", 9, "--json").splitlines()]
    assert {row["document"] for row in rows} >= {"general.scratch", "general.crack", "general.hole"}
    shown = {row["product"]: row for row in rows}
    assert shown["plate"]["ranks"].keys() == {"words", "words_to_picture"}
    assert -1 <= shown["plate"]["words_to_picture"] <= 1
    assert all((row["words_to_picture"] is None) == (row["document"] == "textile.good") for row in rows)
    assert sorted(row["ranks"]["words_to_picture"] for row in rows if row["document"] != "textile.good") == [1, 2, 3, 4]
    both = command("kb", "search", "burr", "--picture", photo, "--json").splitlines()
    assert json.loads(both[0])["ranks"].keys() >= {"words", "picture"}
    assert "words_to_picture" in command("kb", "search", "burr").splitlines()[0]


def runner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*arguments: object) -> str:
        monkeypatch.setattr("sys.argv", ["flawscope", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        seen = capsys.readouterr()
        assert not end.value.code, seen.err
        return seen.out

    return run
