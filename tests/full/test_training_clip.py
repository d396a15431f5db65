"""The recipe for CLIP's prompts on a tiny CLIP: it learns, it resumes, and the towers stay as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full.tiny_clip import build_tiny_clip
from full.training_data import pair, small_prompts, write_products

from flawscope.agent.errors import WeightsError
from flawscope.tools.ad_expert.trained_prompts import load_trained_prompts
from flawscope.tools.backbones.clip import ClipBackbone, load_clip
from flawscope.training.checkpoint import state_sha256
from flawscope.training.loop import seed_everything
from flawscope.training.zero_shot import (
    PROMPTS_FILE,
    PromptTask,
    build_prompt_samples,
    train_prompts,
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ClipBackbone:
    folder = build_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny")
    return load_clip(folder, "ViT-L-14-336-quickgelu", image_size_px=48, home_models=folder, device="cpu")


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return pair(write_products(tmp_path_factory.mktemp("data")))


@pytest.mark.parametrize("prompt", ["none", "sparse"])
def test_training_lowers_the_loss_and_leaves_clip_alone(
    prompt: str, clip: ClipBackbone, products: Any, tmp_path: Path
) -> None:
    before = state_sha256(clip.model.state_dict())
    card = train_prompts(products[:1], products[1:], clip, tmp_path, small_prompts(prompt, epochs=3))
    losses = card["history"]["losses"]
    assert losses[-1] < losses[0]
    assert 0 <= card["metrics"]["held-out image AUROC"] <= 1
    assert state_sha256(clip.model.state_dict()) == before
    if prompt == "none":
        anchors = load_trained_prompts(tmp_path / PROMPTS_FILE, clip)
        assert anchors.dim == 32
        assert anchors.names == ("generic",)
    else:
        with pytest.raises(WeightsError, match="--prompt none"):
            load_trained_prompts(tmp_path / PROMPTS_FILE, clip)


def test_sparse_prompts_change_nothing_before_the_first_step(clip: ClipBackbone, products: Any) -> None:
    samples = build_prompt_samples(products[:1], small_prompts())
    looks = []
    for prompt in ("none", "sparse"):
        seed_everything(0)
        task = PromptTask(samples, [], clip, small_prompts(prompt))
        with torch.no_grad():
            looks.append(task._look(samples[0])[:2])
    torch.testing.assert_close(looks[0][0], looks[1][0], atol=1e-4, rtol=1e-4)
    for plain, sparse in zip(looks[0][1], looks[1][1], strict=True):
        torch.testing.assert_close(plain, sparse, atol=1e-4, rtol=1e-4)


def test_the_loss_is_finite_and_reaches_every_trainable_weight_once_visual_prompts_are_open(
    clip: ClipBackbone, products: Any
) -> None:
    seed_everything(0)
    task = PromptTask(build_prompt_samples(products[:1], small_prompts()), [], clip, small_prompts("sparse"))
    task.module.sparse.open_visual()  # type: ignore[union-attr]
    task.module.sparse.text_gate.data.fill_(0.1)  # type: ignore[union-attr]
    loss = task.loss(range(4))
    loss.backward()
    assert torch.isfinite(loss)
    silent = [name for name, p in task.module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_mixed_precision_stays_close_and_keeps_weights_in_fp32(
    clip: ClipBackbone, products: Any, tmp_path: Path
) -> None:
    full = train_prompts(products[:1], [], clip, tmp_path / "fp32", small_prompts("sparse", epochs=1))
    mixed = train_prompts(
        products[:1], [], clip, tmp_path / "bf16", small_prompts("sparse", epochs=1, precision="bf16")
    )
    assert mixed["history"]["losses"][0] == pytest.approx(full["history"]["losses"][0], rel=0.05)


def test_a_run_of_prompts_resumes_to_the_same_bits(clip: ClipBackbone, products: Any, tmp_path: Path) -> None:
    run = small_prompts("sparse", checkpoint_every=1)
    whole = train_prompts(products[:1], [], clip, tmp_path / "whole", run)

    class StoppedError(Exception):
        pass

    def stop(_: str, done: int, total: int) -> None:
        if done == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        train_prompts(products[:1], [], clip, tmp_path / "cut", run, report=stop)
    resumed = train_prompts(products[:1], [], clip, tmp_path / "cut", run, resume=True)
    assert resumed["weights_sha256"] == whole["weights_sha256"]


def test_samples_have_masks_where_they_were_drawn(products: Any) -> None:
    samples = build_prompt_samples(products[:1], replace(small_prompts(), max_pictures=20))
    assert len(samples) == 7 + 6 + 6
    assert sum(sample.mask is None for sample in samples) == 2
    assert all(np.any(s.mask) == s.defective for s in samples if s.mask is not None)
    assert len(build_prompt_samples(products[:1], small_prompts(), labelled_only=True)) == 2
