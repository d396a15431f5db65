"""Brushes of the drawn example pictures: noise, lines, blobs, light and compositing.

Everything is float32 in [0, 1], (S, S) for fields and (S, S, 3) for pictures. Positions and lengths are in units
of the side (x right, y down), so that a drawing looks the same at any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Field = NDArray[np.float32]
Picture = NDArray[np.float32]
Numbers = NDArray[np.floating[Any]]
Point = tuple[float, float]
Colour = tuple[float, float, float]

_SUPERSAMPLE = 3  # outlines are drawn this much larger and reduced, which gives soft edges


@lru_cache(maxsize=4)
def grid(size: int) -> tuple[Field, Field]:
    """Return the x and y position of each pixel's centre, read-only."""
    axis = ((np.arange(size) + 0.5) / size).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    x.setflags(write=False)
    y.setflags(write=False)
    return x, y


def resized(field: Field, size: int) -> Field:
    """Return a small field enlarged smoothly to (size, size)."""
    picture = Image.fromarray(np.ascontiguousarray(field, dtype=np.float32))
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)


def fractal_noise(
    rng: np.random.Generator, size: int, cells: float = 4.0, octaves: int = 4, stretch: Point = (1.0, 1.0)
) -> Field:
    """Return noise with detail on several scales, zero mean and unit deviation.

    Args:
        rng: source of the noise.
        size: side in pixels.
        cells: coarsest blobs per side.
        octaves: scales added, each half as large and half as strong as the one before.
        stretch: factors on ``cells`` along x and y; (0.1, 1) draws the noise out along x.
    """
    total = np.zeros((size, size), dtype=np.float32)
    for octave in range(octaves):
        scale = cells * 2**octave
        nx, ny = (int(np.clip(scale * factor, 2, size)) for factor in stretch)
        total += resized(rng.standard_normal((ny, nx), dtype=np.float32), size) * np.float32(0.5**octave)
    centred: Field = total - total.mean()
    result: Field = centred / (centred.std() + np.float32(1e-6))
    return result


