from __future__ import annotations

import errno
import hashlib
import io
import os
import struct
import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile

from flawscope.agent.errors import InputError
from flawscope.tools import image_tiff, imaging
from flawscope.tools.imaging import load_image, to_original_box, to_original_map

RNG = np.random.default_rng(3)
COLOUR = RNG.integers(0, 256, (60, 80, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]
GRADIENT = np.linspace(0, 65535, 60 * 80).round().astype(np.uint16).reshape(60, 80)


def saved(image, kind="PNG", **options):
    stream = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(stream, kind, **options)
    return stream.getvalue()


def tiff(array, **options):
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png16(samples, colour_type, extra=b""):
    """A 16-bit PNG under the five filter types in turn, as no library at hand writes one."""
    height, width, count = samples.shape
    rows = np.ascontiguousarray(samples, ">u2").view(np.uint8).reshape(height, -1).astype(int)
    bpp, lines = 2 * count, []
    for y, row in enumerate(rows):
        up = rows[y - 1] if y else np.zeros_like(row)
        left, up_left = np.r_[np.zeros(bpp, int), row[:-bpp]], np.r_[np.zeros(bpp, int), up[:-bpp]]
        p = left + up - up_left
        pa, pb, pc = abs(p - left), abs(p - up), abs(p - up_left)
        paeth = np.where((pa <= pb) & (pa <= pc), left, np.where(pb <= pc, up, up_left))
        guess = (0 * row, left, up, (left + up) // 2, paeth)[y % 5]
        lines.append(bytes([y % 5]) + ((row - guess) % 256).astype(np.uint8).tobytes())
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + extra
        + png_chunk(b"IDAT", zlib.compress(b"".join(lines)))
        + png_chunk(b"IEND", b"")
    )


# ---- what is read ---------------------------------------------------------------------------------------------------


def test_a_file_keeps_its_pixels_hash_and_path(tmp_path):
    path = tmp_path / "part.png"
    path.write_bytes(saved(COLOUR))
    image = load_image(path)
    np.testing.assert_array_equal(image.rgb, COLOUR)
    assert image.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert image.path == str(path)
    assert image.raw is None
    assert image.meta == imaging.ImageMeta((80, 60), "RGB", 8, 1.0, 1.0, None, None, ())
    assert not image.rgb.flags.writeable


def test_path_bytes_array_and_picture_agree(tmp_path):
    data = saved(COLOUR)
    path = tmp_path / "a.png"
    path.write_bytes(data)
    for source in (str(path), data, bytearray(data), COLOUR, Image.open(io.BytesIO(data)), Image.fromarray(COLOUR)):
        np.testing.assert_array_equal(load_image(source).rgb, COLOUR)


def test_loading_again_changes_nothing():
    for source in (COLOUR, GREY, GRADIENT, COLOUR[:20, :30], saved(COLOUR, "JPEG")):
        once = load_image(source).rgb
        np.testing.assert_array_equal(load_image(once).rgb, once)


def test_the_caller_may_write_into_the_array_afterwards():
    mine = COLOUR.copy()
    image = load_image(mine)
    mine[:] = 0
    np.testing.assert_array_equal(image.rgb, COLOUR)


@pytest.mark.parametrize("source", [GREY, saved(GREY), saved(GREY, "BMP"), saved(GREY, "PPM"), GREY[..., None]])
def test_grey_is_three_equal_channels(source):
    image = load_image(source)
    np.testing.assert_array_equal(image.rgb, load_image(np.repeat(GREY[..., None], 3, 2)).rgb)
    assert "grey" in image.meta.flags


def test_one_bit():
    bits = GREY > 127
    for source in (bits, saved(Image.fromarray(bits)), saved(Image.fromarray(bits), "TIFF", compression="group4")):
        image = load_image(source)
        np.testing.assert_array_equal(image.rgb[..., 1], bits * np.uint8(255))
        assert image.meta.bit_depth == 1


@pytest.mark.parametrize(
    ("file_format", "options"), [("BMP", {}), ("PPM", {}), ("WEBP", {"lossless": True}), ("JPEG2000", {}), ("GIF", {})]
)
def test_lossless_formats(file_format, options):
    few = COLOUR // 128 * 200  # eight colours, so that a palette holds them
    np.testing.assert_array_equal(load_image(saved(few, file_format, **options)).rgb, few)


def test_alpha_lies_on_mid_grey():
    rgba = np.zeros((60, 60, 4), np.uint8)
    rgba[..., 0] = 255
    rgba[:20, :, 3], rgba[20:40, :, 3] = 255, 51  # opaque, a fifth, nothing
    for source in (rgba, saved(rgba), saved(rgba, "TIFF"), saved(rgba, "WEBP", lossless=True, exact=True)):
        image = load_image(source)
        assert image.rgb[0, 0].tolist() == [255, 0, 0]
        assert image.rgb[30, 0].tolist() == [153, 102, 102]  # 128 + (255 - 128) / 5 and 128 - 128 / 5
        assert image.rgb[50, 0].tolist() == [128, 128, 128]
        assert "alpha" in image.meta.flags


def test_grey_with_alpha_stays_grey():
    la = np.dstack([GREY, GREY[::-1]])
    image = load_image(saved(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(GREY[::-1].copy())])))
    np.testing.assert_array_equal(image.rgb[..., 0], image.rgb[..., 2])
    expected = np.rint(128 + (la[..., 0].astype(float) - 128) * la[..., 1] / 255)
    assert np.abs(image.rgb[..., 0] - expected).max() <= 1


