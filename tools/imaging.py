"""Image ingestion: any picture a user gives -> one 8-bit RGB array, its facts, or one clear refusal.

Everything that looks at pixels goes through `load_image`. The bytes of a file are read once, hashed and decoded from
the same copy, so the hash in a report always belongs to the pixels that were judged.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..agent.errors import InputError
from .image_decoders import Decoded, alpha_share, check_pixels, decode_bytes, decode_pil
from .image_formats import suffix_matches

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | NDArray[Any] | Image.Image"

MAX_FILE_BYTES: Final = 1 << 30
TINY_SIDE_PX: Final = 56  # two cells of a 28-px vision grid; below that there is nothing to localise in
TINY_TARGET_PX: Final = 112
HUGE_PX: Final = 12_845_056  # what one look of Qwen2.5-VL takes at most; beyond it experts work in tiles
MAX_ASPECT: Final = 50
_MID_GREY: Final = 128
_CONSTANT_LEVELS: Final = 2
_PERCENTILES: Final = (0.5, 99.5)


@dataclass(frozen=True)
class ImageMeta:
    """Where the RGB array of a `LoadedImage` comes from.

    Attributes:
        orig_size_px: (width, height) of the original, after its EXIF orientation.
        mode: mode of the source, such as ``RGB``, ``P``, ``CMYK``, ``I;16`` or ``float32``.
        bit_depth: bits of one sample as stored.
        scale_x: RGB pixels per original pixel along x; 1.0 unless a tiny picture was enlarged.
        scale_y: the same along y.
        value_range: (lo, hi) in the source's units that became 0 and 255; None for 8-bit sources.
        range_source: who chose it: ``stated`` by the caller, from this ``image`` alone, or None.
        flags: what was special: grey, constant, tiny, huge, extreme_aspect, alpha, palette, exif_rotated,
            exif_damaged, sixteen_bit, deep_integer, float, nan, cmyk, colour_profile, multipage, animated,
            extra_channel, suffix_mismatch.
    """

    orig_size_px: tuple[int, int]
    mode: str
    bit_depth: int
    scale_x: float
    scale_y: float
    value_range: tuple[float, float] | None
    range_source: Literal["stated", "image"] | None
    flags: tuple[str, ...]

    @property
    def rgb_size_px(self) -> tuple[int, int]:
        """(width, height) of the RGB array."""
        return round(self.orig_size_px[0] * self.scale_x), round(self.orig_size_px[1] * self.scale_y)


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """A picture ready for inspection.

    Attributes:
        rgb: (H,W,3) uint8, contiguous, read-only.
        raw: the samples before the stretch for sources deeper than 8 bits, (h,w) or (h,w,3) in original pixels,
            read-only; else None.
        sha256: of the file's bytes; of dtype, shape and samples for arrays and Pillow images.
        path: as given, or None for pictures from memory.
        meta: the facts about it.
    """

    rgb: NDArray[np.uint8]
    raw: NDArray[Any] | None
    sha256: str
    path: str | None
    meta: ImageMeta


def load_image(
    source: ImageSource, *, value_range: tuple[float, float] | None = None, max_pixels: int = 200_000_000
) -> LoadedImage:
    """Read a picture from a path, the bytes of a file, an array or a Pillow image.

    Args:
        source: arrays are (H,W), (H,W,1), (H,W,3) or (H,W,4) with alpha last.
        value_range: (lo, hi) in the source's units that become 0 and 255. It applies to sources deeper than 8 bits;
            without it they are stretched from their own 0.5th to 99.5th percentile, which differs between pictures.
        max_pixels: limit for width x height, checked before anything is decoded.

    Raises:
        InputError: everything that is not one whole still picture, in one line that names it and says what to do.
    """
    if value_range is not None:
        value_range = _checked_range(value_range)
    path: str | None = None
    if isinstance(source, np.ndarray):
        name = "The array"
        decoded, digest = _decode_array(source, name, max_pixels), _sample_hash(source)
    elif isinstance(source, Image.Image):
        name = "The picture"
        decoded = decode_pil(source, name, max_pixels)
        digest = _sample_hash(decoded.pixels if decoded.alpha is None else np.dstack([decoded.pixels, decoded.alpha]))
    else:
        if isinstance(source, bytes | bytearray | memoryview):
            name, data = "The image data", bytes(source)
            _check_file_size(name, len(data))
        elif isinstance(source, str | os.PathLike):
            path = os.fsdecode(source)
            name = _printable(path)
            data = _read_file(path, name)
        else:
            raise InputError(
                f"An input of type {type(source).__name__} is not a picture.",
                hint="Give a path, bytes, a numpy array or a PIL image.",
            )
        decoded, digest = decode_bytes(data, name, max_pixels), hashlib.sha256(data).hexdigest()
        if path is not None and decoded.file_format and not suffix_matches(path, decoded.file_format):
            decoded.flags.append("suffix_mismatch")
    return _finish(decoded, name, digest, path, value_range, max_pixels)


def to_original_box(box: tuple[float, float, float, float], meta: ImageMeta) -> tuple[int, int, int, int]:
    """Convert a box from the frame of the RGB array to the smallest covering one in original pixels.

    Args:
        box: half-open (x0, y0, x1, y1) in pixels of `LoadedImage.rgb`.
        meta: of the same image.

    Returns:
        Half-open (x0, y0, x1, y1) inside the original; the same numbers unless the picture was tiny.
    """
    (width, height), (rgb_width, rgb_height) = meta.orig_size_px, meta.rgb_size_px
    x0, x1 = _original_span(box[0], box[2], rgb_width, width)
    y0, y1 = _original_span(box[1], box[3], rgb_height, height)
    return x0, y0, x1, y1


def _original_span(start: float, stop: float, rgb_px: int, orig_px: int) -> tuple[int, int]:
    # The slack absorbs rounding of the division; a millionth of a pixel never decides about a neighbour.
    low = math.floor(start * orig_px / rgb_px + 1e-6)
    high = math.ceil(stop * orig_px / rgb_px - 1e-6)
    return min(max(low, 0), orig_px), min(max(high, 0), orig_px)


def to_original_map(score_map: NDArray[np.float32], meta: ImageMeta) -> NDArray[np.float32]:
    """Convert a map from the frame of the RGB array to original pixels.

    Args:
        score_map: (H,W) float32, one value for each pixel of `LoadedImage.rgb`.
        meta: of the same image.

    Returns:
        (h,w) float32; the same array unless the picture was tiny, then each value is the mean of the enlarged pixels.

    Raises:
        ValueError: the map has another shape than the RGB array.
    """
    width, height = meta.rgb_size_px
    if score_map.shape != (height, width):
        raise ValueError(f"map of shape {score_map.shape} does not belong to an image of {width} x {height} px")
    if meta.orig_size_px == (width, height):
        return score_map
    shrunk = Image.fromarray(np.ascontiguousarray(score_map, np.float32)).resize(
        meta.orig_size_px, Image.Resampling.BOX
    )
    return np.array(shrunk, np.float32)


def file_sha256(path: str) -> str:
    """Hash of a picture's file, the same as ``LoadedImage.sha256``, without decoding it.

    Raises:
        InputError: there is no regular file to read.
    """
    return hashlib.sha256(_read_file(path, _printable(path))).hexdigest()


# ---- reading --------------------------------------------------------------------------------------------------------


def _printable(path: str) -> str:
    """A path as messages may show it: no terminal escapes, no broken characters, not longer than a line."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in path)
    return text if len(text) <= 200 else f"{text[:80]}…{text[-80:]}"


