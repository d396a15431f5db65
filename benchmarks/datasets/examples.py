"""Single defects with the finest name that a data set gives them, each with its own mask.

Some sets file many kinds under one label: VisA's split says ``anomaly`` and ``image_anno.csv`` which, LOCO's masks say
by their grey level which of the defects in ``defects_config.json`` they show, and a ``boxes.csv`` beside ``test``
(columns image, x1, y1, x2, y2, defect_type; pixels, the second corner excluded) names every box in a picture.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ...agent.errors import InputError
from .pictures import GOOD, Dataset, LabelledPicture, ProductData, load_mask

_BOX_COLUMNS = ("image", "x1", "y1", "x2", "y2", "defect_type")
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Example:
    """A picture of one label, or of good parts.

    Attributes:
        path: the file.
        label: the folder's or table's name for it, ``good`` for good parts.
        names: finer names of what it shows, as the source writes them; empty where it gives none.
        is_test: whether it belongs to the part that detectors are tested on.
        mask_paths: the files that ``mask`` reads, empty where the source drew nothing.
        mask: of a height and width in px; None where nobody drew it.
    """

    path: Path
    label: str
    names: tuple[str, ...]
    is_test: bool
    mask_paths: tuple[Path, ...]
    mask: Callable[[int, int], Mask | None]


def examples(dataset: Dataset, product: ProductData) -> Iterator[Example]:
    """Every example of a product: good references, then defective pictures; good test pictures are none.

    LOCO's masks are read here to tell what they show; otherwise only tables are.

    Raises:
        InputError: a table is not what it should be, or a mask cannot be read.
    """
    for path in product.references:
        yield Example(path, GOOD, (), False, (), _no_mask)
    defective = [picture for picture in product.tests if picture.is_defective]
    if not defective:
        return
    folder = defective[0].path.parents[2]  # of the product, in the layouts of the MVTec family
    boxes, levels = folder / "boxes.csv", folder / "defects_config.json"
    if dataset.layout != "visa" and boxes.is_file():
        yield from _boxed(defective, boxes)
        return
    listed = _visa_labels(dataset.root, product.name) if dataset.layout == "visa" else {}
    loco = _loco_levels(levels) if dataset.layout == "loco" and levels.is_file() else {}
    for picture in defective:
        names = listed.get(picture.path, ())
        if loco:
            names = tuple(dict.fromkeys(loco[v] for path in picture.mask_paths for v in _values(path) if v in loco))
        mask = partial(_mask_of, picture)
        yield Example(picture.path, picture.defect_type, names, True, picture.mask_paths, mask)


def _no_mask(height: int, width: int) -> None:
    return None


def _mask_of(picture: LabelledPicture, height: int, width: int) -> Mask | None:
    return load_mask(picture, height, width)


def _visa_labels(root: Path, product: str) -> dict[Path, tuple[str, ...]]:
    """VisA's ``image_anno.csv``: columns image, label, mask; several labels stand between commas."""
    table = root / product / "image_anno.csv"
    if not table.is_file():
        return {}
    rows = _rows(table, ("image", "label"))
    parts = {root / row["image"]: [part.strip() for part in row["label"].split(",")] for row in rows}
    return {path: tuple(filter(None, labels)) for path, labels in parts.items()}


def _loco_levels(path: Path) -> dict[int, str]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {int(entry["pixel_value"]): str(entry["defect_name"]) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a list of defects with pixel_value and defect_name.") from error


def _values(path: Path) -> list[int]:
    """Grey levels in a mask except 0, in rising order."""
    try:
        with Image.open(path) as image:
            return [int(value) for value in np.unique(np.asarray(image)) if value]
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise InputError(f"the mask {path} cannot be read.") from error


def _boxed(pictures: list[LabelledPicture], table: Path) -> Iterator[Example]:
    """One example for each picture and type of box in it."""
    found: dict[tuple[str, str], list[tuple[int, int, int, int]]] = {}
    for row in _rows(table, _BOX_COLUMNS):
        try:
            x1, y1, x2, y2 = (int(row[name]) for name in _BOX_COLUMNS[1:5])
        except ValueError as error:
            raise InputError(f"{table}: a box of {row['image']} is not four numbers.") from error
        found.setdefault((row["image"], row["defect_type"]), []).append((x1, y1, x2, y2))
    by_stem = {picture.path.stem: picture for picture in pictures}
    for (stem, label), boxes in sorted(found.items()):
        if stem in by_stem:
            mask = partial(_box_mask, by_stem[stem].path, tuple(boxes))
            yield Example(by_stem[stem].path, label, (), True, (table,), mask)


def _box_mask(path: Path, boxes: tuple[tuple[int, int, int, int], ...], height: int, width: int) -> Mask:
    """Boxes are in pixels of the file, which may have been reduced on reading."""
    file_width, file_height = _size(path)
    mask = np.zeros((height, width), np.bool_)
    for x1, y1, x2, y2 in boxes:
        left, top = x1 * width // file_width, y1 * height // file_height
        right, bottom = -(-x2 * width // file_width), -(-y2 * height // file_height)
        mask[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = True
    return mask


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def _rows(table: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    with table.open(encoding="utf-8-sig", newline="") as lines:
        rows = [{key: value or "" for key, value in row.items() if key} for row in csv.DictReader(lines)]
    if rows and (lacking := [name for name in columns if name not in rows[0]]):
        raise InputError(f"{table} has no column {', '.join(lacking)}.")
    return rows
