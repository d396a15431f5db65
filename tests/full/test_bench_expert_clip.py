"""``bench expert`` on a CLIP of random weights that is small enough for a test."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from full.tiny_clip import MODEL_CFG
from PIL import Image

from flawscope.benchmarks.expert_clip import bare_clip, time_clip
from flawscope.benchmarks.random_clip import random_anchors, random_clip


def pictures(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (60, 72, 3), dtype=np.uint8)).save(path)
    return paths


def test_words_and_references_are_timed_beside_both_forms_of_the_tower(tmp_path: Path) -> None:
    backbone = random_clip(MODEL_CFG)
    rows, batch = time_clip(
        backbone, pictures(tmp_path / "good", 4), pictures(tmp_path / "test", 1), 1, lambda text: None
    )
    assert [row.name for row in rows] == ["zero-shot", "4 refs", "zero-shot, plain", "4 refs, plain"]
    assert rows[0].whole == rows[2].whole  # the same pass beside two others
    assert rows[0].forward != rows[2].forward
    assert all(row.whole > row.stages["localise"] > 0 for row in rows)
    assert (batch.size, batch.repeats) == (2, 3)
    assert "random weights, timing only" in batch.name


def test_the_checkpoint_is_gone_and_the_caller_keeps_its_random_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    first, again = random_clip(MODEL_CFG), random_clip(MODEL_CFG)
    assert first.weights_sha256 == again.weights_sha256
    assert torch.equal(torch.rand(3), wanted)
    assert not list(tmp_path.iterdir())
    assert first.image_size_px == 48


def test_the_bare_pass_sees_what_the_backbone_sees() -> None:
    backbone = random_clip(MODEL_CFG)
    batch = np.random.default_rng(0).integers(0, 255, (1, 48, 48, 3), dtype=np.uint8)
    seen, passes = backbone.encode_image(batch), bare_clip(backbone, batch)
    bare = passes["forward"]()
    np.testing.assert_array_equal(bare.patch_tokens[-1].numpy(), seen.patch_tokens[-1])
    plain = torch.nn.functional.normalize(passes["plain"](), dim=-1)
    np.testing.assert_allclose(plain.numpy(), seen.global_features, atol=1e-4)


def test_anchors_are_unit_vectors() -> None:
    anchors = random_anchors(32)
    np.testing.assert_allclose(np.linalg.norm([anchors.normal, anchors.abnormal[0]], axis=1), 1.0, atol=1e-6)
