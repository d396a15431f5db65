"""Plain folders: yes and no, good parts beside defect types, or one folder of good parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...agent.errors import InputError
from .listing import child, defective, images, subfolders, with_masks
from .pictures import GOOD, LabelledPicture, ProductData

_NORMAL = ("good", "normal", "ok")
_NORMAL_TEST = ("good_test", "normal_test", "ok_test")
_MASKS = ("masks", "mask", "ground_truth")


def fits_yes_no(root: Path) -> bool:
    """Pictures in ``yes`` and in ``no``."""
    yes, no = child(root, "yes"), child(root, "no")
    return yes is not None and no is not None and bool(images(yes)) and bool(images(no))


def load_yes_no(root: Path) -> list[ProductData]:
    """BrainMRI and Br35H: ``no`` is normal, ``yes`` a tumour.

    Nothing else counts: Br35H's ``pred`` is unlabelled, and BrainMRI's archive holds everything a second time.
    """
    yes, no = child(root, "yes"), child(root, "no")
    good = tuple(LabelledPicture(path, GOOD) for path in images(no or root / "no"))
    return [ProductData("brain", (), (*good, *defective(images(yes or root / "yes"), "tumor", None)))]


def fits_folders(root: Path) -> bool:
    """A folder of good parts beside another folder of pictures."""
    normal = child(root, *_NORMAL)
    return normal is not None and bool(images(normal)) and any(images(folder) for folder in _types(root))


def load_labelled_folders(root: Path) -> list[ProductData]:
    """``good`` (or ``normal``, ``ok``) beside one folder per defect type, masks in ``masks[/TYPE]`` by stem.

    With ``good_test`` the pictures in ``good`` are references; without it they are tests and there are no references.
    """
    normal = child(root, *_NORMAL)
    if normal is None:
        raise InputError(f"{root} has no folder {' or '.join(_NORMAL)}.")
    return [load_folders(normal, _types(root), child(root, *_NORMAL_TEST), child(root, *_MASKS), name=root.name)]


def load_folders(
    normal: Path,
    abnormal: Sequence[Path],
    normal_test: Path | None = None,
    masks: Path | None = None,
    name: str | None = None,
) -> ProductData:
    """A product from folders anywhere.

    Args:
        normal: good pictures: references if ``normal_test`` is given, else tests.
        abnormal: one folder per defect type, whose name it takes.
        normal_test: good pictures for testing.
        masks: folder of masks by the stem of their picture, or of one such folder per defect type.
        name: of the product; by default of the folder that holds ``normal``.

    Raises:
        InputError: a folder is missing or without pictures, or no mask has the name of a picture.
    """
    for folder in (normal, *abnormal, *([normal_test] if normal_test else [])):
        if not images(folder):
            raise InputError(f"{folder} is no folder with pictures.")
    if masks is not None and not masks.is_dir():
        raise InputError(f"{masks} is not a folder.")
    tests = [LabelledPicture(path, GOOD) for path in images(normal_test or normal)]
    by_type = sorted(abnormal, key=lambda path: path.name)
    if masks is not None and images(masks):
        bad = [LabelledPicture(path, folder.name) for folder in by_type for path in images(folder)]
        tests += with_masks(bad, masks)
    else:
        for folder in by_type:
            tests += defective(images(folder), folder.name, child(masks, folder.name) if masks else None)
    references = tuple(images(normal)) if normal_test else ()
    return ProductData(name or normal.resolve().parent.name, references, tuple(tests))


def _types(root: Path) -> list[Path]:
    apart = (*_NORMAL, *_NORMAL_TEST, *_MASKS)
    return [folder for folder in subfolders(root) if folder.name.lower() not in apart and images(folder)]


def fits_flat(root: Path) -> bool:
    """Pictures right in the folder."""
    return bool(images(root))


def load_flat(root: Path) -> list[ProductData]:
    """Good pictures in one folder: references and nothing to test."""
    return [ProductData(root.resolve().name, tuple(images(root)), ())]