def test_palette_with_and_without_transparency():
    index = np.zeros((60, 60), np.uint8)
    index[:30] = 1
    picture = Image.fromarray(index).convert("P")
    picture.putpalette([10, 20, 30, 40, 50, 60])
    image = load_image(saved(picture))
    assert image.rgb[0, 0].tolist() == [40, 50, 60]
    assert image.rgb[59, 0].tolist() == [10, 20, 30]
    assert image.meta.flags == ("palette",)
    clear = load_image(saved(picture, transparency=0))
    assert clear.rgb[0, 0].tolist() == [40, 50, 60]
    assert clear.rgb[59, 0].tolist() == [128, 128, 128]
    assert clear.meta.flags == ("palette", "alpha")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    quadrants = np.zeros((64, 96, 3), np.uint8)
    quadrants[:32, :48], quadrants[:32, 48:], quadrants[32:, :48] = 60, 120, 180
    upright = {1: (60, 120, 180), 2: (120, 60, 0), 3: (0, 180, 120), 4: (180, 0, 60)}
    upright |= {5: (60, 180, 120), 6: (180, 60, 0), 7: (0, 120, 180), 8: (120, 0, 60)}
    tag = [(274, "H", 1, orientation, True)]
    lzw = saved(quadrants, "TIFF", compression="tiff_lzw", tiffinfo={274: orientation})
    png = saved(quadrants, exif=exif)
    sources = [png, saved(quadrants, "TIFF", tiffinfo={274: orientation}), lzw, Image.open(io.BytesIO(png))]
    for source in [*sources, tiff(quadrants, photometric="rgb", extratags=tag)]:
        image = load_image(source)
        corners = [int(image.rgb[y, x, 0]) for y, x in ((0, 0), (0, -1), (-1, 0))]
        assert tuple(corners) == upright[orientation]
        assert image.meta.orig_size_px == ((64, 96) if orientation >= 5 else (96, 64))
    assert ("exif_rotated" in load_image(png).meta.flags) == (orientation != 1)


def test_cmyk_jpeg_of_the_adobe_kind():
    cmyk = Image.new("CMYK", (64, 64), (0, 255, 255, 0))  # full magenta and yellow: red
    data = saved(cmyk, "JPEG", quality=95)
    assert b"Adobe" in data
    image = load_image(data)
    assert np.abs(image.rgb[0, 0].astype(int) - [255, 0, 0]).max() <= 3
    assert image.meta.flags == ("cmyk", "constant")


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_lab_and_hsv_and_ycbcr(compression):
    lab = Image.frombytes("LAB", (64, 64), bytes((136, 208, 195)) * 4096)
    expected = load_image(lab).rgb[0, 0]
    np.testing.assert_array_equal(load_image(saved(lab, "TIFF", compression=compression)).rgb[0, 0], expected)
    white = Image.new("LAB", (64, 64), (255, 128, 128))
    assert load_image(saved(white, "TIFF", compression=compression)).rgb[0, 0].min() >= 254
    assert load_image(Image.new("HSV", (64, 64), (85, 255, 255))).rgb[0, 0].tolist() == [0, 255, 0]
    grey = Image.new("YCbCr", (64, 64), (77, 128, 128))
    assert load_image(saved(grey, "TIFF", compression=compression)).rgb[0, 0].tolist() == [77, 77, 77]