_OPEN_ERRORS: Final[dict[int, tuple[str, str]]] = {
    errno.ENOENT: ("does not exist.", "Check the path."),
    errno.ENOTDIR: ("lies below something that is not a folder.", "Check the path."),
    errno.EACCES: ("may not be read.", "Check its permissions."),
    errno.EPERM: ("may not be read.", "Check its permissions."),
    errno.ELOOP: ("is a loop of symbolic links.", "Give the file itself."),
    errno.ENAMETOOLONG: ("is a name too long for the file system.", "Check the path."),
}


def _read_file(path: str, name: str) -> bytes:
    if not path:
        raise InputError("The path of the image is empty.", hint="Give the path of an image file.")
    try:
        _check_regular(Path(path).stat().st_mode, name)  # before opening: merely opening a device can act on it
        # O_NONBLOCK: should a FIFO have taken the file's place since, opening it must not wait for a writer.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with open(os.open(path, flags), "rb") as file:  # noqa: PTH123 - pathlib cannot pass open flags
            status = os.fstat(file.fileno())
            _check_regular(status.st_mode, name)
            _check_file_size(name, status.st_size)
            data = file.read(status.st_size + 1)  # bounded once more: the file may still be growing
    except OSError as error:
        hint = "Download the image first." if "://" in path else None
        what, advice = _OPEN_ERRORS.get(
            error.errno or 0, (f"cannot be read: {error.strerror or error}.", "Check the disk and the path.")
        )
        raise InputError(f"{name} {what}", hint=hint or advice) from error
    except ValueError as error:  # NUL or a lone surrogate, which no file system takes
        raise InputError(f"{name} is not a valid path ({error}).", hint="Check the path.") from error
    _check_file_size(name, len(data))
    return data


