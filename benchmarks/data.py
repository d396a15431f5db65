"""Inspection data sets in the MVTec layout: ``train/good``, ``test/<type>``, ``ground_truth/<type>/NNN_mask.png``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ..agent.errors import InputError

GOOD = "good"
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})


@dataclass(frozen=True)
class LabelledPicture:
    """One labelled picture.

    Attributes:
        path: the file.
        defect_type: name of its folder, ``good`` for good parts.
        mask_path: pixels of the defect, None for good parts and where the source drew none.
    """

    path: Path
    defect_type: str
    mask_path: Path | None

    @property
    def is_defective(self) -> bool:
        """Whether a detector should raise an alarm."""
        return self.defect_type != GOOD


@dataclass(frozen=True)
class ProductData:
    """The pictures of one product.

    Attributes:
        name: of its folder.
        references: good pictures for training, in the order of their names.
        tests: labelled pictures, good ones first, then by type and name.
    """

    name: str
    references: tuple[Path, ...]
    tests: tuple[LabelledPicture, ...]

    @property
    def labels(self) -> NDArray[np.bool_]:
        """Per test picture, whether it is defective, (n,)."""
        return np.array([picture.is_defective for picture in self.tests], dtype=bool)

    @property
    def has_masks(self) -> bool:
        """Whether every defective picture has a mask, so that pixel metrics mean something."""
        defective = [picture for picture in self.tests if picture.is_defective]
        return bool(defective) and all(picture.mask_path for picture in defective)


def load_product(root: Path) -> ProductData:
    """List one product; nothing is decoded.

    Args:
        root: the product's folder.

    Raises:
        InputError: it is not a folder.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder.", hint="Give the folder of a product in the MVTec layout.")
    folders = [folder for folder in _entries(root / "test") if folder.is_dir()]
    folders.sort(key=lambda folder: (folder.name != GOOD, folder.name))
    tests = tuple(
        LabelledPicture(path, folder.name, _mask_of(root, folder.name, path))
        for folder in folders
        for path in _images(folder)
    )
    return ProductData(root.name, tuple(_images(root / "train" / GOOD)), tests)


def load_dataset(root: Path, names: Sequence[str] | None = None) -> list[ProductData]:
    """List the products that can be judged against references: good references, good and defective test pictures.

    Args:
        root: folder of product folders.
        names: these products in this order; by default all that qualify, by name.

    Raises:
        InputError: the folder is missing, no product qualifies, or a named one does not.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder.", hint="Give a folder of products in the MVTec layout.")
    wanted = names if names is not None else [folder.name for folder in _entries(root) if folder.is_dir()]
    products = [load_product(root / name) for name in wanted]
    complete = [p for p in products if p.references and p.labels.any() and not p.labels.all()]
    lacking = sorted({p.name for p in products} - {p.name for p in complete})
    if names is not None and lacking:
        raise InputError(
            f"{', '.join(lacking)}: needs train/good, test/good and a defective test folder with pictures."
        )
    if not complete:
        raise InputError(
            f"no product in {root} has references with good and defective test pictures.",
            hint="Expected PRODUCT/train/good, PRODUCT/test/good and PRODUCT/test/<defect type>.",
        )
    return complete


def load_mask(picture: LabelledPicture, height: int, width: int) -> NDArray[np.bool_]:
    """The defective pixels of a picture.

    Args:
        picture: a good one has none.
        height: of the picture, px.
        width: of the picture, px.

    Returns:
        bool (height, width); a mask of another size is resized to the nearest pixel.

    Raises:
        InputError: a defective picture without a mask, or a mask that cannot be read.
    """
    if not picture.is_defective:
        return np.zeros((height, width), dtype=bool)
    if picture.mask_path is None:
        raise InputError(f"{picture.path} has no mask.")
    try:
        with Image.open(picture.mask_path) as image:
            mask = image.convert("L")
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"the mask {picture.mask_path} cannot be read.") from error
    if mask.size != (width, height):
        mask = mask.resize((width, height), Image.Resampling.NEAREST)
    return np.asarray(mask) > 127


def _entries(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith(".")) if folder.is_dir() else []


def _images(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.suffix.lower() in IMAGE_SUFFIXES]


def _mask_of(root: Path, defect_type: str, path: Path) -> Path | None:
    if defect_type == GOOD:
        return None
    mask = root / "ground_truth" / defect_type / f"{path.stem}_mask.png"
    return mask if mask.is_file() else None
