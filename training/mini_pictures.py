"""The pictures of the mini's training, read once: patches as the model takes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..tools.imaging import load_image
from .synthetic import add_defect


@dataclass
class Gallery:
    """Patches of pictures by path.

    Attributes:
        image_processor: of the mini's processor.
        grids: merged rows and columns of each picture.
    """

    image_processor: Any
    grids: dict[str, tuple[int, int]] = field(default_factory=dict)
    _patches: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def add(self, paths: Iterable[str]) -> None:
        """Read pictures.

        Raises:
            InputError: one cannot be read.
        """
        merge = int(self.image_processor.merge_size)
        for path in paths:
            rgb = load_image(path).rgb
            seen = self.image_processor(images=[Image.fromarray(rgb)], return_tensors="pt")
            grid = seen["image_grid_thw"]
            self.grids[path] = (int(grid[0, 1]) // merge, int(grid[0, 2]) // merge)
            self._patches[path] = (seen["pixel_values"], grid)

    def features(self, mini: Any, paths: Iterable[str]) -> dict[str, torch.Tensor]:
        """Merged features (rows * columns, width) of each picture; gradients flow into the encoder."""
        keys = list(paths)
        if not keys:
            return {}
        pixels = torch.cat([self._patches[key][0] for key in keys])
        grids = torch.cat([self._patches[key][1] for key in keys])
        found = mini.get_image_features(pixels, grids)
        each = getattr(found, "pooler_output", found)
        return dict(zip(keys, each, strict=True))


def with_made_defects(paths: Sequence[str], folder: Path, seed: int) -> list[str]:
    """A copy of each good picture with a made defect.

    Args:
        paths: good pictures.
        folder: where the copies are kept; those that are there are not made again.
        seed: of the defects.

    Returns:
        Paths of the copies, in the same order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number, path in enumerate(paths):
        copy = folder / f"{number:04d}.png"
        if not copy.is_file():
            rgb = load_image(path).rgb
            defect = add_defect(np.ascontiguousarray(rgb), np.random.default_rng([seed, number]))
            Image.fromarray(defect.image).save(copy)
        made.append(str(copy))
    return made
