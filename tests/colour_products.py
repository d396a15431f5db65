"""A small data set of plates, and a backbone that sees colours: for benchmarks of few references."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flawscope.tools.backbones import VisualFeatures


class ColourBackbone:
    """Mean colour of each cell: enough to see a red square on grey."""

    def run_stages(self, batch: NDArray[np.uint8], names: Sequence[str]) -> list[NDArray[np.float32]]:
        strides = {"stride8": 8, "stride16": 16}
        maps = []
        for name in names:
            stride = strides[name]
            b, h, w, c = batch.shape
            cells = batch.reshape(b, h // stride, stride, w // stride, stride, c).mean(axis=(2, 4))
            maps.append(cells.transpose(0, 3, 1, 2).astype(np.float32) + 1.0)
        return maps

    def encode_image(self, batch: NDArray[np.uint8]) -> VisualFeatures:
        (stage,) = self.run_stages(batch, ["stride16"])
        b, c, h, w = stage.shape
        tokens = np.ascontiguousarray(stage.reshape(b, c, h * w).transpose(0, 2, 1))
        return VisualFeatures((tokens,), tokens.mean(axis=1), (h, w))


def write(path: Path, picture: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def write_products(root: Path) -> None:
    """A plate with red squares as defects, a product that cannot be judged, and a page."""
    rng = np.random.default_rng(0)
    for folder, count in (("train/good", 5), ("test/good", 20), ("test/red", 3)):
        for number in range(count):
            picture = np.full((64, 96, 3), 120, np.uint8) + rng.integers(0, 9, (64, 96, 1), dtype=np.uint8)
            if folder.endswith("red"):
                picture[16:32, 48:80] = (200, 40, 40)
                mask = np.zeros((64, 96), np.uint8)
                mask[16:32, 48:80] = 255
                write(root / "plate/ground_truth/red" / f"{number:03d}_mask.png", mask)
            write(root / "plate" / folder / f"{number:03d}.png", picture)
    write(root / "boards/reference/000.png", np.zeros((8, 8, 3), np.uint8))  # a product without good references
    (root / "README.md").write_text("not a product")
