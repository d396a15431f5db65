"""The zero-shot benchmark from the command line: what its prompts name, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import ColourWords
from scripted_scorer import build

from flawscope.agent.home import Home
from flawscope.tools.ad_expert.prompt_ensemble import ensemble_anchors
from flawscope.tools.ad_expert.text_anchors import TextAnchors
from flawscope.tools.ad_expert.type_centroids import TypeCentroids
from flawscope.tools.ad_expert.type_prompts import type_anchors
from flawscope.tools.ad_expert.type_store import save_centroids
from flawscope.tools.ad_expert.zero_shot import ZeroShotExpert
from flawscope.tools.backbones import BACKBONES
from flawscope.tools.imaging import load_image

KNOWN_AS = {"candle": "candle", "pcb1": "pcb"}
"""What prompts call the products of the small data set."""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(BACKBONES, "colour-words", lambda loaded: ColourWords())
    return build(tmp_path / "visa")


def make_centroids(home: Path, product: str = "plate") -> None:
    """Two types that are alike to every picture, so that each is looked at with both."""
    vectors = np.tile(np.eye(ColourWords.dim, dtype=np.float32)[0], (2, 1))
    sources = [{"product": product, "label": "hole", "type": "hole", "count": 5}]
    origin = {"weighting": "mask", "refined": False, "sources": sources, "left_out": []}
    save_centroids(Home(home), ColourWords(), TypeCentroids(("hole", "scratch"), np.array([5, 5]), vectors), origin)


def bench(cli: Any, data: Path, *arguments: object) -> Any:
    return cli("bench", "zsad", "--data", data, "--backbone", "colour-words", *arguments)


def scores_of(folder: Path) -> dict[str, float]:
    records = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
    return {record["picture"]: record["image_score"] for record in records}


def anchors_of(form: str, product: str) -> TextAnchors:
    """The words of the last look at any picture of the product."""
    noun, types = KNOWN_AS[product], ("hole", "scratch")
    made = {
        "base": lambda: ensemble_anchors(ColourWords()),
        "obj": lambda: ensemble_anchors(ColourWords(), noun),
        "cls": lambda: type_anchors(ColourWords(), types),
        "both": lambda: type_anchors(ColourWords(), types, noun=noun),
    }
    return made[form]()


def test_each_variant_compares_with_its_own_words(cli: Any, data: Path, tmp_path: Path) -> None:
    make_centroids(cli.home)
    seen = {}
    for form in ("base", "obj", "cls", "both"):
        result = bench(cli, data, "--types", form, "--out", tmp_path / form)
        assert (result.code, result.err) == (0, "")
        assert f"2 of 12 classes, prompts {form}, %" in result.out
        assert f"this run, prompts {form} " in result.out
        scorer = json.loads((tmp_path / form / "result.json").read_text())["protocol"]["scorer"]
        assert scorer["types"] == form
        assert (scorer["types_sha256"] is None) == (form in ("base", "obj"))
        seen[form] = scores_of(tmp_path / form)
        assert len(seen[form]) == 16
        for picture, score in seen[form].items():
            expert = ZeroShotExpert(ColourWords(), anchors_of(form, picture.split("/")[0]))
            assert score == expert.score(load_image(data / picture).rgb)[0]  # to the bit
    for picture in seen["base"]:
        assert len({scores[picture] for scores in seen.values()}) == 4


def test_variants_never_share_scores(cli: Any, data: Path, tmp_path: Path) -> None:
    make_centroids(cli.home)
    assert bench(cli, data, "--types", "base", "--out", tmp_path / "run").code == 0
    kept = (tmp_path / "run/scores.jsonl").read_bytes()
    for form in ("obj", "cls", "both"):
        bench(cli, data, "--types", form, "--out", tmp_path / "run").refused(2, "holds another run", "scorer")
    assert (tmp_path / "run/scores.jsonl").read_bytes() == kept


def test_without_the_option_it_looks_as_an_inspection_does(cli: Any, data: Path, tmp_path: Path) -> None:
    assert "prompts base" in bench(cli, data, "--out", tmp_path / "generic").out
    base = bench(cli, data, "--types", "base", "--out", tmp_path / "generic")
    assert base.code == 0  # the same run
    make_centroids(cli.home)
    assert "prompts cls" in bench(cli, data, "--out", tmp_path / "typed").out
    assert bench(cli, data, "--types", "cls", "--out", tmp_path / "typed").code == 0
    assert scores_of(tmp_path / "generic") != scores_of(tmp_path / "typed")


@pytest.mark.parametrize("form", ["cls", "both"])
def test_types_without_centroids_are_told_in_one_line(cli: Any, data: Path, tmp_path: Path, form: str) -> None:
    result = bench(cli, data, "--types", form, "--out", tmp_path / "run")
    result.refused(2, f"--types {form}", "flawscope kb types build --data FOLDER")
    assert not (tmp_path / "run").exists()


def test_types_learnt_on_the_tested_set_only_matter_where_they_are_used(cli: Any, data: Path) -> None:
    make_centroids(cli.home, product="candle")
    bench(cli, data).refused(2, "trained on VisA")
    bench(cli, data, "--types", "both").refused(2, "trained on VisA")
    result = bench(cli, data, "--types", "obj")
    assert result.code == 0
    assert "trained on nothing named" in result.out


def test_a_backbone_without_words_cannot_judge_without_references(cli: Any, tmp_path: Path) -> None:
    result = cli("bench", "zsad", "--data", build(tmp_path / "visa"))
    assert (result.code, result.out) == (7, "")
    assert "has no text tower" in result.err
    assert "--profile paper" in result.err


def test_weights_that_are_absent_are_told_in_one_line(cli: Any, tmp_path: Path) -> None:
    given = ("--backbone", "clip", "--weights", tmp_path / "none.safetensors")
    result = cli("bench", "zsad", "--data", build(tmp_path / "visa"), *given)
    assert (result.code, len(result.err.splitlines())) == (9, 1)
    assert "none.safetensors" in result.err
