"""Pictures of shipped pages, from the user's own copy of a data set: what is kept of each, and where.

``<folder>/<doc_id>/<key>/`` holds one: ``picture.jpg`` at most PICTURE_SIDE_PX a side, ``mask.png`` of that size
where the source drew the defect, ``crop.jpg`` of the defect in the source's own pixels, and ``record.json`` with where
it came from, its licence and the hashes of the files. A folder is put in place whole. Nothing refers back to the data
set, so that may be moved or deleted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ...agent.errors import KnowledgeError
from ...agent.home import new_folder, storage_errors, write_atomically, write_json_atomically
from .joint import PictureFeatures
from .part_cache import PartCache
from .schema import GOOD

if TYPE_CHECKING:
    from ..backbones import Backbone

FOLDER = "attached"
"""Beside the bases made with it."""
PICTURE, MASK, CROP, RECORD = "picture.jpg", "mask.png", "crop.jpg", "record.json"
PICTURE_SIDE_PX, CROP_SIDE_PX = 640, 480
_CROP_MARGIN = 0.5
_MIN_CROP_PX = 64
_PARTS = ".parts"
_KEY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Attached:
    """What is known of an attached picture.

    Attributes:
        doc_id: the page that it belongs to.
        product, defect_type: of that page.
        label: what the data set calls it, finer names after a slash.
        dataset: the name that the data set was given, with the folder's place inside it in ``source``.
        source: path inside the data set, with slashes.
        source_sha256, source_bytes: of the source's file.
        is_test: whether the source uses it to test detectors; such pictures must not be tested on any more.
        licence: of the picture, as far as known.
        picture_sha256, crop_sha256, mask_sha256: of the kept files, empty where there is none.
        picture_hash: difference hash of the picture, 16 hex digits.
        key: of its folder, from the source's file, its masks and the page.
    """

    doc_id: str
    product: str
    defect_type: str
    label: str
    dataset: str
    source: str
    source_sha256: str
    source_bytes: int
    is_test: bool
    licence: str
    picture_sha256: str
    crop_sha256: str
    mask_sha256: str
    picture_hash: str
    key: str


@dataclass(frozen=True)
class Attachment:
    """An attached picture and the folder that it lies in."""

    record: Attached
    folder: Path

    @property
    def picture(self) -> Path:
        """The picture, at most PICTURE_SIDE_PX a side."""
        return self.folder / PICTURE

    @property
    def mask(self) -> Path | None:
        """The defect on the picture; None where the source drew none."""
        return self.folder / MASK if self.record.mask_sha256 else None

    @property
    def crop(self) -> Path | None:
        """The defect in the source's own pixels; None without a mask."""
        return self.folder / CROP if self.record.crop_sha256 else None

    @property
    def is_embedded(self) -> bool:
        """Whether it makes its page easier to find.

        Good pictures are shown and not searched by: every picture of a product is nearest to its good ones, so its good
        page would take a place in each selection that the page of the defect needs.
        """
        return self.record.defect_type != GOOD


def places(folder: Path) -> list[Path]:
    """Where attached pictures lie, by page and key; nothing is read."""
    if not folder.is_dir():
        return []
    pages = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [place for page in pages for place in sorted(page.iterdir()) if _KEY.fullmatch(place.name)]


def attachments(folder: Path) -> list[Attachment]:
    """All attached pictures, by page and key; their records are read.

    Raises:
        KnowledgeError: a record cannot be read.
    """
    return [read_attachment(place) for place in places(folder)]


def read_attachment(place: Path) -> Attachment:
    """The attached picture in a folder.

    Raises:
        KnowledgeError: its record cannot be read.
    """
    try:
        record = json.loads((place / RECORD).read_text(encoding="utf-8"))
        found = Attached(**record)
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(place, "its record cannot be read") from error
    if any(not isinstance(getattr(found, field.name), _TYPES[str(field.type)]) for field in fields(found)):
        raise _damaged(place, "its record is not one")
    if not _KEY.fullmatch(found.picture_hash):
        raise _damaged(place, "its record is not one")
    if (found.doc_id, found.key) != (place.parent.name, place.name):
        raise _damaged(place, "its record belongs to another picture")
    return Attachment(found, place)


_TYPES: dict[str, type] = {"str": str, "int": int, "bool": bool}


def check(attachment: Attachment) -> None:
    """Look whether the kept files are those of the record.

    Raises:
        KnowledgeError: one is missing or was changed.
    """
    record = attachment.record
    wanted = {PICTURE: record.picture_sha256, MASK: record.mask_sha256, CROP: record.crop_sha256}
    for name, digest in wanted.items():
        if not digest:
            continue
        try:
            blob = (attachment.folder / name).read_bytes()
        except OSError as error:
            raise _damaged(attachment.folder, f"{name} cannot be read") from error
        if hashlib.sha256(blob).hexdigest() != digest:
            raise _damaged(attachment.folder, f"{name} was changed")


def read_picture(attachment: Attachment) -> NDArray[np.uint8]:
    """The kept picture, uint8 (H, W, 3).

    Raises:
        KnowledgeError: it is missing or was changed.
    """
    check(attachment)
    with Image.open(attachment.picture) as image:
        return np.asarray(image.convert("RGB"))


