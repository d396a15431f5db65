"""TIFF pages -> samples, through tifffile and, for codecs it lacks, the libtiff inside Pillow."""

from __future__ import annotations

import io
import logging
import zlib
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..agent.errors import InputError
from .image_decoders import DECODER_ERRORS, Decoded, alpha_share, check_pixels, from_pillow, lab_to_rgb, opener

_DEFLATE: Final = (8, 32946)
_DEFLATE_RATIO: Final = 1032  # the most that one byte of a deflate stream can expand to
_PRECHECK_BYTES: Final = 2 << 30  # a strip that could expand beyond this is measured before tifffile inflates it whole


@cache
def _tifffile() -> Any:
    import tifffile

    # Without a handler, logging prints tifffile's remarks on damaged files to stderr as a last resort.
    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    return tifffile


def _refuse(name: str, what: str, hint: str) -> InputError:
    return InputError(f"{name} is a TIFF {what}.", hint=hint)


def decode_tiff(data: bytes, name: str, max_pixels: int) -> Decoded:
    """The first page, interleaved or planar, of 1 to 4 samples; other pages are on record as ``multipage``."""
    with _tifffile().TiffFile(io.BytesIO(data)) as tiff:
        page = tiff.pages[0]
        check_pixels(name, page.imagewidth, page.imagelength, max_pixels)
        _check_tiff_page(page, data, name, max_pixels)
        try:
            pixels = page.asarray(maxworkers=1)
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            # libtiff inside Pillow knows LZW, JPEG and the fax codes; it is exact wherever Pillow has a mode for them.
            if page.samplesperpixel > 1 and np.dtype(page.dtype).itemsize > 1:
                raise _refuse(
                    name,
                    f"with {page.compression.name} compression, whose codec is missing",
                    "pip install imagecodecs, or save it uncompressed.",
                ) from error
            decoded = _decode_with_pillow_tiff(data)
        else:
            decoded = _from_tiff_page(page, pixels, name)
        decoded.bit_depth = _bits(page)
        decoded.flags += ["colour_profile"] if 34675 in page.tags and "colour_profile" not in decoded.flags else []
        decoded.flags += ["multipage"] if _has_second_page(tiff) else []
    return decoded


def _has_second_page(tiff: Any) -> bool:
    try:
        tiff.pages[1]
    except DECODER_ERRORS:  # IndexError: there is none; the others: nothing readable, which is the same to us
        return False
    return True


def _decode_with_pillow_tiff(data: bytes) -> Decoded:
    with opener("TIFF")(io.BytesIO(data)) as image:
        return from_pillow(image)  # Pillow's TIFF loader has turned the picture and dropped the orientation by then


def _bits(page: Any) -> int:
    bits = page.bitspersample
    return int(bits if isinstance(bits, int) else max(bits))


