"""The file of guard G5: read when it is whole and of the same weights and search, refused with a reason when not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flawscope.agent.errors import ConfigError, WeightsError
from flawscope.agent.reasoner import load_reasoner
from flawscope.agent.settings import load_settings
from flawscope.agent.vision_language.latent import LatentSettings, NormalImages
from flawscope.agent.vision_language.latent.normals import NORMALS_FILE, load_normals, save_normals
from flawscope.agent.vision_language.loading import weights_identity

WEIGHTS = "checkpoint 17, vlm_dtype auto"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / NORMALS_FILE
    save_normals(file, NormalImages(200, 10, 12), model="mini", weights=WEIGHTS, settings=LatentSettings())
    return file


def test_what_was_measured_is_read_back(path: Path) -> None:
    found = load_normals(path, weights=WEIGHTS, settings=LatentSettings())
    assert found == NormalImages(200, 10, 12)
    assert found.hold
    assert found.sentence == "G5: good parts were called defective 12 of 200 times with it and 10 without"
    told = json.loads(path.read_text())
    assert {"model": "mini", "weights": WEIGHTS, "questions": 200}.items() <= told.items()


def test_a_rise_of_more_than_a_point_is_said(path: Path) -> None:
    spoilt = NormalImages(200, 10, 13)
    save_normals(path, spoilt, model="mini", weights=WEIGHTS, settings=LatentSettings())
    found = load_normals(path, weights=WEIGHTS, settings=LatentSettings())
    assert not found.hold
    assert found.sentence.endswith("13 of 200 times with it and 10 without, too often")


def test_a_few_searches_may_have_been_cut_off_and_more_are_refused(path: Path) -> None:
    for cut in (0, 10):
        save_normals(path, NormalImages(200, 10, 12, cut), model="mini", weights=WEIGHTS, settings=LatentSettings())
        assert load_normals(path, weights=WEIGHTS, settings=LatentSettings()) == NormalImages(200, 10, 12, cut)
    spent = NormalImages(200, 10, 12, 11)
    assert (spent.hold, spent.sentence.endswith("10 without, but 11 searches were cut off")) == (False, True)
    save_normals(path, spent, model="mini", weights=WEIGHTS, settings=LatentSettings())
    with pytest.raises(ConfigError, match=r"11 of 200 searches were cut off.*6 s and 2048 MiB"):
        load_normals(path, weights=WEIGHTS, settings=LatentSettings())


def test_other_weights_and_another_search_are_refused(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"other weights \(mini\).*bench ablation"):
        load_normals(path, weights="checkpoint 18, vlm_dtype auto", settings=LatentSettings())
    with pytest.raises(ConfigError, match=r"another search \(min_mass, steps\)"):
        load_normals(path, weights=WEIGHTS, settings=LatentSettings(steps=2, min_mass=0.5))


DAMAGE: dict[str, dict[str, Any]] = {
    "format": {"format": "flawscope-calibrator"},
    "version": {"version": 2},
    "questions": {"questions": 0},
    "base_alarms": {"base_alarms": -1},
    "latent_alarms": {"latent_alarms": 1.5},
    "more alarms than questions": {"latent_alarms": 201},
    "cut": {"cut": -1},
    "more searches than questions": {"cut": 201},
    "weights": {"weights": ""},
    "Extra inputs": {"surprise": 1},
}


@pytest.mark.parametrize("said", DAMAGE)
def test_a_damaged_file_is_refused(path: Path, said: str) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | DAMAGE[said]))
    with pytest.raises(WeightsError, match=rf"is damaged: .*{said}"):
        load_normals(path, weights=WEIGHTS, settings=LatentSettings())


@pytest.mark.parametrize("blob", [b"", b'{"format": "flaw', b"\xff\xfe", b"[" * 100_000, b" " * 1_000_001])
def test_what_is_no_such_file_is_refused(path: Path, blob: bytes) -> None:
    path.write_bytes(blob)
    with pytest.raises(WeightsError, match=r"measurement of latent reasoning"):
        load_normals(path, weights=WEIGHTS, settings=LatentSettings())


def test_a_file_of_another_shape_or_none_is_refused(path: Path) -> None:
    path.write_text("[1, 2]")
    with pytest.raises(WeightsError, match="is damaged: file: "):
        load_normals(path, weights=WEIGHTS, settings=LatentSettings())
    path.unlink()
    with pytest.raises(WeightsError, match="cannot be read: No such file"):
        load_normals(path, weights=WEIGHTS, settings=LatentSettings())


def test_the_reasoner_refuses_what_was_measured_with_other_weights_before_it_loads_its_own(
    path: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    given = {"reasoner": "qwen_vl", "vlm_weights": folder, "latent": True, "latent_normals": path}
    loaded = load_settings(given, environ={})
    assert weights_identity(loaded) == ""
    dangling = folder / "model.safetensors"
    dangling.symlink_to(tmp_path / "nowhere")
    assert weights_identity(loaded) == ""
    dangling.unlink()
    dangling.write_bytes(b"no weights")
    assert weights_identity(loaded).startswith("checkpoint ")
    with pytest.raises(ConfigError, match="other weights"):
        load_reasoner(loaded)
    path.write_text("{}")
    with pytest.raises(WeightsError, match="is damaged"):
        load_reasoner(loaded)


def test_the_file_is_found_in_the_home_directory(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(path.parent))
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    given = {"reasoner": "qwen_vl", "vlm_weights": tmp_path, "latent": True, "latent_normals": f"~/{path.name}"}
    with pytest.raises(ConfigError, match="other weights"):
        load_reasoner(load_settings(given, environ={}))
