"""Defects on a sound surface: marks, deposits, changes of colour and texture, hollows and domes.

Each painter takes a random source and the clean picture and returns the picture with the defect.
"""

from __future__ import annotations

import numpy as np

from .drawings_base import (
    Field,
    Picture,
    Point,
    add_light,
    blob,
    blurred,
    disc,
    elliptic_distance,
    fractal_noise,
    grid,
    paint,
    relief,
    resized,
    shade,
    smooth_step,
    stroke,
    strokes,
    walk,
)

_SHADOW = (0.004, 0.006)  # the lamp is at the upper left, so shadows fall to the lower right


def _somewhere(rng: np.random.Generator, margin: float = 0.3) -> Point:
    return float(rng.uniform(margin, 1 - margin)), float(rng.uniform(margin, 1 - margin))


def _shifted(points: list[Point], by: Point) -> list[Point]:
    return [(x + by[0], y + by[1]) for x, y in points]


def _tone(picture: Picture) -> float:
    return float(picture.mean())


def scratch(rng: np.random.Generator, clean: Picture) -> Picture:
    """One long score with a lit lip, and one or two faint companions."""
    size = clean.shape[0]
    angle = rng.choice([-1, 1]) * rng.uniform(0.3, 0.9)
    bright = 1.0 if _tone(clean) < 0.7 else -1.0
    picture = clean
    for index in range(int(rng.integers(1, 4))):
        length = rng.uniform(0.55, 0.8) if index == 0 else rng.uniform(0.15, 0.4)
        middle = _somewhere(rng, 0.42 if index == 0 else 0.3)
        bow = rng.uniform(-0.08, 0.08) * length
        along = np.linspace(-0.5, 0.5, 24)
        points: list[Point] = [
            (
                float(middle[0] + t * length * np.cos(angle) - bow * (4 * t * t) * np.sin(angle)),
                float(middle[1] + t * length * np.sin(angle) + bow * (4 * t * t) * np.cos(angle)),
            )
            for t in along
        ]
        width = 0.011 if index == 0 else 0.005
        # square to the line on the side away from the lamp, or line and shadow would cancel out
        side = 0.006 if np.cos(angle) * 0.8 - np.sin(angle) * 0.6 > 0 else -0.006
        aside = (float(-side * np.sin(angle)), float(side * np.cos(angle)))
        broken = np.clip(0.8 + 0.25 * fractal_noise(rng, size, 40, 2), 0.25, 1)
        lip = stroke(size, _shifted(points, aside), width, taper=(0.2, 0.1), blur=0.001)
        core = stroke(size, points, width, taper=(0.2, 0.1), blur=0.0008) * broken
        picture = shade(picture, (-0.5 * bright * lip * broken).astype(np.float32))
        picture = add_light(picture, (bright * (0.38 if index == 0 else 0.22) * core).astype(np.float32))
        angle += rng.normal(0, 0.08)
    return picture


def dent(rng: np.random.Generator, clean: Picture) -> Picture:
    """A soft hollow that bends what is reflected in it."""
    size = clean.shape[0]
    centre, radius = _somewhere(rng, 0.36), rng.uniform(0.12, 0.17)
    aspect, angle = rng.uniform(1.0, 1.5), rng.uniform(0, np.pi)
    distance = elliptic_distance(size, centre, aspect, angle) / np.float32(radius)
    height = (-np.float32(radius * 0.55) * np.exp(-(distance**2) * 1.6)).astype(np.float32)
    light = np.clip(relief(height, 0.6), -0.5, 0.5)
    glint = np.exp(
        -((elliptic_distance(size, (centre[0] + radius * 0.45, centre[1] + radius * 0.5)) / (radius * 0.3)) ** 2)
    )
    return add_light(shade(clean, light), (0.08 * glint).astype(np.float32))


