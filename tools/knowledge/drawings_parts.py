"""Defects of whole parts, assemblies and prints. Each painter returns the sound picture and the defective one."""

from __future__ import annotations

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
    elliptic_distance,
    fractal_noise,
    grid,
    paint,
    polygon,
    polygons,
    relief,
    ring,
    shade,
    smooth_step,
    speckle,
    stroke,
    strokes,
    walk,
    warped,
)
from .drawings_materials import (
    Material,
    brushed_metal,
    cast_metal,
    ceramic,
    dark_plastic,
    ground_face,
    lamp,
    light_plastic,
    painted,
)

Pair = tuple[Picture, Picture]
_MATERIALS: tuple[Material, ...] = (ground_face, dark_plastic, ceramic, brushed_metal, cast_metal)


def _bench(rng: np.random.Generator, size: int, part: Picture) -> Picture:
    """A plain background, light under dark parts and dark under light ones."""
    tone: Colour = (0.74, 0.75, 0.76) if float(part.mean()) < 0.5 else (0.20, 0.22, 0.25)
    flat = np.broadcast_to(np.asarray(tone, dtype=np.float32), (size, size, 3))
    return shade(flat, lamp(rng, size) + speckle(rng, size, 0.012))


def _lay(bench: Picture, part: Picture, cover: Field) -> Picture:
    """Lay a part on the bench, with a bevelled edge and a shadow."""
    soft = blurred(cover, 0.012)
    picture = shade(bench, -0.5 * np.roll(soft, (6, 4), (0, 1)))
    bevel = np.clip(relief(0.014 * blurred(cover, 0.004), 0.8), -0.5, 0.6)
    return paint(picture, cover, shade(part, bevel))


def _some_part(rng: np.random.Generator, size: int, variant: int) -> tuple[Picture, Picture]:
    part = _MATERIALS[variant % len(_MATERIALS)](rng, size)
    return part, _bench(rng, size, part)


def chip(rng: np.random.Generator, size: int, variant: int) -> Pair:
    """A shell-shaped bite out of a straight edge."""
    part, bench = _some_part(rng, size, variant)
    cover = polygon(size, box((0.42, 0.56), 1.0, 0.62, float(rng.uniform(-0.05, 0.05))))
    corner = bool(rng.random() < 0.4)
    at = (0.90, 0.27) if corner else (float(rng.uniform(0.35, 0.65)), 0.25)
    noise = fractal_noise(rng, size, 7, 4)
    field = (float(rng.uniform(0.12, 0.16)) - elliptic_distance(size, at, 1.3, 0.1) + 0.016 * noise).astype(np.float32)
    bite = smooth_step(field, 0.0, 0.006)
    gone = smooth_step(field - 0.055 + 0.006 * fractal_noise(rng, size, 25, 2), 0.0, 0.008)
    ripples = 0.10 * np.sin(field * 260) + 0.10 * fractal_noise(rng, size, 40, 3)
    tone = 0.5 * part + (0.36 if float(part.mean()) < 0.6 else 0.22)
    face = shade(tone.astype(np.float32), (ripples + 3.0 * (0.03 - field)).astype(np.float32))
    clean = _lay(bench, part, cover)
    broken_part = paint(part, bite, face)
    image = _lay(bench, broken_part, cover * (1 - gone))
    rim = np.exp(-((field / 0.005) ** 2)) * cover
    return clean, shade(image, (-0.35 * rim).astype(np.float32))


def broken(rng: np.random.Generator, size: int, variant: int) -> Pair:
    """A bar that snapped: one end is turned away, the gap is jagged."""
    part, bench = _some_part(rng, size, variant)
    tilt = float(rng.uniform(-0.12, 0.12))
    whole = polygon(size, box((0.5, 0.5), 0.84, 0.24, tilt))
    holes = np.maximum(disc(size, (0.18, 0.5 - 0.32 * tilt), 0.05), disc(size, (0.82, 0.5 + 0.32 * tilt), 0.05))
    whole = whole * (1 - holes)
    x0 = float(rng.uniform(0.45, 0.6))
    line = walk(rng, (x0, 0.2), np.pi / 2, 0.6, jitter=0.9, steps=26)
    left = whole * polygon(size, [(0.0, 0.0), *line, (0.0, 1.0)])
    right = whole * polygon(size, [(1.0, 0.0), *line, (1.0, 1.0)])
    turn, away = float(rng.choice([-1, 1]) * rng.uniform(0.2, 0.35)), (0.05, float(rng.uniform(0.04, 0.09)))
    x, y = grid(size)
    dx, dy = x - 0.75 - away[0], y - 0.5 - away[1]
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    shift_x = (dx * cos + dy * sin + 0.75 - x).astype(np.float32)
    shift_y = (dy * cos - dx * sin + 0.5 - y).astype(np.float32)
    fresh = shade(np.clip(0.5 * part + 0.42, 0, 1), 0.15 * fractal_noise(rng, size, 50, 2))
    clean = _lay(bench, part, whole)
    near_break = stroke(size, line, 0.022)
    snapped = paint(part, 0.8 * near_break, fresh)
    moved = warped(np.dstack([snapped, right]), shift_x, shift_y)
    image = _lay(bench, snapped, left)
    return clean, _lay(image, moved[:, :, :3], np.clip(moved[:, :, 3], 0, 1))


