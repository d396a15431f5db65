"""Defects that open, pierce or fold a surface: cracks, holes, cuts, ridges and lifted layers."""

from __future__ import annotations

import numpy as np

from .drawings_base import (
    Field,
    Picture,
    Point,
    add_light,
    blob,
    blurred,
    cellular,
    elliptic_distance,
    fractal_noise,
    grid,
    paint,
    polygon,
    relief,
    shade,
    smooth_step,
    strokes,
    walk,
    warped,
)


def _centre(rng: np.random.Generator) -> Point:
    return float(rng.uniform(0.36, 0.64)), float(rng.uniform(0.36, 0.64))


def _opened(picture: Picture, cover: Field, depth: float = 0.85) -> Picture:
    """Darken an opening and light its far lip."""
    lip = np.clip(np.roll(cover, (2, 2), (0, 1)) - cover, 0, 1)
    return shade(shade(picture, -depth * cover), 0.28 * lip)


def crack(rng: np.random.Generator, clean: Picture) -> Picture:
    """A wandering line from an edge, forking into thinner branches."""
    size = clean.shape[0]
    angle = rng.uniform(-0.5, 0.5)
    main = walk(rng, (-0.02, float(rng.uniform(0.3, 0.7))), float(angle), rng.uniform(0.75, 1.0), jitter=0.55, steps=60)
    lines = [(main, 0.011, (1.0, 0.15))]
    for _ in range(int(rng.integers(2, 5))):
        at = int(rng.integers(12, 50))
        turn = rng.choice([-1, 1]) * rng.uniform(0.5, 1.0)
        branch = walk(rng, main[at], float(angle + turn), rng.uniform(0.1, 0.35), jitter=0.6, steps=25)
        lines.append((branch, 0.006, (1.0, 0.1)))
    cover = strokes(size, lines, blur=0.0007)
    return _opened(clean, 1.1 * cover * np.clip(0.85 + 0.2 * fractal_noise(rng, size, 30, 2), 0.4, 1))


def crazing(rng: np.random.Generator, clean: Picture) -> Picture:
    """A net of fine shallow lines over an area, fading out at its border."""
    size = clean.shape[0]
    bend_x, bend_y = (0.006 * fractal_noise(rng, size, 16, 3) for _ in range(2))
    net = cellular(rng, size, int(rng.integers(11, 15)))[:, :, None]
    net = warped(net, bend_x.astype(np.float32), bend_y.astype(np.float32))[:, :, 0]
    lines = 1 - smooth_step(net, 0.045, 0.05)
    weak = np.clip(0.75 + 0.4 * fractal_noise(rng, size, 6, 2), 0.1, 1)
    area = blob(rng, size, (0.5, 0.5), 0.42, ragged=0.2, softness=0.25)
    return shade(clean, (-0.5 * lines * weak * area).astype(np.float32))


def hole(rng: np.random.Generator, clean: Picture) -> Picture:
    """An opening with a wall, through which only darkness is seen."""
    size = clean.shape[0]
    centre, radius = _centre(rng), float(rng.uniform(0.07, 0.11))
    noise = fractal_noise(rng, size, 12, 4)
    field = radius - elliptic_distance(size, centre, float(rng.uniform(1, 1.3)), 0.7) + 0.010 * noise
    field = field.astype(np.float32)
    opening = smooth_step(field, 0.0, 0.006)
    x, y = grid(size)
    facing = np.clip(((x - centre[0]) * 0.6 + (y - centre[1]) * 0.8) / radius, -1, 1)
    wall = opening * (1 - smooth_step(field, 0.014, 0.012))
    picture = shade(clean, (0.45 * np.exp(-(((field + 0.012) / 0.010) ** 2)) * facing).astype(np.float32))
    picture = paint(picture, opening, (0.03, 0.03, 0.035))
    return paint(picture, wall * np.clip(0.25 + 0.6 * facing, 0, 1).astype(np.float32), clean * 0.8)


def poke(rng: np.random.Generator, clean: Picture) -> Picture:
    """A pinpoint in a funnel that draws the grain inwards."""
    size = clean.shape[0]
    centre = _centre(rng)
    distance = elliptic_distance(size, centre)
    x, y = grid(size)
    pull = (0.30 * np.exp(-((distance / 0.06) ** 2))).astype(np.float32)
    picture = warped(clean, (x - centre[0]) * pull, (y - centre[1]) * pull)
    funnel = (-0.045 * np.exp(-distance / 0.035)).astype(np.float32)
    picture = shade(picture, np.clip(relief(funnel, 0.8), -0.5, 0.55))
    point = blob(rng, size, centre, 0.017, ragged=0.35, softness=0.008, aspect=1.4, angle=float(rng.uniform(0, 3)))
    picture = paint(picture, point, (0.03, 0.03, 0.03))
    flap = blob(rng, size, (centre[0] + 0.015, centre[1] + 0.016), 0.008, ragged=0.3, softness=0.006)
    return paint(picture, 0.8 * flap, (0.85, 0.80, 0.74))


