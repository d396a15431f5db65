"""A product in the MVTec layout with references enough to calibrate, for the benchmark of a model's reports."""

from __future__ import annotations

from pathlib import Path

from fakes import enlarged, texture, with_square
from PIL import Image

REFERENCES = 20


def write_plates(root: Path, good: int = 2, holes: int = 4) -> Path:
    """``plate``: 20 references, good test pictures, and pictures with a red square, half of which may be examples."""
    for number in range(REFERENCES):
        _save(root / "plate" / "train" / "good" / f"{number:02d}.png", texture(number))
    for number in range(good):
        _save(root / "plate" / "test" / "good" / f"{number}.png", texture(100 + number))
    for number in range(holes):
        _save(
            root / "plate" / "test" / "hole" / f"{number}.png", with_square(texture(50 + number), 30 + 8 * number, 40)
        )
    return root


def _save(path: Path, pixels: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(enlarged(pixels)).save(path, compress_level=1)  # type: ignore[arg-type]
