"""Compare a picture with a template, pixel by pixel: for circuit boards, prints and other parts that must match.

The picture is aligned first (``registration``). A pixel then differs only by how far it leaves the band between the
darkest and the brightest template pixel within the tolerance: the edge of a track may lie a pixel or two elsewhere, and
a moved edge is not a defect until it moved by more. What is left is cut into regions: material that is missing where
the template has some, and extra material where it has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..agent.errors import InputError
from .registration import Registration, register, warp

Material = Literal["bright", "dark"]

SLIVER_PX = 3.0
SLIVER_ASPECT = 4.0
"""A region at most SLIVER_PX thick is a sliver when it is SLIVER_ASPECT times as long as it is thick."""


@dataclass(frozen=True)
class TemplateConfig:
    """How strictly a picture must match; the defaults were chosen on half of a set of boards (docs/logic.md).

    Attributes:
        tolerance_px: an edge may lie this far from the template's.
        min_difference: of the template's contrast, that a pixel must leave the band by.
        min_area_px: smaller regions are noise of the edges.
        join_px: pieces nearer than this are one region.
        material: whether the part's material (copper, ink) is brighter or darker than its ground.
        min_correlation: below it the picture shows another part, or no part that can be aligned.
    """

    tolerance_px: int = 1
    min_difference: float = 0.3
    min_area_px: int = 12
    join_px: int = 4
    material: Material = "bright"
    min_correlation: float = 0.5


@dataclass(frozen=True)
class TemplateRegion:
    """One place that does not match.

    Attributes:
        box: XYXY half-open, px of the picture as it was given.
        area_px: pixels of the template's frame outside the tolerance.
        kind: whether material is missing or extra there.
        peak: largest difference, in contrasts of the template.
    """

    box: tuple[int, int, int, int]
    area_px: int
    kind: Literal["missing", "extra"]
    peak: float


@dataclass(frozen=True)
class TemplateComparison:
    """What differs.

    Attributes:
        registration: how the template lies in the picture.
        regions: largest first.
        difference: float32 (H, W) in the template's frame, signed: positive where there is extra material; in contrasts
            of the template; 0 where the picture shows nothing.
        score: the largest sum of a region's differences, px; grows with area and contrast; 0 without regions.
    """

    registration: Registration
    regions: tuple[TemplateRegion, ...]
    difference: NDArray[np.float32]
    score: float


def grey_of(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Luma of a picture (ITU-R BT.601).

    Args:
        rgb: uint8 (H, W, 3).

    Returns:
        float32 (H, W), 0 to 255.
    """
    return np.asarray(rgb @ np.array([0.299, 0.587, 0.114], np.float32), np.float32)


def compare_with_template(
    template: NDArray[np.float32],
    picture: NDArray[np.float32],
    config: TemplateConfig | None = None,
    *,
    ignore: NDArray[np.bool_] | None = None,
) -> TemplateComparison:
    """Align a picture to a template and find what differs.

    Args:
        template: float32 (H, W), grey values of a defect-free part.
        picture: float32 (H, W), of the part.
        config: how strictly it must match.
        ignore: bool (H, W), True where the template is not compared; None compares all.

    Raises:
        InputError: the two cannot be aligned.
    """
    config = config or TemplateConfig()
    found = register(template, picture)
    if found.correlation < config.min_correlation:
        raise InputError(
            f"the picture does not match the template: correlation {found.correlation:.2f} after alignment.",
            hint="Is it the right part, in the right pose?",
        )
    moved, seen = warp(picture, found)
    difference = _outside(template, moved, config)
    difference[_border(~seen, config.tolerance_px)] = 0.0
    if ignore is not None:
        difference[ignore] = 0.0
    regions, score = _regions(difference, found, config)
    return TemplateComparison(found, regions, difference, score)


