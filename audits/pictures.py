"""Pictures of a record for people and pages: small enough that ten thousand of them fit on a disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..agent.home import storage_errors
from ..agent.schemas import InspectionReport
from ..tools.overlay import VERDICT_COLOURS, colour_map, heat, tinted
from .records import Picture

FOLDER = "pictures"
THUMBNAIL_PX, SIDE_PX = 160, 640
QUALITY = 82


def write_pictures(
    report: InspectionReport,
    rgb: NDArray[np.uint8],
    anomaly_map: NDArray[np.float32] | None,
    pixel_threshold: float,
    out: Path,
    record_id: str,
) -> dict[Picture, str]:
    """Write a record's pictures below ``out/pictures``.

    ``thumbnail`` is the overlay, 160 px; ``image``, ``overlay`` (map and boxes over it) and ``map`` have one size, of
    640 px at most.

    Args:
        report: for its verdict and regions.
        rgb: uint8 (H, W, 3), as inspected.
        anomaly_map: float32 (H, W), None where there is none.
        pixel_threshold: above which the map gets colours.
        out: the audit's folder.
        record_id: names the files.

    Returns:
        Paths relative to ``out``.

    Raises:
        StorageError: the disk refuses.
    """
    height, width = rgb.shape[:2]
    scale = min(1.0, SIDE_PX / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    drawn: dict[Picture, Image.Image] = {"image": image}
    overlay = image
    if anomaly_map is not None:
        small = Image.fromarray(anomaly_map).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        value = heat(np.asarray(small, np.float32), pixel_threshold)
        overlay = Image.fromarray(np.clip(tinted(np.asarray(image), value), 0, 255).astype(np.uint8))
        drawn["map"] = Image.fromarray(np.where((value > 0)[..., None], colour_map(value), np.uint8(0)))
    sx, sy = (float(side) for side in report.provenance["picture"]["scale"])
    drawn["overlay"] = _with_boxes(overlay, report, sx * size[0] / width, sy * size[1] / height)
    drawn["thumbnail"] = drawn["overlay"].copy()
    drawn["thumbnail"].thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), reducing_gap=2.0)
    folder = out / FOLDER / record_id[:2]
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return {kind: _write(drawn[kind], folder, f"{record_id}-{kind}", out) for kind in sorted(drawn)}


def _with_boxes(picture: Image.Image, report: InspectionReport, sx: float, sy: float) -> Image.Image:
    boxed = picture.copy()
    draw = ImageDraw.Draw(boxed)
    for region in report.regions:
        x0, y0, x1, y1 = region.box
        corners = [x0 * sx, y0 * sy, max(x0 * sx, x1 * sx - 1), max(y0 * sy, y1 * sy - 1)]
        draw.rectangle(corners, outline=(255, 255, 255), width=3)
        draw.rectangle(corners, outline=VERDICT_COLOURS[report.verdict.value], width=2)
    return boxed


def _write(picture: Image.Image, folder: Path, stem: str, out: Path) -> str:
    """A whole file or none; nobody waits until the disk has it, as the record is the truth and this can be redrawn."""
    name = stem + (".png" if stem.endswith("map") else ".jpg")
    temporary = folder / f".{name}.{os.getpid()}"
    try:
        if stem.endswith("map"):
            picture.save(temporary, format="PNG", compress_level=1)
        else:
            picture.save(temporary, format="JPEG", quality=QUALITY)
        temporary.replace(folder / name)
    finally:
        temporary.unlink(missing_ok=True)
    return (folder / name).relative_to(out).as_posix()


def drawn_map(
    report: InspectionReport, load: Callable[[str], Any], pixel_threshold: float | None
) -> tuple[NDArray[np.float32] | None, float]:
    """The map of a report and the threshold of its colours.

    Args:
        report: just made; its arrays are still at hand.
        load: gives the array of a reference.
        pixel_threshold: of the product; None without one, then the map is read by how far it stands out of itself.
    """
    ref = report.provenance["picture"].get("anomaly_map")
    if not ref:
        return None, 1.0
    anomaly_map = np.asarray(load(ref), np.float32)
    levels = report.provenance.get("text", {}).get("levels")
    if pixel_threshold is None and levels is not None:
        return (anomaly_map - levels["median"]) / (levels["threshold"] - levels["median"]), 1.0
    return anomaly_map, 1.0 if pixel_threshold is None else pixel_threshold