def _check_regular(mode: int, name: str) -> None:
    if stat.S_ISDIR(mode):
        raise InputError(f"{name} is a folder, not an image.", hint="Give the image files inside it.")
    if not stat.S_ISREG(mode):
        raise InputError(f"{name} is a pipe, socket or device, not a file.", hint="Save the image to a file first.")


def _check_file_size(name: str, size_bytes: int) -> None:
    if size_bytes > MAX_FILE_BYTES:
        raise InputError(f"{name} is larger than {MAX_FILE_BYTES >> 20} MiB.", hint="Crop it or save it compressed.")


def _checked_range(value_range: tuple[float, float]) -> tuple[float, float]:
    low, high = float(value_range[0]), float(value_range[1])
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"The value range ({low:g}, {high:g}) is empty.", hint="State it as low < high, both finite.")
    return low, high


def _sample_hash(samples: NDArray[Any]) -> str:
    head = f"{samples.dtype.str}{samples.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(samples).tobytes()).hexdigest()


def _decode_array(array: NDArray[Any], name: str, max_pixels: int) -> Decoded:
    """Samples of an array; copied, since the caller may write into it later."""
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise InputError(f"{name} has samples of type {array.dtype}.", hint="Give integers, booleans or floats.")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        planar = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        hint = "Move the channels last: array.transpose(1, 2, 0)." if planar else "Give (H,W), (H,W,3) or (H,W,4)."
        raise InputError(f"{name} has shape {array.shape}, which is not one picture.", hint=hint)
    check_pixels(name, array.shape[1], array.shape[0], max_pixels)
    samples = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
    mode, depth, flags = samples.dtype.name, 8 * samples.dtype.itemsize, list[str]()
    if samples.dtype == np.bool_:
        samples, depth = samples.view(np.uint8) * np.uint8(255), 1
    alpha = None
    if samples.ndim == 3 and samples.shape[2] == 4:
        full = float(np.iinfo(samples.dtype).max) if samples.dtype.kind in "iu" else 1.0
        alpha = alpha_share(samples[..., 3], full)
        samples = samples[..., :3]
        flags.append("alpha")
    elif samples.ndim == 2 or samples.shape[2] == 1:
        samples = samples.reshape(samples.shape[:2])
        flags.append("grey")
    return Decoded(np.ascontiguousarray(samples), alpha, mode, depth, flags=flags)


# ---- from samples to RGB --------------------------------------------------------------------------------------------


