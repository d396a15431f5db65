from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import PatchStatistics
from PIL import Image
from rich.console import Console

from flawscope.agent.errors import ConfigError, InputError
from flawscope.benchmarks.corruptions import GRADES, KINDS
from flawscope.benchmarks.robustness import CLEAN, main, render, run_robustness


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for folder, count in (("train/good", 5), ("test/good", 4), ("test/red", 3)):
        (root / "plate" / folder).mkdir(parents=True)
        for number in range(count):
            picture = np.full((64, 96, 3), 120, np.uint8) + rng.integers(0, 9, (64, 96, 1), dtype=np.uint8)
            if folder.endswith("red"):
                picture[16:32, 48:80] = (200, 40, 40)
            Image.fromarray(picture).save(root / "plate" / folder / f"{number:03d}.png")
    return root


def test_clean_pictures_are_told_apart_and_a_much_darker_lamp_raises_alarms(data: Path) -> None:
    told: list[str] = []
    result = run_robustness(data, shots=5, kinds=("gain",), progress=told.append, backbone=PatchStatistics())
    (row,) = result["products"]
    assert set(row["conditions"]) == {CLEAN, *(("gain", grade) for grade in GRADES)}
    assert row["conditions"][CLEAN]["image_auroc"] == 1.0
    rates = [row["conditions"][condition]["false_alarms"] for condition in (CLEAN, *(("gain", g) for g in GRADES))]
    assert rates == sorted(rates)  # the threshold stays that of the clean references
    assert rates[-1] > rates[0]  # even levelled, a dark picture has lost what its greys told
    assert any("picture 1 of 7 in 4 conditions" in line for line in told)
    assert not row["in_macro"]  # four good test pictures are too few for a rate
    assert result["macro"] == {}


def test_the_same_seed_gives_the_same_figures(data: Path) -> None:
    first, again = (
        run_robustness(data, shots=1, seed=1, kinds=("gradient",), limit=2, backbone=PatchStatistics()) for _ in (1, 2)
    )
    assert first == again


def test_without_a_calibration_nothing_alarms_and_the_table_says_so(data: Path) -> None:
    result = run_robustness(data, shots=1, kinds=("jpeg",), limit=2, backbone=PatchStatistics())
    assert {found["false_alarms"] for found in result["products"][0]["conditions"].values()} == {0.0}
    assert "no threshold, hence no alarm, for plate" in shown(result)


def shown(result: dict[str, Any]) -> str:
    console = Console(width=140)
    with console.capture() as captured:
        console.print(render(result))
    return captured.get()


def test_the_table_gives_losses_in_points() -> None:
    def figures(clean: float, *grades: float) -> dict[tuple[str, int], dict[str, float]]:
        found = {CLEAN: {"image_auroc": clean, "false_alarms": 0.04}}
        found |= {("blur", g): {"image_auroc": v, "false_alarms": 0.1 * g} for g, v in zip(GRADES, grades, strict=True)}
        return found

    plate = {"product": "plate", "in_macro": True, "basis": "conformal", "conditions": figures(0.95, 0.95, 0.90, 0.655)}
    hide = {**plate, "product": "hide", "in_macro": False}
    result = {"shots": 16, "seed": 0, "limit": 40, "kinds": ("blur",), "products": [plate, hide]}
    text = shown({**result, "macro": plate["conditions"]})
    assert "0.0   5.0  29.5" in text
    assert "10  20  30" in text
    assert "hide *" in text
    assert "40 pictures a product at most" in text
    assert "0.5 1 2" in text  # the strengths


@pytest.mark.parametrize("wrong", [{"kinds": ("fog",)}, {"shots": 0}, {"limit": 1}])
def test_what_cannot_be_measured_is_refused(data: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="cannot measure"):
        run_robustness(data, backbone=PatchStatistics(), **wrong)


def test_the_module_is_a_command(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        main(["--data", str(tmp_path / "missing"), "--kinds", ",".join(KINDS)])