def _check_tiff_page(page: Any, data: bytes, name: str, max_pixels: int) -> None:
    """Refuse what tifffile would fill with zeros, inflate without bound, or hand over with another meaning."""
    if page.imagedepth != 1:
        raise _refuse(name, "volume", "Save one slice as an image.")
    if page.subfiletype & 1:
        raise _refuse(
            name, "whose first page is only a thumbnail, as in camera raw files", "Develop it to a plain TIFF."
        )
    if not 1 <= page.samplesperpixel <= 4:
        raise _refuse(name, f"with {page.samplesperpixel} channels", "Save the 1 or 3 channels to inspect.")
    if page.dtype is None or np.dtype(page.dtype).kind not in "biuf":
        raise _refuse(name, "with samples of a type that cannot be shown", "Save it as 8-bit, 16-bit or float.")
    if page.photometric not in (0, 1, 2, 3, 5, 6, 8):
        raise _refuse(name, f"with {page.photometric.name} colours", "Save it as grey or RGB.")
    if page.is_tiled and page.tilewidth * page.tilelength > max(max_pixels, 1 << 20):
        raise _refuse(name, "with tiles larger than any image", "Save it again.")
    offsets, counts = page.dataoffsets, page.databytecounts
    itemsize = np.dtype(page.dtype).itemsize
    packed = page.imagelength * (-(-page.imagewidth * page.samplesperpixel * _bits(page) // 8))
    whole = len(offsets) == len(counts) > 0 and all(
        c > 0 and o > 0 and o + c <= len(data) for o, c in zip(offsets, counts, strict=True)
    )
    if not whole or (page.compression == 1 and page.photometric != 6 and sum(counts) < packed):
        raise EOFError("truncated sample data")
    if page.compression not in _DEFLATE:
        return
    limit = page.imagewidth * page.imagelength * page.samplesperpixel * itemsize
    for offset, count in zip(offsets, counts, strict=True):
        if count * _DEFLATE_RATIO > _PRECHECK_BYTES:
            stream = zlib.decompressobj()
            stream.decompress(data[offset : offset + count], limit + (1 << 20))
            if stream.unconsumed_tail:
                raise _refuse(name, "whose data expands far beyond its stated size", "Do not trust this file.")


def _from_tiff_page(page: Any, samples: NDArray[Any], name: str) -> Decoded:
    """Samples as tifffile returns them -> grey or colour with alpha apart."""
    shape = (page.imagelength, page.imagewidth)
    count = page.samplesperpixel
    if page.planarconfig == 2 and count > 1:
        samples = np.moveaxis(samples.reshape(count, *shape), 0, -1)
    samples = samples.reshape(*shape, count)
    samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
    photometric, bits, flags = int(page.photometric), _bits(page), list[str]()
    orientation_tag = page.tags.get(274)
    orientation = orientation_tag.value if orientation_tag is not None else 1
    orientation = orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
    if samples.dtype == np.bool_:
        samples = samples.view(np.uint8) * np.uint8(255)
    elif bits < 8 and samples.dtype == np.uint8 and photometric != 3:
        samples = (samples.astype(np.uint16) * 255 // (2**bits - 1)).astype(np.uint8)
    colours = {0: 1, 1: 3 if count >= 3 else 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}[photometric]
    if count < colours or (count > colours and len(page.extrasamples) < count - colours):
        raise _refuse(name, f"with {count} channels of unstated meaning", "Save it as grey or RGB.")
    alpha, straight = _tiff_alpha(page, samples, colours, flags)
    pixels = straight[..., 0] if colours == 1 else straight
    mode = {0: "L", 1: "L", 2: "RGB", 3: "P", 5: "CMYK", 6: "YCbCr", 8: "LAB"}[photometric]
    if photometric == 0:  # white is zero
        pixels = np.invert(pixels) if pixels.dtype.kind == "u" else -pixels
    elif photometric == 3:
        colormap = np.asarray(page.colormap)
        pixels = (colormap[:, np.minimum(pixels, colormap.shape[1] - 1)].transpose(1, 2, 0) >> 8).astype(np.uint8)
        flags.append("palette")
    elif photometric in (5, 6, 8):
        if pixels.dtype != np.uint8:
            raise _refuse(name, f"with {bits}-bit {mode} colours", "Save it as RGB.")
        pixels = _tiff_colours(pixels, mode, flags)
    flags += ["grey"] if pixels.ndim == 2 else []
    return Decoded(np.ascontiguousarray(pixels), alpha, mode, bits, orientation, None, flags)


def _tiff_colours(pixels: NDArray[np.uint8], mode: str, flags: list[str]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    if mode == "LAB":  # a* and b* are signed in the file; Pillow's unpacker knows
        return np.asarray(lab_to_rgb(Image.frombytes("LAB", (width, height), pixels.tobytes())))
    flags += ["cmyk"] if mode == "CMYK" else []
    return np.asarray(Image.frombytes(mode, (width, height), pixels.tobytes()).convert("RGB"))


def _tiff_alpha(
    page: Any, samples: NDArray[Any], colours: int, flags: list[str]
) -> tuple[NDArray[np.float32] | None, NDArray[Any]]:
    """Split off the first extra sample when it is alpha; premultiplied colours are divided back."""
    straight = samples[..., :colours]
    if samples.shape[-1] == colours:
        return None, straight
    kind = int(page.extrasamples[0])
    if kind not in (1, 2):
        flags.append("extra_channel")  # not said to be alpha: ignored, and on record
        return None, straight
    flags.append("alpha")
    full = float(np.iinfo(samples.dtype).max) if samples.dtype.kind in "iu" else 1.0
    alpha = alpha_share(samples[..., colours], full)
    if kind == 1 and samples.dtype.kind == "u":
        divided = straight / np.maximum(alpha, 1 / full)[..., None]
        straight = np.minimum(np.rint(divided), full).astype(samples.dtype)
    return alpha, straight