def pitting(rng: np.random.Generator, clean: Picture) -> Picture:
    """A crowd of small craters, denser in a cluster."""
    size = clean.shape[0]
    centre = _somewhere(rng, 0.35)
    cover = np.zeros((size, size), dtype=np.float32)
    lines = []
    for _ in range(150):
        at = rng.normal(centre, 0.19) if rng.random() < 0.75 else rng.uniform(0.04, 0.96, 2)
        radius = min(0.003 + rng.exponential(0.0045), 0.022)
        tip = (float(at[0] + rng.normal(0, radius * 0.5)), float(at[1] + rng.normal(0, radius * 0.5)))
        lines.append((((float(at[0]), float(at[1])), tip), 2 * radius, (1.0, 1.0)))
    cover = strokes(size, lines, blur=0.0012)
    cover = smooth_step(cover + 0.12 * fractal_noise(rng, size, 60, 2), 0.5, 0.5)
    lit = np.clip(np.roll(cover, (3, 2), (0, 1)) - cover, 0, 1)
    return add_light(shade(clean, -0.68 * cover), 0.16 * lit)


def stain(rng: np.random.Generator, clean: Picture) -> Picture:
    """A dried drop: irregular border, darker rim, texture unchanged."""
    size = clean.shape[0]
    centre, radius = _somewhere(rng, 0.36), rng.uniform(0.15, 0.22)
    noise = fractal_noise(rng, size, 4, 4)
    field = (
        radius - elliptic_distance(size, centre, rng.uniform(1, 1.5), rng.uniform(0, np.pi)) + 0.035 * noise
    ).astype(np.float32)
    inside = smooth_step(field, 0.0, 0.02)
    rim = inside * np.exp(-((field / 0.014) ** 2)) + 0.5 * inside * np.exp(-(((field - 0.05) / 0.012) ** 2))
    splash = np.zeros_like(inside)
    for _ in range(4):
        away = rng.normal(0, radius * 1.1, 2)
        splash = np.maximum(splash, disc(size, (centre[0] + away[0], centre[1] + away[1]), rng.uniform(0.006, 0.016)))
    depth = (0.20 + 0.05 * noise) * inside + 0.22 * rim + 0.22 * splash * (1 - inside)
    hue = np.asarray((0.8, 1.0, 1.35), dtype=np.float32)
    picture: Picture = clean * (1 - depth[:, :, None] * hue)
    return picture


def contamination(rng: np.random.Generator, clean: Picture) -> Picture:
    """Grains and fibres of several colours with short shadows."""
    size = clean.shape[0]
    colours = ((0.12, 0.10, 0.08), (0.85, 0.84, 0.80), (0.42, 0.30, 0.18), (0.25, 0.25, 0.28))
    picture, centre = clean, _somewhere(rng, 0.4)
    for colour in colours:
        lines = []
        for _ in range(int(rng.integers(9, 18))):
            at = rng.normal(centre, 0.2)
            length, angle = rng.uniform(0.002, 0.014), rng.uniform(0, np.pi)
            start = (float(at[0]), float(at[1]))
            end = (float(at[0] + length * np.cos(angle)), float(at[1] + length * np.sin(angle)))
            lines.append(((start, end), float(rng.uniform(0.005, 0.018)), (1.0, 1.0)))
        grains = smooth_step(strokes(size, lines, blur=0.0012) + 0.1 * fractal_noise(rng, size, 50, 2), 0.5, 0.4)
        picture = shade(picture, -0.45 * np.roll(grains, (3, 2), (0, 1)))
        picture = paint(picture, grains, colour)
    fibres = [
        walk(rng, _somewhere(rng, 0.25), rng.uniform(0, 6.3), rng.uniform(0.15, 0.3), jitter=0.5) for _ in range(3)
    ]
    shadows = strokes(size, [(_shifted(fibre, _SHADOW), 0.005, (1.0, 1.0)) for fibre in fibres], blur=0.001)
    threads = strokes(size, [(fibre, 0.0045, (1.0, 1.0)) for fibre in fibres])
    return paint(shade(picture, -0.35 * shadows), threads, colours[int(rng.integers(2))])


