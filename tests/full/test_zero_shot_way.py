"""The paper profile as a user runs it, with a tiny CLIP of random weights: processes of its own, file to overlay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FEW_DOCUMENTS, save
from fakes import texture, with_square
from full.tiny_clip import build_tiny_clip
from numpy.typing import NDArray
from PIL import Image

from flawscope.agent.schemas import InspectionReport
from flawscope.tools.ad_expert.prompt_ensemble import ensemble_anchors
from flawscope.tools.ad_expert.zero_shot import SMOOTHING_SHARE, ZeroShotExpert, patch_scores_of
from flawscope.tools.backbones.clip import ClipBackbone, load_clip

pytestmark = pytest.mark.timeout(900)  # whole commands that import torch, each with a limit of its own

CANVAS_PX = 96
START = f"""
import sys
from flawscope.tools.knowledge import builder, schema
few = tuple(page for page in schema.load_documents() if page.doc_id in {sorted(FEW_DOCUMENTS)})
builder.load_documents = lambda: few  # embedding all documents would be most of the test's time
from flawscope.cli import main
main()
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(7):
        save(folder / "good", f"{seed}.png", texture(seed, 48))
    save(folder, "square.png", with_square(texture(20, 48), 6, 8, 12))
    save(folder, "wide.png", texture(21, 48)[:30])
    return folder


@pytest.fixture(scope="module")
def backbone(checkpoint: Path) -> ClipBackbone:
    return load_clip(checkpoint, "ViT-L-14-336-quickgelu", image_size_px=CANVAS_PX, home_models=checkpoint)


def flawscope(home: Path, *arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
    """The command in a new process, on the paper profile."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FLAWSCOPE_")}
    given = {
        "home": home,
        "profile": "paper",
        "reasoner": "evidence",
        "clip_image_size_px": CANVAS_PX,
        "store": "memory",
        **settings,
    }
    environment |= {f"FLAWSCOPE_{key.upper()}": str(value) for key, value in given.items()}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", START, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def reports_of(done: subprocess.CompletedProcess[str]) -> list[InspectionReport]:
    return [InspectionReport.model_validate_json(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def by_words(home: Path, pictures: Path, checkpoint: Path) -> Any:
    out = home.parent / "out"
    names = (pictures / "square.png", pictures / "wide.png")
    done = flawscope(home, "inspect", *names, "--json", "--out", out, clip_weights=checkpoint)
    return done, reports_of(done), out


def test_two_pictures_from_file_to_overlay(by_words: Any) -> None:
    done, reports, out = by_words
    assert done.returncode == 3  # a person must look
    assert done.stderr == ""
    assert len(reports) == 2
    for report, name in zip(reports, ("square", "wide"), strict=True):
        assert report.error is None
        assert report.verdict.value == "REVIEW"
        assert report.image_score is not None
        assert 0.0 < report.image_score < 1.0
        assert (report.probability, report.threshold) == (None, None)
        for artifact in ("overlay", "heatmap"):
            path = Path(report.artifacts[artifact])
            assert path.is_relative_to(out / name)
            assert pixels(path).max() > 0
        kept = json.loads((out / name / "report.json").read_text())
        assert InspectionReport.model_validate(kept) == report


def test_the_report_says_what_it_was_made_with(by_words: Any, backbone: ClipBackbone) -> None:
    provenance = by_words[1][0].provenance
    assert provenance["backbone"] == {"name": "clip", "weights_sha256": backbone.weights_sha256}
    assert provenance["text"]["prompts_sha256"] == ensemble_anchors(backbone).prompts_sha256
    assert provenance["text"]["loc_mode"] == "softmax"
    assert provenance["reasoner"] == "evidence"


def test_the_command_scores_as_the_library_does(by_words: Any, backbone: ClipBackbone, pictures: Path) -> None:
    expert = ZeroShotExpert(backbone)
    for report, name in zip(by_words[1], ("square.png", "wide.png"), strict=True):
        rgb = pixels(pictures / name)
        score, anomaly_map = expert.score(rgb)
        assert report.image_score == pytest.approx(score, abs=1e-5)
        assert anomaly_map.shape == rgb.shape[:2]


def test_references_are_enrolled_and_words_stand_beside_them(home: Path, pictures: Path, checkpoint: Path) -> None:
    enrolled = flawscope(home, "enroll", "plate", pictures / "good", "--false-alarm", "0.15", clip_weights=checkpoint)
    assert enrolled.returncode == 0, enrolled.stderr
    assert "whole, text" in enrolled.stdout
    done = flawscope(home, "inspect", pictures / "square.png", "-p", "plate", "--json", clip_weights=checkpoint)
    (report,) = reports_of(done)
    assert report.error is None
    assert report.probability is not None
    assert report.uncertainty.calibrated
    (measured,) = [item for item in report.evidence if item.kind == "measurement"]
    assert {"raw_whole", "raw_text"} <= set(measured.values)
    assert report.verdict.value == "NG"
    assert done.returncode == 1


def test_without_weights_one_line_names_the_remedy(tmp_path: Path, pictures: Path) -> None:
    done = flawscope(tmp_path, "inspect", pictures / "square.png", "--json")
    assert done.returncode == 9
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "flawscope models pull clip-vit-l-14-336-openai" in line
    assert str(tmp_path / "models") in line


# The scorer on CLIP's own features


def test_the_map_is_that_of_clips_tokens_step_by_step(backbone: ClipBackbone, pictures: Path) -> None:
    from scipy import ndimage

    rgb = pixels(pictures / "square.png")
    expert = ZeroShotExpert(backbone)
    features = backbone.encode_image(rgb[None])
    maps = []
    for tokens in features.patch_tokens:
        logits = np.stack([tokens[0] @ expert.anchors.normal, tokens[0] @ expert.anchors.abnormal[0]], axis=1) / 0.07
        shares = np.exp(logits.astype(np.float64))
        maps.append((shares / shares.sum(axis=1, keepdims=True))[:, 1].reshape(features.grid))
    mean = np.mean(maps, axis=0)
    height, width = rgb.shape[:2]
    rows = np.clip((np.arange(height) + 0.5) * features.grid[0] / height - 0.5, 0, features.grid[0] - 1)
    columns = np.clip((np.arange(width) + 0.5) * features.grid[1] / width - 0.5, 0, features.grid[1] - 1)
    enlarged = ndimage.map_coordinates(mean, np.meshgrid(rows, columns, indexing="ij"), order=1)
    expected = ndimage.gaussian_filter(enlarged, SMOOTHING_SHARE * max(height, width))
    _, anomaly_map = expert.score(rgb)
    np.testing.assert_allclose(anomaly_map, expected, atol=1e-5)


def test_a_picture_scores_alone_as_in_a_batch(backbone: ClipBackbone) -> None:
    expert = ZeroShotExpert(backbone)
    batch = np.stack([texture(seed) for seed in range(3)])
    together = patch_scores_of(backbone.encode_image(batch), expert.anchors, expert.config)
    for index, rgb in enumerate(batch):
        alone = patch_scores_of(backbone.encode_image(rgb[None]), expert.anchors, expert.config)
        np.testing.assert_allclose(alone[0], together[index], atol=1e-5)


def test_a_constant_picture_has_an_even_map(backbone: ClipBackbone) -> None:
    _, anomaly_map = ZeroShotExpert(backbone).score(np.full((96, 96, 3), 120, np.uint8))
    assert float(anomaly_map.std()) < 0.02
