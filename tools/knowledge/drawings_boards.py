"""Defects of conductor patterns, solder joints, prints and woven structure: the sound picture and the defective one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .drawings_base import (
    Colour,
    Field,
    Picture,
    Point,
    add_light,
    blob,
    blurred,
    box,
    disc,
    fractal_noise,
    grid,
    paint,
    polygons,
    relief,
    shade,
    smooth_step,
    speckle,
    stroke,
    strokes,
    walk,
    warped,
)
from .drawings_materials import brushed_metal, lamp, light_plastic, weave

Pair = tuple[Picture, Picture]
_TRACKS = 5
_WIDTH = 0.062


def _track_y(track: int, x: float, jog: float) -> float:
    """Height of a track's middle: level, then 45 degrees down, then level."""
    return 0.10 + 0.165 * track + min(max(x - jog, 0.0), 0.12)


def _board(rng: np.random.Generator, size: int, variant: int, edit: Callable[[Field, float], Field]) -> Pair:
    """Draw a board from its copper cover, and again after ``edit`` changed that cover."""
    colours: tuple[tuple[Colour, Colour], ...] = (
        ((0.07, 0.26, 0.15), (0.24, 0.55, 0.32)),
        ((0.42, 0.36, 0.22), (0.80, 0.50, 0.32)),
        ((0.06, 0.12, 0.30), (0.20, 0.38, 0.66)),
    )
    laminate, copper = (np.asarray(colour, dtype=np.float32) for colour in colours[variant % 3])
    jog = float(rng.uniform(0.3, 0.55))
    lines = []
    for track in range(_TRACKS):
        stops = (-0.05, jog, jog + 0.12, 1.05)
        lines.append(([(s, _track_y(track, s, jog)) for s in stops], _WIDTH, (1.0, 1.0)))
    cover = strokes(size, lines, blur=0.0015)
    for track in range(0, _TRACKS, 2):
        cover = np.maximum(cover, disc(size, (0.12, _track_y(track, 0.12, jog)), 0.052))
    rough = 0.12 * fractal_noise(rng, size, 70, 2)
    light = lamp(rng, size) + speckle(rng, size, 0.02) + 0.05 * fractal_noise(rng, size, 60, 2)

    def render(copper_cover: Field) -> Picture:
        edge = smooth_step(copper_cover + rough * copper_cover * (1 - copper_cover) * 4, 0.5, 0.5)
        bevel = np.clip(relief(0.006 * blurred(edge, 0.004), 1.0), -0.4, 0.4)
        picture = np.broadcast_to(laminate, (size, size, 3)) * (1 - edge[:, :, None]) + copper * edge[:, :, None]
        for track in range(0, _TRACKS, 2):
            picture = paint(picture, disc(size, (0.12, _track_y(track, 0.12, jog)), 0.022), (0.05, 0.05, 0.05))
        return shade(picture.astype(np.float32), light + bevel)

    return render(cover), render(edit(cover, jog))


def _spot(rng: np.random.Generator, jog: float) -> tuple[int, Point]:
    """Choose a track (never the last) and a place on its middle, clear of its pad."""
    track = int(rng.integers(_TRACKS - 1))
    # off the slanting part, where neighbours come closer and a spur would become a short
    x = float(rng.uniform(0.22, jog - 0.06) if rng.random() < 0.4 else rng.uniform(jog + 0.18, 0.93))
    return track, (x, _track_y(track, x, jog))


def short_circuit(rng: np.random.Generator, size: int, variant: int) -> Pair:
    """A crooked bar of copper joins two tracks."""

    def edit(cover: Field, jog: float) -> Field:
        track, (x, y) = _spot(rng, jog)
        bar = walk(rng, (x, y), np.pi / 2, _track_y(track + 1, x, jog) - y, jitter=0.35, steps=9)
        bar.append((bar[-1][0], _track_y(track + 1, bar[-1][0], jog)))  # the walk may end short of it
        return np.maximum(cover, stroke(size, bar, 0.034))

    return _board(rng, size, variant, edit)


def open_circuit(rng: np.random.Generator, size: int, variant: int) -> Pair:
    """A ragged gap crosses a track."""

    def edit(cover: Field, jog: float) -> Field:
        _, at = _spot(rng, jog)
        gap = blob(rng, size, at, 0.030, ragged=0.12, softness=0.008, aspect=2.4, angle=float(rng.uniform(1.1, 2.0)))
        result: Field = cover * (1 - gap)
        return result

    return _board(rng, size, variant, edit)


def mouse_bite(rng: np.random.Generator, size: int, variant: int) -> Pair:
    """A notch eats into one side of a track."""

    def edit(cover: Field, jog: float) -> Field:
        _, (x, y) = _spot(rng, jog)
        notch = blob(rng, size, (x, y - _WIDTH * 0.52), 0.036, ragged=0.12, softness=0.008, aspect=1.3)
        result: Field = cover * (1 - notch)
        return result

    return _board(rng, size, variant, edit)


def spur(rng: np.random.Generator, size: int, variant: int) -> Pair:
    """A thorn grows from a track and ends short of the next."""

    def edit(cover: Field, jog: float) -> Field:
        _, (x, y) = _spot(rng, jog)
        thorn = walk(rng, (x, y), float(rng.uniform(1.2, 1.9)), _WIDTH / 2 + 0.07, jitter=0.25, steps=8)
        return np.maximum(cover, stroke(size, thorn, 0.050, taper=(1.0, 0.35)))

    return _board(rng, size, variant, edit)


def spurious_copper(rng: np.random.Generator, size: int, variant: int) -> Pair:
    """An island of copper stands between two tracks."""

    def edit(cover: Field, jog: float) -> Field:
        _, (x, y) = _spot(rng, jog)
        island = blob(rng, size, (x, y + 0.0825), 0.027, ragged=0.15, softness=0.008, aspect=1.7)
        return np.maximum(cover, island)

    return _board(rng, size, variant, edit)


def pinhole(rng: np.random.Generator, size: int, variant: int) -> Pair:
    """A small opening inside a track, ringed by copper."""

    def edit(cover: Field, jog: float) -> Field:
        _, at = _spot(rng, jog)
        opening = blob(rng, size, at, 0.017, ragged=0.15, softness=0.008, aspect=1.4, angle=float(rng.uniform(0, 3)))
        result: Field = cover * (1 - opening)
        return result

    return _board(rng, size, variant, edit)


def cold_solder(rng: np.random.Generator, size: int, variant: int) -> Pair:
    """One joint among bright, concave ones is a dull, grainy lump with a dark ring around its lead."""
    mask_colour: Colour = ((0.08, 0.30, 0.18), (0.08, 0.14, 0.34), (0.10, 0.10, 0.11))[variant % 3]
    board = np.broadcast_to(np.asarray(mask_colour, np.float32), (size, size, 3))
    board = shade(board, lamp(rng, size) + speckle(rng, size, 0.03))
    pitch, radius = 0.31, 0.115
    bad = (0.19 + pitch * int(rng.integers(3)), 0.19 + pitch * int(rng.integers(3)))
    x, y = grid(size)
    # distance to the nearest of the nine joints, which stand in a square pattern
    in_x, in_y = ((axis - 0.19 + pitch / 2) % pitch - pitch / 2 for axis in (x, y))
    distance = np.sqrt(in_x**2 + in_y**2)
    height = (0.09 * np.clip(1 - distance / radius, 0, 1) ** 1.6).astype(np.float32)
    clean = paint(board, smooth_step(radius * 1.1 - distance, 0.0, 0.006), (0.78, 0.62, 0.36))
    metal = shade(np.full_like(clean, 0.62), np.clip(relief(height, 0.42), -0.7, 0.55))
    clean = paint(clean, smooth_step(radius - distance, 0.0, 0.006), metal)
    glint = np.sqrt((in_x + 0.035) ** 2 + (in_y + 0.04) ** 2)
    clean = add_light(clean, 0.4 * smooth_step(0.016 - glint, 0.0, 0.015))
    clean = paint(clean, smooth_step(0.026 - distance, 0.0, 0.006), (0.80, 0.80, 0.79))

    def dull(picture: Picture, at: Point) -> Picture:
        picture = paint(picture, disc(size, at, radius * 1.1), (0.70, 0.50, 0.28))
        lump = blob(rng, size, (at[0] + 0.01, at[1] - 0.008), radius * 0.82, ragged=0.2, softness=0.01, cells=7)
        soft = blurred(lump, 0.02)
        grain = 0.0035 * fractal_noise(rng, size, 40, 3)
        light = np.clip(relief((0.11 * soft + grain).astype(np.float32), 0.4), -0.55, 0.3)
        picture = shade(picture, -0.4 * np.roll(soft, (4, 3), (0, 1)) * (1 - lump))
        picture = paint(picture, lump, shade(np.full_like(picture, 0.43), light))
        picture = paint(picture, disc(size, at, 0.040, softness=0.012), (0.10, 0.09, 0.08))
        return paint(picture, disc(size, at, 0.026), (0.66, 0.65, 0.62))

    bare = paint(clean, disc(size, bad, radius * 1.25), board)
    return clean, dull(bare, bad)


