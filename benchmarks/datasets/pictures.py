"""The words every data set is told in: labelled pictures, the product they show, and where the defect is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ...agent.errors import InputError

GOOD = "good"
IMAGE = "image"
PIXEL = "pixel"


@dataclass(frozen=True)
class LabelledPicture:
    """One labelled picture.

    Attributes:
        path: the file.
        defect_type: ``good`` for good parts, else the name the source gives the defect.
        mask_paths: one or more drawings whose union is the defect; empty for good parts and where the source drew none.
    """

    path: Path
    defect_type: str
    mask_paths: tuple[Path, ...] = ()

    @property
    def is_defective(self) -> bool:
        """Whether a detector should raise an alarm."""
        return self.defect_type != GOOD

    @property
    def has_mask(self) -> bool:
        """Whether every pixel's label is known: a good part has no defective pixel, a defective one needs a mask."""
        return not self.is_defective or bool(self.mask_paths)


@dataclass(frozen=True)
class ProductData:
    """The pictures of one product (a class, in the data sets' word).

    Attributes:
        name: of its folder, or of what the set shows.
        references: good pictures for training, in the order of their names; empty where the source has no such part.
        tests: labelled pictures, good ones first, then by type and name.
        validation: further good pictures, only where the source sets them apart.
    """

    name: str
    references: tuple[Path, ...]
    tests: tuple[LabelledPicture, ...]
    validation: tuple[Path, ...] = ()

    @property
    def labels(self) -> NDArray[np.bool_]:
        """Per test picture, whether it is defective, (n,)."""
        return np.array([picture.is_defective for picture in self.tests], dtype=bool)

    @property
    def has_masks(self) -> bool:
        """Whether every defective picture has a mask, so that pixel metrics mean something."""
        defective = [picture for picture in self.tests if picture.is_defective]
        return bool(defective) and all(picture.mask_paths for picture in defective)


@dataclass(frozen=True)
class Dataset:
    """A data set on disk.

    Attributes:
        name: its short name (a key of ``DATASETS``), None for data that is none of the known sets.
        layout: the layout it was read in.
        root: the folder in which the layout was found.
        products: in the order of their names.
        metrics: which of ``image`` and ``pixel`` metrics mean something here.
    """

    name: str | None
    layout: str
    root: Path
    products: tuple[ProductData, ...]
    metrics: frozenset[str]


def load_mask(picture: LabelledPicture, height: int, width: int) -> NDArray[np.bool_] | None:
    """The defective pixels of a picture.

    A drawing in grey levels is cut at half of its range, which is robust against the ringing of JPEG and softened
    edges; one whose values stay below holds class numbers (VisA's are 1, 2, ...) and every value but 0 counts. In a
    palette picture every colour but black counts.

    Args:
        picture: a good one has no defective pixel.
        height: of the picture, px.
        width: of the picture, px.

    Returns:
        bool (height, width), the union of the drawings, each resized to the nearest pixel where its size differs; None
        for a defective picture without a drawing: its pixels are unknown, not good.

    Raises:
        InputError: a drawing cannot be read.
    """
    if not picture.is_defective:
        return np.zeros((height, width), dtype=bool)
    if not picture.mask_paths:
        return None
    union = np.zeros((height, width), dtype=bool)
    for path in picture.mask_paths:
        mask = read_mask(path)
        if mask.shape != (height, width):
            resized = Image.fromarray(mask.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
            mask = np.asarray(resized) != 0
        union |= mask
    return union


def read_mask(path: Path) -> NDArray[np.bool_]:
    """One drawing, bool (H, W) in its own size; see :func:`load_mask` for what counts as defective.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with Image.open(path) as image:
            if image.mode == "P":
                coloured = np.asarray(np.asarray(image.convert("RGB")).any(axis=2))
                # an all-black palette goes with bare numbers
                return coloured if coloured.any() else np.asarray(np.asarray(image) != 0)
            plain = image.mode in ("1", "L") or image.mode.startswith("I")
            values = np.asarray(image if plain else image.convert("L"))
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise InputError(f"the mask {path} cannot be read.") from error
    peak = int(values.max())
    cut = 0 if peak < 128 else 127 if peak < 256 else 32767 if peak > 32767 else 0
    return np.asarray(values > cut)
