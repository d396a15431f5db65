"""Data sets with drawings beside their pictures: DAGM, KolektorSDD, ISIC and the polyp sets."""

from __future__ import annotations

import re
from pathlib import Path

from ...agent.errors import InputError
from .listing import IMAGE_SUFFIXES, by_number, child, defective, entries, images, masks_by_stem, subfolders
from .pictures import GOOD, LabelledPicture, ProductData, read_mask

_FOLDER_PAIRS = (("images", "masks"), ("Original", "Ground Truth"))


def fits_dagm(root: Path) -> bool:
    """Some ``ClassN`` has pictures right in ``Test``; repacked copies have ``test/good`` instead."""
    return any(images(folder) for product in _dagm_products(root) if (folder := child(product, "Test")))


def load_dagm(root: Path) -> list[ProductData]:
    """DAGM 2007: ``ClassN/{Train,Test}/NNNN.PNG``; a picture is defective if ``Label/NNNN_label.PNG`` exists."""
    products = []
    for folder in _dagm_products(root):
        parts = {}
        for part in ("Train", "Test"):
            found = child(folder, part)
            drawn = masks_by_stem(child(found, "Label") or found / "Label") if found else {}
            parts[part] = [
                LabelledPicture(p, "defect" if p.stem in drawn else GOOD, drawn.get(p.stem, ()))
                for p in (images(found) if found else [])
            ]
        tests = sorted(parts["Test"], key=lambda picture: (picture.is_defective, picture.path))
        references = tuple(picture.path for picture in parts["Train"] if not picture.is_defective)
        products.append(ProductData(folder.name, references, tuple(tests)))
    return products


def _dagm_products(root: Path) -> list[Path]:
    return by_number(folder for folder in subfolders(root) if re.fullmatch(r"class_?\d+", folder.name.lower()))


def fits_sdd(root: Path) -> bool:
    """Some ``kosNN`` holds drawings that end in ``_label``."""
    return any(_is_drawing(path) for folder in _sdd_items(root) for path in images(folder))


def load_sdd(root: Path) -> list[ProductData]:
    """KolektorSDD: ``kosNN/PartM.jpg`` with ``PartM_label.bmp``, defective if the drawing is not empty.

    Every picture is a test: the source has no split (its authors cross-validated), so there are no references.

    Raises:
        InputError: a picture without a drawing, so that nothing says what it shows.
    """
    tests = []
    for folder in _sdd_items(root):
        drawn = {path.stem.lower().removesuffix("_label"): path for path in images(folder) if _is_drawing(path)}
        for path in images(folder):
            if _is_drawing(path):
                continue
            mask = drawn.get(path.stem.lower())
            if mask is None:
                raise InputError(f"{path} has no {path.stem}_label.bmp, which says whether it is defective.")
            tests.append(LabelledPicture(path, "defect", (mask,)) if read_mask(mask).any() else _good(path))
    tests.sort(key=lambda picture: (picture.is_defective, picture.path))
    return [ProductData("electrical_commutators", (), tuple(tests))]


def _sdd_items(root: Path) -> list[Path]:
    return [folder for folder in subfolders(root) if re.fullmatch(r"kos\d+", folder.name.lower())]


def _is_drawing(path: Path) -> bool:
    return path.stem.lower().endswith("_label")


def _good(path: Path) -> LabelledPicture:
    return LabelledPicture(path, GOOD)


def fits_isic(root: Path) -> bool:
    """A folder of ISIC's ground truth, here or in the only folder."""
    return _isic_truth(root) is not None


def load_isic(root: Path) -> list[ProductData]:
    """ISIC 2016 part 1, test: ``X_Test_GroundTruth/NAME_Segmentation.png`` beside ``X_Test_Data`` or ``test[/TYPE]``.

    Every picture shows a lesion, so only pixel metrics mean something. The later years' superpixels are no pictures.

    Raises:
        InputError: the pictures are missing, or no mask has the name of one.
    """
    truth = _isic_truth(root)
    if truth is None:
        raise InputError(f"{root} has no folder that ends in _GroundTruth.")
    data = re.sub("groundtruth$", "Data", truth.name, flags=re.IGNORECASE)
    folder = child(truth.parent, data, "test")
    if folder is None:
        raise InputError(f"{truth.parent} has neither {data} nor test beside {truth.name}.")
    found = [path for part in (folder, *subfolders(folder)) for path in images(part)]
    pictures = [path for path in found if not path.stem.lower().endswith("_superpixels")]
    return [ProductData("skin", (), tuple(defective(pictures, "lesion", truth)))]


def _isic_truth(root: Path) -> Path | None:
    """Looks one folder deeper on its own: ``skin/test/TYPE`` by itself would pass for a product in MVTec's layout."""
    inside = subfolders(root)
    where = [*inside, *(subfolders(inside[0]) if len(inside) == 1 else [])]
    found = [folder for folder in where if folder.name.lower().endswith("_groundtruth") and images(folder)]
    return min(found, key=lambda folder: "test" not in folder.name.lower(), default=None)


def fits_pairs(root: Path) -> bool:
    """``images`` beside ``masks``, or ``Original`` beside ``Ground Truth``, pictures right in both."""
    return _pair(root) is not None


def load_pairs(root: Path) -> list[ProductData]:
    """CVC-ColonDB, CVC-ClinicDB, Kvasir-SEG: every picture shows a polyp and its mask has the picture's stem.

    Raises:
        InputError: no mask has the name of a picture.
    """
    pair = _pair(root)
    if pair is None:
        raise InputError(f"{root} has no folders images and masks.")
    return [ProductData("colon", (), tuple(defective(images(pair[0]), "polyp", pair[1])))]


def _pair(root: Path) -> tuple[Path, Path] | None:
    for names in _FOLDER_PAIRS:
        pictures, masks = (child(root, name) for name in names)
        if pictures and masks and images(pictures) and any(_is_image(path) for path in entries(masks)):
            return pictures, masks
    return None


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES
