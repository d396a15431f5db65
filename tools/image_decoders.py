"""Bytes of one image file -> its samples, whatever the format; used by `imaging` alone.

Formats are recognised by their first bytes, never by the file's suffix, and only formats on the list are decoded:
Pillow knows some forty more, among them ones that start other programs (EPS runs Ghostscript).
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from ..agent.errors import InputError
from .image_formats import sniff

# What Pillow and tifffile raise on damaged files. Neither documents it; each name below was met while fuzzing or is
# raised in their sources. KeyboardInterrupt and SystemExit stay out on purpose, and so does everything of our own.
DECODER_ERRORS: Final = (
    OSError,  # truncated data, unidentified or broken streams, libtiff failures
    SyntaxError,  # Pillow's word for "not a file of this format"
    ValueError,  # sizes and modes out of range; tifffile.TiffFileError; text chunks that expand too far
    TypeError,  # header fields of another type than expected
    LookupError,  # IndexError and KeyError: unknown tags, modes and codecs
    EOFError,
    AttributeError,  # fields missing from a half-read header
    AssertionError,
    ArithmeticError,  # OverflowError and ZeroDivisionError from header arithmetic
    MemoryError,
    RuntimeError,  # NotImplementedError and RecursionError are among its children
    ImportError,  # a codec that is compiled in or installed elsewhere only
    struct.error,
    zlib.error,
    Image.DecompressionBombError,  # raised inside the GIF and WebP plugins
)


_quiet_lock = threading.Lock()
_quiet_users = 0
_quiet_state: warnings.catch_warnings[None] | None = None


@dataclass
class Decoded:
    """Samples of one picture before they become 8-bit RGB.

    Attributes:
        pixels: (H,W) grey or (H,W,3) colour; uint8, or any other real dtype that still has to be stretched.
        alpha: (H,W) float32 in 0..1, or None when the picture is opaque by construction.
        mode: the source's own mode, such as ``RGB``, ``P`` or ``I;16``.
        bit_depth: bits of one stored sample.
        orientation: EXIF orientation 1..8 that is still to be applied.
        file_format: name of the file format, or None for pictures that come from memory.
        flags: what was special about the source.
    """

    pixels: NDArray[Any]
    alpha: NDArray[np.float32] | None
    mode: str
    bit_depth: int
    orientation: int = 1
    file_format: str | None = None
    flags: list[str] = field(default_factory=list)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Pillow's remarks on odd files off the user's terminal, from any number of threads.

    `warnings.catch_warnings` swaps a global list, so overlapping uses from two threads can leave the wrong list
    behind. Counting makes the first thread in and the last thread out the only ones that swap it.
    """
    global _quiet_users, _quiet_state
    with _quiet_lock:
        if _quiet_users == 0:
            _quiet_state = warnings.catch_warnings()
            _quiet_state.__enter__()
            warnings.filterwarnings("ignore", module=r"(PIL|tifffile|flawscope\.tools\.image_\w+)(\.|$)")
        _quiet_users += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_users -= 1
            if _quiet_users == 0 and _quiet_state is not None:
                _quiet_state.__exit__(None, None, None)
                _quiet_state = None


def check_pixels(name: str, width_px: int, height_px: int, max_pixels: int) -> None:
    """Refuse a picture by the size that its header states, before a byte of it is decoded.

    Raises:
        InputError: no pixels at all, or more than max_pixels.
    """
    if width_px < 1 or height_px < 1:
        raise InputError(f"{name} has no pixels ({width_px} x {height_px}).", hint="Capture it again.")
    if width_px * height_px > max_pixels:
        raise InputError(
            f"{name} states {width_px} x {height_px} pixels, more than the limit of {max_pixels}.",
            hint="Crop or shrink it, or raise max_pixels if the file is trusted.",
        )


def alpha_share(samples: NDArray[Any], full: float) -> NDArray[np.float32]:
    """Opacity in 0..1 from samples of which `full` means opaque; NaN counts as transparent."""
    with np.errstate(invalid="ignore"):  # signalling NaN
        share = np.nan_to_num(samples.astype(np.float64) / full)
    return np.clip(share, 0, 1).astype(np.float32)