def burr(rng: np.random.Generator, size: int, variant: int) -> Pair:
    """A ragged bright fringe along an edge, with a curled sliver."""
    part, bench = _some_part(rng, size, (0, 3, 1, 4)[variant % 4])
    edge = 0.6
    cover = polygon(size, [(-0.1, -0.1), (1.1, -0.1), (1.1, edge), (-0.1, edge)])
    noise = fractal_noise(rng, size, 14, 5)[0]
    xs = np.linspace(0.08, 0.95, 120)
    heights = (
        np.clip(0.03 + 0.022 * noise[(xs * (size - 1)).astype(int)], 0.004, 0.09) * np.sin(np.pi * (xs - 0.03)) ** 0.4
    )
    outline = [(0.08, edge), *((float(px), float(edge + h)) for px, h in zip(xs, heights, strict=True)), (0.95, edge)]
    fringe = polygon(size, outline)
    curl = walk(rng, (float(rng.uniform(0.3, 0.6)), edge + 0.03), 1.0, 0.16, jitter=0.6, steps=20)
    fringe = np.maximum(fringe, stroke(size, curl, 0.014, taper=(1.0, 0.1)))
    clean = _lay(bench, part, cover)
    metal = np.clip(part * 0.9 + 0.26, 0, 1).astype(np.float32)
    shine = np.clip(0.3 * fractal_noise(rng, size, 40, 2, (1.0, 0.2)), -0.3, 0.4)
    picture = shade(clean, -0.5 * np.roll(blurred(fringe, 0.006), (5, 4), (0, 1)) * (1 - cover))
    return clean, paint(picture, fringe * (1 - 0.9 * cover), shade(metal, shine))


def deformation(rng: np.random.Generator, size: int, variant: int) -> Pair:
    """A frame whose sides should be straight is bowed and twisted."""
    part, bench = _some_part(rng, size, (1, 3, 2)[variant % 3])
    t = np.linspace(-1, 1, 25)
    bow, sag = float(rng.uniform(0.08, 0.12)), float(rng.uniform(0.05, 0.09))

    def frame(half: float, bend: float) -> list[Point]:
        top = [(0.5 + half * s, 0.5 - half + bend * bow * (1 - s * s)) for s in t]
        right = [(0.5 + half + bend * sag * (1 - s * s), 0.5 + half * s) for s in t]
        bottom = [(0.5 - half * s, 0.5 + half + bend * bow * (1 - s * s)) for s in t]
        left = [(0.5 - half + bend * 0.2 * sag * (1 - s * s), 0.5 - half * s) for s in t]
        return [(float(px), float(py)) for px, py in (*top, *right, *bottom, *left)]

    covers = [polygon(size, frame(0.36, bend)) * (1 - polygon(size, frame(0.27, bend))) for bend in (0.0, 1.0)]
    return _lay(bench, part, covers[0]), _lay(bench, part, covers[1])


def swelling(rng: np.random.Generator, size: int, variant: int) -> Pair:
    """A flat pouch or moulded cover, with printed lines, that is blown up."""
    material: Material = (light_plastic, brushed_metal, painted)[variant % 3]
    part = material(rng, size)
    bench = _bench(rng, size, part)
    bars = [box((0.5, 0.26 + 0.08 * k), 0.42, 0.022) for k in range(7)]
    part = paint(part, 0.75 * polygons(size, bars), (0.15, 0.18, 0.25))
    cover = polygon(size, box((0.5, 0.5), 0.62, 0.78))
    seam = cover * (1 - polygon(size, box((0.5, 0.5), 0.55, 0.71), blur=0.002))
    part = shade(part, -0.15 * seam)
    x, y = grid(size)
    dome = np.exp(-((((x - 0.5) / 0.25) ** 2 + ((y - 0.5) / 0.30) ** 2) ** 1.4)).astype(np.float32)
    shift = -0.25 * dome
    bulged = warped(part, (x - 0.5) * shift, (y - 0.5) * shift)
    sides = warped(cover[:, :, None], (x - 0.5) * -0.13 * np.exp(-(((y - 0.5) / 0.25) ** 2)), 0 * x)[:, :, 0]
    bulged = shade(bulged, np.clip(relief(0.17 * dome, 0.5), -0.5, 0.5))
    glint = np.exp(-(((x - 0.40) / 0.07) ** 2) - ((y - 0.36) / 0.09) ** 2) * np.float32(0.28)
    return _lay(bench, part, cover), _lay(bench, add_light(bulged, glint.astype(np.float32)), sides)