# ---- deep samples ---------------------------------------------------------------------------------------------------


def test_sixteen_bit_with_its_full_range_equals_eight_bit():
    deep = COLOUR.astype(np.uint16) * 257
    image = load_image(deep, value_range=(0, 65535))
    np.testing.assert_array_equal(image.rgb, COLOUR)
    shallow = np.rint(GRADIENT / 257).astype(int)
    levels = load_image(saved(GRADIENT), value_range=(0, 65535)).rgb[..., 0]
    assert np.abs(levels - shallow).max() <= 1
    assert (image.meta.value_range, image.meta.range_source) == ((0, 65535), "stated")
    np.testing.assert_array_equal(image.raw, deep)


def test_a_stated_range_leaves_eight_bit_alone():
    image = load_image(COLOUR, value_range=(0, 4095))
    np.testing.assert_array_equal(image.rgb, COLOUR)
    assert image.meta.range_source is None


@pytest.mark.parametrize(
    "source",
    [
        GRADIENT,
        GRADIENT.astype(">u2"),
        GRADIENT.astype(np.uint32),
        GRADIENT.astype(np.int64),
        GRADIENT.astype(np.float32),
        saved(GRADIENT),
        saved(GRADIENT, "PPM"),
        saved(GRADIENT, "TIFF"),
        saved(GRADIENT, "TIFF", compression="tiff_lzw"),
        saved(GRADIENT.astype(np.float32), "TIFF"),
        tiff(GRADIENT, byteorder=">"),
        tiff(GRADIENT, byteorder=">", compression="zlib", predictor=2),
        tiff(GRADIENT, bigtiff=True, tile=(32, 32)),
        tiff(GRADIENT.astype(np.uint32)),
        tiff(GRADIENT.astype(np.float64)),
        Image.fromarray(GRADIENT),
        Image.fromarray(GRADIENT.astype(np.int32)),
        Image.fromarray(GRADIENT.astype(np.float32)),
    ],
)
def test_deep_sources_agree(source):
    """The gradient is even, so p0.5 and p99.5 are 0.5 % and 99.5 % of the full scale."""
    image = load_image(source)
    low, high = image.meta.value_range
    assert (low, high) == pytest.approx((0.005 * 65535, 0.995 * 65535), abs=1)
    expected = np.clip((GRADIENT - 327.7) / (65207.3 - 327.7), 0, 1) * 255
    assert np.abs(image.rgb[..., 0] - expected).max() <= 1
    np.testing.assert_array_equal(image.raw, GRADIENT)
    assert image.raw.dtype.isnative
    assert image.meta.range_source == "image"
    assert {"sixteen_bit", "deep_integer", "float"} & set(image.meta.flags)
    assert not image.raw.flags.writeable


def test_sixteen_bit_colour_png_is_read_whole():
    deep = RNG.integers(0, 65536, (60, 57, 4), dtype=np.uint16)
    np.testing.assert_array_equal(load_image(png16(deep[..., :3], 2)).raw, deep[..., :3])
    with_alpha = load_image(png16(deep, 6), value_range=(0, 65535))
    np.testing.assert_array_equal(with_alpha.raw, deep[..., :3])
    a = deep[..., 3:] / 65535
    assert np.abs(with_alpha.rgb - (deep[..., :3] / 257 * a + 128 * (1 - a))).max() <= 1.01
    grey = load_image(png16(deep[..., [0, 3]], 4))
    np.testing.assert_array_equal(grey.raw, deep[..., 0])
    assert set(grey.meta.flags) == {"alpha", "grey", "sixteen_bit"}
    assert grey.meta.bit_depth == 16


def test_sixteen_bit_colour_png_interlaced():
    deep = RNG.integers(0, 65536, (61, 67, 3), dtype=np.uint16)
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    lines = [b"\0" + row.astype(">u2").tobytes() for y, x, dy, dx in passes for row in deep[y::dy, x::dx]]
    header = struct.pack(">IIBBBBB", 67, 61, 16, 2, 0, 0, 1)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"".join(lines))) + png_chunk(b"IEND", b"")
    np.testing.assert_array_equal(load_image(b"\x89PNG\r\n\x1a\n" + body).raw, deep)