def decode_bytes(data: bytes, name: str, max_pixels: int) -> Decoded:
    """Decode the bytes of an image file.

    Args:
        data: the whole file.
        name: how messages call it.
        max_pixels: limit for width x height.

    Raises:
        InputError: everything that is not one whole still picture in a known format.
    """
    file_format = sniff(data, name)
    if ImageFile.LOAD_TRUNCATED_IMAGES:  # a half picture would be inspected as if grey were its other half
        raise InputError(
            f"{name} is not read while PIL.ImageFile.LOAD_TRUNCATED_IMAGES is on.",
            hint="Set it to False: truncated images would pass unseen.",
        )
    try:
        with quiet():
            if file_format == "TIFF":
                from .image_tiff import decode_tiff  # with tifffile: only when there is a TIFF

                decoded = decode_tiff(data, name, max_pixels)
            else:
                decoded = _decode_with_pillow(data, file_format, name, max_pixels)
    except DECODER_ERRORS as error:
        raise _as_input_error(error, name, file_format) from error
    decoded.file_format = file_format
    return decoded


def decode_pil(image: Image.Image, name: str, max_pixels: int) -> Decoded:
    """Take over a Pillow image: its current frame, with everything that `decode_bytes` does for files.

    Raises:
        InputError: as `decode_bytes`; also a lazily opened file that turns out to be damaged.
    """
    check_pixels(name, image.width, image.height, max_pixels)
    try:
        with quiet():
            decoded = from_pillow(image)
            decoded.flags += ["animated"] if getattr(image, "is_animated", False) else []
    except DECODER_ERRORS as error:
        raise _as_input_error(error, name, image.format or "picture") from error
    return decoded


def _as_input_error(error: BaseException, name: str, file_format: str) -> InputError:
    text = " ".join(str(error).split())[:160] or type(error).__name__
    if isinstance(error, MemoryError):
        return InputError(f"{name} needs more memory than there is.", hint="Crop or shrink it.")
    if "MAX_TEXT" in text:
        return InputError(
            f"{name} holds a compressed text chunk that expands too far.", hint="Save the picture again without text."
        )
    if isinstance(error, EOFError) or any(word in text for word in ("truncated", "Truncated", "incomplete")):
        return InputError(f"{name} is a truncated {file_format} file ({text}).", hint="Copy or capture it again.")
    return InputError(f"{name} is a damaged {file_format} file ({text}).", hint="Save or capture it again.")


@cache
def opener(file_format: str) -> Callable[[io.BytesIO], ImageFile.ImageFile]:
    """The Pillow plugin of one format, called directly.

    `Image.open` would try plugins in turn and judge the size by the global MAX_IMAGE_PIXELS, which cannot be changed
    for one call without changing it for every thread.
    """
    from importlib import import_module

    module, plugin = {
        "PNG": ("PngImagePlugin", "PngImageFile"),
        "JPEG": ("JpegImagePlugin", "JpegImageFile"),  # also of MPO files, whose first picture is the picture
        "BMP": ("BmpImagePlugin", "BmpImageFile"),
        "GIF": ("GifImagePlugin", "GifImageFile"),
        "WebP": ("WebPImagePlugin", "WebPImageFile"),
        "Netpbm": ("PpmImagePlugin", "PpmImageFile"),
        "JPEG 2000": ("Jpeg2KImagePlugin", "Jpeg2KImageFile"),
        "AVIF": ("AvifImagePlugin", "AvifImageFile"),
        "TIFF": ("TiffImagePlugin", "TiffImageFile"),
    }[file_format]
    factory: Callable[[io.BytesIO], ImageFile.ImageFile] = getattr(import_module(f"PIL.{module}"), plugin)
    return factory


def _decode_with_pillow(data: bytes, file_format: str, name: str, max_pixels: int) -> Decoded:
    with opener(file_format)(io.BytesIO(data)) as image:
        check_pixels(name, image.width, image.height, max_pixels)
        if getattr(image, "is_animated", False):
            raise InputError(
                f"{name} is an animated {file_format} with several frames, not one picture.",
                hint="Extract the frame to inspect and give that.",
            )
        decoded = from_pillow(image)
        if file_format == "PNG" and data[24] == 16 and data[25] in (2, 4, 6):
            _restore_png16(decoded, data, image)
        elif file_format == "Netpbm" and image.mode == "I":
            decoded.bit_depth = 16  # Pillow widens 16-bit samples to 32
    return decoded