# --- assemblies -----------------------------------------------------------------------------------


Placed = tuple[Point, float]


def _place(picture: Picture, kind: str, components: list[Placed]) -> Picture:
    """Put components on an assembly, each at a place and an angle; kinds are 'ic', 'resistor', 'screw' and 'pill'."""
    size = picture.shape[0]
    if kind in {"screw", "pill"}:
        cover = polygons(size, [ring(at, 0.062) for at, _ in components])
        picture = shade(picture, -0.55 * np.roll(blurred(cover, 0.012), (5, 4), (0, 1)))
        dome = np.clip(relief(0.03 * blurred(cover, 0.010), 0.7), -0.45, 0.3)
        tone: Colour = (0.66, 0.66, 0.64) if kind == "screw" else (0.93, 0.92, 0.88)
        picture = paint(picture, cover, shade(np.broadcast_to(np.asarray(tone, np.float32), picture.shape), dome))
        turns = (0.0, np.pi / 2) if kind == "screw" else (0.0,)
        slots = polygons(size, [box(at, 0.085, 0.016, angle + turn) for at, angle in components for turn in turns])
        return paint(picture, slots * (0.85 if kind == "screw" else 0.35), (0.16, 0.16, 0.16))
    long, wide = (0.20, 0.13) if kind == "ic" else (0.12, 0.055)

    def turned(placed: Placed, along: float, across: float) -> Point:
        (x, y), angle = placed
        cos, sin = float(np.cos(angle)), float(np.sin(angle))
        return x + along * cos - across * sin, y + along * sin + across * cos

    if kind == "ic":
        ends = [(-0.066 + 0.044 * k, side * (wide / 2 + 0.012), 0.018, 0.034) for k in range(4) for side in (-1, 1)]
    else:
        ends = [(side * 0.05, 0.0, 0.03, wide) for side in (-1, 1)]
    metal = polygons(size, [box(turned(p, u, v), w, h, p[1]) for p in components for u, v, w, h in ends])
    body = polygons(size, [box(p[0], long, wide, p[1]) for p in components])
    picture = shade(picture, -0.5 * np.roll(blurred(np.maximum(body, metal), 0.007), (5, 4), (0, 1)))
    picture = paint(picture, body, (0.09, 0.09, 0.10))
    picture = paint(picture, metal, (0.78, 0.78, 0.76))
    picture = shade(picture, (0.5 * body * relief(0.01 * blurred(body, 0.004), 1.0)).astype(np.float32))
    if kind == "ic":
        dots = polygons(size, [ring(turned(p, -0.075, -0.035), 0.010) for p in components])
        picture = paint(picture, dots, (0.45, 0.45, 0.45))
    return picture


def _assembly(rng: np.random.Generator, size: int, variant: int) -> tuple[Picture, str, list[Point]]:
    """The bare carrier with its seats, the kind of component and the seats' places."""
    jitter = rng.uniform(-0.01, 0.01, 2)
    if variant % 3 == 1:
        carrier, kind = brushed_metal(rng, size), "screw"
    elif variant % 3 == 2:
        carrier, kind = shade(light_plastic(rng, size), np.full((size, size), -0.28, np.float32)), "pill"
    else:
        green = np.broadcast_to(np.asarray((0.10, 0.34, 0.20), np.float32), (size, size, 3))
        carrier = shade(green, lamp(rng, size) + speckle(rng, size, 0.03))
        kind = str(rng.choice(["ic", "resistor"]))
    columns, rows = (3, 4) if kind == "resistor" else (3, 3)
    seats = [
        (float((c + 0.5) / columns + jitter[0]), float((r + 0.5) / rows + jitter[1]))
        for r in range(rows)
        for c in range(columns)
    ]
    if kind in {"screw", "pill"}:
        hollows = polygons(size, [ring(seat, 0.032 if kind == "screw" else 0.075) for seat in seats], blur=0.003)
        return shade(carrier, -(0.85 if kind == "screw" else 0.16) * hollows), kind, seats
    if kind == "ic":
        places, wide = [(-0.066 + 0.044 * k, side * 0.077) for k in range(4) for side in (-1, 1)], 0.024
    else:
        places, wide = [(-0.052, 0.0), (0.052, 0.0)], 0.045
    pads = [box((x + along, y + across), wide, 0.046) for x, y in seats for along, across in places]
    carrier = paint(carrier, polygons(size, pads), (0.80, 0.70, 0.42))
    return carrier, kind, seats


