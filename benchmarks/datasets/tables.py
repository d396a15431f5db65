"""Data sets that say in a table what each picture shows: VisA as published, HeadCT as published."""

from __future__ import annotations

import csv
from pathlib import Path

from ...agent.errors import InputError
from .listing import images
from .pictures import GOOD, LabelledPicture, ProductData

_VISA_TABLE = Path("split_csv") / "1cls.csv"
_VISA_COLUMNS = ("object", "split", "label", "image", "mask")


def fits_visa(root: Path) -> bool:
    """There is ``split_csv/1cls.csv``."""
    return (root / _VISA_TABLE).is_file()


def load_visa(root: Path) -> list[ProductData]:
    """VisA with its one-class split: columns object, split, label, image, mask; paths relative to the root.

    Products without any of their pictures (not downloaded) are left out.

    Raises:
        InputError: a column is missing, or a product has some of its pictures and not others.
    """
    rows = _read(root / _VISA_TABLE)
    lacking = [name for name in _VISA_COLUMNS if rows and name not in rows[0]]
    if lacking:
        raise InputError(f"{root / _VISA_TABLE} has no column {', '.join(lacking)}.")
    products = []
    for name in sorted({row["object"] for row in rows}):
        own = [row for row in rows if row["object"] == name]
        missing = [row["image"] for row in own if not (root / row["image"]).is_file()]
        if len(missing) == len(own):
            continue
        if missing:
            raise InputError(f"{len(missing)} of {len(own)} pictures of {name} are missing, first {missing[0]}.")
        tests = [_visa_picture(root, row) for row in own if row["split"] == "test"]
        tests.sort(key=lambda picture: (picture.is_defective, picture.path))
        references = sorted(root / r["image"] for r in own if r["split"] == "train" and r["label"] == "normal")
        products.append(ProductData(name, tuple(references), tuple(tests)))
    return products


def _visa_picture(root: Path, row: dict[str, str]) -> LabelledPicture:
    if row["label"] == "normal":
        return LabelledPicture(root / row["image"], GOOD)
    mask = root / row["mask"] if row["mask"] else None
    return LabelledPicture(root / row["image"], row["label"], (mask,) if mask and mask.is_file() else ())


def fits_headct(root: Path) -> bool:
    """There is ``labels.csv`` beside ``head_ct``."""
    return (root / "labels.csv").is_file() and (root / "head_ct").is_dir()


def load_headct(root: Path) -> list[ProductData]:
    """HeadCT: ``labels.csv`` with the number of a picture and 1 for a haemorrhage; pictures in ``head_ct[/head_ct]``.

    The header is ``id, hemorrhage`` with a blank, so columns count by place; names are padded numbers (000.png).

    Raises:
        InputError: a row that is not two numbers, or a picture without one.
    """
    table = root / "labels.csv"
    labels: dict[int, bool] = {}
    with table.open(encoding="utf-8-sig", newline="") as lines:
        for row in list(csv.reader(lines))[1:]:
            if not row:
                continue
            try:
                labels[int(row[0])] = bool(int(row[1]))
            except (ValueError, IndexError) as error:
                raise InputError(f"{table}: expected a picture's number and 0 or 1, found {','.join(row)}.") from error
    inner = root / "head_ct" / "head_ct"
    folder = inner if inner.is_dir() else root / "head_ct"
    tests = []
    for path in images(folder):
        if not path.stem.isdigit() or int(path.stem) not in labels:
            raise InputError(f"{path} has no row in {table}.")
        tests.append(LabelledPicture(path, "hemorrhage" if labels[int(path.stem)] else GOOD))
    tests.sort(key=lambda picture: (picture.is_defective, picture.path))
    return [ProductData("head_ct", (), tuple(tests))]


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        return [{key: value or "" for key, value in row.items() if key} for row in csv.DictReader(lines)]