def from_pillow(image: Image.Image) -> Decoded:
    """Samples of a Pillow image; deep modes stay as they are because `convert` clips them at 255."""
    image.load()
    mode = image.mode
    orientation, flags = _orientation(image)
    if image.info.get("icc_profile"):
        flags.append("colour_profile")
    if mode in ("I", "F") or mode.startswith("I;16"):
        pixels = np.array(image)
        depth = 8 * pixels.dtype.itemsize
        key = image.info.get("transparency")
        alpha = (pixels != key).astype(np.float32) if isinstance(key, int) else None
        flags += ["grey"] + ([] if alpha is None else ["alpha"])
        return Decoded(
            pixels.astype(pixels.dtype.newbyteorder("="), copy=False), alpha, mode, depth, orientation, None, flags
        )
    alpha = None
    if mode in ("P", "PA"):
        flags.append("palette")
    if mode in ("1", "L", "LA", "La"):
        flags.append("grey")
    if mode == "CMYK":
        flags.append("cmyk")
    if mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        flags.append("alpha")
        rgba = np.asarray((image.convert("LA") if mode == "La" else image).convert("RGBA"))
        pixels, alpha = rgba[..., :3], rgba[..., 3].astype(np.float32) / np.float32(255)
    elif mode in ("1", "L"):
        pixels = np.asarray(image.convert("L"))
    elif mode == "LAB":
        pixels = np.asarray(lab_to_rgb(image))
    else:
        pixels = np.asarray(image if mode == "RGB" else image.convert("RGB"))
    return Decoded(pixels, alpha, mode, 1 if mode == "1" else 8, orientation, None, flags)


def _orientation(image: Image.Image) -> tuple[int, list[str]]:
    try:
        value = image.getexif().get(0x0112, 1)
    except DECODER_ERRORS:  # the picture itself is whole; that its orientation is unknown is on record
        return 1, ["exif_damaged"]
    return (value if isinstance(value, int) and 1 <= value <= 8 else 1), []


def lab_to_rgb(image: Image.Image) -> Image.Image:
    """CIE L*a*b* (D50) -> sRGB through LittleCMS; Pillow's `convert` has no such conversion."""
    from PIL import ImageCms

    try:
        result = ImageCms.profileToProfile(
            image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except ImageCms.PyCMSError as error:
        raise ValueError(f"LAB colours cannot be converted: {error}") from error
    if result is None:
        raise ValueError("LAB colours cannot be converted")
    return result


# ---- 16-bit colour PNG: Pillow keeps the high bytes only ------------------------------------------------------------

_ADAM7: Final = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def _restore_png16(decoded: Decoded, data: bytes, image: Image.Image) -> None:
    """Replace the 8-bit samples of a 16-bit colour PNG by its full ones.

    PNG filters (W3C PNG, section 9) work byte by byte at the distance of one pixel, so the high and the low bytes of
    16-bit samples never mix: each half, under the same filter types, is a valid 8-bit PNG that Pillow can decode.
    """
    colour_type, (width, height) = data[25], image.size
    samples = {2: 3, 4: 2, 6: 4}[colour_type]
    passes = _ADAM7 if data[28] else ((0, 0, 1, 1),)
    sizes = [(-(-(height - y) // dy), -(-(width - x) // dx)) for y, x, dy, dx in passes]
    sizes = [(h, w) for h, w in sizes if h > 0 and w > 0]
    total = sum(h * (1 + 2 * samples * w) for h, w in sizes)
    inflated = zlib.decompressobj().decompress(_png_idat(data), total)
    if len(inflated) < total:
        raise EOFError("truncated sample data")
    flat = np.frombuffer(inflated, np.uint8)
    halves: tuple[list[bytes], list[bytes]] = ([], [])
    start = 0
    for h, w in sizes:
        rows = flat[start : start + h * (1 + 2 * samples * w)].reshape(h, -1)
        start += rows.size
        for k, half in enumerate(halves):
            half.append(np.hstack([rows[:, :1], rows[:, 1 + k :: 2]]).tobytes())
    header = data[16:24] + bytes((8, colour_type, 0, 0, data[28]))
    high, low = (_png8(header, b"".join(half)).astype(np.uint16) for half in halves)
    full = high << 8 | low
    colours = full[..., :3] if samples >= 3 else full[..., 0]
    key = image.info.get("transparency")
    decoded.pixels, decoded.bit_depth = np.ascontiguousarray(colours), 16
    if samples in (2, 4):
        decoded.alpha = full[..., -1].astype(np.float32) / np.float32(65535)
        decoded.flags += ["grey"] if samples == 2 else []
    elif isinstance(key, tuple):
        decoded.alpha = (colours != np.array(key, np.uint16)).any(axis=-1).astype(np.float32)


def _png_idat(data: bytes) -> bytes:
    parts, at = [], 8
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IDAT":
            parts.append(data[at + 8 : at + 8 + length])
        at += 12 + length
    return b"".join(parts)


def _png8(header: bytes, scanlines: bytes) -> NDArray[np.uint8]:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    body = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(scanlines, 0))
        + chunk(b"IEND", b"")
    )
    with opener("PNG")(io.BytesIO(body)) as image:
        image.load()
        return np.array(image, np.uint8)
