"""Sparse prompts (HSP) that were trained on CLIP at work: from training to reports and the benchmark."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Plant
from fakes import ColourWords, texture, with_square
from full.training_data import pair, small_prompts, write_products
from safetensors import safe_open
from safetensors.torch import save_file
from scripted_scorer import build
from typer.testing import CliRunner

from flawscope.agent.doctor import _trained_prompts
from flawscope.agent.errors import ConfigError, WeightsError
from flawscope.agent.inspector import Inspector
from flawscope.agent.settings import LoadedSettings
from flawscope.benchmarks.zsad import configured_setup
from flawscope.cli import app
from flawscope.tools.ad_expert.anchor_source import configured_picture_prompts
from flawscope.tools.ad_expert.picture_prompts import PicturePrompts, load_picture_prompts
from flawscope.tools.ad_expert.trained_prompts import read_header
from flawscope.tools.ad_expert.type_centroids import TypeCentroids
from flawscope.tools.ad_expert.type_prompts import type_anchors
from flawscope.tools.ad_expert.type_store import save_centroids
from flawscope.tools.ad_expert.zero_shot import ZeroShotConfig, ZeroShotExpert, patch_scores_of, scores_of
from flawscope.tools.backbones.clip import ClipBackbone
from flawscope.tools.imaging import load_image
from flawscope.training.loop import seed_everything
from flawscope.training.zero_shot import PROMPTS_FILE, PromptSample, PromptTask, build_prompt_samples, train_prompts


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return pair(write_products(tmp_path_factory.mktemp("data")))[:1]


@pytest.fixture(scope="module", params=["sparse", "dense", "lista"])
def prompts(request: pytest.FixtureRequest, clip: ClipBackbone, products: Any, tmp_path_factory: Any) -> Path:
    """Three epochs: two of warm-up, and one with the visual prompts in the image tower."""
    folder = tmp_path_factory.mktemp(request.param)
    train_prompts(products, [], clip, folder, small_prompts(request.param, epochs=3))
    return folder / PROMPTS_FILE


@pytest.fixture
def shared(plant: Plant, weights: Path, tmp_path: Path) -> Any:
    def loaded(**flags: Any) -> LoadedSettings:
        return plant.loaded(
            **{"home": tmp_path, "backbone": "clip", "clip_weights": weights, "clip_image_size_px": 48, **flags}
        )

    return loaded


def opened(prompts: Path, clip: ClipBackbone) -> PicturePrompts:
    return load_picture_prompts(read_header(prompts, clip.weights_sha256), clip)


def kind_of(prompts: Path) -> str:
    return prompts.parent.name.removesuffix("0")


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_picture_is_seen_and_worded_as_in_training(prompts: Path, clip: ClipBackbone, products: Any) -> None:
    seed_everything(0)
    task = PromptTask(build_prompt_samples(products, small_prompts()), [], clip, small_prompts(kind_of(prompts)))
    with safe_open(prompts, framework="pt") as file:
        task.module.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    task.module.eval()
    assert bool(task.module.sparse.visual_open)  # type: ignore[union-attr]
    rgb = with_square(texture(9))
    with torch.no_grad():
        logits, maps, _ = task._look(PromptSample(rgb, None, True, "plate"))
    features, anchors = opened(prompts, clip).see(rgb)
    whole = scores_of(features.global_features, anchors, ZeroShotConfig())
    assert float(whole[0]) == pytest.approx(float(logits.softmax(dim=-1)[0, 1]), abs=1e-5)
    patches = patch_scores_of(features, anchors, ZeroShotConfig())[0]
    enlarged = torch.nn.functional.interpolate(
        torch.from_numpy(patches)[None, None], size=maps[0].shape[1:], mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(enlarged[0, 0], torch.stack(maps).mean(dim=0)[0], atol=1e-5)


def test_every_picture_has_words_of_its_own_and_another_sight(prompts: Path, clip: ClipBackbone) -> None:
    sight = opened(prompts, clip)
    (one, words), (_, others) = sight.see(texture(1)), sight.see(with_square(texture(2)))
    np.testing.assert_array_equal(words.normal, others.normal)
    assert np.abs(words.abnormal - others.abnormal).max() > 1e-7
    assert words.prompts_sha256 == sha256_of(prompts)
    plain = clip.encode_image(texture(1)[None])
    assert one.grid == plain.grid
    assert np.abs(one.patch_tokens[-1] - plain.patch_tokens[-1]).max() > 1e-4


def test_prompts_that_learnt_nothing_are_those_without_hsp(clip: ClipBackbone, products: Any) -> None:
    seed_everything(0)
    task = PromptTask(build_prompt_samples(products, small_prompts()), [], clip, small_prompts("sparse"))
    features, anchors = PicturePrompts(task.module, clip, "sparse", "x").see(texture(1))
    plain = clip.encode_image(texture(1)[None])
    for layer, expected in zip(features.patch_tokens, plain.patch_tokens, strict=True):
        np.testing.assert_allclose(layer, expected, atol=1e-6)
    with torch.no_grad():
        np.testing.assert_allclose(anchors.abnormal[0], task._anchors(None)[1].numpy(), atol=1e-6)


def test_an_inspection_uses_them_and_says_so(prompts: Path, clip: ClipBackbone, shared: Any, plant: Plant) -> None:
    with Inspector(shared(trained_prompts=prompts)) as inspector:
        report = inspector.inspect(plant.square)
    assert report.error is None
    words = report.provenance["text"]
    assert words["prompts_sha256"] == words["first_prompts_sha256"] == sha256_of(prompts)
    rgb = load_image(Path(plant.square)).rgb
    expected, _ = ZeroShotExpert(clip, prompted=opened(prompts, clip)).score(rgb)
    assert report.image_score == pytest.approx(expected, abs=1e-6)
    assert report.image_score != pytest.approx(ZeroShotExpert(clip).score(rgb)[0], abs=1e-4)


def test_a_second_look_by_types_is_clips_own(prompts: Path, clip: ClipBackbone, shared: Any, plant: Plant) -> None:
    loaded = shared(trained_prompts=prompts)
    rgb = load_image(Path(plant.square)).rgb
    vectors = clip.encode_image(rgb[None]).global_features.astype(np.float32)
    origin = {"weighting": "mask", "refined": False, "sources": [], "left_out": []}
    save_centroids(loaded.home, clip, TypeCentroids(("hole",), np.array([5]), vectors), origin)
    with Inspector(loaded) as inspector:
        report = inspector.inspect(plant.square)
    words = report.provenance["text"]
    assert words["anchors"] == ["hole"]
    assert words["first_prompts_sha256"] == sha256_of(prompts)
    expected, _ = ZeroShotExpert(clip, type_anchors(clip, ["hole"])).score(rgb)
    assert report.image_score == pytest.approx(expected, abs=1e-6)


def test_the_doctor_reads_them(prompts: Path, shared: Any) -> None:
    found = _trained_prompts(shared(trained_prompts=prompts))
    told = f"{kind_of(prompts)}, of each picture anew, sha256 {sha256_of(prompts)[:12]}…"
    assert (found.state, found.detail) == ("ok", told)


def test_they_cannot_be_kept_with_a_product(enrol_on_clip: Any, prompts: Path) -> None:
    done = enrol_on_clip(prompts)
    assert isinstance(done.exception, WeightsError)
    assert "its prompts depend on the picture" in str(done.exception)
    assert "\n" not in str(done.exception)


def test_the_benchmark_measures_them(
    weights: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAWSCOPE_CLIP_IMAGE_SIZE_PX", "48")
    data = build(tmp_path / "visa")
    given = ["bench", "zsad", "--data", str(data), "--backbone", "clip", "--weights", str(weights), "--limit", "2"]
    scores = {}
    for name, path in (("untrained", None), ("trained", prompts)):
        if path is not None:
            monkeypatch.setenv("FLAWSCOPE_TRAINED_PROMPTS", str(path))
        done = CliRunner().invoke(app, [*given, "--out", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
        lines = (tmp_path / name / "scores.jsonl").read_text().splitlines()
        scores[name] = [json.loads(line)["image_score"] for line in lines]
    assert not np.isclose(scores["trained"], scores["untrained"], atol=1e-4).any()
    assert "trained on plate" in done.stdout
    scorer = json.loads((tmp_path / "trained/result.json").read_text())["protocol"]["scorer"]
    assert scorer["trained_prompts"] == scorer["prompts_sha256"] == sha256_of(prompts)
    assert scorer["prompt"] == kind_of(prompts)
    assert f"trained {kind_of(prompts)} prompts base" in " ".join(done.stdout.split())


@pytest.fixture(scope="module")
def sparse(clip: ClipBackbone, products: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train_prompts(products, [], clip, folder, replace(small_prompts("sparse", epochs=1), max_pictures=1))
    return folder / PROMPTS_FILE


def changed(path: Path, target: Path, tensors: dict[str, torch.Tensor | None], config: dict[str, Any] | str) -> Path:
    """The file with other tensors (None leaves one out) and another config."""
    with safe_open(path, framework="pt") as file:
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = dict(file.metadata())
    header["config"] = config if isinstance(config, str) else json.dumps({**json.loads(header["config"]), **config})
    save_file({name: value for name, value in {**kept, **tensors}.items() if value is not None}, target, header)
    return target


def test_another_backbone_with_words_is_refused(sparse: Path, clip: ClipBackbone, shared: Any) -> None:
    words = ColourWords()
    words.weights_sha256 = clip.weights_sha256
    with pytest.raises(ConfigError, match="are for CLIP, not for colour-words"):
        configured_picture_prompts(words, shared(trained_prompts=sparse))


RHO = "sparse.hsp.stages.0.solver.rho"


@pytest.mark.parametrize(
    ("tensors", "config"),
    [
        pytest.param({"sparse.to_text.weight": None}, {}, id="less"),
        pytest.param({"text.abnormal_ids": None}, {}, id="no words"),
        pytest.param({"sparse.text_gate": torch.tensor(float("nan"))}, {}, id="not finite"),
        pytest.param({"text.abnormal_ids": torch.full((1, 77), 60_000)}, {}, id="words that are none"),
        pytest.param({"text.normal_ids": torch.zeros(1, 77, dtype=torch.int64)}, {}, id="other words"),
        pytest.param({RHO: torch.tensor(-0.1, dtype=torch.float64)}, {}, id="negative lambda"),
        pytest.param({RHO: torch.tensor(1.0, dtype=torch.float64)}, {}, id="lambda that leaves nothing"),
        pytest.param({}, {"prompt": "dense"}, id="sparse called dense"),
        pytest.param({}, {"prompt": "lista"}, id="sparse called lista"),
        pytest.param({}, {"prompt": "mixed"}, id="of no kind"),
        pytest.param({}, {"prompt": ["sparse"]}, id="kind that is no word"),
        pytest.param({}, {"hsp_dim": 8}, id="other size"),
        pytest.param({}, {"hsp_dim": float("inf")}, id="endless"),
        pytest.param({}, {"hsp_dim": "wide"}, id="size that is no number"),
        pytest.param({}, "[" * 100_000, id="nested header"),
    ],
)
def test_damage_is_told_in_one_line(
    tensors: dict[str, torch.Tensor | None], config: Any, sparse: Path, shared: Any, tmp_path: Path
) -> None:
    path = changed(sparse, tmp_path / PROMPTS_FILE, tensors, config)
    with pytest.raises(WeightsError, match=r"are damaged|cannot be read") as refused:
        configured_setup(shared(trained_prompts=path))
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_cut_file_is_told_in_one_line(sparse: Path, shared: Any, tmp_path: Path) -> None:
    path = tmp_path / PROMPTS_FILE
    path.write_bytes(sparse.read_bytes()[:-10])
    with pytest.raises(WeightsError, match=r"cannot be read") as refused:
        configured_setup(shared(trained_prompts=path))
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_dense_prompts_called_sparse_are_refused(
    clip: ClipBackbone, products: Any, shared: Any, tmp_path: Path
) -> None:
    train_prompts(products, [], clip, tmp_path, replace(small_prompts("dense", epochs=1), max_pictures=1))
    path = changed(tmp_path / PROMPTS_FILE, tmp_path / "changed.safetensors", {}, {"prompt": "sparse"})
    with pytest.raises(WeightsError, match=r"are damaged: lambdas \[0.0, 0.0, 0.0, 0.0\] in sparse prompts"):
        configured_setup(shared(trained_prompts=path))
