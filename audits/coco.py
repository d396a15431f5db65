"""Findings as a COCO data set: pictures, one category per defect type, boxes and run-length encoded masks.

Parts that were called NG or REVIEW give their suspicious areas; OK parts are pictures without annotations. What was not
decoded has no size and is left out. ``verdict``, ``image_score``, ``score`` and ``attributes`` go beyond the format and
are passed over by its readers.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..agent.home import write_atomically
from ..agent.schemas import Region, Verdict
from .records import RECORD_VERSION, AuditRecord
from .rle import mask_area, mask_box
from .summary import UNNAMED


@dataclass(frozen=True)
class CocoCounts:
    """What an export holds.

    Attributes:
        images: pictures.
        annotations: areas.
        masks: areas with a mask; the others have a box only.
        left_out: records without a picture's size.
    """

    images: int
    annotations: int
    masks: int
    left_out: int


def export_coco(records: Iterable[AuditRecord], path: Path) -> CocoCounts:
    """Write the data set as one JSON file, a record at a time.

    Args:
        records: of an audit.
        path: the file.

    Raises:
        InputError: a record's mask is damaged.
        StorageError: the disk refuses.
    """
    writing = _Writing()

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8") as file, tempfile.TemporaryFile("w+", encoding="utf-8") as later:
            writing.run(records, file, later)

    write_atomically(path, write)
    return CocoCounts(writing.images, writing.annotations, writing.masks, writing.left_out)


class _Writing:
    """One pass: pictures go into the file, annotations into a second one that is appended at the end."""

    def __init__(self) -> None:
        self.images = self.annotations = self.masks = self.left_out = 0
        self._categories: dict[str, int] = {}

    def run(self, records: Iterable[AuditRecord], file: IO[str], later: IO[str]) -> None:
        info = {"description": "Suspicious areas of an audit", "version": RECORD_VERSION}
        file.write(f'{{"info": {json.dumps(info)},\n"licenses": [],\n"images": [')
        for record in records:
            if record.size_px is None:
                self.left_out += 1
                continue
            self.images += 1
            file.write(("" if self.images == 1 else ",") + "\n" + json.dumps(self._image(record)))
            for annotation in self._annotations(record):
                later.write(("" if self.annotations == 1 else ",") + "\n" + json.dumps(annotation))
        file.write('],\n"annotations": [')
        later.seek(0)
        shutil.copyfileobj(later, file)
        categories = [
            {"id": number, "name": name, "supercategory": "defect"} for name, number in self._categories.items()
        ]
        file.write(f'],\n"categories": {json.dumps(categories)}}}\n')

    def _image(self, record: AuditRecord) -> dict[str, Any]:
        width, height = record.size_px or (0, 0)
        return {
            "id": self.images,
            "file_name": record.line.image,
            "width": width,
            "height": height,
            "verdict": record.verdict.value,
            "image_score": record.image_score,
        }

    def _annotations(self, record: AuditRecord) -> Iterator[dict[str, Any]]:
        if record.verdict is Verdict.OK or record.size_px is None:
            return
        name = record.defect_type.name if record.defect_type else UNNAMED
        category = self._categories.setdefault(name, len(self._categories) + 1)
        for region in record.regions:
            self.annotations += 1
            yield {
                "id": self.annotations,
                "image_id": self.images,
                "category_id": category,
                **self._shape(region, record.masks.get(region.id), record.size_px),
                "iscrowd": 0,
                "score": region.peak,
                "attributes": {"region": region.id, "verdict": record.verdict.value},
            }

    def _shape(self, region: Region, mask: str | None, size_px: tuple[int, int]) -> dict[str, Any]:
        width, height = size_px
        if mask is None:  # an empty list says that there is no outline; a box would pass for one
            x0, y0, x1, y1 = region.box
            return {"segmentation": [], "bbox": [x0, y0, x1 - x0, y1 - y0], "area": region.area_px}
        self.masks += 1
        x0, y0, x1, y1 = mask_box(mask, height)
        segmentation = {"size": [height, width], "counts": mask}
        return {"segmentation": segmentation, "bbox": [x0, y0, x1 - x0, y1 - y0], "area": mask_area(mask)}
