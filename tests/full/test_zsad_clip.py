"""The zero-shot benchmark from the command line to the table, on a tiny CLIP of random weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from full.tiny_clip import build_tiny_clip
from scripted_scorer import build
from typer.testing import CliRunner

from flawscope.agent.settings import load_settings
from flawscope.benchmarks.zsad import configured_setup
from flawscope.cli import app


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_clip(tmp_path_factory.mktemp("clip"))


def test_the_command_measures_clip_and_goes_on(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAWSCOPE_CLIP_IMAGE_SIZE_PX", "48")
    data = build(tmp_path / "visa")
    arguments = ["bench", "zsad", "--data", str(data), "--backbone", "clip", "--weights", str(weights)]
    runner = CliRunner()
    part = runner.invoke(app, [*arguments, "--limit", "2", "--out", str(tmp_path / "run")])
    assert part.exit_code == 0, part.output
    assert "VisA, zero-shot, trained on nothing named: 2 of 12 classes, 2 pictures a class" in part.stdout
    again = runner.invoke(app, [*arguments, "--limit", "2", "--out", str(tmp_path / "run")])
    assert again.stdout == part.stdout
    assert len((tmp_path / "run/scores.jsonl").read_text().splitlines()) == 4
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert 0.0 <= result["mean"]["aupro"] <= 1.0
    assert result["protocol"]["scorer"]["image_size_px"] == 48


def test_a_model_card_beside_the_weights_counts(weights: Path) -> None:
    loaded = load_settings({"backbone": "clip", "clip_weights": weights, "clip_image_size_px": 48})
    assert configured_setup(loaded).trained_on == ()
    (weights / "card.json").write_text(json.dumps({"data": {"trained_on": [{"name": "candle"}], "held_out": []}}))
    assert configured_setup(loaded).trained_on == ("visa",)