def _finish(
    decoded: Decoded,
    name: str,
    digest: str,
    path: str | None,
    value_range: tuple[float, float] | None,
    max_pixels: int,
) -> LoadedImage:
    """Stretch, composite, turn and enlarge, in this order, and note what was done."""
    pixels, alpha, flags = decoded.pixels, decoded.alpha, list(decoded.flags)
    raw: NDArray[Any] | None = None
    used_range: tuple[float, float] | None = None
    if pixels.dtype != np.uint8:
        raw = np.ascontiguousarray(_oriented(pixels, decoded.orientation))
        kind, bits = pixels.dtype.kind, decoded.bit_depth
        flags.append("float" if kind == "f" else "sixteen_bit" if bits <= 16 else "deep_integer")
        if kind == "f" and not np.isfinite(pixels).all():
            flags.append("nan")
        used_range = value_range or _robust_range(pixels, name)
        pixels = _stretch(pixels, *used_range)
    rgb: NDArray[np.uint8] = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    if alpha is not None:
        rgb = np.rint(rgb * alpha[..., None] + np.float32(_MID_GREY) * (1 - alpha[..., None])).astype(np.uint8)
    if decoded.orientation != 1:
        rgb = _oriented(rgb, decoded.orientation)
        flags.append("exif_rotated")
    rgb = np.ascontiguousarray(rgb)
    height, width = rgb.shape[:2]
    if _is_constant(rgb):
        flags.append("constant")
    rgb = _enlarged_if_tiny(rgb, name, flags, max_pixels)
    if rgb.shape[0] * rgb.shape[1] > HUGE_PX:
        flags.append("huge")
    if max(width, height) > MAX_ASPECT * min(width, height):
        flags.append("extreme_aspect")
    rgb.flags.writeable = False
    if raw is not None:
        raw.flags.writeable = False
    meta = ImageMeta(
        orig_size_px=(width, height),
        mode=decoded.mode,
        bit_depth=decoded.bit_depth,
        scale_x=rgb.shape[1] / width,
        scale_y=rgb.shape[0] / height,
        value_range=used_range,
        range_source=None if used_range is None else "stated" if value_range else "image",
        flags=tuple(flags),
    )
    return LoadedImage(rgb, raw, digest, path, meta)


def _oriented(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply an EXIF orientation (CIPA DC-008, tag 0x0112)."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    flip_y, flip_x = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1]


def _robust_range(pixels: NDArray[Any], name: str) -> tuple[float, float]:
    values = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels.ravel()
    if values.size == 0:
        raise InputError(f"{name} holds no finite value.", hint="Check what wrote it.")
    if values.dtype == np.float16:
        values = values.astype(np.float32)  # percentiles interpolate, and float16 overflows while doing so
    lowest, highest = float(values.min()), float(values.max())
    if math.isfinite(highest - lowest):
        low, high = (float(value) for value in np.percentile(values.astype(np.float64), _PERCENTILES))
        if low < high:
            return low, high
    return lowest, highest  # nearly constant, where the percentiles coincide, or a span beyond float64


def _stretch(pixels: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Map [low, high] linearly to 0..255; NaN counts as low, and an empty range gives mid-grey."""
    if pixels.dtype in (np.uint16, np.int16):  # a table of all 65536 values is faster than arithmetic on every pixel
        every = np.arange(1 << 16, dtype=np.uint16)
        table = _levels(every.view(pixels.dtype), low, high)
        levels: NDArray[np.uint8] = table[pixels.view(np.uint16)]
        return levels
    return _levels(pixels, low, high)


def _levels(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    half_span = high / 2 - low / 2  # halves, because the span of two float64 may overflow
    if half_span <= 0:
        return np.full(values.shape, _MID_GREY, np.uint8)
    with np.errstate(invalid="ignore"):  # widening a signalling NaN raises the flag; it becomes low like any other
        wide = values.astype(np.float64)
    finite = np.nan_to_num(wide, nan=low, posinf=high, neginf=low)
    share = (np.clip(finite, low, high) / 2 - low / 2) / half_span
    return np.floor(share * 255 + 0.5).astype(np.uint8)


def _is_constant(rgb: NDArray[np.uint8]) -> bool:
    """Whether every channel spans fewer than two levels; a coarse look settles almost every real picture."""
    for step in (16, 1):
        look = rgb[::step, ::step]
        if any(int(np.ptp(look[..., channel])) >= _CONSTANT_LEVELS for channel in range(3)):
            return False
    return True


def _enlarged_if_tiny(rgb: NDArray[np.uint8], name: str, flags: list[str], max_pixels: int) -> NDArray[np.uint8]:
    height, width = rgb.shape[:2]
    shorter = min(height, width)
    if shorter >= TINY_SIDE_PX:
        return rgb
    scale = TINY_TARGET_PX / shorter
    size = (round(width * scale), round(height * scale))
    if size[0] * size[1] > max_pixels:
        raise InputError(
            f"{name} is {width} x {height} pixels, too narrow to be enlarged for inspection.",
            hint="Cut it into shorter pieces.",
        )
    flags.append("tiny")
    return np.array(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC), np.uint8)
