"""What a reviewer looks at: the part, and the map over it, at a size that a screen can show."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ...tools.imaging import load_image
from ...tools.overlay import heat, tinted
from ..errors import InputError
from .items import ReviewItem

if TYPE_CHECKING:
    from ..inspector import InspectionDeps

SHOWN_SIDE_PX = 1600
MAX_OVERLAY_BYTES = 40_000_000


def shown_picture(item: ReviewItem, *, max_pixels: int) -> bytes:
    """The inspected picture as PNG, reduced to at most SHOWN_SIDE_PX.

    Raises:
        InputError: it cannot be read, or is not the one that was inspected.
    """
    loaded = load_image(item.image, max_pixels=max_pixels)
    if item.sha256 is not None and loaded.sha256 != item.sha256:
        raise InputError(f"{item.image} has changed since it was inspected.", hint="Inspect it again.")
    return _png(Image.fromarray(loaded.rgb))


def shown_overlay(item: ReviewItem, deps: InspectionDeps, *, max_pixels: int) -> bytes | None:
    """The picture under its anomaly map as PNG; None where no map was kept.

    Args:
        item: an audit's has its overlay in the audit's folder, a thread's is drawn of the map in the artifact store.
        deps: of the home.
        max_pixels: larger pictures are refused.

    Raises:
        FlawscopeError: the picture, the map or the product cannot be read.
    """
    if item.audit is not None:
        path = _inside(Path(item.audit), item.pictures.get("overlay"))
        if path is None or not path.is_file():
            return None
        if path.stat().st_size > MAX_OVERLAY_BYTES:
            raise InputError(f"the overlay {path.name} is too large.")
        return _png(Image.fromarray(load_image(path, max_pixels=max_pixels).rgb))
    if item.anomaly_map is None:
        return None
    product = deps.product(item.product)
    anomaly_map = np.asarray(deps.artifacts.get(item.anomaly_map), np.float32)
    value = heat(anomaly_map, product.pixel_threshold if product else 1.0)
    picture = Image.open(io.BytesIO(shown_picture(item, max_pixels=max_pixels)))
    over = np.asarray(Image.fromarray(value).resize(picture.size, Image.Resampling.BILINEAR))
    return _png(Image.fromarray(np.asarray(tinted(np.asarray(picture), over) + 0.5, np.uint8)))


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
    picture.thumbnail((SHOWN_SIDE_PX, SHOWN_SIDE_PX))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