def corrosion(rng: np.random.Generator, clean: Picture) -> Picture:
    """Rust: rough, orange to dark brown, fraying into spots."""
    size = clean.shape[0]
    centre = _somewhere(rng, 0.35)
    noise, fine = fractal_noise(rng, size, 5, 5), fractal_noise(rng, size, 30, 3)
    field = (0.22 - elliptic_distance(size, centre, rng.uniform(1, 1.6), rng.uniform(0, 3)) + 0.07 * noise).astype(
        np.float32
    )
    cover = smooth_step(field + 0.02 * fine, 0.0, 0.05)
    specks = smooth_step(fine + 5 * (field + 0.08), 1.4, 0.5) * smooth_step(field, -0.2, 0.1)
    cover = np.maximum(cover, 0.85 * specks)
    depth = np.clip(0.5 + 2.2 * field + 0.22 * fine, 0, 1)[:, :, None]
    rust = np.asarray((0.66, 0.36, 0.15), np.float32) * (1 - depth) + np.asarray((0.25, 0.12, 0.07), np.float32) * depth
    rust = shade(rust.astype(np.float32), relief(0.0025 * fine, 0.5) + 0.08 * noise)
    return paint(clean, 0.93 * cover, rust)


def discolouration(rng: np.random.Generator, clean: Picture) -> Picture:
    """A broad drift towards yellow brown with no border."""
    size = clean.shape[0]
    centre = (rng.choice([0.1, 0.9]), rng.uniform(0.2, 0.8))
    distance = elliptic_distance(size, centre, rng.uniform(1.0, 1.6), rng.uniform(0, 3))
    cover = np.exp(-((distance / 0.42) ** 2)) + 0.05 * fractal_noise(rng, size, 3, 3)
    tint = np.asarray((0.10, 0.26, 0.62), dtype=np.float32)
    picture: Picture = (clean * (1 - np.clip(cover, 0, 1)[:, :, None] * tint)).astype(np.float32)
    return picture


def colour_spot(rng: np.random.Generator, clean: Picture) -> Picture:
    """A saturated spot with the relief of the ground showing through, and a small satellite."""
    size = clean.shape[0]
    inks = ((0.62, 0.06, 0.10), (0.06, 0.20, 0.66), (0.05, 0.42, 0.25), (0.95, 0.62, 0.05))
    ink = np.asarray(inks[int(rng.integers(len(inks)))], dtype=np.float32)
    centre = _somewhere(rng, 0.35)
    spot = blob(rng, size, centre, rng.uniform(0.045, 0.075), ragged=0.12, softness=0.012, aspect=rng.uniform(1, 1.6))
    small = (centre[0] + rng.uniform(-0.16, 0.16), centre[1] + rng.uniform(0.1, 0.16))
    spot = np.maximum(spot, blob(rng, size, small, 0.017, ragged=0.1, softness=0.012))
    brightness = clean.mean(axis=2, keepdims=True) / max(_tone(clean), 1e-3)
    return paint(clean, 0.88 * spot, (ink * brightness).astype(np.float32))


def burn(rng: np.random.Generator, clean: Picture) -> Picture:
    """A charred core, a brown ring and a yellowish fringe."""
    size = clean.shape[0]
    centre, noise = _somewhere(rng, 0.38), fractal_noise(rng, size, 5, 4)
    distance = elliptic_distance(size, centre, rng.uniform(1.1, 1.8), rng.uniform(0, 3)) + 0.018 * noise
    r = (distance / rng.uniform(0.15, 0.18)).astype(np.float32)
    picture = paint(clean, 0.55 * np.exp(-((r / 1.5) ** 4)), (0.80, 0.62, 0.30))
    picture = paint(picture, 0.85 * np.exp(-((r / 1.1) ** 4)), (0.36, 0.20, 0.10))
    char = shade(np.full_like(clean, 0.07), 0.5 * fractal_noise(rng, size, 50, 2))
    return paint(picture, np.exp(-((r / 0.72) ** 4)).astype(np.float32), char)


def patches(rng: np.random.Generator, clean: Picture) -> Picture:
    """Map-like dark islands over a large share of the view."""
    size = clean.shape[0]
    noise = fractal_noise(rng, size, 3, 6)
    cover = smooth_step(noise, 0.55, 0.35)
    mottle = 0.08 * fractal_noise(rng, size, 60, 2)
    return shade(clean, -(0.58 + mottle) * cover)


