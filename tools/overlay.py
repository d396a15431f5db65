"""Pictures for people: the anomaly_map over the part, with its regions and the verdict.

Colours are on the product's own scale, fixed by its references: transparent below what good parts show, full colour a
third above the pixel threshold. A good part therefore looks clean; nothing is stretched per picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

MAX_SIDE_PX = 1600
MIN_SIDE_PX = 480
MAX_OPACITY = 0.66
_ANCHORS = np.array(
    [[120, 0, 60], [176, 16, 40], [222, 60, 20], [246, 124, 10], [253, 190, 40], [255, 245, 150]], np.float32
)
"""Dark red to pale yellow: monotone in lightness, so readable with colour-vision deficiencies and in grey."""
FULL_COLOUR = 0.35
"""Share of the pixel threshold above it at which the colour is full; defects rarely exceed good patches by more."""
VERDICT_COLOURS = {"OK": (24, 128, 56), "NG": (190, 30, 36), "REVIEW": (176, 112, 0)}


def colour_map(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colours of values in [0, 1].

    Args:
        values: float32 of any shape; clipped to [0, 1].

    Returns:
        uint8 RGB, shape ``values.shape + (3,)``.
    """
    position = np.clip(values, 0.0, 1.0) * (len(_ANCHORS) - 1)
    low = np.minimum(position.astype(np.intp), len(_ANCHORS) - 2)
    share = (position - low)[..., None]
    return np.asarray((1 - share) * _ANCHORS[low] + share * _ANCHORS[low + 1] + 0.5, dtype=np.uint8)


def heat(anomaly_map: NDArray[np.float32], pixel_threshold: float) -> NDArray[np.float32]:
    """The map on the product's scale: 0 at the threshold of good parts, 1 where it is exceeded by FULL_COLOUR."""
    excess = anomaly_map / max(pixel_threshold, 1e-9) - 1.0
    return np.asarray(np.clip(excess / FULL_COLOUR, 0.0, 1.0), dtype=np.float32)


def heat_of_colours(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The values in [0, 1] of a bare map in colour, (H, W, 3), as ``colour_map`` draws them; 0 where it is black."""
    values = np.linspace(0.0, 1.0, 256, dtype=np.float32)
    scale = colour_map(values)[:, :2].sum(axis=1, dtype=np.intp)  # red and green rise all along the scale
    found = np.interp(rgb[..., :2].sum(axis=2, dtype=np.intp), scale, values)
    return np.where(rgb.any(axis=2), found, 0.0).astype(np.float32)


def tinted(picture: NDArray[Any], value: NDArray[np.float32], max_opacity: float = MAX_OPACITY) -> NDArray[np.float32]:
    """A picture (H, W, 3), 0 to 255, under the colours of values (H, W) in [0, 1]; where they are 0 it stays as is."""
    opacity = (max_opacity * np.sqrt(value))[..., None]
    return np.asarray((1 - opacity) * picture + opacity * colour_map(value), np.float32)


def draw_heatmap(anomaly_map: NDArray[np.float32], pixel_threshold: float) -> NDArray[np.uint8]:
    """The bare map in colour, uint8 (H, W, 3); black where a part is within the spread of good ones."""
    value = heat(anomaly_map, pixel_threshold)
    return np.where((value > 0)[..., None], colour_map(value), np.uint8(0)).astype(np.uint8)


def draw_overlay(
    rgb: NDArray[np.uint8],
    anomaly_map: NDArray[np.float32] | None,
    pixel_threshold: float,
    boxes: Sequence[tuple[tuple[int, int, int, int], str]],
    verdict: str,
    caption: str,
) -> NDArray[np.uint8]:
    """The part with the map and boxes over it and a band of words below.

    Args:
        rgb: uint8 (H, W, 3), original pixels.
        anomaly_map: float32 (H, W); None draws the part alone.
        pixel_threshold: of the product.
        boxes: XYXY half-open in original pixels, each with its label.
        verdict: OK, NG or REVIEW; the colour of band and frame.
        caption: words beside the verdict, cut to one line.

    Returns:
        uint8 RGB, at most MAX_SIDE_PX wide or high without the band.
    """
    height, width = rgb.shape[:2]
    scale = min(MAX_SIDE_PX / max(height, width), max(1.0, MIN_SIDE_PX / max(height, width)))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC), np.float32)
    if anomaly_map is not None:
        enlarged = Image.fromarray(anomaly_map.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
        picture = tinted(picture, heat(np.asarray(enlarged, np.float32), pixel_threshold))
    colour = VERDICT_COLOURS[verdict]
    canvas = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=15)
    for (x0, y0, x1, y1), label in boxes:
        corners = [x0 * scale, y0 * scale, max(x0 * scale, x1 * scale - 1), max(y0 * scale, y1 * scale - 1)]
        draw.rectangle(corners, outline=(255, 255, 255), width=3)
        draw.rectangle(corners, outline=colour, width=2)
        _tag(draw, label, corners[0], corners[1], colour, font, size)
    return _with_band(canvas, verdict, caption, colour)


def _tag(
    draw: ImageDraw.ImageDraw,
    label: str,
    x: float,
    y: float,
    colour: tuple[int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
) -> None:
    """A label above the box's corner, moved inside where it would leave the picture."""
    left, top, right, bottom = draw.textbbox((0, 0), label, font=font)
    wide, high = right - left + 8, bottom - top + 8
    x = min(max(0.0, x), max(0.0, size[0] - wide))
    y = y - high if y >= high else min(y, max(0.0, size[1] - high))
    draw.rectangle([x, y, x + wide, y + high], fill=colour)
    draw.text((x + 4 - left, y + 4 - top), label, fill=(255, 255, 255), font=font)


def _with_band(canvas: Image.Image, verdict: str, caption: str, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    band = 44
    wide = max(canvas.width, 260)
    whole = Image.new("RGB", (wide, canvas.height + band), (24, 24, 27))
    whole.paste(canvas, ((wide - canvas.width) // 2, 0))
    draw = ImageDraw.Draw(whole)
    bold, plain = ImageFont.load_default(size=22), ImageFont.load_default(size=15)
    left = draw.textlength(verdict, font=bold) + 26
    draw.rectangle([0, canvas.height, left, canvas.height + band], fill=colour)
    draw.text((13, canvas.height + 9), verdict, fill=(255, 255, 255), font=bold)
    room = wide - left - 20
    if draw.textlength(caption, font=plain) > room:
        while caption and draw.textlength(caption + "…", font=plain) > room:
            caption = caption[:-1]
        caption = caption.rstrip() + "…"
    draw.text((left + 12, canvas.height + 13), caption, fill=(235, 235, 235), font=plain)
    draw.rectangle([0, 0, wide - 1, canvas.height - 1], outline=colour, width=3)
    return np.asarray(whole)
