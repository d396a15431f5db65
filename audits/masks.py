"""Masks of suspicious areas for the records: which pixels of a region's box stand above the pixel threshold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..agent.schemas import Region
from .rle import encode_mask


def region_masks(
    anomaly_map: NDArray[np.float32], pixel_threshold: float, regions: Sequence[Region], size_px: tuple[int, int]
) -> dict[str, str]:
    """Each region's pixels at or above the threshold, as compressed run lengths of the original picture's size.

    Args:
        anomaly_map: float32 (H, W), of the inspected picture (a tiny one was enlarged).
        pixel_threshold: of the product.
        regions: boxes in pixels of the original picture.
        size_px: width and height of the original picture.

    Returns:
        ``counts`` by region id; a region without a pixel above the threshold has no mask.
    """
    from scipy import ndimage

    width, height = size_px
    rows = nearest(np.arange(height), anomaly_map.shape[0] / height, anomaly_map.shape[0])
    columns = nearest(np.arange(width), anomaly_map.shape[1] / width, anomaly_map.shape[1])
    masks = {}
    for region in regions:
        x0, y0, x1, y1 = region.box
        above = anomaly_map[np.ix_(rows[y0:y1], columns[x0:x1])] >= pixel_threshold
        labels, count = ndimage.label(above, structure=np.ones((3, 3), dtype=int))
        if count == 0:
            continue
        # boxes of two areas may overlap; the one that gave this box is the largest in it
        largest = 1 + int(np.bincount(labels.ravel())[1:].argmax())
        masks[region.id] = encode_mask(labels == largest, (x0, y0), size_px)
    return masks


def nearest(places_px: NDArray[np.int64], scale: float, length_px: int) -> NDArray[np.int64]:
    """The map's row or column under the middle of each of the picture's."""
    return np.minimum(((places_px + 0.5) * scale).astype(np.int64), length_px - 1)