def wear(rng: np.random.Generator, clean: Picture) -> Picture:
    """A rubbed field: the texture is smoothed and fine parallel lines run across it."""
    size = clean.shape[0]
    angle = rng.uniform(-0.4, 0.4)
    field = blob(rng, size, _somewhere(rng, 0.4), 0.17, ragged=0.3, softness=0.12, aspect=1.9, angle=angle, cells=5)
    rubbed = blurred(clean, 0.02)
    x, y = grid(size)
    across = ((y - x * np.float32(np.tan(angle))) % 1.0) * 200
    profile = rng.standard_normal(202, dtype=np.float32)
    lines = profile[across.astype(np.intp)] * np.float32(0.07)
    pale = 0.35 if _tone(clean) < 0.6 else -0.22
    rubbed = shade(rubbed, pale + lines * (0.5 + 0.5 * smooth_step(fractal_noise(rng, size, 6, 2), 0, 1)))
    return paint(clean, field, rubbed)


def uneven_surface(rng: np.random.Generator, clean: Picture) -> Picture:
    """A grinding pass that stopped: a border across, beyond it another tone and coarser lines with chatter."""
    size = clean.shape[0]
    x, y = grid(size)
    border = (rng.uniform(0.4, 0.6) + rng.uniform(-0.12, 0.12) * (x - 0.5)).astype(np.float32)
    beyond = smooth_step(y - border, 0.0, 0.012)
    chatter = 0.07 * np.sin((y - border) * np.float32(2 * np.pi * rng.uniform(14, 20)))
    lines = resized(rng.standard_normal((4, size // 3), dtype=np.float32), size) * np.float32(0.10)
    edge = np.exp(-(((y - border) / 0.006) ** 2))
    change = beyond * (0.24 + chatter + lines) - 0.25 * edge
    return shade(clean, change.astype(np.float32))


def inclusion(rng: np.random.Generator, clean: Picture) -> Picture:
    """Dark soft streaks drawn out along rolling."""
    size = clean.shape[0]
    cover = np.zeros((size, size), dtype=np.float32)
    for index in range(int(rng.integers(3, 6))):
        long = rng.uniform(0.25, 0.45) if index == 0 else rng.uniform(0.06, 0.2)
        x0, y0 = rng.uniform(0.25, 0.75), rng.uniform(0.08, 0.5)
        points = walk(rng, (float(x0), float(y0)), np.pi / 2, long, jitter=0.06)
        streak = stroke(size, points, (0.030 if index == 0 else 0.012), taper=(0.05, 0.05), blur=0.0035)
        cover = np.maximum(cover, streak)
    grainy = np.clip(0.8 + 0.25 * fractal_noise(rng, size, 40, 2, (1.0, 0.15)), 0.3, 1.1)
    return shade(clean, -0.52 * cover * grainy)


def rolled_in_scale(rng: np.random.Generator, clean: Picture) -> Picture:
    """Swarms of short dark dashes in bands."""
    size = clean.shape[0]
    bands = rng.uniform(0.15, 0.85, 2)
    lines = []
    for _ in range(170):
        x0 = rng.normal(bands[int(rng.integers(2))], 0.07) if rng.random() < 0.85 else rng.uniform(0, 1)
        y0, length = rng.uniform(0.02, 0.98), rng.uniform(0.008, 0.028)
        sag = rng.uniform(0.0, 0.006)
        dash = ((x0, y0), (x0 + length / 2, y0 + sag), (x0 + length, y0 - 0.3 * sag))
        points = [(float(px), float(py)) for px, py in dash]
        lines.append((points, float(rng.uniform(0.004, 0.010)), (0.6, 0.3)))
    cover = strokes(size, lines, blur=0.0012)
    return shade(clean, -0.6 * cover)


def porosity(rng: np.random.Generator, clean: Picture) -> Picture:
    """Smooth-walled cavities, shaded on the lamp side and lit on the far wall."""
    size = clean.shape[0]
    picture, centre = clean, _somewhere(rng, 0.42)
    for index in range(int(rng.integers(4, 8))):
        at = rng.normal(centre, 0.0 if index == 0 else 0.14)
        radius = rng.uniform(0.035, 0.05) if index == 0 else rng.uniform(0.008, 0.022)
        distance = elliptic_distance(size, (at[0], at[1]), rng.uniform(1, 1.5), rng.uniform(0, 3))
        inside = smooth_step(radius - distance, 0.0, 0.008)
        x, y = grid(size)
        depth = np.clip(0.5 + ((x - at[0]) * 0.6 + (y - at[1]) * 0.8) / (2 * radius), 0, 1).astype(np.float32)
        rim = np.exp(-(((distance - radius) / 0.006) ** 2)) * (depth > 0.55)
        picture = paint(picture, inside, clean * (0.12 + 0.42 * depth**2)[:, :, None])
        picture = add_light(picture, (0.14 * rim).astype(np.float32))
    return picture


def bubble(rng: np.random.Generator, clean: Picture) -> Picture:
    """Domes with a highlight on the lamp side and a dark foot opposite."""
    size = clean.shape[0]
    picture, centre = clean, _somewhere(rng, 0.42)
    for index in range(int(rng.integers(4, 9))):
        at = rng.normal(centre, 0.0 if index == 0 else 0.16)
        radius = rng.uniform(0.055, 0.075) if index == 0 else rng.uniform(0.014, 0.035)
        distance = elliptic_distance(size, (at[0], at[1])) / np.float32(radius)
        height = (np.float32(radius * 0.55) * np.clip(1 - distance**2, 0, 1) ** 0.75).astype(np.float32)
        picture = shade(picture, np.clip(relief(height, 0.55), -0.6, 0.45))
        spot = disc(size, (at[0] - 0.38 * radius, at[1] - 0.42 * radius), 0.17 * radius, softness=0.12 * radius)
        shadow = np.clip(1.25 - elliptic_distance(size, (at[0] + 0.012, at[1] + 0.016)) / radius, 0, 1) * (distance > 1)
        picture = add_light(shade(picture, (-0.6 * shadow).astype(np.float32)), 0.55 * spot)
    return picture


def glue_residue(rng: np.random.Generator, clean: Picture) -> Picture:
    """Glossy drops, one with a string: wet-dark body, sharp reflections, dark contact line."""
    size = clean.shape[0]
    centre = _somewhere(rng, 0.38)
    drop = blob(rng, size, centre, rng.uniform(0.08, 0.11), ragged=0.16, softness=0.008, aspect=1.25, cells=3)
    end = (centre[0] + rng.uniform(0.15, 0.28), centre[1] + rng.uniform(-0.25, 0.2))
    heading = float(np.arctan2(end[1] - centre[1], end[0] - centre[0]))
    string = stroke(size, walk(rng, centre, heading, 0.34, jitter=0.15), 0.016, taper=(1.0, 0.5))
    small = blob(rng, size, (centre[0] - 0.2, centre[1] + 0.14), 0.03, ragged=0.1, softness=0.008)
    body = np.maximum(np.maximum(drop, string), small)
    soft = blurred(body, 0.012)
    light = relief(0.06 * soft, 0.5)
    amber = np.asarray((0.88, 0.80, 0.55), dtype=np.float32)
    picture = paint(clean, 0.92 * body, (blurred(clean, 0.01) * 0.7 * amber + 0.14 * amber).astype(np.float32))
    picture = shade(picture, (body * np.clip(light, -0.4, 0.5) - 0.4 * (soft * (1 - body))).astype(np.float32))
    gloss = smooth_step(light, 0.42, 0.1) * body
    spot = disc(size, (centre[0] - 0.035, centre[1] - 0.04), 0.014, softness=0.01)
    return add_light(picture, 0.42 * gloss + 0.7 * spot)


def paint_run(rng: np.random.Generator, clean: Picture) -> Picture:
    """Two or three runs that follow gravity, each with a bead at its end."""
    size = clean.shape[0]
    body = np.zeros((size, size), dtype=np.float32)
    x0 = rng.uniform(0.3, 0.5)
    for index in range(int(rng.integers(2, 4))):
        x, top, length = x0 + 0.13 * index + rng.normal(0, 0.015), rng.uniform(0.08, 0.2), rng.uniform(0.25, 0.6)
        points = walk(rng, (float(x), float(top)), np.pi / 2, float(length), jitter=0.03)
        body = np.maximum(body, stroke(size, points, 0.032, taper=(0.2, 0.9), blur=0.003))
        body = np.maximum(body, disc(size, (points[-1][0], points[-1][1]), 0.026, softness=0.012))
    soft: Field = blurred(body, 0.006)
    light = np.clip(relief(0.045 * soft, 0.6), -0.6, 0.7)
    picture = shade(clean, light - 0.10 * soft)
    return add_light(picture, 0.35 * smooth_step(light, 0.5, 0.2) * soft)
