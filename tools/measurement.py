"""Measure a region in millimetres, with the uncertainty of what is known.

The edge of a box is known to within a pixel: a uniform error of half a pixel at each end gives a length a standard
uncertainty of sqrt(2) * 0.5 / sqrt(3) px (JCGM 100:2008, section 4.3.7). The scale's own is added in squares (section
5.1.2). How well a box of a patch-based map fits a defect is another matter: ``blur_px`` says how wide its edge is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..agent.errors import InputError

COVERAGE = 2.0
"""Expanded uncertainty: about 95% for a normal error."""


@dataclass(frozen=True)
class Length:
    """A length.

    Attributes:
        mm: its value.
        expanded_mm: expanded uncertainty (k = 2); None when the scale's own uncertainty is not known.
    """

    mm: float
    expanded_mm: float | None

    def __str__(self) -> str:
        if self.expanded_mm is None:
            return f"{self.mm:.3g} mm (uncertainty of the scale not known)"
        return f"{self.mm:.3g} ± {self.expanded_mm:.2g} mm"


@dataclass(frozen=True)
class Measurement:
    """A region's size.

    Attributes:
        width: along x.
        height: along y.
        diagonal: of its box.
        area_mm2: of its pixels; None when they were not counted.
    """

    width: Length
    height: Length
    diagonal: Length
    area_mm2: float | None


def measure_box(
    box: tuple[int, int, int, int],
    scale_px_per_mm: float,
    *,
    scale_uncertainty: float | None = None,
    area_px: int | None = None,
    blur_px: float = 0.0,
) -> Measurement:
    """Measure a region.

    Args:
        box: XYXY half-open, px of the original picture.
        scale_px_per_mm: of that picture, in the plane of the part.
        scale_uncertainty: relative standard uncertainty of the scale; None when nobody determined it.
        area_px: pixels of the region.
        blur_px: standard uncertainty of each edge beyond the pixel grid, px.

    Raises:
        InputError: the box is none, or the scale is not positive.
    """
    x0, y0, x1, y1 = box
    if not (x0 < x1 and y0 < y1):
        raise InputError(f"the box {list(box)} is not x0, y0, x1, y1 with x0 < x1 and y0 < y1.")
    if not (math.isfinite(scale_px_per_mm) and scale_px_per_mm > 0):
        raise InputError("the scale must be a positive number of pixels a millimetre.")
    edge = math.sqrt(0.25 / 3.0 + blur_px * blur_px)

    def length(px: float) -> Length:
        mm = px / scale_px_per_mm
        if scale_uncertainty is None:
            return Length(mm, None)
        grid = math.sqrt(2.0) * edge / scale_px_per_mm
        return Length(mm, COVERAGE * math.hypot(grid, mm * scale_uncertainty))

    area = None if area_px is None else area_px / (scale_px_per_mm * scale_px_per_mm)
    return Measurement(length(x1 - x0), length(y1 - y0), length(math.hypot(x1 - x0, y1 - y0)), area)
