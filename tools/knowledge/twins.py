"""Recognise a picture that is there already, though it was scaled, brightened or stored again.

A difference hash finds candidates: 64 bits that say whether each cell of a 9 x 8 grey thumbnail is darker than its
right neighbour (the idea is David Oftedal's, made known by N. Krawetz, "Kind of Like That", hackerfactor.com, 2013).
Pictures of one product from a fixed camera share most of these bits though their defects differ, and on textures they
change when a picture is stored again. So the hash only narrows the search, and a finer thumbnail decides, up to gain
and offset of the light.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_DISTANCE_BITS = 16
"""Measured on six products: copies of half the size as JPEG differ by up to 13 bits; different pictures of transistors
by 4 or fewer in 183 of 780 pairs, so no limit on the bits alone would do."""
THUMBNAIL_SIDE_PX = 32
MAX_DEVIATION_LEVELS = 12.0
"""Largest difference of one cell of two thumbnails, of 255. Copies of half the size as JPEG stay below it unless they
are smaller than some 100 px; different pictures within 16 bits differed by 15 or more, but for flat ones."""
MIN_CORRELATION = 0.9
"""Least correlation of two thumbnails: flat pictures differ by few levels whatever they show. On eight products copies
have 0.97 or more; pictures of different road cracks that differ by less than 12 levels have 0.53 or less."""
_FLAT = 0.01
"""Variance of a thumbnail of one colour, square levels: what rounding leaves."""


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What twins have in common.

    Attributes:
        bits: difference hash, 64 bit.
        thumbnail: float32 (32, 32) grey levels.
    """

    bits: int
    thumbnail: NDArray[np.float32]


def fingerprint(rgb: NDArray[np.uint8]) -> Fingerprint:
    """The fingerprint of a picture, uint8 (H, W, 3)."""
    return Fingerprint(difference_hash(rgb), _grey(rgb, THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX))


def difference_hash(rgb: NDArray[np.uint8]) -> int:
    """64 bits in raster order, the upper left one first: 1 where a cell is darker than its right neighbour.

    Args:
        rgb: uint8 (H, W, 3).
    """
    cells = np.rint(_grey(rgb, 9, 8))  # whole levels: noise below one must not decide on flat ground
    darker = cells[:, :-1] < cells[:, 1:]
    return int.from_bytes(np.packbits(darker).tobytes(), "big")


def hamming(first: int, second: int) -> int:
    """Number of bits in which two hashes differ."""
    return (first ^ second).bit_count()


def are_twins(first: Fingerprint, second: Fingerprint) -> bool:
    """Whether two pictures are one, apart from size, storage and level light."""
    if hamming(first.bits, second.bits) > MAX_DISTANCE_BITS:
        return False
    a, b = (f.thumbnail - float(f.thumbnail.mean()) for f in (first, second))
    energy, other = float((a * a).sum()), float((b * b).sum())
    if min(energy, other) <= _FLAT * a.size:  # no light or contrast to compare: both must be flat
        return max(energy, other) <= _FLAT * a.size
    common = float((a * b).sum())
    if common < MIN_CORRELATION * (energy * other) ** 0.5:
        return False
    return float(np.abs(common / energy * a - b).max()) <= MAX_DEVIATION_LEVELS


def _grey(rgb: NDArray[np.uint8], width: int, height: int) -> NDArray[np.float32]:
    """Mean grey level of each cell, float32 (height, width)."""
    grey = np.asarray(rgb, np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    small = Image.fromarray(grey).resize((width, height), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32)
