"""Which file format some bytes are, and the names of the ones that are refused."""

from __future__ import annotations

from pathlib import PurePath
from typing import Final

from ..agent.errors import InputError

# Suffixes that are right for each format that is read.
SUFFIXES: Final[dict[str, frozenset[str]]] = {
    "PNG": frozenset({".png", ".apng"}),
    "JPEG": frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"}),
    "BMP": frozenset({".bmp", ".dib"}),
    "GIF": frozenset({".gif"}),
    "WebP": frozenset({".webp"}),
    "TIFF": frozenset({".tif", ".tiff", ".btf", ".tf8"}),
    "Netpbm": frozenset({".pbm", ".pgm", ".ppm", ".pnm", ".pfm"}),
    "JPEG 2000": frozenset({".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"}),
    "AVIF": frozenset({".avif"}),
}

_READ: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
)

_FRAME: Final = "Extract the frame to inspect as PNG and give that."
_EXPORT: Final = "Export it as PNG."
_UNPACK: Final = "Unpack it and give the images."

# (offset, first bytes, what it is, what to do)
_REFUSED: Final[tuple[tuple[int, bytes, str, str], ...]] = (
    (0, b"%PDF", "a PDF document", "Export the page as PNG."),
    (0, b"%!PS", "a PostScript document", _EXPORT),
    (0, b"\xc5\xd0\xd3\xc6", "an EPS document", _EXPORT),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM video", _FRAME),
    (0, b"\0\0\x01\xba", "an MPEG video", _FRAME),
    (0, b"\0\0\x01\xb3", "an MPEG video", _FRAME),
    (0, b"FLV\x01", "a Flash video", _FRAME),
    (0, b"0&\xb2u\x8ef\xcf\x11", "a Windows Media video", _FRAME),
    (0, b"OggS", "an Ogg recording", _FRAME),
    (0, b"8BPS", "a Photoshop document", _EXPORT),
    (0, b"v/1\x01", "an OpenEXR file", "Save it as float TIFF."),
    (0, b"#?RADIANCE", "a Radiance HDR file", "Save it as float TIFF."),
    (0, b"\xff\x0a", "a JPEG XL file", _EXPORT),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL file", _EXPORT),
    (128, b"DICM", "a DICOM file", "Export the picture as 16-bit TIFF."),
    (0, b"SIMPLE  =", "a FITS file", "Save it as float TIFF."),
    (0, b"\x93NUMPY", "a NumPy array file", "Load it with numpy and give the array."),
    (0, b"\x89HDF", "an HDF5 file", "Read the array out of it and give that."),
    (0, b"\0\0\x01\0", "an icon file", _EXPORT),
    (0, b"qoif", "a QOI file", _EXPORT),
    (0, b"PK\x03\x04", "a ZIP archive or an office document", _UNPACK),
    (0, b"PK\x05\x06", "an empty ZIP archive", _UNPACK),
    (0, b"\x1f\x8b", "a gzip archive", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (0, b"Rar!", "a RAR archive", _UNPACK),
    (0, b"\x7fELF", "a program", "Give an image file."),
    (0, b"MZ", "a program", "Give an image file."),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the image itself", "Fetch the image: git lfs pull."),
)

_RIFF: Final = {b"AVI ": ("an AVI video", _FRAME), b"WAVE": ("a sound file", "Give an image file.")}
_HEIF_BRANDS: Final = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_TEXT: Final = frozenset(range(0x20, 0x7F)) | {9, 10, 12, 13}


def suffix_matches(path: str, file_format: str) -> bool:
    """Whether a path's suffix suits the format found inside; no suffix claims nothing and suits all."""
    suffix = PurePath(path).suffix.lower()
    return not suffix or suffix in SUFFIXES[file_format]


def sniff(data: bytes, name: str) -> str:
    """Name the format of a file from its first bytes.

    Raises:
        InputError: anything that is not an image format that is read, named where it is known.
    """
    if not data:
        raise InputError(f"{name} is empty (0 bytes).", hint="Copy or capture it again.")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp":
        return _sniff_iso(data, name)
    for offset, magic, what, hint in _REFUSED:
        if data.startswith(magic, offset):
            raise InputError(f"{name} is {what}, which is not read.", hint=hint)
    for magic, file_format in _READ:
        if data.startswith(magic):
            return file_format
    if data[:1] == b"P" and data[1:2] in b"123456f" and data[2:3].isspace():
        return "Netpbm"
    raise _refuse_unknown(data, name)


def _sniff_iso(data: bytes, name: str) -> str:
    """ISO base media files are AVIF or HEIC pictures or MP4 and QuickTime videos, told apart by their brands."""
    box = data[8 : max(16, min(int.from_bytes(data[:4], "big"), 256))]
    brands = [box[:4]] + [box[i : i + 4] for i in range(8, len(box), 4)]
    if b"avif" in brands and brands[0] != b"avis":
        from PIL import AvifImagePlugin

        if AvifImagePlugin.SUPPORTED:
            return "AVIF"
        raise InputError(f"{name} is an AVIF image, which this Pillow cannot decode.", hint=_EXPORT)
    if brands[0] == b"avis":
        raise InputError(f"{name} is an animated AVIF, not one picture.", hint=_FRAME)
    if any(brand in _HEIF_BRANDS for brand in brands):
        raise InputError(f"{name} is a HEIC image, which is not read.", hint="Convert it to PNG or JPEG.")
    raise InputError(f"{name} is an MP4 or QuickTime video, which is not read.", hint=_FRAME)


def _refuse_unknown(data: bytes, name: str) -> InputError:
    head = data[:1024]
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if b"%PDF-" in head:
        return InputError(f"{name} is a PDF document, which is not read.", hint="Export the page as PNG.")
    if b"<svg" in start:
        return InputError(f"{name} is an SVG drawing, which is not read.", hint=_EXPORT)
    if start.startswith((b"<!doctype html", b"<html")):
        return InputError(f"{name} is a web page, not an image.", hint="Download the image itself.")
    if data[:4] == b"RIFF" and data[8:12] in _RIFF:
        what, hint = _RIFF[data[8:12]]
        return InputError(f"{name} is {what}, which is not read.", hint=hint)
    if len(data) > 376 and data[0] == data[188] == data[376] == 0x47:
        return InputError(f"{name} is an MPEG transport stream, a video, which is not read.", hint=_FRAME)
    if not any(head):
        return InputError(f"{name} holds only zero bytes.", hint="The copy failed; copy or capture it again.")
    if sum(byte in _TEXT for byte in head) >= 0.95 * len(head):
        return InputError(f"{name} is a text file, not an image.", hint="Give an image file.")
    return InputError(
        f"{name} is not an image in a format that is read.", hint="Give PNG, JPEG, TIFF, BMP, WebP, PGM or JPEG 2000."
    )