def test_sixteen_bit_transparent_colour():
    deep = np.full((60, 60, 3), 60000, np.uint16)
    deep[:30] = 1, 2, 3
    image = load_image(png16(deep, 2, png_chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3))), value_range=(0, 60000))
    assert (image.rgb[0, 0].tolist(), image.rgb[59, 0].tolist()) == ([128] * 3, [255] * 3)
    assert "alpha" in image.meta.flags


def test_sixteen_bit_colour_tiff_interleaved_and_planar():
    deep = COLOUR.astype(np.uint16) * 200
    planar = tiff(np.moveaxis(deep, -1, 0), photometric="rgb", planarconfig="separate")
    for source in (tiff(deep, photometric="rgb"), planar):
        np.testing.assert_array_equal(load_image(source).raw, deep)


def test_not_a_number_and_infinity():
    values = np.full((60, 60), 0.5, np.float32)
    values[:30] = 1.0
    values[0, :3] = np.nan, np.inf, -np.inf
    image = load_image(values, value_range=(0, 2))
    assert image.rgb[0, :3, 0].tolist() == [0, 255, 0]
    assert image.rgb[1, 0, 0] == 128
    assert image.rgb[59, 0, 0] == 64
    assert "nan" in image.meta.flags
    assert np.isnan(image.raw[0, 0])


def test_signalling_nan_raises_no_warning():
    bits = np.full((60, 60, 4), np.float32(0.5).view(np.uint32))
    bits[0, 0] = 0x7F800001
    image = load_image(bits.view(np.float32), value_range=(0, 1))
    assert image.rgb[0, 0].tolist() == [128] * 3  # its alpha is no number either: transparent
    assert "nan" in image.meta.flags
    assert load_image(np.full((60, 60, 4), 1e300), value_range=(0, 1)).rgb.min() == 255


def test_extreme_floats_do_not_overflow():
    values = (np.linspace(-1, 1, 3600) * 1.7e308).reshape(60, 60)
    rgb = load_image(values).rgb
    assert (rgb[0, 0, 0], rgb[-1, -1, 0]) == (0, 255)
    assert load_image(np.full((60, 60), 7.0)).rgb.max() == 128
    assert "constant" in load_image(np.full((60, 60), 7, np.uint16)).meta.flags
    halves = np.linspace(-60000, 60000, 3600).astype(np.float16).reshape(60, 60)
    assert load_image(halves).rgb[-1, -1, 0] == 255


def test_tiff_first_page_inverted_grey_palette_and_few_bits():
    pages = tiff(np.stack([GREY, 255 - GREY]), photometric="minisblack")
    image = load_image(pages)
    np.testing.assert_array_equal(image.rgb[..., 0], GREY)
    assert "multipage" in image.meta.flags
    np.testing.assert_array_equal(load_image(tiff(GREY, photometric="miniswhite")).rgb[..., 0], 255 - GREY)
    colormap = np.stack([np.arange(256)] * 3).astype(np.uint16) * 256
    coloured = load_image(tiff(GREY, photometric="palette", colormap=colormap))
    np.testing.assert_array_equal(coloured.rgb[..., 2], GREY)
    assert "palette" in coloured.meta.flags


# ---- geometry -------------------------------------------------------------------------------------------------------


def test_tiny_is_enlarged_and_boxes_come_back():
    image = load_image(COLOUR[:28, :40])
    assert image.rgb.shape == (112, 160, 3)
    assert (image.meta.scale_x, image.meta.scale_y, image.meta.orig_size_px) == (4.0, 4.0, (40, 28))
    assert image.meta.flags == ("tiny",)
    assert to_original_box((4, 8, 12, 16), image.meta) == (1, 2, 3, 4)
    assert to_original_box((5, 9, 6, 10), image.meta) == (1, 2, 2, 3)
    assert to_original_box((-9, -9, 999, 999), image.meta) == (0, 0, 40, 28)


def test_odd_scales_come_back_exactly():
    meta = load_image(COLOUR[:13, :37]).meta
    width, height = meta.rgb_size_px
    for x in range(37):
        box = (x * width / 37, 0, (x + 1) * width / 37, height)
        assert to_original_box(box, meta) == (x, 0, x + 1, 13)