def read_marked(attachment: Attachment) -> NDArray[np.bool_] | None:
    """The kept mask, bool (H, W) of the picture; None without one.

    Raises:
        KnowledgeError: it cannot be read.
    """
    if attachment.mask is None:
        return None
    try:
        with Image.open(attachment.mask) as image:
            return np.asarray(image.convert("L")) > 127
    except (OSError, UnidentifiedImageError) as error:
        raise _damaged(attachment.folder, f"{MASK} cannot be read") from error


def keep(folder: Path, record: Attached, rgb: NDArray[np.uint8], mask: NDArray[np.bool_] | None) -> Attachment:
    """Write one attached picture, whole or not at all.

    Args:
        folder: of all attached pictures.
        record: its hashes of kept files are filled in here.
        rgb: uint8 (H, W, 3), the source as it was read.
        mask: bool (H, W), the defect; None where nobody drew it.

    Raises:
        StorageError: the disk refuses.
    """
    place = folder / record.doc_id / record.key
    marked = mask if mask is not None and mask.any() else None
    height, width = rgb.shape[:2]
    scale = min(1.0, PICTURE_SIDE_PX / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    images = {PICTURE: Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS)}
    if marked is not None:
        share = Image.fromarray(marked.astype(np.float32)).resize(size, Image.Resampling.BOX)
        covered = np.asarray(share)
        drawn = covered >= min(0.5, float(covered.max()))  # a defect of less than a pixel stays one
        images[MASK] = Image.fromarray(drawn.astype(np.uint8) * np.uint8(255))
        images[CROP] = crop_defect(rgb, marked)
    with new_folder(place) as fresh:
        hashes = {}
        with storage_errors(place):
            for name, image in images.items():
                write_atomically(fresh / name, lambda path, image=image: _save(image, path))  # type: ignore[misc]
                hashes[name] = hashlib.sha256((fresh / name).read_bytes()).hexdigest()
        filled = {
            "picture_sha256": hashes[PICTURE],
            "mask_sha256": hashes.get(MASK, ""),
            "crop_sha256": hashes.get(CROP, ""),
        }
        record = Attached(**{**asdict(record), **filled})
        write_json_atomically(fresh / RECORD, asdict(record))
    return Attachment(record, place)


def crop_defect(rgb: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Image.Image:
    """A square around the largest connected place of a defect, in the source's pixels, at most CROP_SIDE_PX a side.

    Args:
        rgb: uint8 (H, W, 3).
        mask: bool (H, W), not empty.
    """
    from scipy.ndimage import find_objects, label

    places, _ = label(mask, np.ones((3, 3), int))
    largest = int(np.bincount(places[mask]).argmax())
    rows, columns = find_objects(places)[largest - 1]
    longer = max(rows.stop - rows.start, columns.stop - columns.start)
    side = max(_MIN_CROP_PX, round(longer * (1.0 + 2.0 * _CROP_MARGIN)))

    def span(found: slice, length: int) -> slice:
        wanted = min(side, length)
        start = min(max(0, (found.start + found.stop - wanted) // 2), length - wanted)
        return slice(start, start + wanted)

    crop = Image.fromarray(np.ascontiguousarray(rgb[span(rows, rgb.shape[0]), span(columns, rgb.shape[1])]))
    crop.thumbnail((CROP_SIDE_PX, CROP_SIDE_PX), Image.Resampling.LANCZOS)
    return crop


def _save(image: Image.Image, path: Path) -> None:
    if path.suffix == ".png":
        image.save(path, "PNG", optimize=True)
    else:
        image.save(path, "JPEG", quality=95, subsampling=0)


def shown(folder: Path) -> dict[str, Attachment]:
    """The picture that each page shows, by doc_id: the first whose defect is drawn, else the first.

    Raises:
        KnowledgeError: a record cannot be read.
    """
    found: dict[str, Attachment] = {}
    for attachment in sorted(attachments(folder), key=lambda a: a.mask is None):
        found.setdefault(attachment.record.doc_id, attachment)
    return found


def embedded(folder: Path, doc_ids: Collection[str]) -> list[Attachment]:
    """The attached pictures that pages are searched by, of these pages.

    Raises:
        KnowledgeError: a record cannot be read.
    """
    return [a for a in attachments(folder) if a.is_embedded and a.record.doc_id in doc_ids]


def page_keys(attached: Iterable[Attachment]) -> list[str]:
    """What of the pictures that pages are searched by decides the vectors of a base."""
    return sorted(f"{a.record.doc_id} {a.record.picture_sha256}" for a in attached)


def picture_features(attachment: Attachment, backbone: Backbone) -> PictureFeatures:
    """Features of an attached picture as a whole, kept beside the pictures once they were computed.

    Of the whole picture and not only its defect: the keys of inspections are of whole pictures, or weighted by a map
    that is far wider than a drawn mask.

    Raises:
        KnowledgeError: the picture is missing or was changed.
        StorageError: the disk refuses.
    """
    cache = PartCache(attachment.folder.parents[1] / _PARTS, backbone)
    return cache.features(attachment.record.picture_sha256, lambda: read_picture(attachment))


def _damaged(place: Path, what: str) -> KnowledgeError:
    return KnowledgeError(
        f"the attached picture {place.parent.name}/{place.name} is damaged: {what}.",
        hint=f"Attach it again (flawscope kb build --dataset …), or delete {place}.",
    )
