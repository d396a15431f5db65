"""Listing folders as downloads really are: hidden files, archives' leftovers, suffixes in capitals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ...agent.errors import InputError
from .pictures import LabelledPicture

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
_MASK_ENDINGS = re.compile(r"_(mask|label|segmentation|gt)$", re.IGNORECASE)


def entries(folder: Path) -> list[Path]:
    """What a folder holds, by name, without hidden files and ``__MACOSX``; nothing if it is none."""
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith((".", "__")))


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, by name."""
    return [entry for entry in entries(folder) if entry.is_dir()]


def images(folder: Path) -> list[Path]:
    """The pictures right in a folder, by name."""
    return [path for path in entries(folder) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]


def child(folder: Path, *names: str) -> Path | None:
    """The subfolder with one of these names whatever its capitals, the first name first."""
    found = {entry.name.lower(): entry for entry in subfolders(folder)}
    return next((found[name.lower()] for name in names if name.lower() in found), None)


def by_number(paths: Iterable[Path]) -> list[Path]:
    """By name, numbers within names by value: Class2 before Class10."""
    return sorted(paths, key=lambda path: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", path.name)])


def masks_by_stem(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The drawings in a folder, by the stem of the picture they belong to.

    ``000_mask.png``, ``000.bmp`` and a folder ``000/`` with any number of drawings all belong to picture ``000``.
    Position in the listing means nothing: sets that lack one drawing would be off by one from there on.

    Raises:
        InputError: two files claim the same picture.
    """
    found: dict[str, tuple[Path, ...]] = {}
    for entry in entries(folder):
        if entry.is_dir():
            stem, masks = entry.name, tuple(images(entry))
        elif entry.suffix.lower() in IMAGE_SUFFIXES:
            stem, masks = _MASK_ENDINGS.sub("", entry.stem), (entry,)
        else:
            continue
        if stem in found:
            raise InputError(
                f"two masks for picture {stem} in {folder}: {found[stem][0].name} and {entry.name}.",
                hint="Leave one, or put both into a folder of that name if the defect is their union.",
            )
        if masks:
            found[stem] = masks
    return found


def defective(paths: Sequence[Path], defect_type: str, masks: Path | None) -> list[LabelledPicture]:
    """Defective pictures with their masks.

    Args:
        paths: the pictures.
        defect_type: of all of them.
        masks: folder of their masks; None or a missing one where the source drew none.

    Raises:
        InputError: there are masks, yet none has the name of a picture.
    """
    return with_masks([LabelledPicture(path, defect_type) for path in paths], masks)


def with_masks(pictures: Sequence[LabelledPicture], masks: Path | None) -> list[LabelledPicture]:
    """Defective pictures of any types with their masks from one folder; see :func:`defective`."""
    drawn = masks_by_stem(masks) if masks is not None else {}
    if pictures and drawn and not drawn.keys() & {picture.path.stem for picture in pictures}:
        first, other = pictures[0].path, next(iter(drawn.values()))[0].name
        raise InputError(
            f"no mask in {masks} has the name of a picture in {first.parent}.",
            hint=f"Expected {first.stem}.png or {first.stem}_mask.png, found {other}.",
        )
    return [replace(picture, mask_paths=drawn.get(picture.path.stem, ())) for picture in pictures]
