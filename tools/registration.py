"""Align a picture to a template: which turn and shift bring the part under the template's pixels.

Two steps. Phase correlation (Kuglin and Hines, 1975) of the gradient magnitudes finds the shift to a few pixels from
anywhere, once for each of a few small turns. A Gauss-Newton descent then refines turn and shift together with the gain
and offset of the light, as enhanced correlation does (Evangelidis and Psarakis, 2008, section 3), with weights that
let a defect pull little (Huber). Only moderate differences can be corrected: a part under another lens or turned by
tens of degrees is another picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..agent.errors import InputError

MAX_TURN_DEG = 5.0
"""Largest turn that is searched for, either way."""
_TURN_STEP_DEG = 1.0
_COARSE_SIDE_PX = 320
_POINTS = 40_000
"""Points of strong gradient that the refinement compares."""
_ROUNDS = 40
_SETTLED_PX = 0.002
_MIN_POINTS = 50
_RIDGE = 1e-3
_MIN_GAIN = 0.05
_MIN_CONTRAST = 2.0
"""Grey values; a template whose strong edges are weaker has nothing to align by."""


@dataclass(frozen=True)
class Registration:
    """How a template lies in a picture: p_picture = matrix (p_template - centre) + centre + shift; p is (x, y).

    Attributes:
        matrix: 2 x 2, rows first; near a rotation.
        shift_px: (x, y), of the template's centre, px.
        gain: contrast of the picture over that of the template.
        offset: grey values; picture = gain * template + offset.
        correlation: of the two at strong edges after alignment, in [-1, 1]; near 1 where the same part is seen.
    """

    matrix: tuple[tuple[float, float], tuple[float, float]]
    shift_px: tuple[float, float]
    gain: float
    offset: float
    correlation: float

    @property
    def turn_deg(self) -> float:
        """Of the part in the picture against the template; positive from x towards y."""
        (a, b), (c, d) = self.matrix
        return math.degrees(math.atan2(c - b, a + d))

    @property
    def magnification(self) -> float:
        """Lengths in the picture over lengths in the template."""
        return math.sqrt(abs(float(np.linalg.det(np.array(self.matrix)))))

    def to_picture(self, points: NDArray[np.float64], size_px: tuple[int, int]) -> NDArray[np.float64]:
        """Where points of the template lie in the picture.

        Args:
            points: (..., 2), x and y, px of the template.
            size_px: (width, height) of the template.
        """
        centre = (np.array(size_px, np.float64) - 1.0) / 2.0
        return np.asarray((points - centre) @ np.array(self.matrix).T + centre + np.array(self.shift_px))


def register(template: NDArray[np.float32], picture: NDArray[np.float32]) -> Registration:
    """Find turn and shift of a part.

    Args:
        template: float32 (H, W), grey values 0 to 255.
        picture: float32 (H, W), of the same part under like light, any gain and offset.

    Raises:
        InputError: sizes that differ, or a template or picture without edges.
    """
    if template.shape != picture.shape:
        raise InputError(
            f"the picture has {picture.shape[1]} x {picture.shape[0]} px, the template "
            f"{template.shape[1]} x {template.shape[0]} px."
        )
    for name, grey in (("template", template), ("picture", picture)):
        if float(np.ptp(grey)) < _MIN_CONTRAST:
            raise InputError(f"the {name} is flat, so nothing can be aligned.")
    start = _coarse(template, picture)
    return _refine(template, picture, start)


def warp(picture: NDArray[np.float32], found: Registration) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Bring a picture into the template's frame and light.

    Args:
        picture: float32 (H, W).
        found: of `register`.

    Returns:
        float32 (H, W), the picture as the template would show it, and bool (H, W), False where it shows nothing.
    """
    from scipy import ndimage

    height, width = picture.shape
    matrix = np.array(found.matrix)[::-1, ::-1]  # rows and columns are y, x
    centre = np.array([(height - 1) / 2.0, (width - 1) / 2.0])
    offset = centre + np.array(found.shift_px[::-1]) - matrix @ centre
    moved = ndimage.affine_transform(picture, matrix, offset, order=1, mode="nearest")
    rows, columns = np.ogrid[0:height, 0:width]
    ys = matrix[0, 0] * rows + matrix[0, 1] * columns + offset[0]
    xs = matrix[1, 0] * rows + matrix[1, 1] * columns + offset[1]
    seen = (ys >= 0) & (ys <= height - 1) & (xs >= 0) & (xs <= width - 1)
    return np.asarray((moved - found.offset) / found.gain, np.float32), np.asarray(seen, np.bool_)


