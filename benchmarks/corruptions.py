"""What a camera, a lamp or a fixture does to a picture that has nothing to do with the part, at three strengths.

Lighting acts on the pixel values as stored. Lengths are shares of the picture's shorter side or pixels of a picture
whose shorter side has 448, so that a strength means the same for pictures of any size. Pixels that a movement brings
into view are mirrored from the picture. Kinds and grading follow the idea of ImageNet-C (Hendrycks & Dietterich 2019);
the strengths are those of a production line, not of the street.
"""

from __future__ import annotations

import io
import math
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..agent.errors import ConfigError

Pixels = NDArray[np.uint8]

STRENGTHS: dict[str, tuple[float, float, float]] = {
    "gain": (1.1, 1.25, 1.5),
    "gamma": (1.1, 1.25, 1.5),
    "gradient": (0.1, 0.2, 0.4),
    "blur": (0.5, 1.0, 2.0),
    "noise": (3.0, 8.0, 16.0),
    "rotation": (2.0, 5.0, 10.0),
    "scale": (1.03, 1.07, 1.15),
    "translation": (0.01, 0.03, 0.06),
    "jpeg": (60.0, 30.0, 10.0),
}
"""Per kind, grades 1 to 3: factor on the values or its inverse; exponent of the values or its inverse; half the change
of a linear ramp over the picture; sigma, px at a shorter side of 448; sigma in grey levels of 255; degrees to either
side; magnification or its inverse; share of the shorter side in any direction; JPEG quality."""
KINDS = tuple(STRENGTHS)
GRADES = (1, 2, 3)
BLUR_FRAME_PX = 448
MAX_MARGIN = 0.45
"""Of a side, mirrored around the picture before it is moved; enough for every strength."""


def corrupt(rgb: Pixels, kind: str, grade: int, *, seed: int, number: int) -> Pixels:
    """A picture as it would look after a change of capture.

    Signs, directions and noise depend on the seed, the kind and the picture's number but not on the grade: a higher
    grade is more of the same change.

    Args:
        rgb: uint8 (H, W, 3).
        kind: of ``KINDS``.
        grade: 1 to 3.
        seed: of the whole benchmark.
        number: of the picture in its test set.

    Returns:
        uint8 (H, W, 3), the same frame.

    Raises:
        ConfigError: there is no such kind or grade.
    """
    if kind not in STRENGTHS or grade not in GRADES:
        raise ConfigError(f"no change {kind!r} of grade {grade}.", hint=f"Kinds: {', '.join(KINDS)}; grades 1 to 3.")
    strength = STRENGTHS[kind][grade - 1]
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), number])
    up = bool(rng.integers(2))
    signed = strength if up else -strength
    factor = strength if up else 1.0 / strength
    angle = float(rng.uniform(0.0, 2.0 * math.pi))
    if kind == "gain":
        return gain(rgb, factor)
    if kind == "gamma":
        return gamma(rgb, factor)
    if kind == "gradient":
        return gradient(rgb, strength, angle)
    if kind == "blur":
        return blur(rgb, strength * min(rgb.shape[:2]) / BLUR_FRAME_PX)
    if kind == "noise":
        return noise(rgb, strength, rng)
    if kind == "rotation":
        return move(rgb, degrees=signed)
    if kind == "scale":
        return move(rgb, magnification=factor)
    if kind == "translation":
        way_px = strength * min(rgb.shape[:2])  # whole pixels: a part that lies elsewhere is not blurred
        return move(rgb, shift_px=(round(way_px * math.cos(angle)), round(way_px * math.sin(angle))))
    return jpeg(rgb, int(strength))


def gain(rgb: Pixels, factor: float) -> Pixels:
    """Every value times a factor, cut off at 255."""
    return _to_pixels(rgb * np.float32(factor))


def gamma(rgb: Pixels, exponent: float) -> Pixels:
    """255 (v / 255) ** exponent; black and white stay."""
    table = _to_pixels(255.0 * (np.arange(256) / 255.0) ** exponent)
    return table[rgb]


def gradient(rgb: Pixels, half_change: float, angle: float) -> Pixels:
    """Light from one side: a linear ramp from 1 - ``half_change`` to 1 + ``half_change`` across the picture.

    Args:
        rgb: uint8 (H, W, 3).
        half_change: in (0, 1).
        angle: direction of the brighter side, radians from x towards y (down).
    """
    height, width = rgb.shape[:2]
    x = (np.arange(width, dtype=np.float32) + 0.5) / width - 0.5
    y = (np.arange(height, dtype=np.float32) + 0.5) / height - 0.5
    dx, dy = math.cos(angle), math.sin(angle)
    along = (x[None, :] * dx + y[:, None] * dy) / (0.5 * (abs(dx) + abs(dy)))  # -1 and 1 in opposite corners
    return _to_pixels(rgb * (1.0 + np.float32(half_change) * along)[:, :, None])


def blur(rgb: Pixels, sigma_px: float) -> Pixels:
    """Gaussian defocus with mirrored borders."""
    from scipy.ndimage import gaussian_filter

    return _to_pixels(gaussian_filter(rgb.astype(np.float32), (sigma_px, sigma_px, 0.0), mode="mirror"))


def noise(rgb: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    """Gaussian noise of ``sigma`` grey levels; a grey picture stays grey."""
    is_grey = bool((rgb[:, :, 0] == rgb[:, :, 1]).all() and (rgb[:, :, 1] == rgb[:, :, 2]).all())
    field = rng.standard_normal((*rgb.shape[:2], 1 if is_grey else 3), dtype=np.float32)
    return _to_pixels(rgb + np.float32(sigma) * field)


def move(
    rgb: Pixels, *, degrees: float = 0.0, magnification: float = 1.0, shift_px: tuple[float, float] = (0.0, 0.0)
) -> Pixels:
    """The part turned about the centre of the frame, nearer or farther, and shifted; bicubic, borders mirrored.

    Args:
        rgb: uint8 (H, W, 3).
        degrees: counter-clockwise as seen.
        magnification: above 1 the part looks larger.
        shift_px: (x, y) to the right and down, after turning.
    """
    height, width = rgb.shape[:2]
    margin_y, margin_x = (min(side - 1, math.ceil(MAX_MARGIN * side)) for side in (height, width))
    padded = np.pad(rgb, ((margin_y, margin_y), (margin_x, margin_x), (0, 0)), mode="reflect")
    cos, sin = (function(math.radians(degrees)) / magnification for function in (math.cos, math.sin))
    # Pillow asks where an output pixel comes from: the shift is undone, then turn and magnification about the centre
    middle_x, middle_y = width / 2, height / 2
    from_x, from_y = middle_x + shift_px[0], middle_y + shift_px[1]
    coefficients = (
        cos,
        -sin,
        middle_x + margin_x - cos * from_x + sin * from_y,
        sin,
        cos,
        middle_y + margin_y - sin * from_x - cos * from_y,
    )
    moved = Image.fromarray(padded).transform(
        (width, height), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC
    )
    return np.asarray(moved)


def jpeg(rgb: Pixels, quality: int) -> Pixels:
    """Through a JPEG file of that quality (colour at half resolution, as cameras write it) and back."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(buffer) as image:
        return np.asarray(image.convert("RGB"))


def _to_pixels(values: NDArray[Any]) -> Pixels:
    return np.asarray(np.clip(np.rint(values), 0, 255), dtype=np.uint8)
