"""The setting trained_prompts on a tiny CLIP: from training to reports and the benchmark, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Plant
from full.training_data import pair, small_prompts, write_products
from safetensors import safe_open
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors
from scripted_scorer import build
from typer.testing import CliRunner

from flawscope.agent.doctor import _trained_prompts
from flawscope.agent.errors import ConfigError, WeightsError
from flawscope.agent.inspector import Inspector
from flawscope.agent.settings import LoadedSettings
from flawscope.benchmarks.zsad import configured_setup
from flawscope.cli import app
from flawscope.tools.ad_expert.anchor_source import configured_anchors
from flawscope.tools.ad_expert.prompt_ensemble import ensemble_anchors
from flawscope.tools.ad_expert.trained_prompts import load_trained_prompts
from flawscope.tools.ad_expert.type_centroids import TypeCentroids
from flawscope.tools.ad_expert.type_prompts import type_anchors
from flawscope.tools.ad_expert.type_store import save_centroids
from flawscope.tools.ad_expert.zero_shot import ZeroShotExpert
from flawscope.tools.backbones.clip import ClipBackbone
from flawscope.tools.imaging import load_image
from flawscope.training.zero_shot import PROMPTS_FILE, train_prompts


@pytest.fixture(scope="module")
def prompts(clip: ClipBackbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained for a few steps on two products that belong to no published data set."""
    folder = tmp_path_factory.mktemp("trained")
    train_prompts(pair(write_products(folder / "data"))[:1], [], clip, folder / "prompts", small_prompts())
    return folder / "prompts" / PROMPTS_FILE