def cellular(rng: np.random.Generator, size: int, cells: int) -> Field:
    """Return the distance to the nearest border between random cells, in units of a cell (Worley's F2 - F1)."""
    seeds = rng.uniform(0.05, 0.95, (cells + 2, cells + 2, 2)).astype(np.float32)
    # distances bend slowly, so a coarser field enlarged is as good and takes a third of the time
    coarse = max(size * 5 // 8, 2 * cells)
    axis = (np.arange(coarse, dtype=np.float32) + 0.5) * np.float32(cells / coarse)
    column = np.floor(axis).astype(np.intp)
    nearest = np.full((coarse, coarse), 9.0, dtype=np.float32)
    second = nearest.copy()
    for dy in (0, 1, 2):
        for dx in (0, 1, 2):
            seed = seeds[np.ix_(column + dy, column + dx)]
            in_x = seed[:, :, 0] + (column + dx - 1)[None, :] - axis[None, :]
            in_y = seed[:, :, 1] + (column + dy - 1)[:, None] - axis[:, None]
            distance = in_x * in_x + in_y * in_y
            np.minimum(second, np.maximum(nearest, distance), out=second)
            np.minimum(nearest, distance, out=nearest)
    return resized(np.sqrt(second) - np.sqrt(nearest), size)


def smooth_step(field: Numbers, edge: float, softness: float) -> Field:
    """Return 0 below ``edge``, 1 above, with a soft transition of the width ``softness``."""
    t = np.clip((field - np.float32(edge)) / np.float32(max(softness, 1e-4)) + np.float32(0.5), 0, 1)
    step: Field = (t * t * (3 - 2 * t)).astype(np.float32)
    return step


def blob(
    rng: np.random.Generator,
    size: int,
    centre: Point,
    radius: float,
    *,
    ragged: float = 0.15,
    softness: float = 0.02,
    aspect: float = 1.0,
    angle: float = 0.0,
    cells: float = 6.0,
) -> Field:
    """Return the coverage of a rounded spot; ``ragged`` is how far noise pushes its border, in radii."""
    field = radius - elliptic_distance(size, centre, aspect, angle)
    if ragged > 0:
        field = field + np.float32(ragged * radius) * fractal_noise(rng, size, cells, 4)
    return smooth_step(field.astype(np.float32), 0.0, softness)


def elliptic_distance(size: int, centre: Point, aspect: float = 1.0, angle: float = 0.0) -> Field:
    """Return the distance from a centre, where ``aspect`` shrinks distances along ``angle`` (radians)."""
    x, y = grid(size)
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    along = (dx * np.float32(np.cos(angle)) + dy * np.float32(np.sin(angle))) / np.float32(aspect)
    across = dy * np.float32(np.cos(angle)) - dx * np.float32(np.sin(angle))
    distance: Field = np.sqrt(along * along + across * across)  # a third of the time of hypot
    return distance


def walk(
    rng: np.random.Generator, start: Point, angle: float, length: float, *, jitter: float = 0.35, steps: int = 40
) -> list[Point]:
    """Return a wandering line that keeps its general direction, as a crack does."""
    points, (x, y) = [start], start
    lean = 0.0
    for kick in rng.normal(0, jitter, steps):
        lean = 0.85 * lean + 0.3 * kick
        heading = angle + lean + 1.1 * kick
        x, y = x + length / steps * np.cos(heading), y + length / steps * np.sin(heading)
        points.append((float(x), float(y)))
    return points


def stroke(
    size: int, points: Sequence[Point], width: float, *, taper: tuple[float, float] = (1.0, 1.0), blur: float = 0.0
) -> Field:
    """Return the coverage of a polyline; ``taper`` scales the width at its start and its end."""
    return strokes(size, [(points, width, taper)], blur=blur)


def strokes(
    size: int, lines: Sequence[tuple[Sequence[Point], float, tuple[float, float]]], *, blur: float = 0.0
) -> Field:
    """Return the coverage of several polylines (points, width, taper); widths swell to full in the middle."""
    big = size * _SUPERSAMPLE
    canvas = Image.new("L", (big, big))
    draw = ImageDraw.Draw(canvas)
    for points, width, (first, last) in lines:
        count = max(len(points) - 1, 1)
        for index, (here, there) in enumerate(pairwise(points)):
            t = (index + 0.5) / count
            share = min(1.0, first + (1 - first) * 4 * t, last + (1 - last) * 4 * (1 - t))
            pixels = max(1, round(width * share * big))
            ends = [(here[0] * big, here[1] * big), (there[0] * big, there[1] * big)]
            draw.line(ends, fill=255, width=pixels)
            if pixels > 3:
                radius = pixels / 2
                draw.ellipse([ends[1][0] - radius, ends[1][1] - radius, ends[1][0] + radius, ends[1][1] + radius], 255)
    return _reduced(canvas, size, blur)


def polygon(size: int, corners: Sequence[Point], *, blur: float = 0.0) -> Field:
    """Return the coverage of a filled polygon."""
    return polygons(size, [corners], blur=blur)


def polygons(size: int, outlines: Sequence[Sequence[Point]], *, blur: float = 0.0) -> Field:
    """Return the coverage of several filled polygons."""
    big = size * _SUPERSAMPLE
    canvas = Image.new("L", (big, big))
    draw = ImageDraw.Draw(canvas)
    for corners in outlines:
        draw.polygon([(x * big, y * big) for x, y in corners], fill=255)
    return _reduced(canvas, size, blur)


def box(centre: Point, width: float, height: float, angle: float = 0.0) -> list[Point]:
    """Return the corners of a rectangle, turned by ``angle`` radians about its centre."""
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    halves = [(-width / 2, -height / 2), (width / 2, -height / 2), (width / 2, height / 2), (-width / 2, height / 2)]
    return [(centre[0] + x * cos - y * sin, centre[1] + x * sin + y * cos) for x, y in halves]


def ring(centre: Point, radius: float, corners: int = 48) -> list[Point]:
    """Return a circle as corners of a polygon, for drawing many at once."""
    turns = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return [(float(centre[0] + radius * np.cos(t)), float(centre[1] + radius * np.sin(t))) for t in turns]


def disc(size: int, centre: Point, radius: float, *, softness: float = 0.006) -> Field:
    """Return the coverage of a round disc."""
    return smooth_step(radius - elliptic_distance(size, centre), 0.0, softness)


def _reduced(canvas: Image.Image, size: int, blur: float) -> Field:
    small = canvas.reduce(_SUPERSAMPLE)
    if blur > 0:
        small = small.filter(ImageFilter.GaussianBlur(blur * size))
    return np.asarray(small, dtype=np.float32) / np.float32(255)


def blurred(field: Numbers, radius: float) -> Field:
    """Return a coverage or picture in [0, 1], blurred by ``radius`` in units of the side (8-bit precision)."""
    pixels = Image.fromarray((np.clip(field, 0, 1) * 255).astype(np.uint8))
    softened = pixels.filter(ImageFilter.GaussianBlur(radius * field.shape[0]))
    return np.asarray(softened, dtype=np.float32) / np.float32(255)


def relief(height: Numbers, strength: float = 1.0) -> Field:
    """Return the light on a height field (heights in units of the side) from a lamp at the upper left, 0 if flat."""
    dy, dx = np.gradient(height.astype(np.float32) * np.float32(height.shape[0]))
    # a flank that rises towards the lower right faces the lamp
    light: Field = np.clip((dx * 0.6 + dy * 0.8) * strength, -1.5, 1.5).astype(np.float32)
    return light


def paint(picture: Picture, cover: Numbers, colour: Colour | Numbers) -> Picture:
    """Return the picture with a colour, or another picture, laid over it where ``cover`` is 1."""
    rows, columns = cover.max(axis=1).nonzero()[0], cover.max(axis=0).nonzero()[0]
    mixed = picture.copy()
    if rows.size == 0:
        return mixed
    # most covers are small: only the box around them is worked on
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    over = np.asarray(colour, dtype=np.float32)
    over = over[window] if over.ndim == 3 else over
    alpha = np.clip(cover[window], 0, 1)[:, :, None]
    mixed[window] = picture[window] * (1 - alpha) + over * alpha
    return mixed


def shade(picture: Picture, change: Numbers) -> Picture:
    """Return the picture made lighter (> 0) or darker (< 0) by a relative change of its brightness."""
    shaded: Picture = picture * (1 + change.astype(np.float32))[:, :, None]
    return shaded


def add_light(picture: Picture, light: Numbers) -> Picture:
    """Return the picture with white light added, as a reflection adds it."""
    lit: Picture = picture + light.astype(np.float32)[:, :, None]
    return lit


def speckle(rng: np.random.Generator, size: int, strength: float) -> Field:
    """Return fine grain of one pixel."""
    return rng.standard_normal((size, size), dtype=np.float32) * np.float32(strength)


def warped(picture: Picture, shift_x: Field, shift_y: Field) -> Picture:
    """Return the picture sampled at (x + shift_x, y + shift_y), in units of the side, between pixels linearly."""
    size = picture.shape[0]
    x, y = grid(size)
    px = np.clip((x + shift_x) * size - 0.5, 0, size - 1.001)
    py = np.clip((y + shift_y) * size - 0.5, 0, size - 1.001)
    left, top = px.astype(np.intp), py.astype(np.intp)
    fx, fy = (px - left)[:, :, None].astype(np.float32), (py - top)[:, :, None].astype(np.float32)
    flat, at = picture.reshape(size * size, -1), top * size + left  # one flat index is faster than two
    upper = flat[at] * (1 - fx) + flat[at + 1] * fx
    lower = flat[at + size] * (1 - fx) + flat[at + size + 1] * fx
    result: Picture = upper * (1 - fy) + lower * fy
    return result