def cut(rng: np.random.Generator, clean: Picture) -> Picture:
    """A lens-shaped slit with pale curled lips."""
    size = clean.shape[0]
    centre, angle = _centre(rng), float(rng.uniform(-0.8, 0.8))
    length, gape, bow = float(rng.uniform(0.34, 0.5)), float(rng.uniform(0.02, 0.03)), float(rng.uniform(-0.03, 0.03))
    t = np.linspace(-0.5, 0.5, 30)
    half = gape * np.cos(np.pi * t) ** 1.2

    def side(scale: float) -> list[Point]:
        across = bow * 4 * t * t + scale * half
        along = t * length * (1.06 if abs(scale) > 1 else 1.0)
        xs = centre[0] + along * np.cos(angle) - across * np.sin(angle)
        ys = centre[1] + along * np.sin(angle) + across * np.cos(angle)
        return [(float(px), float(py)) for px, py in zip(xs, ys, strict=True)]

    lips = polygon(size, side(1.9) + side(-1.9)[::-1], blur=0.002)
    slit = polygon(size, side(0.8) + side(-0.8)[::-1])
    around = blurred(lips, 0.03)
    picture = shade(clean, np.clip(relief(0.10 * around, 0.6), -0.35, 0.35))
    core = np.clip(clean * 0.5 + np.asarray((0.42, 0.38, 0.33), np.float32), 0, 1)
    picture = paint(picture, 0.85 * lips, shade(core.astype(np.float32), relief(0.05 * blurred(lips, 0.008), 0.5)))
    return paint(picture, slit, (0.05, 0.04, 0.04))


def fold(rng: np.random.Generator, clean: Picture) -> Picture:
    """One ridge with a lit and a shaded flank that squeezes the grain."""
    size = clean.shape[0]
    centre, angle = _centre(rng), float(rng.uniform(-0.9, 0.9))
    x, y = grid(size)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    along, across = dx * cos + dy * sin, dy * cos - dx * sin
    across = across + np.float32(rng.uniform(-0.4, 0.4)) * along**2
    extent = np.exp(-((along / np.float32(rng.uniform(0.26, 0.36))) ** 4))
    height = (extent * np.exp(-((across / 0.022) ** 2))).astype(np.float32)
    squeeze = (across * height * np.float32(0.7)).astype(np.float32)
    picture = warped(clean, -squeeze * sin, squeeze * cos)
    lit = np.clip(relief(np.float32(0.020) * height, 0.85), -0.6, 0.75)
    crease = extent * np.exp(-(((across - 0.032) / 0.006) ** 2))
    return shade(picture, (lit - 0.5 * crease).astype(np.float32))


def wrinkle(rng: np.random.Generator, clean: Picture) -> Picture:
    """A field of rounded waves that run side by side and die out."""
    size = clean.shape[0]
    x, y = grid(size)
    angle = float(rng.uniform(-0.6, 0.6))
    across = y * np.float32(np.cos(angle)) - x * np.float32(np.sin(angle)) + 0.022 * fractal_noise(rng, size, 3, 3)
    envelope = blob(rng, size, _centre(rng), 0.26, ragged=0.25, softness=0.22, aspect=1.3, angle=angle, cells=3)
    height = 0.012 * envelope * np.sin(across * np.float32(2 * np.pi * 15))
    light = np.clip(relief(height.astype(np.float32), 0.62), -0.6, 0.6)
    glint = smooth_step(light, 0.38, 0.2) * np.float32(0.15)
    return add_light(shade(clean, light), glint)


def delamination(rng: np.random.Generator, clean: Picture) -> Picture:
    """A flake of the top layer is gone: another colour beneath, a curled lit rim and its shadow."""
    size = clean.shape[0]
    tone = float(clean.mean())
    field = 0.17 - elliptic_distance(size, _centre(rng), float(rng.uniform(1.1, 1.6)), float(rng.uniform(0, 3)))
    # cells give the torn layer its straight-edged, brittle outline
    torn = cellular(rng, size, 9) * np.float32(0.05) + 0.012 * fractal_noise(rng, size, 20, 3)
    field = (field + torn - 0.02).astype(np.float32)
    bare = smooth_step(field, 0.0, 0.004)
    below = np.asarray((0.60, 0.58, 0.54) if tone < 0.5 else (0.36, 0.31, 0.28), dtype=np.float32)
    base = np.broadcast_to(below, clean.shape) * (1 + 0.10 * fractal_noise(rng, size, 40, 3))[:, :, None]
    picture = paint(clean, bare, base.astype(np.float32))
    shadow = bare * (1 - np.roll(bare, (5, 4), (0, 1)))
    lip = np.exp(-(((field + 0.010) / 0.007) ** 2)) * (1 - bare)
    facing = 0.55 + 0.45 * np.sign(relief(blurred(1 - bare, 0.01), 1.0))
    return add_light(shade(picture, -0.65 * shadow), (0.26 * lip * facing).astype(np.float32))


def inactive_area(rng: np.random.Generator, clean: Picture) -> Picture:
    """A piece of a glowing cell cut off by cracks, or a dark cloud with a soft border."""
    size = clean.shape[0]
    if rng.random() < 0.4:
        noise = fractal_noise(rng, size, 6, 4)
        distance = elliptic_distance(size, (float(rng.uniform(0.4, 0.6)), 0.36), 2.2) + 0.015 * noise
        cloud = np.exp(-((distance / 0.10) ** 2)).astype(np.float32)
        return shade(clean, -0.85 * cloud)
    corner = float(rng.uniform(0.3, 0.6))
    low = float(rng.uniform(0.55, 0.8))
    piece = polygon(size, [(1.0, low - 0.3), (1.0, low), (corner, low - 0.05)], blur=0.0015)
    other = polygon(size, [(0.0, 0.5), (0.3, 0.2), (0.0, 0.2)], blur=0.0015)
    lines = [([(corner - 0.35, low - 0.05 + 0.35), (corner, low - 0.05), (corner + 0.3, 0.0)], 0.006, (0.6, 0.6)),
             ([(0.0, 0.5), (0.3, 0.2), (0.5, 0.0)], 0.006, (1.0, 0.6))]  # fmt: skip
    dark = np.maximum(0.82 * piece, 0.5 * other)
    return shade(clean, -np.maximum(dark, 0.45 * strokes(size, lines, blur=0.001)))
