"""Files that have a picture's name and are none, or are one that nobody expects: what lands in a plant's folders."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Make = Callable[[Path, np.random.Generator], None]


def hostile_files(folder: Path, count: int, *, seed: int = 0) -> list[Path]:
    """Write files of every kind of ``KINDS`` in turn, ``bad-00000.png`` and on.

    Args:
        folder: that they are written to.
        count: how many.
        seed: of what is random in them.
    """
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        path = folder / f"bad-{number:05d}.png"
        KINDS[number % len(KINDS)](path, rng)
        made.append(path)
    return made


def _written(make: Callable[[np.random.Generator], bytes]) -> Make:
    def write(path: Path, rng: np.random.Generator) -> None:
        path.write_bytes(make(rng))

    return write


def _picture(path: Path, rng: np.random.Generator) -> bytes:
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(path, format="PNG")
    return path.read_bytes()


def _truncated(path: Path, rng: np.random.Generator) -> None:
    whole = _picture(path, rng)
    path.write_bytes(whole[: int(rng.integers(9, len(whole) - 20))])


def _flipped(path: Path, rng: np.random.Generator) -> None:
    whole = bytearray(_picture(path, rng))
    for place in rng.integers(40, len(whole) - 20, 20):
        whole[int(place)] ^= 0xFF
    path.write_bytes(bytes(whole))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _bomb(rng: np.random.Generator) -> bytes:
    """A header that states 40,000 by 40,000 pixels."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + _chunk(b"IEND", b"")


def _dangling(path: Path, rng: np.random.Generator) -> None:
    path.symlink_to(path.parent / "nowhere.png")


def _unreadable(path: Path, rng: np.random.Generator) -> None:
    path.symlink_to(path.name)  # a loop


def _pages(path: Path, rng: np.random.Generator) -> None:
    pages = [Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)) for _ in range(3)]
    pages[0].save(path, format="GIF", save_all=True, append_images=pages[1:])


KINDS: tuple[Make, ...] = (
    _written(lambda rng: b""),
    _written(lambda rng: b"\x89PNG\r\n\x1a\n"),
    _written(lambda rng: rng.bytes(2000)),
    _written(lambda rng: b"<html><script>alert(1)</script></html>"),
    _written(lambda rng: b"=cmd|' /C calc'!A0\n" * 10),
    _written(_bomb),
    _written(lambda rng: b"MZ" + rng.bytes(500)),
    _written(lambda rng: b"\xff\xd8\xff\xe0" + rng.bytes(800)),
    _written(lambda rng: b"II*\0" + rng.bytes(300)),
    _truncated,
    _flipped,
    _pages,
)
"""Each writes a file that cannot be inspected."""
ODD: tuple[Make, ...] = (_dangling, _unreadable)
"""Names without a file; folders leave them out, manifests may name them."""


def odd_names(folder: Path) -> list[Path]:
    """A dangling link, a loop of links, and a pipe that nobody writes to."""
    rng = np.random.default_rng(0)
    made = []
    for number, make in enumerate(ODD):
        made.append(folder / f"odd-{number}.png")
        make(made[-1], rng)
    os.mkfifo(folder / "pipe.png")
    return [*made, folder / "pipe.png"]
