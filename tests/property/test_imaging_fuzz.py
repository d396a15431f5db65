"""Whatever the bytes: a sound picture or an InputError of one line, never another exception or a warning."""

from __future__ import annotations

import functools
import io

import numpy as np
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from flawscope.agent.errors import InputError
from flawscope.tools.imaging import LoadedImage, load_image

MAX_PIXELS = 250_000  # mutated headers that state more are refused at once, which keeps the run short


def check(data: bytes) -> LoadedImage | None:
    refusal: InputError | None = None
    try:
        image = load_image(data, max_pixels=MAX_PIXELS)
    except InputError as error:
        refusal = error
    if refusal is not None:
        assert "\n" not in str(refusal)
        assert str(refusal).startswith("The image data")
        assert refusal.hint
        return None
    rgb, meta = image.rgb, image.meta
    assert rgb.dtype == np.uint8
    assert rgb.ndim == 3
    assert rgb.shape[2] == 3
    assert rgb.flags.c_contiguous
    assert not rgb.flags.writeable
    assert meta.rgb_size_px == (rgb.shape[1], rgb.shape[0])
    assert min(rgb.shape[:2]) >= 56
    assert len(image.sha256) == 64
    assert len(set(meta.flags)) == len(meta.flags)
    assert (image.raw is None) == (meta.value_range is None) == (meta.range_source is None)
    return image


@functools.cache
def samples() -> tuple[bytes, ...]:
    colour = np.random.default_rng(7).integers(0, 256, (60, 70, 3), dtype=np.uint8)
    colour[20:40] = 90  # so that compressed formats have runs to get wrong
    picture, deep = Image.fromarray(colour), colour[..., 0].astype(np.uint16) * 200
    exif = Image.Exif()
    exif[0x0112] = 6

    def saved(image: Image.Image, kind: str, **options: object) -> bytes:
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        return stream.getvalue()

    def tiff(array: np.ndarray, **options: object) -> bytes:
        stream = io.BytesIO()
        tifffile.imwrite(stream, array, **options)
        return stream.getvalue()

    return (
        saved(picture, "PNG"),
        saved(picture.convert("P"), "PNG", transparency=3),
        saved(Image.fromarray(deep), "PNG"),
        saved(picture, "JPEG", exif=exif),
        saved(picture.convert("CMYK"), "JPEG"),
        saved(picture, "BMP"),
        saved(picture.convert("P"), "BMP"),
        saved(picture, "GIF"),
        saved(picture, "WEBP", lossless=True),
        saved(picture, "PPM"),
        saved(Image.fromarray(deep), "PPM"),
        saved(picture, "JPEG2000"),
        saved(picture, "TIFF", compression="tiff_lzw"),
        saved(picture, "TIFF", compression="jpeg"),
        tiff(colour, photometric="rgb"),
        tiff(deep, byteorder=">", compression="zlib"),
        tiff(np.moveaxis(colour, -1, 0), photometric="rgb", planarconfig="separate"),
        tiff(deep.astype(np.float32), photometric="minisblack", predictor=False),
        tiff(deep, photometric="minisblack", tile=(16, 16), bigtiff=True),
    )


SAMPLE = st.integers(0, len(samples()) - 1)  # numbers, because failing examples that print whole files help nobody


def test_every_sample_is_whole():
    for data in samples():
        assert check(data) is not None


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400))
def test_arbitrary_bytes(data):
    check(data)


@settings(max_examples=150, deadline=None)
@given(SAMPLE, st.binary(max_size=200), st.integers(2, 40))
def test_a_real_beginning_and_an_arbitrary_end(number, tail, keep):
    data = samples()[number]
    check(data[:keep] + tail)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SAMPLE, st.floats(0, 1))
def test_truncated(number, share):
    data = samples()[number]
    check(data[: int(share * len(data))])


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    SAMPLE,
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=8),
    st.booleans(),
)
def test_mutated(number, edits, in_header):
    data = samples()[number]
    damaged = bytearray(data)
    for at, value in edits:
        damaged[at % min(len(data), 400 if in_header else len(data))] = value
    check(bytes(damaged))


@settings(max_examples=60, deadline=None)
@given(SAMPLE, st.floats(0, 1), st.floats(0, 1), st.integers(1, 200))
def test_bytes_cut_out_of_the_middle(number, share, other, length):
    data = samples()[number]
    at, to = int(share * len(data)), int(other * len(data))
    check(data[:at] + data[at + length :])
    check(data[:at] + data[to : to + length] + data[at:])
