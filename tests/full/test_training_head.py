"""The reference head: inference without torch equals torch, and an untrained head is the memory bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import PatchStatistics, texture, with_square
from full.training_data import SMALL, pair, small_config, write_products

from flawscope.agent.errors import InputError, ProductError, WeightsError
from flawscope.tools.ad_expert.expert import ExpertConfig
from flawscope.tools.ad_expert.head_file import load_head
from flawscope.tools.ad_expert.reference_head import (
    FIRST_SPREADS,
    HeadInputs,
    HeadMemory,
    ReferenceHead,
    fit_memory,
    head_inputs,
    picture_width,
)
from flawscope.tools.ad_expert.reference_views import fit_references
from flawscope.training.embedded import HEAD_FILE, HeadTask, train_head
from flawscope.training.features import FeatureCache
from flawscope.training.head import HeadBatch, TorchReferenceHead, export_head
from flawscope.training.samples import build_samples, patch_target

DIMS = (6, 10)
PROMPTS = ("none", "sparse", "dense")


def memory_of(seeds: Sequence[int]) -> HeadMemory:
    backbone, pictures = PatchStatistics(), [texture(seed) for seed in seeds]
    features = [backbone.encode_image(rgb[None]) for rgb in pictures]
    return fit_memory(fit_references(pictures, features, backbone, ExpertConfig()), features)


def inputs(rgb: np.ndarray) -> HeadInputs:
    return head_inputs(PatchStatistics().encode_image(rgb[None]), memory_of(range(4)))


def tensors(read: HeadInputs) -> HeadBatch:
    return HeadBatch(
        torch.from_numpy(read.patches)[None],
        torch.from_numpy(read.picture)[None],
        tuple(torch.from_numpy(layer)[None] for layer in read.residuals),
        torch.from_numpy(read.distances)[None],
    )


def config(prompt: str) -> dict[str, object]:
    return {"layer_dims": list(DIMS), "prompt": prompt}


def random_head(prompt: str) -> TorchReferenceHead:
    torch.manual_seed(1)
    module = TorchReferenceHead(DIMS, hidden=8, prompt=prompt)  # type: ignore[arg-type]
    for parameter in module.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    module.after_step()
    return module.eval()


@pytest.mark.parametrize("prompt", PROMPTS)
def test_inference_without_torch_equals_torch(prompt: str, tmp_path: Path) -> None:
    read = inputs(with_square(texture(9)))
    module = random_head(prompt)
    with torch.no_grad():
        expected = module(tensors(read))[0][0].numpy().reshape(read.grid)
    export_head(module.state_dict(), config(prompt)).save(tmp_path / "head.npz")
    np.testing.assert_allclose(
        load_head(tmp_path / "head.npz").logits(read), expected, atol=1e-5 * np.abs(expected).max()
    )


@pytest.mark.parametrize("prompt", PROMPTS)
def test_an_untrained_head_is_the_standardised_distance(prompt: str) -> None:
    read = inputs(with_square(texture(9)))
    module = TorchReferenceHead(DIMS, prompt=prompt)  # type: ignore[arg-type]
    logits = export_head(module.state_dict(), config(prompt)).logits(read).ravel()
    np.testing.assert_allclose(logits, read.patches[:, len(DIMS) - 1] - FIRST_SPREADS, atol=1e-5)
    np.testing.assert_array_equal(np.argsort(logits, kind="stable"), np.argsort(read.distances, kind="stable"))


def test_a_batch_is_judged_as_its_pictures_one_by_one() -> None:
    module = random_head("sparse")
    reads = [tensors(inputs(texture(seed))) for seed in (20, 21)]
    together = HeadBatch(
        torch.cat([r.patches for r in reads]),
        torch.cat([r.picture for r in reads]),
        tuple(torch.cat(layer) for layer in zip(*(r.residuals for r in reads), strict=True)),
        torch.cat([r.distances for r in reads]),
    )
    with torch.no_grad():
        both = module(together)[0]
        alone = torch.cat([module(read)[0] for read in reads])
    torch.testing.assert_close(both, alone, atol=1e-5, rtol=1e-5)


def test_a_patch_farther_from_good_parts_is_never_less_suspicious_after_any_training() -> None:
    module = random_head("sparse")
    module.gains.data.fill_(-1.0)
    module.after_step()
    assert (module.gains >= 0).all()
    module.gains.data.uniform_(0, 2)
    read = inputs(with_square(texture(9)))
    head = export_head(module.state_dict(), config("sparse"))
    farther = replace(read, patches=read.patches + 1.0)
    assert (head.logits(farther) >= head.logits(read)).all()


def test_a_picture_of_the_references_has_no_distance_and_no_residual() -> None:
    read = inputs(texture(0))
    assert read.patches.shape == (36, 5)
    assert read.picture.shape == (picture_width(len(DIMS)),)
    # Alignment with the other references moves the tokens of each a little; without it this would be zero.
    assert float(read.distances.max()) < 0.03
    np.testing.assert_allclose(read.residuals[0], 0, atol=1e-2)


def test_the_head_reads_nothing_that_depends_on_the_order_of_references_or_their_number_alone() -> None:
    features = PatchStatistics().encode_image(with_square(texture(9))[None])
    one, other = (head_inputs(features, memory_of(order)) for order in ((0, 1, 2), (2, 1, 0)))
    np.testing.assert_allclose(one.patches, other.patches, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(one.picture, other.picture, rtol=2e-3, atol=2e-3)


def test_one_reference_is_too_few() -> None:
    with pytest.raises(ProductError, match="needs 2"):
        memory_of([0])


@pytest.mark.parametrize("damage", ["missing", "bytes", "width", "format"])
def test_a_damaged_head_is_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "head.npz"
    module = random_head("none")
    if damage == "bytes":
        path.write_bytes(b"PK nonsense")
    elif damage == "format":
        np.savez(path, **{"header.json": np.frombuffer(b'{"format": "else"}', np.uint8)})
    elif damage == "width":
        export_head(module.state_dict(), config("none")).save(path)
        head = load_head(path)
        with pytest.raises(WeightsError, match="do not fit"):
            ReferenceHead(head.weights, config("sparse"))
        return
    with pytest.raises(WeightsError, match="Train it again"):
        load_head(path)


def test_patches_a_defect_covers_count_and_the_most_covered_of_a_small_one() -> None:
    mask = np.zeros((64, 64), bool)
    assert not patch_target(mask, (4, 4)).any()
    mask[0:16, 0:16] = mask[16:24, 0:8] = True
    assert np.flatnonzero(patch_target(mask, (4, 4))).tolist() == [0, 4]
    tiny = np.zeros((64, 64), bool)
    tiny[40, 40] = True
    assert np.flatnonzero(patch_target(tiny, (4, 4))).tolist() == [10]


def test_training_lowers_the_loss_and_writes_head_and_card(tmp_path: Path) -> None:
    plate, ring = pair(write_products(tmp_path / "data"))
    config = small_config("sparse", epochs=5, learning_rate=0.01)
    card = train_head([plate], [ring], PatchStatistics(), tmp_path / "out", tmp_path / "cache", config)
    losses = card["history"]["losses"]
    assert losses[-1] < losses[0]
    assert load_head(tmp_path / "out" / HEAD_FILE).config["prompt"] == "sparse"
    text = (tmp_path / "out" / "card.md").read_text()
    assert "| plate | training | MIT | 6 | 3 / 4 | no |" in text
    assert "| ring | early stopping | MIT |" in text


def test_features_are_computed_once_and_survive_damage(tmp_path: Path) -> None:
    class Counting(PatchStatistics):
        calls = 0

        def encode_image(self, batch):  # type: ignore[no-untyped-def]
            self.calls += 1
            return super().encode_image(batch)

    backbone = Counting()
    cache = FeatureCache(tmp_path, backbone, SMALL)
    first, second = cache.features(texture(0)), cache.features(texture(0).copy())
    assert backbone.calls == 1
    np.testing.assert_array_equal(first.patch_tokens[1], second.patch_tokens[1])
    assert first.grid == second.grid == (6, 6)
    (file,) = tmp_path.rglob("*.npz")
    file.write_bytes(b"half a file")
    np.testing.assert_array_equal(cache.features(texture(0)).patch_tokens[0], first.patch_tokens[0])
    assert backbone.calls == 2
    cache.features(texture(1))
    assert backbone.calls == 3


def test_samples_hold_labels_targets_and_made_defects(tmp_path: Path) -> None:
    (plate, _), _ = pair(write_products(tmp_path / "data"))
    cache = FeatureCache(tmp_path / "cache", PatchStatistics(), SMALL)
    samples = build_samples([plate], cache, small_config().episodes, 0)
    kinds = {kind: [s for s in samples if s.kind == kind] for kind in ("real", "good", "synthetic")}
    assert [len(kinds[kind]) for kind in ("real", "good", "synthetic")] == [7, 3, 3]
    assert all(s.defective and s.target is not None and s.target.any() for s in kinds["synthetic"])
    assert all(not s.defective and s.target is not None and not s.target.any() for s in kinds["good"])
    undrawn = [s for s in kinds["real"] if s.target is None]
    assert len(undrawn) == 2
    assert all(s.defective for s in undrawn)
    assert [len(s.distances) for s in samples] == [36] * 13


def test_nothing_to_train_on_is_said() -> None:
    with pytest.raises(InputError, match="nothing to train on"):
        HeadTask([], [], small_config())
