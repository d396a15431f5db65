"""What several files of the full install's tests stand on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from conftest import Plant
from fakes import PatchStatistics
from typer.testing import CliRunner

from flawscope.agent.vision_language import sharing
from flawscope.cli import app, main
from flawscope.tools.backbones import BACKBONES
from flawscope.tools.backbones.clip import ClipBackbone, load_clip
from tests.full.tiny_clip import build_tiny_clip
from tests.tiny_vlm import build_tiny_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2.5-VL checkpoint in a folder called ``model``; read it, do not write to it."""
    return build_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tiny CLIP in open_clip's layout."""
    return build_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def clip(weights: Path) -> ClipBackbone:
    """That CLIP at 48 px."""
    return load_clip(weights, "tiny", image_size_px=48, home_models=weights, device="cpu")


@pytest.fixture
def enrol_on_clip(
    weights: Path, plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], Result]:
    """``enroll plate`` in ``tmp_path`` on the tiny CLIP, with trained prompts."""

    def enrol(prompts: Path) -> Result:
        for name, value in {"clip_weights": weights, "clip_image_size_px": 48, "trained_prompts": prompts}.items():
            monkeypatch.setenv(f"FLAWSCOPE_{name.upper()}", str(value))
        monkeypatch.setenv("FLAWSCOPE_BACKBONE", "clip")
        good = [str(path) for path in plant.good[:3]]
        return CliRunner().invoke(app, ["enroll", "plate", *good, "--home", str(tmp_path)])

    return enrol


@pytest.fixture(autouse=True)
def nothing_loaded_yet() -> None:
    """No weights that an earlier test left with this process; what a fixture of a module holds goes on working."""
    sharing._LOADED.clear()


@pytest.fixture
def run_command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command line in this process with the cheap backbone in the embedded one's place; gives the exit code."""
    monkeypatch.setitem(BACKBONES, "efficientnet-lite2", PatchStatistics)

    def call(*arguments: object) -> int:
        monkeypatch.setattr("sys.argv", ["flawscope", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    return call