def test_maps_come_back():
    meta = load_image(COLOUR[:28, :40]).meta
    np.testing.assert_allclose(to_original_map(np.full((112, 160), 0.7, np.float32), meta), np.float32(0.7), rtol=1e-6)
    peak = np.zeros((112, 160), np.float32)
    peak[4:8, 8:12] = 1
    expected = np.zeros((28, 40), np.float32)
    expected[1, 2] = 1
    np.testing.assert_allclose(to_original_map(peak, meta), expected, atol=1e-6)
    with pytest.raises(ValueError, match="does not belong"):
        to_original_map(np.zeros((28, 40), np.float32), meta)


def test_nothing_is_converted_for_ordinary_sizes():
    meta = load_image(COLOUR).meta
    values = np.zeros((60, 80), np.float32)
    assert to_original_map(values, meta) is values
    assert to_original_box((3, 4, 5, 6), meta) == (3, 4, 5, 6)


def test_flags_by_size_and_content():
    assert load_image(np.zeros((60, 60, 3), np.uint8) + 9).meta.flags == ("constant",)
    red = np.zeros((60, 60, 3), np.uint8)
    red[..., 0] = 200
    assert load_image(red).meta.flags == ("constant",)
    speck = red.copy()
    speck[33, 7, 1] = 2
    assert load_image(speck).meta.flags == ()
    assert load_image(np.zeros((3585, 3584), np.uint8)).meta.flags == ("grey", "constant", "huge")
    assert load_image(np.resize(COLOUR, (60, 3001, 3))).meta.flags == ("extreme_aspect",)
    assert load_image(np.resize(COLOUR, (60, 3000, 3))).meta.flags == ()


def test_flags_by_file(tmp_path):
    wrong = tmp_path / "part.jpg"
    wrong.write_bytes(saved(COLOUR))
    assert load_image(wrong).meta.flags == ("suffix_mismatch",)
    for right in ("part", "part.PNG"):
        (tmp_path / right).write_bytes(saved(COLOUR))
        assert load_image(tmp_path / right).meta.flags == ()
    assert load_image(saved(COLOUR, icc_profile=b"profile")).meta.flags == ("colour_profile",)


def test_the_current_frame_of_an_open_animation():
    frames = [Image.fromarray(COLOUR // 128 * 200), Image.fromarray(COLOUR[::-1] // 128 * 200)]
    picture = Image.open(io.BytesIO(saved(frames[0], "GIF", save_all=True, append_images=frames[1:])))
    picture.seek(1)
    image = load_image(picture)
    np.testing.assert_array_equal(image.rgb, np.asarray(frames[1]))
    assert "animated" in image.meta.flags


# ---- what is refused ------------------------------------------------------------------------------------------------


def written(data):
    def make(folder):
        path = folder / "part.png"
        path.write_bytes(data)
        return path

    return make


def linked_loop(folder):
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    return folder / "a"


def fifo(folder):
    os.mkfifo(folder / "pipe.png")
    return folder / "pipe.png"


def sparse(folder):
    path = folder / "large.png"
    with path.open("wb") as file:
        file.truncate(imaging.MAX_FILE_BYTES + 1)
    return path


def brand(*brands):
    return written(struct.pack(">I", 8 + 4 + 4 * len(brands)) + b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:]))


def bomb_header(width, height):
    data = bytearray(saved(COLOUR))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


def text_bomb():
    text = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(80_000_000)))
    return saved(COLOUR)[:33] + text + saved(COLOUR)[33:]


def deflate_bomb():
    data = bytearray(tiff(GREY, compression="zlib"))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        count = file.pages[0].tags["StripByteCounts"]
        where = file.pages[0].tags["StripOffsets"]
        slot = struct.calcsize("<HHI")
        offsets = (count.offset + slot, where.offset + slot)
    stream = zlib.compressobj(9)
    body = b"".join([*(stream.compress(bytes(1 << 20)) for _ in range(8)), stream.flush()])
    for tag, value, at in zip((count, where), (len(body), len(data)), offsets, strict=True):
        struct.pack_into("<HI", data, tag.offset + 2, 4, 1)
        struct.pack_into("<I", data, at, value)
    return bytes(data) + body


TWO_FRAMES = {"save_all": True, "append_images": [Image.fromarray(COLOUR[::-1])]}
JPEG, PNG = saved(COLOUR, "JPEG"), saved(COLOUR)
LZW16 = tiff(COLOUR.astype(np.uint16), photometric="rgb").replace(
    struct.pack("<HHII", 259, 3, 1, 1), struct.pack("<HHII", 259, 3, 1, 5)
)

