"""A scripted zero-shot scorer and a small data set that it judges neither perfectly nor by chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flawscope.benchmarks.zsad import ZeroShotSetup


class RednessScorer:
    """Red is anomalous; deterministic, and it counts what it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def score(self, rgb: NDArray[np.uint8]) -> tuple[float, NDArray[np.float32]]:
        self.calls += 1
        red = rgb[..., 0].astype(np.float32) - rgb[..., 1] + rgb[..., 2] / 64
        return float(red.mean()), red / 256


IDENTITY = {"backbone": "redness", "weights_sha256": "0" * 64}


def setup(scorer: Any = None, *trained: str) -> ZeroShotSetup:
    return ZeroShotSetup(scorer or RednessScorer(), IDENTITY, trained)


def red_picture(path: Path, seed: int, red: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(60, 190, (112, 160, 3), dtype=np.uint8)
    pixels[40:70, 60:100, 0] = np.clip(pixels[40:70, 60:100, 0].astype(int) + red, 0, 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def build(root: Path) -> Path:
    """Two VisA classes in the converted layout, hard enough that no figure is 0 or 1."""
    for index, product in enumerate(("candle", "pcb1")):
        for n in range(4):
            red_picture(root / product / "test/good" / f"{n:03d}.png", 100 * index + n, 4 * (n % 3))
            red_picture(root / product / "test/bad" / f"{n:03d}.png", 100 * index + 50 + n, 18 * n)
            mask = np.zeros((112, 160), np.uint8)
            mask[40:70, 60:100] = 255
            (root / product / "ground_truth/bad").mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(root / product / "ground_truth/bad" / f"{n:03d}.png")
    return root
