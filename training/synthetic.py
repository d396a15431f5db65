"""Synthetic defects on pictures of good parts, with masks. NumPy only, deterministic by seed.

Eight kinds in three families: cut and paste (Li et al. 2021, CutPaste: a jittered patch or a thin scar of the same
picture pasted elsewhere), a texture blended in where Perlin noise is high (Zavrtanik et al. 2021, DRAEM), and
structural edits (a local warp, a hole, an erased and a duplicated part, a scratch). The mask holds exactly the pixels
that changed: a pixel that happens to keep its value is no defect, and one outside keeps its value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..agent.errors import InputError

MIN_SIDE_PX = 32
AREA_SHARE = (0.0002, 0.2)
"""Smallest and largest share of the picture that a defect may change."""
MIN_AREA_PX = 8
ATTEMPTS = 24
"""Draws of place and size before a picture is given up, such as one of a single colour whose parts look alike."""

Picture = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]
Maker = Callable[[Floats, np.random.Generator, Sequence[Picture]], Floats]
Slices = tuple[slice, slice]


@dataclass(frozen=True)
class SyntheticDefect:
    """A picture with a defect that was made.

    Attributes:
        image: uint8 (H, W, 3).
        mask: bool (H, W), the pixels that differ from the good picture.
        kind: a key of ``KINDS``.
    """

    image: Picture
    mask: NDArray[np.bool_]
    kind: str


def add_defect(
    image: Picture, rng: np.random.Generator, *, kind: str | None = None, textures: Sequence[Picture] = ()
) -> SyntheticDefect:
    """Put one defect on a good picture.

    Args:
        image: uint8 (H, W, 3), both sides at least MIN_SIDE_PX; it is not written to.
        rng: the only source of chance; the same state gives the same defect.
        kind: a key of ``KINDS``, a random one by default.
        textures: pictures whose content ``perlin`` blends in, any size; the picture itself, altered, without them.

    Returns:
        The changed picture, its mask and the kind. The changed share lies within AREA_SHARE.

    Raises:
        InputError: the picture is too small, of the wrong kind, or nothing in it could be changed visibly.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < MIN_SIDE_PX:
        raise InputError(f"a defect needs an RGB picture of {MIN_SIDE_PX} px or more, got {image.dtype} {image.shape}.")
    if kind is not None and kind not in KINDS:
        raise InputError(f"no synthetic defect is called {kind!r}.", hint=f"Known: {', '.join(KINDS)}.")
    original = image.astype(np.float32)
    grey = bool((image[..., :1] == image).all())  # colour on a grey picture would give every defect away
    low = max(MIN_AREA_PX, AREA_SHARE[0] * image[..., 0].size)
    for _ in range(ATTEMPTS):
        chosen = kind or list(KINDS)[int(rng.integers(len(KINDS)))]
        changed = np.clip(np.rint(KINDS[chosen](original.copy(), rng, textures)), 0, 255).astype(np.uint8)
        if grey:
            changed = np.repeat(changed.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
        mask = (changed != image).any(axis=2)
        if low <= mask.sum() <= AREA_SHARE[1] * mask.size:
            return SyntheticDefect(changed, mask, chosen)
    raise InputError("no visible defect could be put on this picture.", hint="Is it of a single colour?")


def perlin_noise(height: int, width: int, cells: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Gradient noise on a lattice (Perlin 1985, with the quintic fade of 2002).

    Args:
        height: px.
        width: px.
        cells: lattice cells along y and x; more cells make finer spots.
        rng: draws the gradients.

    Returns:
        float32 (height, width), zero on the lattice points, within [-0.71, 0.71].
    """
    y = np.arange(height, dtype=np.float32) * cells[0] / height
    x = np.arange(width, dtype=np.float32) * cells[1] / width
    angle = rng.uniform(0, 2 * math.pi, (cells[0] + 1, cells[1] + 1)).astype(np.float32)
    row, column = y.astype(np.intp), x.astype(np.intp)
    fy, fx = (y - row)[:, None], (x - column)[None, :]

    def corner(dy: int, dx: int) -> Floats:
        direction = angle[np.ix_(row + dy, column + dx)]
        return np.cos(direction) * (fy - dy) + np.sin(direction) * (fx - dx)

    def fade(t: Floats) -> Floats:
        return t * t * t * (t * (t * 6 - 15) + 10)

    top = corner(0, 0) + fade(fx) * (corner(0, 1) - corner(0, 0))
    bottom = corner(1, 0) + fade(fx) * (corner(1, 1) - corner(1, 0))
    return np.asarray(top + fade(fy) * (bottom - top), dtype=np.float32)


def _cutpaste_patch(picture: Floats, rng: np.random.Generator, _: Sequence[Picture]) -> Floats:
    size = _size(picture, rng, (0.04, 0.22), (0.4, 2.5))
    patch = _jitter(picture[_window(picture, size, rng)], rng)
    picture[_window(picture, size, rng)] = patch
    return picture


def _cutpaste_scar(picture: Floats, rng: np.random.Generator, _: Sequence[Picture]) -> Floats:
    from scipy.ndimage import rotate

    short = min(picture.shape[:2])
    size = (max(2, round(short * rng.uniform(0.008, 0.03))), max(8, round(short * rng.uniform(0.08, 0.3))))
    strip = _jitter(picture[_window(picture, size, rng)], rng)
    degrees = float(rng.uniform(-90, 90))
    turned = rotate(strip, degrees, order=1, reshape=True)
    cover = rotate(np.ones(size, np.float32), degrees, order=1, reshape=True)[..., None]
    height, width = (min(side, limit) for side, limit in zip(turned.shape[:2], picture.shape[:2], strict=True))
    window = _window(picture, (height, width), rng)
    alpha = np.clip(cover[:height, :width], 0, 1)
    # a rotated strip is dark towards its rim because zeros surround it; dividing by the cover takes them out again
    inside = turned[:height, :width] / np.maximum(alpha, 0.05)
    picture[window] += alpha * (inside - picture[window])
    return picture


def _perlin_blend(picture: Floats, rng: np.random.Generator, textures: Sequence[Picture]) -> Floats:
    height, width = picture.shape[:2]
    cells = tuple(int(2 ** rng.integers(1, 6)) for _ in range(2))
    noise = perlin_noise(height, width, (cells[0], cells[1]), rng)
    source = textures[int(rng.integers(len(textures)))].astype(np.float32) if textures else picture
    texture = _jitter(_fitted(source, height, width, rng), rng)
    # only the spots near one point, so that a fine noise does not pepper the whole picture
    y, x = rng.uniform(0, height), rng.uniform(0, width)
    reach = rng.uniform(0.06, 0.3) * min(height, width)
    near = np.hypot(np.arange(height)[:, None] - y, np.arange(width)[None, :] - x) < reach
    alpha = ((noise > rng.uniform(0.05, 0.3)) & near)[..., None] * rng.uniform(0.15, 1.0)
    return picture + _soften(alpha.astype(np.float32), 0.7) * (texture - picture)


def _warp(picture: Floats, rng: np.random.Generator, _: Sequence[Picture]) -> Floats:
    from scipy.ndimage import map_coordinates

    window, falloff = _bump(picture, rng, (0.06, 0.2))
    y, x = np.mgrid[window].astype(np.float32)
    angle, length = rng.uniform(0, 2 * math.pi), rng.uniform(0.2, 0.5) * min(falloff.shape)
    from_y, from_x = y - falloff * length * math.sin(angle), x - falloff * length * math.cos(angle)
    for channel in range(3):
        picture[(*window, channel)] = map_coordinates(picture[..., channel], (from_y, from_x), order=1, mode="reflect")
    return picture


def _hole(picture: Floats, rng: np.random.Generator, _: Sequence[Picture]) -> Floats:
    window, falloff = _bump(picture, rng, (0.012, 0.1))
    noise = perlin_noise(falloff.shape[0], falloff.shape[1], (3, 3), rng)
    alpha = _soften((falloff + noise > 0.35).astype(np.float32)[..., None], 0.6)
    local = picture[window]
    depth = rng.uniform(25, 150) * (-1 if rng.random() < 0.7 else 1)
    picture[window] = local + alpha * (0.5 * (local.mean(axis=(0, 1)) - local) + depth)
    return picture


def _erase(picture: Floats, rng: np.random.Generator, _: Sequence[Picture]) -> Floats:
    window, falloff = _bump(picture, rng, (0.03, 0.12))
    local = picture[window]
    rim = np.concatenate([local[0], local[-1], local[:, 0], local[:, -1]])
    alpha = np.clip(3.0 * falloff, 0, 1)[..., None]
    picture[window] = local + alpha * (np.median(rim, axis=0) + rng.normal(0, 2, local.shape) - local)
    return picture


def _duplicate(picture: Floats, rng: np.random.Generator, _: Sequence[Picture]) -> Floats:
    window, falloff = _bump(picture, rng, (0.04, 0.15))
    donor = picture[_window(picture, falloff.shape, rng)].copy()
    alpha = np.clip(3.0 * falloff, 0, 1)[..., None]
    picture[window] += alpha * (donor - picture[window])
    return picture


def _scratch(picture: Floats, rng: np.random.Generator, _: Sequence[Picture]) -> Floats:
    from PIL import Image, ImageDraw

    height, width = picture.shape[:2]
    short, scale = min(height, width), 2  # drawn at twice the size: thin lines get soft edges
    heading, points = rng.uniform(0, 2 * math.pi), [(rng.uniform(0, width), rng.uniform(0, height))]
    step = short * rng.uniform(0.02, 0.06)
    for _step in range(int(rng.integers(4, 12))):
        heading += rng.normal(0, 0.25)
        points.append((points[-1][0] + step * math.cos(heading), points[-1][1] + step * math.sin(heading)))
    line = Image.new("L", (width * scale, height * scale))
    pen = max(2, round(scale * short * rng.uniform(0.003, 0.012)))
    ImageDraw.Draw(line).line([(x * scale, y * scale) for x, y in points], fill=255, width=pen, joint="curve")
    alpha = np.asarray(line.resize((width, height), Image.Resampling.BOX), np.float32)[..., None] / 255
    return picture + alpha * rng.uniform(20, 110) * (1 if rng.random() < 0.5 else -1)


KINDS: dict[str, Maker] = {
    "cutpaste_patch": _cutpaste_patch,
    "cutpaste_scar": _cutpaste_scar,
    "perlin": _perlin_blend,
    "warp": _warp,
    "hole": _hole,
    "erased": _erase,
    "duplicated": _duplicate,
    "scratch": _scratch,
}
"""The kinds of defects by name."""


def _size(
    picture: Floats, rng: np.random.Generator, side: tuple[float, float], aspect: tuple[float, float]
) -> tuple[int, int]:
    """Height and width, px, of a window whose geometric mean side is a share of the picture's shorter one."""
    mean_px = min(picture.shape[:2]) * rng.uniform(*side)
    ratio = math.sqrt(math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1]))))
    height, width = max(4, round(mean_px * ratio)), max(4, round(mean_px / ratio))
    return min(height, picture.shape[0]), min(width, picture.shape[1])


