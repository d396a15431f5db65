"""What of the anomaly_map a language model is shown: brought to the scale of good parts, and admitted only if coherent.

After SiGMA: good references judged by each other give a pool of residuals; the map is 0 up to its upper end and 1 where
it is exceeded by twice the distance between the pool's middle and that end. Whether the map may speak for a defect is
another question: only if one connected area is larger than those that good parts show. Raw maps help a model to say
where, but made it see defects that are none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import ProductError

POOL_QUANTILE = 0.99
"""Share of the residuals of good parts that becomes 0."""
SPREADS = 2.0
"""Distances from the pool's middle to its upper end, beyond that end, at which the map is 1."""
AREA_QUANTILE = 0.95
"""Of the largest areas of good parts: what a part must exceed to be admitted."""
MARGIN_CELLS = 1
"""Patches by which it must exceed it: as large an area as on a good part says nothing."""
LEAST_RANGE = 1e-8
UNCALIBRATED_WEIGHT = 0.5
"""What evidence may weigh at most that too few references calibrate; 1 is a calibrated measurement."""


@dataclass(frozen=True)
class MapScale:
    """How maps of a product read.

    Attributes:
        low: anomaly_map value up to which good parts deviate nearly everywhere.
        high: value that counts as full deviation, at least ``low``.
        area_share: share of the picture that the largest connected area above ``low`` has on most good parts.
    """

    low: float
    high: float
    area_share: float

    def __post_init__(self) -> None:
        if not (0.0 <= self.area_share <= 1.0 and self.low <= self.high < np.inf):  # false for nan, too
            raise ProductError("the map's scale of this product is damaged.", hint="Enrol the product again.")

    def calibrate(self, anomaly_map: NDArray[np.float32]) -> NDArray[np.float32]:
        """The map in [0, 1], float32 of the same shape: 0 as good parts, 1 far beyond them."""
        width = max(self.high - self.low, LEAST_RANGE)
        return np.asarray(np.clip((anomaly_map - np.float32(self.low)) / width, 0.0, 1.0), np.float32)


@dataclass(frozen=True)
class Gate:
    """Whether the map may speak for a defect.

    Attributes:
        coherence: share of the picture that the largest connected area above ``low`` has.
        limit: what it must reach.
        admitted: whether it does; never without calibration.
        calibrated: whether references of the product gave the scale.
        weight: what the evidence may weigh, 1 or UNCALIBRATED_WEIGHT.
    """

    coherence: float
    limit: float
    admitted: bool
    calibrated: bool
    weight: float


def fit_map_scale(references: Sequence[Sequence[NDArray[np.float32]]], cells: Sequence[int]) -> MapScale:
    """Learn the scale from good references, each judged by the others.

    Args:
        references: per reference its smoothed patch maps, float32 (h, w): one for a picture seen in one look, one a
            tile for large ones. An area over several tiles counts in each of them by itself.
        cells: patches that each reference's picture amounts to; tiles overlap, so theirs together are more.

    Raises:
        ValueError: there is no map.
    """
    pool = np.concatenate([grid.ravel() for grids in references for grid in grids])
    low = float(np.quantile(pool, POOL_QUANTILE, method="inverted_cdf"))  # a value of the pool: enough of it is below
    high = low + SPREADS * max(low - float(np.median(pool)), 0.0)
    largest = [max(largest_area(grid, low) for grid in grids) for grids in references]
    areas = [min(1.0, area / size) for area, size in zip(largest, cells, strict=True)]
    return MapScale(low, high, float(np.quantile(areas, AREA_QUANTILE)))


def judge_map(cells: NDArray[np.float32], scale: MapScale, *, calibrated: bool) -> Gate:
    """Whether one connected area is larger than good parts show.

    Args:
        cells: float32 (h, w), the map with a value a patch.
        scale: of the product.
        calibrated: whether enough references gave the scale.
    """
    coherence = largest_area(cells, scale.low) / cells.size
    limit = scale.area_share + MARGIN_CELLS / cells.size
    admitted = calibrated and coherence > 0.0 and coherence >= limit - 1e-12
    return Gate(coherence, limit, admitted, calibrated, 1.0 if calibrated else UNCALIBRATED_WEIGHT)


def largest_area(cells: NDArray[np.float32], low: float) -> int:
    """Cells of the largest connected area (8-neighbourhood) above a value; 0 where there is none."""
    mask = cells > np.float32(low)
    if not mask.any():
        return 0
    from scipy import ndimage

    labels, _ = ndimage.label(mask, structure=np.ones((3, 3), dtype=int))
    return int(np.bincount(labels.ravel())[1:].max())


def cells_of(anomaly_map: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[np.float32]:
    """A map's values at the centres of patches.

    Args:
        anomaly_map: float32 (H, W).
        grid: patches (h, w).

    Returns:
        float32 (h, w).
    """
    rows, columns = (
        np.minimum(((np.arange(cells) + 0.5) * pixels / cells).astype(int), pixels - 1)
        for cells, pixels in zip(grid, anomaly_map.shape, strict=True)
    )
    return np.asarray(anomaly_map[np.ix_(rows, columns)], np.float32)