HOSTILE = {
    "missing": (lambda folder: folder / "none.png", "does not exist"),
    "web address": (lambda folder: "https://example.org/part.png", "Download the image first"),
    "folder": (lambda folder: folder, "is a folder"),
    "below a file": (lambda folder: written(PNG)(folder) / "x", "not a folder"),
    "empty path": (lambda folder: "", "path of the image is empty"),
    "NUL": (lambda folder: "a\0b.png", "is not a valid path"),
    "lone surrogate": (lambda folder: "a\ud800.png", "is not a valid path"),
    "long name": (lambda folder: folder / ("x" * 5000), "name too long"),
    "loop of links": (linked_loop, "loop of symbolic links"),
    "pipe": (fifo, "pipe, socket or device"),
    "device": (lambda folder: "/dev/zero", "pipe, socket or device"),
    "too large a file": (sparse, "larger than 1024 MiB"),
    "escape in name": (lambda folder: "\x1b[2J.png", r"\x1b[2J.png does not exist"),
    "zero bytes": (written(b""), "is empty (0 bytes)"),
    "only zeros": (written(bytes(500)), "only zero bytes"),
    "text": (written(b"no picture\n" * 50), "a text file"),
    "git lfs": (written(b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "noise": (written(bytes(range(255, 0, -1)) * 3), "not an image in a format"),
    "PDF": (written(b"%PDF-1.7\n"), "a PDF document"),
    "PDF after junk": (written(b"\r\n\r\n%PDF-1.4\n"), "a PDF document"),
    "PostScript": (written(b"%!PS-Adobe-3.0 EPSF-3.0\n"), "a PostScript document"),
    "SVG": (written(b'<?xml version="1.0"?>\n<svg xmlns="x"/>'), "an SVG drawing"),
    "HTML": (written(b"<!DOCTYPE html><html>"), "a web page"),
    "MP4": (brand(b"isom", b"mp42"), "an MP4 or QuickTime video"),
    "QuickTime": (brand(b"qt  "), "an MP4 or QuickTime video"),
    "HEIC": (brand(b"heic", b"mif1"), "a HEIC image"),
    "AVIF sequence": (brand(b"avis", b"avif"), "an animated AVIF"),
    "AVI": (written(b"RIFF\0\0\0\0AVI LIST"), "an AVI video"),
    "Matroska": (written(b"\x1aE\xdf\xa3" + bytes(90)), "a Matroska or WebM video"),
    "transport stream": (written((b"G" + b"\xff" * 187) * 3), "MPEG transport stream"),
    "ZIP": (written(b"PK\x03\x04" + bytes(90)), "a ZIP archive"),
    "DICOM": (written(bytes(128) + b"DICM" + bytes(90)), "a DICOM file"),
    "NumPy": (written(b"\x93NUMPY\x01\0"), "a NumPy array file"),
    "Photoshop": (written(b"8BPS\0\x01"), "a Photoshop document"),
    "animated GIF": (written(saved(COLOUR, "GIF", **TWO_FRAMES)), "an animated GIF"),
    "animated PNG": (written(saved(COLOUR, "PNG", **TWO_FRAMES)), "an animated PNG"),
    "animated WebP": (written(saved(COLOUR, "WEBP", **TWO_FRAMES)), "an animated WebP"),
    "truncated PNG": (written(PNG[: len(PNG) // 2]), "truncated PNG"),
    "truncated JPEG": (written(JPEG[: len(JPEG) // 2]), "truncated JPEG"),
    "truncated BMP": (written(saved(COLOUR, "BMP")[:5000]), "truncated BMP"),
    "truncated TIFF": (written(tiff(COLOUR, photometric="rgb")[:-9]), "truncated TIFF"),
    "truncated WebP": (written(saved(COLOUR, "WEBP")[:900]), "WebP file"),
    "truncated 16-bit": (written(png16(COLOUR.astype(np.uint16), 2)[:3000]), "truncated PNG"),
    "head of a JPEG": (written(JPEG[:4]), "JPEG file"),
    "head of a TIFF": (written(b"II*\0\x08\0\0\0"), "TIFF file"),
    "broken checksum": (written(PNG[:40] + bytes([PNG[40] ^ 255]) + PNG[41:]), "PNG file"),
    "stated size": (written(bomb_header(60_000, 60_000)), "states 60000 x 60000 pixels"),
    "no width": (written(bomb_header(0, 10)), "PNG"),
    "text chunk": (written(text_bomb()), "text chunk that expands too far"),
    "TIFF codec": (written(LZW16), "codec is missing"),
    "five channels": (
        written(tiff(np.zeros((60, 60, 5), np.uint8), photometric="minisblack", planarconfig="contig")),
        "5 channels",
    ),
    "complex TIFF": (written(tiff(np.zeros((60, 60), np.complex64))), "cannot be shown"),
    "thumbnail first": (written(tiff(GREY, subfiletype=1)), "only a thumbnail"),
    "too narrow": (lambda folder: np.zeros((1, 20_000), np.uint8), "too narrow"),
    "channels first": (lambda folder: np.zeros((3, 60, 60), np.uint8), "transpose(1, 2, 0)"),
    "four dimensions": (lambda folder: np.zeros((1, 60, 60, 3), np.uint8), "has shape (1, 60, 60, 3)"),
    "no pixels": (lambda folder: np.zeros((0, 60), np.uint8), "has no pixels"),
    "empty picture": (lambda folder: Image.new("RGB", (0, 5)), "has no pixels"),
    "complex": (lambda folder: np.zeros((60, 60), complex), "samples of type complex128"),
    "objects": (lambda folder: np.full((60, 60), None), "samples of type object"),
    "no number": (lambda folder: np.full((60, 60), np.nan), "holds no finite value"),
    "large array": (lambda folder: np.broadcast_to(np.uint8(0), (20_000, 20_000)), "more than the limit"),
    "another type": (lambda folder: 42, "input of type int is not a picture"),
    "damaged lazily": (lambda folder: Image.open(io.BytesIO(JPEG[: len(JPEG) // 2])), "truncated JPEG"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_refused_in_one_line(case, tmp_path):
    make, expected = HOSTILE[case]
    with pytest.raises(InputError) as caught:
        load_image(make(tmp_path), max_pixels=100_000_000)
    line = str(caught.value)
    assert expected in line
    assert "\n" not in line
    assert line.isprintable()
    assert len(line) < 500
    assert caught.value.hint


def test_a_file_without_permission(tmp_path, monkeypatch):
    path = written(PNG)(tmp_path)

    def refused(*_args, **_kwargs):  # a mode of 0 would not do: the super-user reads everything
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(InputError, match="may not be read"):
        load_image(path)


def test_a_tiff_strip_that_inflates_without_end(monkeypatch):
    monkeypatch.setattr(image_tiff, "_PRECHECK_BYTES", 1 << 20)
    with pytest.raises(InputError, match="expands far beyond its stated size"):
        load_image(deflate_bomb())


def test_a_failing_disk(tmp_path, monkeypatch):
    path = written(PNG)(tmp_path)

    def broken(*_args):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "open", broken)
    with pytest.raises(InputError, match=r"cannot be read: Input/output error\. Check the disk"):
        load_image(path)


@pytest.mark.parametrize("value_range", [(1, 1), (2, 1), (0, np.inf), (np.nan, 1)])
def test_an_empty_range(value_range):
    with pytest.raises(InputError, match="value range"):
        load_image(GRADIENT, value_range=value_range)


def test_half_pictures_stay_refused_whatever_another_library_set(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(InputError, match="LOAD_TRUNCATED_IMAGES"):
        load_image(JPEG[: len(JPEG) // 2])


def test_size_limit_is_ours_and_no_global_is_touched(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    np.testing.assert_array_equal(load_image(PNG).rgb, COLOUR)
    assert Image.MAX_IMAGE_PIXELS == 10
    with pytest.raises(InputError, match="more than the limit of 4799"):
        load_image(PNG, max_pixels=60 * 80 - 1)


def test_threads_share_nothing():
    import warnings

    odd = saved(COLOUR, exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0")  # Pillow warns about this EXIF block
    before, start = list(warnings.filters), threading.Barrier(8)

    def work(index):
        start.wait()
        for _ in range(20):
            np.testing.assert_array_equal(load_image(odd if index % 2 else PNG).rgb, COLOUR)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert warnings.filters == before


def test_tifffile_is_imported_for_tiff_only(tmp_path):
    path = written(PNG)(tmp_path)
    program = (
        "import sys; from flawscope.tools.imaging import load_image; "
        f"load_image({str(path)!r}); sys.exit('tifffile' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
