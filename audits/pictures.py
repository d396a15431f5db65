"""Pictures of a record for people and pages: small enough that ten thousand of them fit on a disk."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..agent.home import storage_errors
from ..agent.schemas import InspectionReport
from ..tools.overlay import MAX_OPACITY, VERDICT_COLOURS, colour_map, heat
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
        levels = Image.fromarray((255.0 * heat(np.asarray(small, np.float32), pixel_threshold)).astype(np.uint8))
        drawn["map"] = levels.copy()
        drawn["map"].putpalette(_palette())
        overlay = Image.composite(drawn["map"].convert("RGB"), image, levels.point(_opacity()))
    sx, sy = (float(side) for side in report.provenance["picture"]["scale"])
    drawn["overlay"] = _with_boxes(overlay, report, sx * size[0] / width, sy * size[1] / height)
    drawn["thumbnail"] = drawn["overlay"].copy()
    drawn["thumbnail"].thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), reducing_gap=2.0)
    folder = out / FOLDER / record_id[:2]
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return {kind: _write(drawn[kind], folder, f"{record_id}-{kind}", out) for kind in sorted(drawn)}


@cache
def _palette() -> bytes:
    """RGB of the 256 levels of a map; what good parts show is black."""
    colours = colour_map(np.linspace(0.0, 1.0, 256, dtype=np.float32))
    colours[0] = 0
    return colours.tobytes()


@cache
def _opacity() -> list[int]:
    """Of the 256 levels, 0 to 255, as overlays have it."""
    return [round(255 * MAX_OPACITY * (level / 255) ** 0.5) for level in range(256)]


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
    """Written in place: the record that names it follows only then, and a run that was killed writes it again."""
    if stem.endswith("map"):
        path = folder / f"{stem}.png"
        picture.save(path, format="PNG", compress_level=1)
    else:
        path = folder / f"{stem}.jpg"
        picture.save(path, format="JPEG", quality=QUALITY)
    return path.relative_to(out).as_posix()


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