# --- print ----------------------------------------------------------------------------------------


def print_error(rng: np.random.Generator, size: int, variant: int) -> Pair:
    """A label whose print is wiped in a band, smeared sideways or printed double."""
    ground = brushed_metal(rng, size) if variant % 3 == 1 else light_plastic(rng, size)
    lines = []
    for row in range(4):
        x, y, tall = 0.12, 0.18 + 0.19 * row, 0.12 if row == 0 else 0.085
        while x < 0.82:
            wide = tall * 0.55
            corners = [(x + wide * px, y + tall * py) for px in (0.0, 1.0) for py in (0.0, 0.5, 1.0)]
            order = rng.permutation(6)[: int(rng.integers(4, 6))]
            lines.append(([corners[k] for k in order], tall * 0.16, (1.0, 1.0)))
            x += wide * 1.55
    bars = []
    x = 0.12
    while x < 0.85:
        wide = float(rng.choice([0.006, 0.012, 0.018]))
        bars.append(box((x + wide / 2, 0.90), wide, 0.10))
        x += wide + float(rng.choice([0.008, 0.014]))
    ink = np.maximum(strokes(size, lines), polygons(size, bars))
    x_at, y_at = grid(size)
    colour: Colour = (0.10, 0.10, 0.13)
    if variant % 3 == 0:
        band = smooth_step(0.055 - np.abs(y_at - rng.uniform(0.3, 0.6) - 0.15 * (x_at - 0.5)), 0.0, 0.05)
        flawed = ink * (1 - band * np.clip(0.9 + 0.3 * fractal_noise(rng, size, 25, 2), 0, 1))
    elif variant % 3 == 1:
        zone = blob(rng, size, (0.55, float(rng.uniform(0.35, 0.6))), 0.17, ragged=0.2, softness=0.06, aspect=1.5)
        trail = ink.copy()
        for step in range(2, 26, 3):
            trail = np.maximum(trail, np.roll(ink, step, 1) * np.float32(1 - step / 34))
        flawed = np.maximum(ink * (1 - 0.3 * zone), 0.7 * trail * zone)
    else:
        moved = np.roll(ink, (size // 60, size // 32), (0, 1))
        below = smooth_step(y_at - 0.33, 0.0, 0.01)
        flawed = np.maximum(ink, 0.65 * moved * below)
    return paint(ground, 0.9 * ink, colour), paint(ground, (0.9 * flawed).astype(np.float32), colour)


# --- woven structure ------------------------------------------------------------------------------


def _seeded(rng: np.random.Generator) -> Callable[[], np.random.Generator]:
    """Return a maker of equal random sources, so that two cloths differ only in their structure."""
    seed = int(rng.integers(2**31))
    return lambda: np.random.default_rng(seed)


def thread_pull(rng: np.random.Generator, size: int, variant: int) -> Pair:
    """One weft is drawn tight, pinches the cloth and stands out as a loop."""
    again, yarns, twill = _seeded(rng), 30.0, variant % 3 == 1
    x, y = grid(size)
    row = (int(rng.integers(11, 19)) + 0.5) / yarns
    start = float(rng.uniform(0.12, 0.25))
    span = smooth_step(x, start, 0.06) * smooth_step(-x, -start - 0.6, 0.06)
    pinch = 0.8 * np.exp(-(((y - row) / 0.045) ** 2)) * np.sign(y - row) * span
    clean = weave(again(), size, yarns=yarns, twill=twill)
    image = weave(again(), size, yarns=yarns, twill=twill, shift_v=pinch.astype(np.float32))
    tight = stroke(size, [(start, row), (start + 0.6, row)], 0.018, taper=(0.6, 0.6), blur=0.001)
    image = paint(image, 0.9 * tight, (0.80, 0.78, 0.72))
    t = np.linspace(0, 2 * np.pi, 40)
    middle = start + 0.62
    loop = [(float(middle + 0.055 * np.sin(s)), float(row - 0.085 + 0.09 * np.cos(s))) for s in t]
    image = shade(image, -0.5 * stroke(size, [(px + 0.010, py + 0.012) for px, py in loop], 0.016, blur=0.004))
    return clean, paint(image, stroke(size, loop, 0.015), (0.84, 0.82, 0.76))


def broken_yarn(rng: np.random.Generator, size: int, variant: int) -> Pair:
    """One warp end is missing from a point on: a dark gap with spread neighbours and frayed fibres."""
    again, yarns = _seeded(rng), 30.0
    x, y = grid(size)
    column = (int(rng.integers(10, 20)) + 0.5) / yarns
    begin = float(rng.uniform(0.25, 0.4))
    run = smooth_step(y, begin, 0.05)
    spread = -0.35 * np.exp(-(((x - column) / 0.035) ** 2)) * np.sign(x - column) * run
    clean = weave(again(), size, yarns=yarns, twill=variant % 3 == 2)
    image = weave(again(), size, yarns=yarns, twill=variant % 3 == 2, shift_u=spread.astype(np.float32))
    gap = stroke(size, [(column, begin), (column, 1.05)], 0.022, blur=0.0015)
    rungs = 0.75 + 0.25 * np.sin(y * np.float32(2 * np.pi * yarns))
    image = shade(image, (-0.85 * gap * rungs).astype(np.float32))
    fibres = []
    for _ in range(7):
        heading, length = float(np.pi / 2 + rng.uniform(-0.9, 0.9)), float(rng.uniform(0.05, 0.12))
        fibres.append((walk(rng, (column, begin), heading, length, jitter=0.3, steps=10), 0.004, (1.0, 0.5)))
    return clean, paint(image, 0.9 * strokes(size, fibres), (0.86, 0.84, 0.78))


def weave_fault(rng: np.random.Generator, size: int, variant: int) -> Pair:
    """A patch in which the interlacing is scrambled."""
    again, yarns, twill = _seeded(rng), 30.0, variant % 3 == 1
    centre = (float(rng.uniform(0.35, 0.65)), float(rng.uniform(0.35, 0.65)))
    patch = blob(rng, size, centre, 0.13, ragged=0.2, softness=0.03, aspect=1.5, angle=float(rng.choice([0.0, 1.57])))
    shift_u = 1.3 * fractal_noise(rng, size, 14, 2) * patch
    shift_v = 1.3 * fractal_noise(rng, size, 14, 2) * patch
    clean = weave(again(), size, yarns=yarns, twill=twill)
    return clean, weave(again(), size, yarns=yarns, twill=twill, shift_u=shift_u, shift_v=shift_v)


def texture_change(rng: np.random.Generator, size: int, variant: int) -> Pair:
    """The same goods with another grain over the whole view: skewed cloth, turned brushing, flatter streaks."""
    again = _seeded(rng)
    x, y = grid(size)
    if variant % 3 == 0:
        skew = (7.0 * (x - 0.5)).astype(np.float32)
        return weave(again(), size), weave(again(), size, shift_v=skew, yarns=34.0, twill=True)
    if variant % 3 == 1:
        metal = brushed_metal(again(), size)
        return metal, np.ascontiguousarray(brushed_metal(again(), size).transpose(1, 0, 2))

    def streaks(slope: float, length: float) -> Picture:
        source = again()
        # sheared while enlarged to 5 / 3, so that no border of the noise comes into view
        noise = fractal_noise(source, size, 150, 2, (length, 1.0))[:, :, None]
        shift_x, shift_y = -0.4 * (x - 0.5), -0.4 * (y - 0.5) + 0.6 * slope * (x - 0.5)
        tilted = warped(noise, shift_x.astype(np.float32), shift_y.astype(np.float32))[:, :, 0]
        tone = 0.5 + 0.13 * tilted + speckle(source, size, 0.05)
        return np.repeat(tone[:, :, None], 3, axis=2).astype(np.float32)

    return streaks(0.55, 0.2), streaks(0.12, 0.45)
