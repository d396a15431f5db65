"""A set of pictures that a new one is compared with: those of the plant's pages, or the test pictures of benchmarks.

``twins`` says whether two pictures are one. Here its hash is compared with that of many pictures at once, and only the
few candidates are compared by their thumbnails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .twins import MAX_DISTANCE_BITS, Fingerprint, are_twins


@dataclass(frozen=True)
class KnownPicture:
    """A picture that is there already.

    Attributes:
        name: what a refusal calls it.
        sha256: of its file.
        bits: its difference hash.
        fingerprint: called only when the hashes are close, since it may have to read the picture.
    """

    name: str
    sha256: str
    bits: int
    fingerprint: Callable[[], Fingerprint]


class KnownPictures:
    """Pictures by hash.

    Args:
        pictures: in the order in which they are looked through.
    """

    def __init__(self, pictures: Iterable[KnownPicture] = ()) -> None:
        self._pictures: list[KnownPicture] = []
        self._by_sha256: dict[str, list[int]] = {}
        self._hashes: NDArray[np.uint8] = np.zeros((64, 8), np.uint8)
        for picture in pictures:
            self.add(picture)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._pictures)

    def add(self, picture: KnownPicture) -> None:
        """Know one more."""
        place = len(self._pictures)
        if place == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)])
        self._hashes[place] = _bytes(picture.bits)
        self._by_sha256.setdefault(picture.sha256, []).append(place)
        self._pictures.append(picture)

    def find(self, sha256: str, seen: Fingerprint, *, leave_out: str | None = None) -> str | None:
        """Name of a picture that this one is, None if it is new.

        Args:
            sha256: of its file.
            seen: its fingerprint.
            leave_out: a name that does not count.
        """
        for place in self._by_sha256.get(sha256, []):
            if self._pictures[place].name != leave_out:
                return self._pictures[place].name
        differing = np.unpackbits(self._hashes[: len(self)] ^ _bytes(seen.bits), axis=1).sum(axis=1)
        for near in np.flatnonzero(differing <= MAX_DISTANCE_BITS):
            picture = self._pictures[int(near)]
            if picture.name != leave_out and are_twins(picture.fingerprint(), seen):
                return picture.name
        return None


def _bytes(bits: int) -> NDArray[np.uint8]:
    return np.frombuffer(bits.to_bytes(8, "big"), np.uint8)
