"""A record's pictures as small WebP data: a thumbnail, a large view, and the map as a transparent layer for both.

The map is stored apart from the picture and only once: it is smooth, so 320 px of it weigh about 2 kB, and the page
lays it over either picture. What the audit wrote beside its records is taken first, then the original file when its
bytes are still the inspected ones.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ...agent.errors import InputError
from ...tools.imaging import load_image
from ..records import AuditRecord

THUMBNAIL_PX = 176
LARGE_PX = 720
THUMBNAIL_BYTES = 4_000
"""What parts weigh that are not all grain; 5,000 of them take 27 MB of a page."""
MAP_PX = 320
MAX_SOURCE_PIXELS = 50_000_000
"""A page shows hundreds of pictures; one of a gigapixel is left to the link to its file."""


@dataclass(frozen=True)
class Small:
    """What the gallery shows of a record.

    Attributes:
        thumbnail: base64 of a WebP of at most THUMBNAIL_PX, None when no picture can be read any more.
        map: base64 of a WebP with alpha of at most MAP_PX; empty when nothing stands out, None when no map was kept.
    """

    thumbnail: str | None
    map: str | None

    @property
    def size_bytes(self) -> int:
        """Characters in the page."""
        return len(self.thumbnail or "") + len(self.map or "")


def small_of(record: AuditRecord, audit: Path) -> Small:
    """The thumbnail and the map of a record; never raises for a picture that is gone or hostile."""
    heat = _read(audit, record, "map")
    picture = _read(audit, record, "image") or _original(record)
    if picture is None:  # the audit's own thumbnail has the map and the regions painted into it
        picture, heat = _read(audit, record, "thumbnail"), None
    return Small(
        None if picture is None else _thumbnail(_fitted(picture, THUMBNAIL_PX)),
        None if heat is None else _layer(heat),
    )


def large_of(record: AuditRecord, audit: Path) -> str | None:
    """Base64 of a WebP of at most LARGE_PX; None when it can not be read, or would show no more than the thumbnail."""
    picture = _read(audit, record, "image") or _original(record)
    if picture is None or max(picture.size) <= THUMBNAIL_PX:
        return None
    return _webp(_fitted(picture, LARGE_PX), 72)


def _read(audit: Path, record: AuditRecord, kind: str) -> Image.Image | None:
    """A picture that the audit wrote; a path that leads out of its folder is nobody's picture."""
    name = dict(record.pictures).get(kind)  # type: ignore[call-overload]
    if name is None:
        return None
    path = (audit / name).resolve()
    return _decoded(path) if path.is_relative_to(audit.resolve()) else None


def _original(record: AuditRecord) -> Image.Image | None:
    if record.sha256 is None:
        return None
    return _decoded(Path(record.line.image), record.sha256)


def _decoded(path: Path, sha256: str | None = None) -> Image.Image | None:
    try:
        loaded = load_image(path, max_pixels=MAX_SOURCE_PIXELS)
    except InputError:
        return None
    return Image.fromarray(loaded.rgb) if sha256 in (None, loaded.sha256) else None


def _fitted(picture: Image.Image, side_px: int) -> Image.Image:
    scale = side_px / max(picture.size)
    if scale >= 1:
        return picture
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)


def _thumbnail(picture: Image.Image) -> str:
    """Fine grain costs three times what other surfaces do; there it gets the quality that still shows its direction."""
    text = _webp(picture, 50)
    return text if len(text) * 3 // 4 <= THUMBNAIL_BYTES else _webp(picture, 20)


def _layer(heat: Image.Image) -> str:
    """The map with its black made transparent; empty when it is all black."""
    rgb = np.asarray(_fitted(heat, MAP_PX), np.uint8)
    strength = rgb.max(axis=2)
    if strength.max() < FAINT:
        return ""
    # Where the map begins its colour is already dark red; the layer fades in from there instead of in a hard edge.
    alpha = np.clip((strength.astype(np.float32) - FAINT) * (255.0 / (255 - FAINT)), 0, 255).astype(np.uint8)
    return _webp(Image.fromarray(np.dstack([rgb, alpha])), 62)


FAINT = 24
"""Levels below which a map's colour is a remnant of resizing or compression."""


def _webp(picture: Image.Image, quality: int) -> str:
    buffer = io.BytesIO()
    # Method 1 takes a third of the time of the default for the same size.
    picture.save(buffer, format="WEBP", quality=quality, method=1, alpha_quality=70)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
