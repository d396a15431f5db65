"""Pictures and products that are kept, so that a product can be learnt anew and put back as it was.

reviews/pictures/<sha256><suffix>      pictures that products learnt from, by content
reviews/products/<name>/<manifest>/    products as they were before a change, by the hash of their manifest
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from ...audits.records import spelt_out
from ...tools.enrolment import find_examples
from ...tools.product_files import STORED_SIDE_PX
from ..errors import InputError, ProductError
from ..home import Home, new_folder, storage_errors, write_atomically
from .changes import Kept, manifest_of


class Originals:
    """The kept pictures and products of a home."""

    def __init__(self, home: Home) -> None:
        self._pictures = home.reviews / "pictures"
        self._versions = home.reviews / "products"
        self._products = home.products

    # --- pictures ---------------------------------------------------------------------------------------------------

    def keep(self, path: Path, sha256: str) -> None:
        """Copy a picture under its content.

        Raises:
            InputError: it is gone or another one by now.
            StorageError: the disk refuses.
        """
        if self.find(sha256) is not None:
            return
        try:
            blob = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}.", hint="Restore it.") from error
        if hashlib.sha256(blob).hexdigest() != sha256:
            raise InputError(f"{path} has changed since it was inspected.", hint="Inspect it again.")
        suffix = path.suffix.lower()
        plain = suffix if suffix[1:].isascii() and suffix[1:].isalnum() and len(suffix) <= 6 else ""
        write_atomically(self._pictures / f"{sha256}{plain}", lambda temporary: _write(temporary, blob))

    def find(self, sha256: str) -> Path | None:
        """The kept picture of that content; None when there is none, or it is damaged."""
        for path in self._pictures.glob(f"{sha256}*"):
            if hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
                return path
        return None

    def keep_references(self, product: str, given: Sequence[Path]) -> tuple[Kept, ...]:
        """Keep the good pictures that a product was enrolled with.

        They are looked for among the kept ones, then among those given; last, the product's own copy is as good as the
        picture where it was not reduced.

        Args:
            product: its name.
            given: pictures, or folders of them.

        Raises:
            ProductError: a picture is missing.
        """
        folder = self._products / product
        manifest = manifest_of(folder)
        offered = {digest: path for path in _files(given) for digest in [_digest(path)]}
        kept, missing = [], []
        for number, entry in enumerate(manifest["references"]):
            name, digest = str(entry["name"]), str(entry["sha256"])
            if self.find(digest) is None and digest in offered:
                self.keep(offered[digest], digest)
            elif self.find(digest) is None:
                copy = folder / "references" / f"{number:03d}.png"
                if manifest["value_range"] or not _is_whole(copy):
                    missing.append(name)
                    continue
                digest = _digest(copy)
                self.keep(copy, digest)
            kept.append(Kept(name=name, sha256=digest))
        if missing:
            raise ProductError(
                f"{len(missing)} good pictures that {product} was enrolled with are not at hand, such as {missing[0]}.",
                hint="Name the folder with them: --references FOLDER",
            )
        return tuple(kept)

    def keep_examples(self, product: str, given: Path | None, before: tuple[Kept, ...] | None) -> tuple[Kept, ...]:
        """Keep the defect examples that a product was enrolled with.

        Args:
            product: its name.
            given: the folder that was given to ``enroll --defects``.
            before: those of the last change, None when none is known.

        Raises:
            ProductError: they are not at hand.
        """
        if before is not None and given is None:
            return before
        if given is None:
            if manifest_of(self._products / product)["type_examples"]:
                raise ProductError(
                    f"the defect examples that {product} was enrolled with are not at hand.",
                    hint="Name their folder, with one subfolder per type: --defects FOLDER",
                )
            return ()
        kept = []
        for kind, path in find_examples(given):
            digest = _digest(path)
            self.keep(path, digest)
            kept.append(Kept(name=spelt_out(path.name), sha256=digest, kind=spelt_out(kind)))
        return tuple(kept)

    def lay_out(self, pictures: Sequence[Kept], folder: Path) -> list[Path]:
        """Copies of kept pictures under their own names, each where an enrolment looks for it.

        Raises:
            ProductError: a kept picture is missing or damaged.
            StorageError: the disk refuses.
        """
        found = []
        for number, picture in enumerate(pictures):
            source = self.find(picture.sha256)
            if source is None:
                raise ProductError(f"the kept picture {picture.name} is missing or damaged.", hint="Restore it.")
            place = folder / (picture.kind or f"{number:04d}")
            path = place / (picture.name if picture.kind is None else f"{number:04d}-{picture.name}")
            with storage_errors(path):
                place.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, path)
            found.append(path)
        return found

    # --- products ---------------------------------------------------------------------------------------------------

    def keep_product(self, product: str) -> str:
        """Copy a product as it is; the hash of its manifest."""
        folder = self._products / product
        name = str(manifest_of(folder)["sha256"])
        place = self._version(product, name)
        if not place.exists():
            with new_folder(place) as fresh, storage_errors(place):
                shutil.copytree(folder, fresh, dirs_exist_ok=True)
        return name

    def restore_product(self, product: str, name: str) -> None:
        """Put a product back as it was.

        Raises:
            ProductError: the copy is missing or damaged.
            StorageError: the disk refuses; the present product stays.
        """
        place = self._version(product, name)
        if not place.is_dir() or manifest_of(place)["sha256"] != name:
            raise ProductError(f"the earlier version of {product} is missing or damaged ({place}).")
        for relative, digest in manifest_of(place)["files"].items():
            if _digest(place / relative) != digest:
                raise ProductError(f"the earlier version of {product} is damaged ({place / relative}).")
        with new_folder(self._products / product) as fresh, storage_errors(place):
            shutil.copytree(place, fresh, dirs_exist_ok=True)

    def _version(self, product: str, name: str) -> Path:
        return self._versions / product / name[:16]


def _write(path: Path, blob: bytes) -> None:
    path.write_bytes(blob)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.", hint="Check the path.") from error


def _files(given: Sequence[Path]) -> Iterator[Path]:
    for path in given:
        if path.is_dir():
            yield from sorted(inside for inside in path.rglob("*") if inside.is_file())
        else:
            yield path


def _is_whole(copy: Path) -> bool:
    """Whether a product's copy of a picture has all its pixels: larger ones were reduced to the limit."""
    try:
        with Image.open(copy) as picture:
            return max(picture.size) < STORED_SIDE_PX
    except OSError:
        return False