@pytest.fixture(scope="module")
def shared(plant: Plant, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Settings for CLIP on a home whose knowledge base is built once."""
    home = tmp_path_factory.mktemp("home")

    def loaded(**flags: Any) -> LoadedSettings:
        return plant.loaded(
            **{"home": home, "backbone": "clip", "clip_weights": weights, "clip_image_size_px": 48, **flags}
        )

    return loaded


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rewritten(prompts: Path, target: Path, header: dict[str, str] | None = None, **tensors: Any) -> Path:
    """The file with another header or other tensors; None leaves one out."""
    with safe_open(prompts, framework="np") as file:
        kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        given = {**file.metadata(), **(header or {})}
    changed = {**kept, **{name.replace("_", "."): value for name, value in tensors.items()}}
    save_file({name: value for name, value in changed.items() if value is not None}, target, given)
    return target


# Inspections


def test_an_inspection_compares_with_trained_prompts_and_says_so(
    shared: Any, plant: Plant, prompts: Path, clip: ClipBackbone
) -> None:
    with Inspector(shared()) as untrained, Inspector(shared(trained_prompts=prompts)) as trained:
        before, after = untrained.inspect(plant.square), trained.inspect(plant.square)
    assert before.error is None
    assert after.error is None
    assert before.provenance["text"]["prompts_sha256"] == ensemble_anchors(clip).prompts_sha256
    assert after.provenance["text"]["prompts_sha256"] == sha256_of(prompts)
    assert after.provenance["text"]["first_prompts_sha256"] == sha256_of(prompts)
    anchors = load_trained_prompts(prompts, clip)
    expected, _ = ZeroShotExpert(clip, anchors).score(load_image(Path(plant.square)).rgb)
    assert after.image_score == pytest.approx(expected, abs=1e-6)
    assert after.image_score != pytest.approx(before.image_score, abs=1e-4)


def test_products_keep_the_prompts_they_were_enrolled_with(enrol_on_clip: Any, prompts: Path, tmp_path: Path) -> None:
    done = enrol_on_clip(prompts)
    assert done.exit_code == 0, done.output
    (manifest,) = (tmp_path / "products" / "plate").rglob("*.json")
    assert sha256_of(prompts) in manifest.read_text()


def test_likely_types_still_choose_the_words_of_the_second_look(
    shared: Any, prompts: Path, clip: ClipBackbone, tmp_path: Path, plant: Plant
) -> None:
    loaded = shared(home=tmp_path, trained_prompts=prompts)
    rgb = load_image(Path(plant.square)).rgb
    vectors = clip.encode_image(rgb[None]).global_features.astype(np.float32)
    origin = {"weighting": "mask", "refined": False, "sources": [], "left_out": []}
    save_centroids(loaded.home, clip, TypeCentroids(("hole",), np.array([5]), vectors), origin)
    with Inspector(loaded) as inspector:
        words = inspector.inspect(plant.square).provenance["text"]
    assert words["anchors"] == ["hole"]
    assert words["first_prompts_sha256"] == sha256_of(prompts)
    assert words["prompts_sha256"] == type_anchors(clip, ["hole"]).prompts_sha256


# What is refused


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("missing", "there is no file of trained prompts at"),
        ("folder", "there is no file of trained prompts at"),
        ("truncated", "cannot be read"),
        ("other format", "holds no trained prompts"),
        ("nested header", "cannot be read"),
        ("of each picture", "--prompt none"),
        ("of no kind", "are damaged: 'mixed' is none of the kinds"),
        ("without anchors", "are damaged"),
        ("half precision", "are damaged"),
        ("other weights", "were made for other weights"),
        ("not finite", "are damaged"),
        ("other shape", "are damaged"),
        ("other width", "are damaged: anchors of shapes"),
    ],
)
def test_a_file_that_will_not_do_is_told_in_one_line(
    case: str, words: str, prompts: Path, clip: ClipBackbone, tmp_path: Path, shared: Any
) -> None:
    path = tmp_path / PROMPTS_FILE
    if case == "folder":
        path.mkdir()
    elif case == "truncated":
        path.write_bytes(prompts.read_bytes()[:-100])
    elif case == "other format":
        rewritten(prompts, path, {"format": "other"})
    elif case == "of each picture":
        rewritten(prompts, path, {"config": '{"prompt": "sparse"}'})
    elif case == "of no kind":
        rewritten(prompts, path, {"config": '{"prompt": "mixed"}'})
    elif case == "nested header":
        rewritten(prompts, path, {"config": "[" * 100_000})
    elif case == "without anchors":
        rewritten(prompts, path, anchors_normal=None)
    elif case == "half precision":
        with safe_open(prompts, framework="pt") as file:
            halved = {name: file.get_tensor(name).bfloat16() for name in ("anchors.normal", "anchors.abnormal")}
            save_tensors(halved, path, file.metadata())
    elif case == "other weights":
        rewritten(prompts, path, {"backbone_sha256": "0" * 64})
    elif case == "not finite":
        rewritten(prompts, path, anchors_normal=np.full((1, 32), np.nan, np.float32))
    elif case == "other shape":
        rewritten(prompts, path, anchors_abnormal=np.ones((1, 16), np.float32) / 4)
    elif case == "other width":
        unit = np.ones((1, 16), np.float32) / 4
        rewritten(prompts, path, anchors_normal=unit, anchors_abnormal=unit)
    with pytest.raises(WeightsError, match=words) as refused:
        configured_anchors(clip, shared(trained_prompts=path))
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_doctor_reads_them(shared: Any, prompts: Path, tmp_path: Path) -> None:
    whole = _trained_prompts(shared(trained_prompts=prompts))
    assert (whole.state, whole.detail) == ("ok", f"the same for every picture, sha256 {sha256_of(prompts)[:12]}…")
    torn = tmp_path / PROMPTS_FILE
    torn.write_bytes(prompts.read_bytes()[:-100])
    for path in (torn, tmp_path / "none"):
        found = _trained_prompts(shared(trained_prompts=path))
        assert (found.state, found.exit_code) == ("broken", WeightsError.exit_code)
        assert str(path) in found.detail


def test_a_refusal_comes_before_the_first_picture(shared: Any, tmp_path: Path) -> None:
    with Inspector(shared(trained_prompts=tmp_path / "none")) as inspector, pytest.raises(WeightsError):
        inspector.prepare()


# The benchmark


def test_the_benchmark_uses_trained_prompts_and_never_mixes_their_scores(
    weights: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAWSCOPE_CLIP_IMAGE_SIZE_PX", "48")
    data = build(tmp_path / "visa")
    given = ["bench", "zsad", "--data", str(data), "--backbone", "clip", "--weights", str(weights), "--limit", "2"]
    runner, scores = CliRunner(), {}
    for name, path in (("untrained", None), ("trained", prompts)):
        if path is not None:
            monkeypatch.setenv("FLAWSCOPE_TRAINED_PROMPTS", str(path))
        done = runner.invoke(app, [*given, "--out", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
        lines = (tmp_path / name / "scores.jsonl").read_text().splitlines()
        scores[name] = [json.loads(line)["image_score"] for line in lines]
    assert len(scores["trained"]) == 4
    assert not np.isclose(scores["trained"], scores["untrained"], atol=1e-4).any()
    assert "trained on plate: 2 of 12 classes, 2 pictures a class, trained prompts base" in " ".join(
        done.stdout.split()
    )
    scorer = json.loads((tmp_path / "trained/result.json").read_text())["protocol"]["scorer"]
    assert (scorer["trained_prompts"], scorer["prompts_sha256"]) == (sha256_of(prompts),) * 2
    mixed = runner.invoke(app, [*given, "--out", str(tmp_path / "untrained")])
    assert isinstance(mixed.exception, ConfigError)
    assert "holds another run" in str(mixed.exception)


def test_the_card_of_the_prompts_says_what_is_not_zero_shot(shared: Any, prompts: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone" / PROMPTS_FILE
    alone.parent.mkdir()
    shutil.copy(prompts, alone)
    loaded = shared(trained_prompts=alone)
    with pytest.raises(ConfigError, match=r"says what they were trained on.*card\.json"):
        configured_setup(loaded)
    (alone.parent / "card.json").write_text(json.dumps({"data": {"trained_on": [{"name": "candle"}]}}))
    assert configured_setup(loaded).trained_on == ("visa",)


@pytest.mark.parametrize("form", ["obj", "both"])
def test_trained_prompts_name_no_product(form: Any, shared: Any, prompts: Path) -> None:
    loaded = shared(trained_prompts=prompts)
    with pytest.raises(ConfigError, match=f"--types {form} names the product, which trained prompts do not"):
        configured_setup(loaded, form)
