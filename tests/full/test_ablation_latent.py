"""Latent reasoning and its controls as rows of the ladder, with a random checkpoint."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_vlm import build_tiny_checkpoint

from flawscope.agent.reasoner.prior_lines import Prior
from flawscope.agent.vision_language.checkpoint import load_checkpoint
from flawscope.agent.vision_language.latent import LatentSettings
from flawscope.agent.vision_language.qwen import QwenModel
from flawscope.benchmarks.ablation_tables import thought_table
from flawscope.benchmarks.mmad.arms import BY_NAME, LADDER
from flawscope.benchmarks.mmad.asking import Asking
from flawscope.benchmarks.mmad.evidence import PictureEvidence
from flawscope.benchmarks.mmad.questions import Item

OPTIONS = {"A": "Yes.", "B": "No."}


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Asking:
    from PIL import Image

    root = tmp_path_factory.mktemp("set")
    for name, grey in (("query.png", 90), ("good.png", 160)):
        (root / "a" / "b").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((56, 56, 3), grey, np.uint8)).save(root / "a" / "b" / name)
    checkpoint = build_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))
    return Asking(QwenModel(load_checkpoint(checkpoint)), root, LatentSettings(steps=2, wall_s=600.0))


@pytest.fixture
def item() -> Item:
    return Item(
        "a/b/query.png#1", "a/b/query.png", 1, "Anomaly Detection", "Defect?", OPTIONS, "A", ("a/b/good.png",), (), None
    )


@pytest.fixture
def evidence() -> PictureEvidence:
    from dataclasses import replace

    told = Prior(4.0, 2.0, 1.0, 0.97, True, True)
    spot = np.zeros((8, 8), np.float32)
    spot[1, 1] = 1.0
    pages: dict[str, tuple[()]] = {"default": ()}
    return replace(PictureEvidence.empty(), prior=told, anomaly_map=spot, s_cal=0.97, pages=pages)


@pytest.mark.parametrize("arm", [arm for arm in LADDER if arm.think is not None], ids=lambda arm: arm.name)
def test_each_row_of_latent_reasoning_says_what_was_thought(
    asking: Asking, item: Item, evidence: PictureEvidence, arm: object
) -> None:
    line = asking.line(item, arm, evidence)  # type: ignore[arg-type]
    base = asking.line(item, BY_NAME["A5"], evidence)
    assert line["base"] == base["answer"]
    assert line["positions"] > base["positions"]
    assert line["answer"] in OPTIONS
    assert line["cut"] is False
    if not line["accepted"]:
        assert line["answer"] == line["base"]
        assert line["probabilities"] == pytest.approx(base["probabilities"], abs=1e-5)
    assert thought_table({line["arm"]: [line]}).count("\n") == 2
