"""Prior tokens: whose they are, how long, and that leaving them out leaves nothing behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from flawscope.agent.errors import WeightsError
from flawscope.agent.vision_language import Message, Picture, Slot
from flawscope.agent.vision_language.checkpoint import load_checkpoint
from flawscope.agent.vision_language.identity import checkpoint_sha256
from flawscope.agent.vision_language.prior import (
    FORMAT,
    PRIOR_TOKENS,
    PriorTokens,
    load_prior_tokens,
    patch_input,
)
from flawscope.agent.vision_language.qwen import QwenModel
from flawscope.tools.ad_expert.evidence_tokens import EvidenceTokenizer
from flawscope.tools.backbones import VisualFeatures
from tests.tiny_vlm import build_tiny_checkpoint

BACKBONE = "0" * 64
WIDTH, DEPTH, GRID = 64, 10, (6, 8)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> QwenModel:
    return QwenModel(load_checkpoint(checkpoint, device="cpu"))


def header(owner: QwenModel, /, **changed: str) -> dict[str, str]:
    return {
        "format": FORMAT,
        "backbone": "patch-statistics",
        "backbone_sha256": BACKBONE,
        "model": owner.name,
        "model_sha256": checkpoint_sha256(owner.checkpoint.folder),
        "width": str(WIDTH),
        "patch_dim": str(DEPTH),
        "steps": "3",
        **changed,
    }


def written(path: Path, given: dict[str, str], width: int = WIDTH, depth: int = DEPTH) -> Path:
    torch.manual_seed(0)
    save_file(EvidenceTokenizer(depth, width).state_dict(), path, given)
    return path


def seen(scale: float = 1.0) -> VisualFeatures:
    tokens = scale * np.random.default_rng(1).normal(size=(1, GRID[0] * GRID[1], DEPTH)).astype(np.float32)
    return VisualFeatures((tokens[..., :4], tokens), tokens.mean(axis=1), GRID)


def found(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((60, 80), np.float32)


def prompt(slot: Slot | None) -> list[Message]:
    picture = Picture(np.random.default_rng(2).integers(0, 255, (70, 90, 3), dtype=np.uint8))
    before = ("Inspection prior: ", *(() if slot is None else (slot,)), ".")
    return [Message("user", ("Inspect.", *before, picture, "Is there a defect? A. Yes. B. No."))]


def test_vectors_are_as_long_as_the_models_own_and_stand_in_their_place(model: QwenModel, tmp_path: Path) -> None:
    tokens = load_prior_tokens(written(tmp_path / "tokens.safetensors", header(model)), model, BACKBONE)
    slot = tokens.slot(found(), seen())
    assert slot.vectors is not None
    assert (slot.name, slot.length, slot.vectors.shape) == ("prior", PRIOR_TOKENS, (17, WIDTH))
    assert slot.vectors.dtype == np.float32
    rms = float(np.sqrt(np.square(slot.vectors).sum(axis=1).mean()))
    assert rms == pytest.approx(model.median_row_norm, rel=1e-5)
    encoded = model.encoder.encode(prompt(slot))
    place = encoded.slots["prior"]
    embeds = model.encoder.embeddings(encoded)
    np.testing.assert_allclose(embeds[0, place.start : place.stop].detach().numpy(), slot.vectors)
    assert (
        model.choose(prompt(slot), ("A", "B")).probabilities
        != model.choose(prompt(tokens.slot(found(1), seen())), ("A", "B")).probabilities
    )


def test_prior_tokens_that_are_off_leave_the_prompt_as_if_there_were_none(model: QwenModel) -> None:
    bare = [Message("user", ("Inspect.", "Inspection prior: ", ".", "Is there a defect? A. Yes. B. No."))]
    empty = [
        Message("user", ("Inspect.", "Inspection prior: ", Slot("prior", 0), ".", "Is there a defect? A. Yes. B. No."))
    ]
    tokens = PriorTokens(EvidenceTokenizer(DEPTH, WIDTH).eval(), model.median_row_norm)
    filled = [Message("user", (*bare[0].parts[:2], tokens.slot(found(), seen()), *bare[0].parts[2:]))]
    ids, off, on = (model.encoder.encode(messages).input_ids for messages in (bare, empty, filled))
    assert torch.equal(ids, off)
    assert on.shape[1] == ids.shape[1] + PRIOR_TOKENS
    place = model.encoder.encode(filled).slots["prior"]
    assert torch.equal(torch.cat([on[:, : place.start], on[:, place.stop :]], dim=1), ids)


def test_zeros_in_their_place_are_not_the_same_as_no_tokens(model: QwenModel) -> None:
    zeros = Slot("prior", PRIOR_TOKENS, np.zeros((PRIOR_TOKENS, WIDTH), np.float32))
    off, muted = (model.choose(prompt(slot), ("A", "B")).probabilities for slot in (None, zeros))
    assert off != muted


def test_the_scale_of_a_backbone_does_not_matter(model: QwenModel) -> None:
    np.testing.assert_allclose(patch_input(seen()), patch_input(seen(1e3)), rtol=1e-4)
    assert np.square(patch_input(seen())).mean(axis=1) == pytest.approx(1.0, rel=1e-5)
    dark = VisualFeatures((np.zeros((1, 4, 3), np.float32),), np.zeros((1, 3), np.float32), (2, 2))
    assert not patch_input(dark).any()


def test_padding_changes_no_vector(model: QwenModel) -> None:
    torch.manual_seed(0)
    tokens = PriorTokens(EvidenceTokenizer(DEPTH, WIDTH).eval(), model.median_row_norm)
    valid = np.arange(48) < 40
    patches = patch_input(seen())
    loud = np.where(valid[:, None], patches, np.float32(50.0))
    np.testing.assert_allclose(
        tokens.vectors(found(), patches, GRID, valid), tokens.vectors(found(), loud, GRID, valid), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("bad", [np.full((4, 4), 1.5, np.float32), np.full((4, 4), np.nan, np.float32), np.zeros(4)])
def test_a_map_that_is_not_calibrated_is_refused(bad: np.ndarray, model: QwenModel) -> None:
    tokens = PriorTokens(EvidenceTokenizer(DEPTH, WIDTH).eval(), model.median_row_norm)
    with pytest.raises(ValueError, match="calibrated"):
        tokens.slot(bad, seen())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": "0"}, "untrained"),
        ({"steps": "some"}, "untrained"),
        ({"format": "flawscope-clip-prompts-1"}, "no prior tokens"),
        ({"backbone_sha256": "1" * 64, "backbone": "clip"}, "made for the backbone clip"),
        ({"model_sha256": "1" * 64, "model": "qwen2.5-vl-7b", "width": "3584"}, "qwen2.5-vl-7b of width 3584"),
        ({"width": "32"}, "damaged"),
        ({"patch_dim": "none"}, "damaged"),
    ],
)
def test_files_made_for_something_else_are_refused(
    changed: dict[str, str], message: str, model: QwenModel, tmp_path: Path
) -> None:
    path = written(tmp_path / "tokens.safetensors", header(model, **changed))
    with pytest.raises(WeightsError, match=message):
        load_prior_tokens(path, model, BACKBONE)


def test_missing_damaged_and_poisoned_files_are_refused(model: QwenModel, tmp_path: Path) -> None:
    path = tmp_path / "tokens.safetensors"
    with pytest.raises(WeightsError, match="no file"):
        load_prior_tokens(path, model, BACKBONE)
    path.write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_prior_tokens(path, model, BACKBONE)
    state = load_file(written(path, header(model)))
    save_file({**state, "loc.to_tokens.bias": torch.full((WIDTH,), float("nan"))}, path, header(model))
    with pytest.raises(WeightsError, match="damaged"):
        load_prior_tokens(path, model, BACKBONE)
    save_file({name: value for name, value in state.items() if "loc" in name}, path, header(model))
    with pytest.raises(WeightsError, match="damaged"):
        load_prior_tokens(path, model, BACKBONE)


def test_another_checkpoint_of_the_same_size_has_another_hash(model: QwenModel, tmp_path: Path) -> None:
    folder = model.checkpoint.folder
    other = build_tiny_checkpoint(tmp_path / "other", seed=1)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert checkpoint_sha256(copy) == checkpoint_sha256(folder) != checkpoint_sha256(other)
    with pytest.raises(WeightsError, match=r"no \.safetensors"):
        checkpoint_sha256(tmp_path)
