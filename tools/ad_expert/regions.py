"""Suspicious areas: connected components of the anomaly_map above the product's pixel threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WHOLE_SHARE = 0.5
"""A box that covers more of the picture than this is not a place in it."""
EDGE_SHARE = 0.04
"""A box that comes this near to a border lies at the edge."""


@dataclass(frozen=True)
class FoundRegion:
    """One connected area.

    Attributes:
        box: XYXY half-open, px of the map.
        area_px: pixels at or above the threshold.
        peak: highest value inside.
        peak_px: (x, y) of the peak.
        place: where, in words.
    """

    box: tuple[int, int, int, int]
    area_px: int
    peak: float
    peak_px: tuple[int, int]
    place: str


def find_regions(
    anomaly_map: NDArray[np.float32],
    pixel_threshold: float,
    *,
    min_area_px: float,
    min_peak: float,
    max_regions: int = 5,
) -> list[FoundRegion]:
    """Connected components (8-neighbourhood) at or above the threshold, strongest peak first.

    Args:
        anomaly_map: float32 (H, W).
        pixel_threshold: of the product; good parts stay below it nearly everywhere.
        min_area_px: smaller components are kept only if their peak reaches ``min_peak``.
        min_peak: peak that good parts rarely reach.
        max_regions: at most so many.
    """
    mask = anomaly_map >= pixel_threshold
    if not mask.any():
        return []
    from scipy import ndimage

    # only the rows and columns that hold anything: a suspicious area is small, labelling a whole picture is not free
    top, left = int(mask.any(axis=1).argmax()), int(mask.any(axis=0).argmax())
    bottom, right = (int(np.flatnonzero(mask.any(axis=axis))[-1]) + 1 for axis in (1, 0))
    labels, _ = ndimage.label(mask[top:bottom, left:right], structure=np.ones((3, 3), dtype=int))
    height, width = anomaly_map.shape
    found = []
    for number, (rows_found, columns_found) in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[rows_found, columns_found] == number
        rows = slice(rows_found.start + top, rows_found.stop + top)
        columns = slice(columns_found.start + left, columns_found.stop + left)
        window = (rows, columns)
        area = int(inside.sum())
        values = np.where(inside, anomaly_map[window], -np.inf)
        y, x = np.unravel_index(int(values.argmax()), values.shape)
        peak = float(values[y, x])
        if area < min_area_px and peak < min_peak:
            continue
        box = (int(columns.start), int(rows.start), int(columns.stop), int(rows.stop))
        peak_px = (int(columns.start + x), int(rows.start + y))
        found.append(FoundRegion(box, area, peak, peak_px, place_in_words(box, width, height)))
    found.sort(key=lambda region: (-region.peak, region.box))
    return found[:max_regions]


def place_in_words(box: tuple[int, int, int, int], width: int, height: int) -> str:
    """Where a box lies: one of nine fields, with ``edge`` or ``corner`` when it touches the border.

    Args:
        box: XYXY half-open, px.
        width: of the picture, px.
        height: of the picture, px.

    Returns:
        Such as ``centre``, ``upper left``, ``left edge``, ``lower right corner`` or ``whole picture``.
    """
    x0, y0, x1, y1 = box
    if (x1 - x0) * (y1 - y0) > WHOLE_SHARE * width * height:
        return "whole picture"
    row = ("upper", "", "lower")[min(2, int(3 * (y0 + y1) / 2 / height))]
    column = ("left", "", "right")[min(2, int(3 * (x0 + x1) / 2 / width))]
    near_x, near_y = EDGE_SHARE * width, EDGE_SHARE * height
    at_row = (row == "upper" and y0 <= near_y) or (row == "lower" and y1 >= height - near_y)
    at_column = (column == "left" and x0 <= near_x) or (column == "right" and x1 >= width - near_x)
    if at_row and at_column:
        return f"{row} {column} corner"
    name = f"{row} {column or 'centre'}" if row else column or "centre"
    if at_row and not column:
        return f"{row} edge"
    if at_column and not row:
        return f"{column} edge"
    if at_row or at_column:
        return f"{name}, at the edge"
    return name
