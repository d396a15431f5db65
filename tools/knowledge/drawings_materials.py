"""Sound surfaces that the drawn defects appear on: each a function of a random source and a side in pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .drawings_base import (
    Colour,
    Field,
    Picture,
    cellular,
    fractal_noise,
    grid,
    polygons,
    relief,
    resized,
    shade,
    smooth_step,
    speckle,
)


def lamp(rng: np.random.Generator, size: int, strength: float = 0.12) -> Field:
    """Return the uneven light of a real set-up: a slope across the picture and a little fall-off in the corners."""
    x, y = grid(size)
    angle = rng.uniform(np.pi * 0.9, np.pi * 1.6)
    slope = (x - 0.5) * np.float32(np.cos(angle)) + (y - 0.5) * np.float32(np.sin(angle))
    fall_off = (x - 0.5) ** 2 + (y - 0.5) ** 2
    return (np.float32(strength) * slope - np.float32(0.25) * fall_off).astype(np.float32)


def _surface(rng: np.random.Generator, size: int, colour: Colour, texture: Field, grain: float = 0.015) -> Picture:
    base = np.broadcast_to(np.asarray(colour, dtype=np.float32), (size, size, 3))
    return shade(base, texture + lamp(rng, size) + speckle(rng, size, grain))


def brushed_metal(rng: np.random.Generator, size: int) -> Picture:
    """Bright sheet with fine horizontal lines and a broad sheen."""
    x, _ = grid(size)
    lines = resized(rng.standard_normal((size, 5), dtype=np.float32), size) * np.float32(0.05)
    lines += resized(rng.standard_normal((size, size // 8), dtype=np.float32), size) * np.float32(0.03)
    sheen = np.float32(0.14) * np.exp(-(((x - rng.uniform(0.25, 0.75)) / 0.25) ** 2))
    return _surface(rng, size, (0.63, 0.64, 0.66), lines + sheen)


def cast_metal(rng: np.random.Generator, size: int) -> Picture:
    """Sand-cast grey skin with rounded grain."""
    rough = fractal_noise(rng, size, 60, 2) * np.float32(0.0022) + fractal_noise(rng, size, 12, 3) * np.float32(0.0015)
    return _surface(rng, size, (0.47, 0.47, 0.46), relief(rough, 0.5), 0.03)


def strip_steel(rng: np.random.Generator, size: int) -> Picture:
    """Rolled strip: mid grey, vertical bands and fine grain."""
    bands = resized(rng.standard_normal((2, 24), dtype=np.float32), size) * np.float32(0.035)
    fine = fractal_noise(rng, size, size / 3, 1, (1.0, 0.3)) * np.float32(0.03)
    return _surface(rng, size, (0.58, 0.58, 0.58), bands + fine, 0.025)


def ground_face(rng: np.random.Generator, size: int) -> Picture:
    """Ground ferrite or steel: dark grey with vertical grinding lines."""
    lines = resized(rng.standard_normal((6, size), dtype=np.float32), size) * np.float32(0.07)
    lines += resized(rng.standard_normal((size // 6, size), dtype=np.float32), size) * np.float32(0.05)
    return _surface(rng, size, (0.42, 0.42, 0.43), lines, 0.03)


def dark_plastic(rng: np.random.Generator, size: int) -> Picture:
    """Moulded black plastic or rubber with fine erosion texture."""
    rough = fractal_noise(rng, size, 90, 2) * np.float32(0.0016)
    return _surface(rng, size, (0.19, 0.195, 0.205), relief(rough, 0.55), 0.025)


def light_plastic(rng: np.random.Generator, size: int) -> Picture:
    """Moulded ivory plastic, satin."""
    return _surface(rng, size, (0.83, 0.81, 0.75), fractal_noise(rng, size, 3, 3) * np.float32(0.012), 0.008)


def leather(rng: np.random.Generator, size: int) -> Picture:
    """Brown grain of polygonal cells with soft waves."""
    cells = cellular(rng, size, 26)
    height = smooth_step(cells, 0.12, 0.3) * np.float32(0.004) + fractal_noise(rng, size, 50, 2) * np.float32(0.0006)
    waves = fractal_noise(rng, size, 2, 2) * np.float32(0.05)
    furrows = (1 - smooth_step(cells, 0.06, 0.14)) * np.float32(0.16)
    return _surface(rng, size, (0.47, 0.30, 0.22), relief(height, 0.35) + waves - furrows, 0.02)


def weave(
    rng: np.random.Generator,
    size: int,
    *,
    shift_u: Field | None = None,
    shift_v: Field | None = None,
    yarns: float = 30.0,
    twill: bool = False,
) -> Picture:
    """Plain (or twill) weave of two yarns; ``shift_u`` and ``shift_v`` displace warp and weft, in yarns."""
    x, y = grid(size)
    tint = rng.uniform(-0.04, 0.04, 3)
    yarn_noise = resized(rng.standard_normal((3, int(yarns) * 2), dtype=np.float32), size) * np.float32(0.04)
    yarn_noise += resized(rng.standard_normal((int(yarns) * 2, 3), dtype=np.float32), size) * np.float32(0.04)
    u = x * np.float32(yarns) + (0 if shift_u is None else shift_u)
    v = y * np.float32(yarns) + (0 if shift_v is None else shift_v)
    column, row = np.floor(u), np.floor(v)
    in_u, in_v = 2 * (u - column) - 1, 2 * (v - row) - 1
    warp_on_top = (column - row) % 3 < 1.5 if twill else (column + row) % 2 < 0.5
    across = np.where(warp_on_top, in_u, in_v)
    along = np.where(warp_on_top, in_v, in_u)
    body = np.sqrt(np.clip(1 - 0.9 * across**2, 0, 1)) * (1 - 0.28 * along**2)
    base = np.where(warp_on_top[:, :, None], (0.62, 0.60, 0.55), (0.53, 0.54, 0.55)) + tint
    lit = body * 0.85 + 0.18 + yarn_noise
    cloth = (base * lit[:, :, None]).astype(np.float32)
    return shade(cloth, lamp(rng, size) + speckle(rng, size, 0.03))


def cloth(rng: np.random.Generator, size: int) -> Picture:
    """Plain weave, as a surface for other faults."""
    return weave(rng, size)


def painted(rng: np.random.Generator, size: int) -> Picture:
    """Glossy coat in a random solid colour, with a soft reflection and slight peel."""
    palette: tuple[Colour, ...] = ((0.16, 0.30, 0.52), (0.58, 0.13, 0.13), (0.78, 0.79, 0.78), (0.18, 0.38, 0.28))
    colour = palette[int(rng.integers(len(palette)))]
    x, y = grid(size)
    reflection = np.float32(0.22) * np.exp(-(((x * 0.6 + y - rng.uniform(0.3, 0.9)) / 0.22) ** 2))
    peel = relief(fractal_noise(rng, size, 40, 1) * np.float32(0.0006), 0.25)
    return _surface(rng, size, colour, reflection + peel, 0.008)


def ceramic(rng: np.random.Generator, size: int) -> Picture:
    """White glazed ware."""
    x, y = grid(size)
    gloss = np.float32(0.07) * np.exp(-((x - 0.3) ** 2 + (y - 0.25) ** 2) / 0.05)
    return _surface(rng, size, (0.84, 0.84, 0.81), gloss + fractal_noise(rng, size, 3, 3) * np.float32(0.008), 0.006)


def asphalt(rng: np.random.Generator, size: int) -> Picture:
    """Road surface or concrete with stones of all tones."""
    stones = fractal_noise(rng, size, 70, 2)
    bright = smooth_step(stones, 2.0, 0.5) * np.float32(0.45)
    return _surface(rng, size, (0.47, 0.48, 0.50), stones * np.float32(0.09) + bright, 0.06)


def solar_cell(rng: np.random.Generator, size: int) -> Picture:
    """Glowing cell with three busbars, fine upright fingers and bevelled corners."""
    x, y = grid(size)
    glow = fractal_noise(rng, size, 3, 3) * np.float32(0.03)
    fingers = np.float32(-0.03) * (np.sin(x * np.float32(2 * np.pi * 38)) > 0.6)
    cell = _surface(rng, size, (0.62, 0.63, 0.64), glow + fingers, 0.02)
    lines = np.zeros((size, size), dtype=np.float32)
    for at in (0.2, 0.5, 0.8):
        lines = np.maximum(lines, 1 - smooth_step(np.abs(y - np.float32(at)), 0.011, 0.006))
    corners = polygons(size, [[(0, 0), (0.13, 0), (0, 0.13)], [(1, 0), (0.87, 0), (1, 0.13)],
                              [(0, 1), (0.13, 1), (0, 0.87)], [(1, 1), (0.87, 1), (1, 0.87)]])  # fmt: skip
    return shade(cell, -np.maximum(lines, corners) * np.float32(0.78))


Material = Callable[[np.random.Generator, int], Picture]