def _outside(template: NDArray[np.float32], moved: NDArray[np.float32], config: TemplateConfig) -> NDArray[np.float32]:
    """How far each pixel leaves the template's band, in contrasts; positive is extra material."""
    from scipy import ndimage

    dark, bright = (float(v) for v in np.quantile(template, (0.05, 0.95)))
    contrast = bright - dark
    if contrast < 2.0:  # little material on a wide ground
        dark, bright = float(template.min()), float(template.max())
        contrast = bright - dark
    side = 2 * config.tolerance_px + 1
    disc = (
        np.hypot(*np.mgrid[-side // 2 + 1 : side // 2 + 1, -side // 2 + 1 : side // 2 + 1]) <= config.tolerance_px + 0.5
    )
    highest = ndimage.maximum_filter(template, footprint=disc)
    lowest = ndimage.minimum_filter(template, footprint=disc)
    signed = np.where(moved > highest, moved - highest, np.where(moved < lowest, moved - lowest, 0.0)) / contrast
    return np.asarray(signed if config.material == "bright" else -signed, np.float32)


def _border(unseen: NDArray[np.bool_], tolerance_px: int) -> NDArray[np.bool_]:
    """What cannot be compared: what the picture does not show and a rim as wide as the tolerance around it."""
    from scipy import ndimage

    framed = np.pad(unseen, 1, constant_values=True)
    return np.asarray(ndimage.distance_transform_edt(~framed)[1:-1, 1:-1] <= tolerance_px, np.bool_)


def _regions(
    difference: NDArray[np.float32], found: Registration, config: TemplateConfig
) -> tuple[tuple[TemplateRegion, ...], float]:
    from scipy import ndimage

    regions, score = [], 0.0
    size = (difference.shape[1], difference.shape[0])
    for kind, signed in (("extra", difference), ("missing", -difference)):
        mask = signed >= config.min_difference
        if not mask.any():
            continue
        near = ndimage.distance_transform_edt(~mask) <= config.join_px / 2.0
        labels, _ = ndimage.label(near, np.ones((3, 3), int))
        for number, window in enumerate(ndimage.find_objects(labels), start=1):
            inside = (labels[window] == number) & mask[window]
            area = int(inside.sum())
            if area < config.min_area_px or _is_sliver(inside):
                continue
            values = signed[window][inside]
            rows, columns = np.nonzero(inside)
            y0, x0 = window[0].start + int(rows.min()), window[1].start + int(columns.min())
            y1, x1 = window[0].start + int(rows.max()) + 1, window[1].start + int(columns.max()) + 1
            box = _box_in_picture((x0, y0, x1, y1), found, size)
            regions.append(TemplateRegion(box, area, kind, float(values.max())))  # type: ignore[arg-type]
            score = max(score, float(values.sum()))
    regions.sort(key=lambda region: (-region.area_px, region.box))
    return tuple(regions), score


def _is_sliver(inside: NDArray[np.bool_]) -> bool:
    """Whether a region is a long thin line: an edge that runs beyond the tolerance elsewhere, not missing material."""
    from scipy import ndimage

    thickness = 2.0 * float(ndimage.distance_transform_edt(np.pad(inside, 1)).max()) - 1.0
    return thickness <= SLIVER_PX and int(inside.sum()) >= SLIVER_ASPECT * thickness * thickness


def _box_in_picture(
    box: tuple[int, int, int, int], found: Registration, size_px: tuple[int, int]
) -> tuple[int, int, int, int]:
    """The upright box in the picture around a box of the template."""
    x0, y0, x1, y1 = box
    corners = np.array([[x0, y0], [x1 - 1, y0], [x0, y1 - 1], [x1 - 1, y1 - 1]], np.float64)
    placed = found.to_picture(corners, size_px)
    low, high = np.floor(placed.min(axis=0) + 1e-3), np.ceil(placed.max(axis=0) - 1e-3) + 1
    left, top = (int(min(max(v, 0), n - 1)) for v, n in zip(low, size_px, strict=True))
    right, bottom = (int(min(max(v, o + 1), n)) for v, o, n in zip(high, (left, top), size_px, strict=True))
    return left, top, right, bottom


__all__ = ["TemplateComparison", "TemplateConfig", "TemplateRegion", "compare_with_template", "grey_of"]