def _coarse(template: NDArray[np.float32], picture: NDArray[np.float32]) -> tuple[float, float, float]:
    """(turn_deg, x, y) under which the two agree best, px of the full frame.

    A board repeats itself, so the highest peak of a correlation may lie a pitch away: the peak of each turn, and no
    motion at all, are candidates; that with the highest correlation of the blurred pictures is taken.
    """
    from scipy import ndimage

    scale = min(1.0, _COARSE_SIDE_PX / max(template.shape))
    small, other = (
        ndimage.zoom(ndimage.uniform_filter(g, max(1, round(1 / scale))), scale, order=1) for g in (template, picture)
    )
    window = np.outer(np.hanning(small.shape[0]), np.hanning(small.shape[1])).astype(np.float32)
    wanted = np.conj(np.fft.rfft2(_edges(other) * window))
    best = (_agreement(small, other, 0, 0), 0.0, 0.0, 0.0)
    for turn in np.arange(-MAX_TURN_DEG, MAX_TURN_DEG + 0.01, _TURN_STEP_DEG):
        turned = small if turn == 0 else ndimage.rotate(small, -turn, reshape=False, order=1, mode="nearest")
        cross = np.fft.rfft2(_edges(turned) * window) * wanted
        peaks = np.fft.irfft2(cross / (np.abs(cross) + 1e-3 * np.abs(cross).mean()), small.shape)
        peaks = ndimage.gaussian_filter(peaks, 1.0, mode="wrap")
        peak = np.unravel_index(int(peaks.argmax()), peaks.shape)
        y, x = (int(n - v if v > n // 2 else -v) for v, n in zip(peak, peaks.shape, strict=True))
        agrees = _agreement(turned, other, y, x)
        if agrees > best[0]:
            best = (agrees, float(turn), x / scale, y / scale)
    return best[1:]


def _agreement(template: NDArray[np.float32], picture: NDArray[np.float32], y: int, x: int) -> float:
    """Correlation where a template moved by (y, x) overlaps the picture; -1 where less than half does."""
    height, width = template.shape
    if 2 * abs(y) >= height or 2 * abs(x) >= width:
        return -1.0
    own = template[max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)]
    there = picture[max(0, y) : height - max(0, -y), max(0, x) : width - max(0, -x)]
    return _correlation(own.ravel().astype(np.float64), there.ravel().astype(np.float64))


def _edges(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    from scipy import ndimage

    rows, columns = (ndimage.sobel(grey, axis=axis, output=np.float32) for axis in (0, 1))
    size = np.hypot(rows, columns)
    return np.asarray(size - size.mean(), np.float32)


def _refine(
    template: NDArray[np.float32], picture: NDArray[np.float32], start: tuple[float, float, float]
) -> Registration:
    """Gauss-Newton from coarse to fine blur; each level ends when a step moves the corners by less than _SETTLED_PX."""
    turn = math.radians(start[0])
    rotation = ((math.cos(turn), -math.sin(turn)), (math.sin(turn), math.cos(turn)))
    found = Registration(rotation, (start[1], start[2]), 1.0, 0.0, 0.0)
    for sigma in (4.0, 1.5):
        found = _descend(template, picture, found, sigma)
    if found.gain < _MIN_GAIN:
        raise InputError("the picture does not look like the template: their light and dark do not agree.")
    return found


def _descend(
    template: NDArray[np.float32], picture: NDArray[np.float32], begin: Registration, sigma: float
) -> Registration:
    """One level; gives the best round, so that a descent which leads astray does no harm."""
    from scipy import ndimage

    smooth, other = (ndimage.gaussian_filter(grey, sigma) for grey in (template, picture))
    slope_y, slope_x = np.gradient(other)
    rows, columns = _strong_points(smooth)
    wanted = smooth[rows, columns].astype(np.float64)
    centre = np.array([(template.shape[1] - 1) / 2.0, (template.shape[0] - 1) / 2.0])
    points = np.stack([columns, rows], axis=1) - centre
    reach = float(np.hypot(*centre))
    matrix, shift = np.array(begin.matrix), np.array(begin.shift_px)
    best: Registration | None = None
    for _ in range(_ROUNDS):
        at = points @ matrix.T + centre + shift
        inside = ((at >= 0) & (at < 2 * centre)).all(axis=1)
        if int(inside.sum()) < _MIN_POINTS:
            break
        seen, gx, gy = (
            ndimage.map_coordinates(np.asarray(grey, np.float64), at[inside, ::-1].T, order=1)
            for grey in (other, slope_x, slope_y)
        )
        goal, ux, uy = wanted[inside], points[inside, 0] / reach, points[inside, 1] / reach
        gain, grey_offset = (float(v) for v in np.polyfit(goal, seen, 1))
        agrees = _correlation(seen, goal) * min(1.0, 2.0 * float(inside.mean()))  # to leave the picture is no agreement
        if best is None or agrees > best.correlation:
            (a, b), (c, d) = matrix.tolist()
            best = Registration(((a, b), (c, d)), (float(shift[0]), float(shift[1])), gain, grey_offset, agrees)
        residual = seen - gain * goal - grey_offset
        limit = 1.345 * max(1.4826 * float(np.median(np.abs(residual))), 0.5)
        weight = np.minimum(1.0, limit / np.maximum(np.abs(residual), 1e-9))[:, None]
        # picture(p) + its change with matrix and shift = gain * template + offset
        slopes = np.stack([gx, gy, gx * ux, gx * uy, gy * ux, gy * uy, -goal, -np.ones(len(goal))], axis=1)
        normal = (slopes * weight).T @ slopes
        normal[:6, :6] += _RIDGE * np.trace(normal[:6, :6]) / 6.0 * np.eye(6)  # along one line nothing tells the shift
        step = np.linalg.solve(normal + 1e-9 * np.eye(8), -(slopes * weight).T @ seen)
        longest = float(np.hypot(step[0], step[1])) + float(np.abs(step[2:6]).max())
        step *= min(1.0, 2.0 * sigma / max(longest, 1e-9))  # beyond the blur a slope says nothing
        shift = shift + step[:2]
        matrix = matrix + step[2:6].reshape(2, 2) / reach
        if longest < _SETTLED_PX:
            break
    if best is None:
        raise InputError("the picture does not show the template's part: too little overlaps.")
    return best


def _strong_points(grey: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the strongest gradients, at most _POINTS, evenly from all that qualify."""
    slope_y, slope_x = np.gradient(grey)
    strength = np.hypot(slope_y, slope_x)
    rows, columns = np.nonzero(strength >= max(0.15 * float(np.quantile(strength, 0.995)), 1e-6))
    keep = np.linspace(0, len(rows) - 1, min(_POINTS, len(rows))).astype(int)
    return rows[keep], columns[keep]


def _correlation(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    a, b = left - left.mean(), right - right.mean()
    return float(a @ b / max(float(np.sqrt((a @ a) * (b @ b))), 1e-12))
