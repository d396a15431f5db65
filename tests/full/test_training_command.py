"""``flawscope train expert`` and ``bench head`` from a folder to their results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import PatchStatistics
from full.training_data import SMALL, small_config, write_products

from flawscope.benchmarks.head import run_head
from flawscope.tools.backbones import BACKBONES
from flawscope.training.embedded import HEAD_FILE


@pytest.fixture
def data(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(BACKBONES, "efficientnet-lite2", PatchStatistics)
    return write_products(tmp_path / "data")


def test_the_command_trains_stops_by_the_held_out_product_and_writes_into_the_home(
    run_command: Callable[..., int], data: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "plate" / "LICENSE").write_text("Made for a test, free for all\n")
    assert run_command("train", "expert", "--data", data, "--hold-out", "ring", "--epochs", 1, "--licence", "MIT") == 0
    out = home / "models" / "expert-efficientnet-lite2"
    card = json.loads((out / "card.json").read_text())
    assert [(p["name"], p["licence"]) for p in card["data"]["trained_on"]] == [
        ("plate", "Made for a test, free for all")
    ]
    assert [(p["name"], p["licence"]) for p in card["data"]["held_out"]] == [("ring", "MIT")]
    assert (out / HEAD_FILE).is_file()
    assert "held-out image AUROC" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--hold-out", "bolt"], 4, "no such product"),
        (["--hold-out", "ring", "--hold-out", "plate"], 4, "no product to train on"),
        (["--prompt", "thick"], 2, "--prompt takes"),
        (["--prompt", "lista"], 2, "are for CLIP"),
        (["--device", "tpu"], 2, "--device takes"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(
    run_command: Callable[..., int],
    arguments: list[str],
    code: int,
    message: str,
    data: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_command("train", "expert", "--data", data, *arguments) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_benchmark_judges_each_product_by_a_head_that_never_saw_it(data: Path, tmp_path: Path) -> None:
    result = run_head(
        data,
        shots=(3,),
        seeds=1,
        prompts=("none", "sparse"),
        cache_folder=tmp_path / "cache",
        backbone=PatchStatistics(),
        config=small_config(epochs=1),
    )
    assert SMALL.short_side_px == 96
    methods = ["untrained", "head", "head + sparse prompt"]
    assert [(row["product"], row["method"]) for row in result["rows"]] == [
        (product, method) for product in ("plate", "ring") for method in methods
    ]
    assert all(0 <= row["image_auroc"] <= 1 for row in result["rows"])
    assert all((row["support"] is not None) == ("sparse" in row["method"]) for row in result["rows"])
