"""Trees of the MVTec family: ``PRODUCT/{train/good,test/TYPE}`` with masks in ``PRODUCT/ground_truth/TYPE``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...agent.errors import InputError
from .left_out import without_left_out
from .listing import defective, entries, images, subfolders
from .pictures import GOOD, LabelledPicture, ProductData


@dataclass(frozen=True)
class Tree:
    """What one member of the family does differently.

    Attributes:
        normal: name of the folders of good parts.
        pictures: subfolder of every type that holds the pictures, empty where they lie in the type's folder itself.
        masks: subfolder of every test type that holds its masks; empty where they are in ``ground_truth/TYPE``.
    """

    normal: str = GOOD
    pictures: str = ""
    masks: str = ""

    def load(self, root: Path) -> list[ProductData]:
        """All products under a folder, or the one product that the folder is."""
        return [self.product(folder) for folder in _products(root)]

    def product(self, root: Path) -> ProductData:
        """One product; folders that it lacks count as empty."""
        return ProductData(
            root.name,
            tuple(images(root / "train" / self.normal / self.pictures)),
            tuple(self._tests(root)),
            tuple(images(root / "validation" / self.normal / self.pictures)),
        )

    def _tests(self, root: Path) -> Iterator[LabelledPicture]:
        for path in images(root / "test" / self.normal / self.pictures):
            yield LabelledPicture(path, GOOD)
        for folder in subfolders(root / "test"):
            if folder.name != self.normal:
                masks = folder / self.masks if self.masks else root / "ground_truth" / folder.name
                yield from defective(images(folder / self.pictures), folder.name, masks)


MVTEC = Tree()
"""MVTec AD and everything repacked like it: MPDD, DTD-Synthetic, GoodsAD, VisA as converted by anomalib, and your own.

LOCO too: its ``validation/good`` is kept apart, and the folder of masks of each picture is a union.
"""
BTAD = Tree(normal="ok")
MVTEC_3D = Tree(pictures="rgb", masks="gt")


def fits_mvtec(root: Path) -> bool:
    """Some product has ``test/good`` or another type with pictures."""
    return any(images(kind) for product in _products(root) for kind in subfolders(product / "test"))


def fits_btad(root: Path) -> bool:
    """Some product has ``test/ok``."""
    return any(images(product / "test" / "ok") for product in _products(root))


def fits_loco(root: Path) -> bool:
    """Some product has logical or structural anomalies, or several masks for a picture."""
    kinds = ("logical_anomalies", "structural_anomalies")
    return any(images(product / "test" / kind) for product in _products(root) for kind in kinds)


def fits_mvtec_3d(root: Path) -> bool:
    """Some product's test types have a subfolder ``rgb``."""
    return any(images(kind / "rgb") for product in _products(root) for kind in subfolders(product / "test"))


def load_product(root: Path) -> ProductData:
    """List one product in the layout of MVTec AD; nothing is decoded.

    Args:
        root: the product's folder; the folders it lacks count as empty.

    Raises:
        InputError: it is not a folder.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder.", hint="Give the folder of a product in the MVTec layout.")
    return without_left_out(MVTEC.product(root))


def _products(root: Path) -> list[Path]:
    """The folder itself if it is a product, else those in it that are, by exact names: some systems ignore capitals."""
    if _is_product(root):
        return [root]
    return [folder for folder in subfolders(root) if _is_product(folder)]


def _is_product(folder: Path) -> bool:
    return any(entry.name == "test" and entry.is_dir() for entry in entries(folder))
