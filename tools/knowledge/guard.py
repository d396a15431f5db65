"""The test pictures of benchmarks, of which none may become knowledge: a base that holds one would know the answers.

One file for each data set holds what is needed to recognise its test pictures, not the pictures: name, sha256 of the
file, difference hash and a grey thumbnail of 32 x 32 cells. A picture is compared as it is, turned and mirrored.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import ConfigError, KnowledgeError
from ...agent.home import storage_errors, write_atomically
from ..array_files import ARRAY_DAMAGE
from .known_pictures import KnownPicture, KnownPictures
from .plant import FOLDER, GUARD, PlantDocument, PlantStore
from .twins import THUMBNAIL_SIDE_PX, Fingerprint, fingerprint

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class GuardedSet:
    """A data set whose test pictures are known.

    Attributes:
        name: of the data set.
        pictures: how many.
        sha256: of everything that is known of them.
    """

    name: str
    pictures: int
    sha256: str


class LeakGuard:
    """Recognises test pictures.

    Args:
        folder: of the knowledge base; nothing is made in it before a data set is added.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER / GUARD
        self._known: KnownPictures | None = None

    def add(self, name: str, pictures: Sequence[tuple[str, Path]], progress: Progress | None = None) -> GuardedSet:
        """Know the test pictures of a data set, in place of what was known under its name.

        Args:
            name: of the data set.
            pictures: what a refusal calls each, and its file.
            progress: called with (what, done, total).

        Raises:
            ConfigError: the name cannot be that of a file.
            InputError: a picture cannot be read.
            StorageError: the disk refuses.
        """
        from ..imaging import load_image

        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} cannot name a data set here.", hint="Use small letters, digits, - and _.")
        hashes, bits, thumbnails = [], [], []
        for done, (_, path) in enumerate(pictures):
            if progress:
                progress("learning test pictures", done, len(pictures))
            picture = load_image(path)
            seen = fingerprint(picture.rgb)
            hashes.append(picture.sha256)
            bits.append(seen.bits)
            thumbnails.append(seen.thumbnail)
        if progress:
            progress("learning test pictures", len(pictures), len(pictures))
        arrays = {
            "names": np.array([label for label, _ in pictures], np.str_),
            "sha256": np.array(hashes, np.str_),
            "bits": np.array(bits, np.uint64),
            # half precision is an eighth of a grey level, a hundredth of what tells twins from others
            "thumbnails": np.array(thumbnails, np.float16).reshape(-1, THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX),
        }
        digest = _digest(arrays)

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez(
                    file,
                    names=arrays["names"],
                    sha256=arrays["sha256"],
                    bits=arrays["bits"],
                    thumbnails=arrays["thumbnails"],
                    digest=np.array(digest),
                )

        write_atomically(self.folder / f"{name}.npz", write)
        self._known = None
        return GuardedSet(name, len(pictures), digest)

    def remove(self, name: str) -> None:
        """Forget a data set.

        Raises:
            KnowledgeError: there is none of that name.
        """
        path = self.folder / f"{name}.npz"
        if path not in self._files():
            known = ", ".join(file.stem for file in self._files()) or "none"
            raise KnowledgeError(f"no data set {name!r} is guarded.", hint=f"Guarded: {known}.")
        with storage_errors(path):
            path.unlink()
        self._known = None

    def sets(self) -> list[GuardedSet]:
        """What is guarded, by name.

        Raises:
            KnowledgeError: a file is damaged.
        """
        return [GuardedSet(path.stem, len(a["names"]), _digest(a)) for path in self._files() for a in [_read(path)]]

    def find(self, sha256: str, rgb: NDArray[np.uint8]) -> str | None:
        """Name of the test picture that a picture is, None if it is none.

        Args:
            sha256: of the picture's file.
            rgb: uint8 (H, W, 3).

        Raises:
            KnowledgeError: a file of the guard is damaged.
        """
        if self._known is None:
            self._known = KnownPictures(one for path in self._files() for one in _pictures(path))
        if not len(self._known):
            return None
        return next((name for turned in _turned(rgb) if (name := self._known.find(sha256, fingerprint(turned)))), None)

    def refuse(self, sha256: str, rgb: NDArray[np.uint8]) -> None:
        """Refuse a test picture; see ``find``.

        Raises:
            KnowledgeError: it is one; or a file of the guard is damaged.
        """
        if found := self.find(sha256, rgb):
            raise KnowledgeError(
                f"the picture is the test picture {found}: results on that data set would mean nothing.",
                hint="Use another picture.",
            )

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.npz")) if self.folder.is_dir() else []


def guarded_pages(guard: LeakGuard, plant: PlantStore, own: Sequence[PlantDocument]) -> dict[str, str]:
    """The test picture that a page's picture is, by doc_id, of the pages where it is one.

    Args:
        guard: the test pictures.
        plant: where the pages are kept.
        own: the pages to look at.

    Raises:
        KnowledgeError: a page's picture or a file of the guard is damaged.
    """
    from ..imaging import load_image

    seen = {}
    for document in own:
        blob = plant.picture(document)
        if blob is not None and (found := guard.find(document.version.picture_sha256, load_image(blob).rgb)):
            seen[document.page.doc_id] = found
    return seen


def _turned(rgb: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """The picture and its seven turned and mirrored forms."""
    for mirrored in (rgb, rgb[:, ::-1]):
        for quarters in range(4):
            yield np.ascontiguousarray(np.rot90(mirrored, quarters))


def _pictures(path: Path) -> Iterator[KnownPicture]:
    arrays = _read(path)
    for place, name in enumerate(arrays["names"]):
        bits = int(arrays["bits"][place])
        seen = partial(Fingerprint, bits, np.asarray(arrays["thumbnails"][place], np.float32))
        yield KnownPicture(f"{name} of {path.stem}", str(arrays["sha256"][place]), bits, seen)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    damaged = KnowledgeError(f"{path} is damaged.", hint="Add its data set again: flawscope kb guard add FOLDER")
    try:
        blob = io.BytesIO(path.read_bytes())  # a damaged path would stay open
        if any(part.compress_type != zipfile.ZIP_STORED for part in zipfile.ZipFile(blob).infolist()):
            raise damaged  # not by us: it could unfold into more than fits
        with np.load(blob, allow_pickle=False) as file:
            arrays: dict[str, NDArray[Any]] = {key: file[key] for key in ("names", "sha256", "bits", "thumbnails")}
            digest = str(file["digest"])
    except ARRAY_DAMAGE as error:
        raise damaged from error
    if _digest(arrays) != digest or not _fit(arrays):
        raise damaged
    return arrays


def _fit(arrays: dict[str, NDArray[Any]]) -> bool:
    """Whether the arrays hold the same number of pictures, each what it should be."""
    number = arrays["names"].shape[:1]
    side = (THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX)
    expected = {"names": ("U", ()), "sha256": ("U", ()), "bits": ("u", ()), "thumbnails": ("f", side)}
    return len(number) == 1 and all(
        (arrays[key].dtype.kind, arrays[key].shape) == (kind, number + shape) for key, (kind, shape) in expected.items()
    )


def _digest(arrays: dict[str, NDArray[Any]]) -> str:
    total = hashlib.sha256()
    for key in sorted(arrays):
        total.update(f"{key} {arrays[key].dtype} {arrays[key].shape}\n".encode())
        total.update(np.ascontiguousarray(arrays[key]).tobytes())
    return total.hexdigest()
