"""What a reviewer looks at: the part, and the map over it, at a size that a screen can show."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...tools.imaging import load_image
from ...tools.overlay import heat, heat_of_colours, tinted
from ..errors import InputError
from .items import ReviewItem

if TYPE_CHECKING:
    from ..inspector import InspectionDeps

SHOWN_SIDE_PX = 1600
MAX_OPACITY = 0.4
"""Of the map's colours: less than a report's, as whoever decides must see the part under them."""
MAX_FILE_BYTES = 40_000_000
"""Of a picture in an audit's folder."""


def shown_picture(item: ReviewItem, *, max_pixels: int) -> bytes:
    """The inspected picture as PNG, reduced to at most SHOWN_SIDE_PX; the audit's small copy where it is gone.

    Raises:
        InputError: it cannot be read, or is not the one that was inspected.
    """
    return _png(_picture(item, max_pixels))


def shown_overlay(item: ReviewItem, deps: InspectionDeps, *, max_pixels: int) -> bytes | None:
    """The picture under its anomaly map as PNG; None where no map was kept.

    Args:
        item: an audit's map is a picture in its folder, a thread's is in the artifact store.
        deps: of the home.
        max_pixels: larger pictures are refused.

    Raises:
        FlawscopeError: the picture, the map or the product cannot be read.
    """
    if not has_map(item):
        return None
    picture = _picture(item, max_pixels)
    if item.anomaly_map is not None:
        product = deps.product(item.product)
        anomaly_map = np.asarray(deps.artifacts.get(item.anomaly_map), np.float32)
        value = heat(anomaly_map, product.pixel_threshold if product else 1.0)
    else:
        drawn = _of_audit(item, "map", max_pixels)
        if drawn is None:
            return None
        value = heat_of_colours(np.asarray(drawn))
    over = np.asarray(Image.fromarray(value).resize(picture.size, Image.Resampling.BILINEAR))
    return _png(Image.fromarray(np.asarray(tinted(np.asarray(picture), over, MAX_OPACITY) + 0.5, np.uint8)))


def has_map(item: ReviewItem) -> bool:
    """Whether there is a map to lay over the picture."""
    return item.anomaly_map is not None or "map" in item.pictures


def _picture(item: ReviewItem, max_pixels: int) -> Image.Image:
    if not Path(item.image).exists() and (copy := _of_audit(item, "image", max_pixels)) is not None:
        return copy
    loaded = load_image(item.image, max_pixels=max_pixels)
    if item.sha256 is not None and loaded.sha256 != item.sha256:
        raise InputError(f"{item.image} has changed since it was inspected.", hint="Inspect it again.")
    return _reduced(loaded.rgb)


def _of_audit(item: ReviewItem, kind: str, max_pixels: int) -> Image.Image | None:
    """A picture in the audit's folder; None where there is none."""
    path = None if item.audit is None else _inside(Path(item.audit), item.pictures.get(kind))
    if path is None or not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
        return None
    return _reduced(load_image(path, max_pixels=max_pixels).rgb)


def _reduced(rgb: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(rgb)
    picture.thumbnail((SHOWN_SIDE_PX, SHOWN_SIDE_PX))
    return picture


def _inside(folder: Path, name: str | None) -> Path | None:
    """A file of a folder; None for one that lies elsewhere, whatever its record says."""
    if not name:
        return None
    try:
        path = (folder / name).resolve()
        return path if path.is_relative_to(folder.resolve()) else None
    except (OSError, ValueError):
        return None


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