def missing_part(rng: np.random.Generator, size: int, variant: int) -> Pair:
    """One seat of an assembly is empty."""
    carrier, kind, seats = _assembly(rng, size, variant)
    gone = int(rng.integers(len(seats)))
    fitted = [(seat, 0.0) for seat in seats]
    return _place(carrier, kind, fitted), _place(carrier, kind, fitted[:gone] + fitted[gone + 1 :])


def misplacement(rng: np.random.Generator, size: int, variant: int) -> Pair:
    """One component of an assembly sits beside its seat, turned."""
    carrier, kind, seats = _assembly(rng, size, variant)
    moved = len(seats) // 2
    x, y = seats[moved]
    away = rng.choice([-1, 1], 2) * rng.uniform(0.05, 0.075, 2)
    turned = float(rng.choice([-1, 1]) * rng.uniform(0.4, 0.9))
    fitted = [(seat, 0.0) for seat in seats]
    displaced = [*fitted[:moved], *fitted[moved + 1 :], ((float(x + away[0]), float(y + away[1])), turned)]
    return _place(carrier, kind, fitted), _place(carrier, kind, displaced)


def bent(rng: np.random.Generator, size: int, variant: int) -> Pair:
    """One pin of a row is kinked towards its neighbour."""
    ground = (light_plastic, painted, cast_metal)[variant % 3](rng, size)
    count = 6 + variant % 3
    which = int(rng.integers(1, count - 1))
    kink = float(rng.choice([-1, 1]) * rng.uniform(0.45, 0.75))

    def connector(with_kink: bool) -> Picture:
        lines = []
        for k in range(count):
            x0 = 0.16 + 0.68 * k / (count - 1)
            points: list[Point] = [(x0, 0.35), (x0, 0.56), (x0, 0.88)]
            if with_kink and k == which:
                points = [(x0, 0.35), (x0, 0.55), (x0 + 0.10 * kink, 0.63), (x0 + 0.32 * kink, 0.82)]
            lines.append((points, 0.030, (1.0, 1.0)))
        pins = strokes(size, lines)
        shadow = np.roll(blurred(pins, 0.008), (7, 6), (0, 1))
        picture = shade(ground, -0.45 * shadow)
        gleam = np.clip(relief(0.02 * blurred(pins, 0.006), 0.7), -0.5, 0.4)
        picture = paint(picture, pins, shade(np.full_like(ground, 0.70), gleam))
        body = polygon(size, box((0.5, 0.24), 0.84, 0.26))
        picture = shade(picture, -0.4 * np.roll(blurred(body, 0.008), (7, 5), (0, 1)) * (1 - body))
        return paint(picture, body, shade(np.full_like(ground, 0.13), relief(0.012 * blurred(body, 0.004), 1.0)))

    return connector(False), connector(True)


def foreign_object(rng: np.random.Generator, size: int, variant: int) -> Pair:
    """A lost screw, a swarf curl or a scrap of foil lies on the product."""
    clean = (painted, dark_plastic, brushed_metal)[variant % 3](rng, size)
    x0, y0 = float(rng.uniform(0.4, 0.6)), float(rng.uniform(0.4, 0.6))
    angle = float(rng.uniform(0, np.pi))
    if variant % 3 == 0:
        tip = (x0 + 0.24 * np.cos(angle), y0 + 0.24 * np.sin(angle))
        shank = stroke(size, [(x0, y0), (float(tip[0]), float(tip[1]))], 0.045)
        cover = np.maximum(shank, polygon(size, box((x0, y0), 0.06, 0.11, angle)))
        x, y = grid(size)
        thread = 0.35 * np.sin(((x - x0) * np.cos(angle) + (y - y0) * np.sin(angle)) * 2 * np.pi / 0.02)
        body = shade(np.full_like(clean, 0.60), (thread * shank).astype(np.float32))
    elif variant % 3 == 1:
        t = np.linspace(0, 4 * np.pi, 90)
        curl = [
            (float(x0 - 0.14 + 0.022 * s + 0.055 * np.cos(s + angle)), float(y0 + 0.075 * np.sin(s + angle))) for s in t
        ]
        cover = stroke(size, curl, 0.016, taper=(0.4, 0.2))
        body = np.full_like(clean, 0.78)
    else:
        cover = blob(rng, size, (x0, y0), 0.10, ragged=0.35, softness=0.006, aspect=1.6, angle=angle, cells=4)
        body = shade(
            np.broadcast_to(np.asarray((0.80, 0.62, 0.20), np.float32), clean.shape),
            0.25 * fractal_noise(rng, size, 8, 3),
        )
    picture = shade(clean, -0.6 * np.roll(blurred(cover, 0.008), (8, 6), (0, 1)))
    round_light = np.clip(relief(0.025 * blurred(cover, 0.006), 0.7), -0.6, 0.5)
    return clean, paint(picture, cover, shade(body.astype(np.float32), round_light))