def _window(picture: Floats, size: tuple[int, ...], rng: np.random.Generator) -> Slices:
    """A window of that size at a random place."""
    top = int(rng.integers(picture.shape[0] - size[0] + 1))
    left = int(rng.integers(picture.shape[1] - size[1] + 1))
    return slice(top, top + size[0]), slice(left, left + size[1])


def _bump(picture: Floats, rng: np.random.Generator, side: tuple[float, float]) -> tuple[Slices, Floats]:
    """A window and a weight over it that falls from 1 in its centre to 0 at its rim."""
    size = _size(picture, rng, side, (0.5, 2.0))
    y, x = (np.linspace(-1, 1, length, dtype=np.float32) for length in size)
    return _window(picture, size, rng), np.maximum(0, 1 - y[:, None] ** 2 - x[None, :] ** 2).astype(np.float32)


def _jitter(patch: Floats, rng: np.random.Generator) -> Floats:
    """Another brightness, contrast and balance of colours, perhaps mirrored."""
    centre = patch.mean(axis=(0, 1))
    patch = (patch - centre) * rng.uniform(0.7, 1.4) + centre + rng.normal(0, 12) + rng.normal(0, 4, 3)
    axis = int(rng.integers(3))
    return np.asarray(patch if axis == 2 else np.flip(patch, axis), dtype=np.float32)


def _fitted(source: Floats, height: int, width: int, rng: np.random.Generator) -> Floats:
    """A random window of a texture, tiled by reflection where the texture is smaller."""
    missing = [(0, max(0, side - have)) for side, have in zip((height, width), source.shape[:2], strict=True)]
    source = np.pad(source, (*missing, (0, 0)), mode="symmetric")
    return source[_window(source, (height, width), rng)]


def _soften(alpha: Floats, sigma_px: float) -> Floats:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(alpha, (sigma_px, sigma_px, 0)), dtype=np.float32)
