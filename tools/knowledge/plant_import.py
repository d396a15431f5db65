"""Decide what an import changes, and write it: each row whole or not at all, and what is there already only once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from ...agent.errors import InputError, KnowledgeError
from ..imaging import load_image
from .guard import LeakGuard
from .import_rows import ImportRow, ImportSource, RowError, page_of, row_id, row_sha256
from .known_pictures import KnownPicture, KnownPictures
from .plant import PlantStore
from .plant_page import PlantPage
from .plant_version import Version
from .schema import plain_text
from .twins import Fingerprint, fingerprint

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PlannedPage:
    """A page that an import is going to write.

    Attributes:
        row: what it is made of.
        page: the page.
        picture_sha256: of its picture, empty without one.
        picture_hash: difference hash of the picture, 16 hex digits; empty without one.
        kind: whether there was no such page, or its row has changed.
    """

    row: ImportRow
    page: PlantPage
    picture_sha256: str
    picture_hash: str
    kind: Literal["new", "changed"]


@dataclass
class ImportPlan:
    """What an import is going to do.

    Attributes:
        pages: to be written.
        unchanged: how many rows are there as they are.
        refused: one line for each row that is not taken, with its place.
    """

    pages: list[PlannedPage] = field(default_factory=list)
    unchanged: int = 0
    refused: list[str] = field(default_factory=list)

    def count(self, kind: Literal["new", "changed"]) -> int:
        """How many pages of a kind."""
        return sum(planned.kind == kind for planned in self.pages)


class Importer:
    """Looks at rows one by one.

    Args:
        store: the plant's pages.
        guard: the test pictures that no page may hold.
        known: the pictures of the pages that count; those of accepted rows are added.
        shipped: ids that the plant cannot use.
        author: who imports.
        created: UTC, ISO 8601.
        overwrite: whether pages that a person has changed since they were imported are replaced as well.
        max_pixels: larger pictures are refused.
    """

    def __init__(
        self,
        store: PlantStore,
        guard: LeakGuard,
        known: KnownPictures,
        *,
        shipped: Collection[str],
        author: str,
        created: str,
        overwrite: bool,
        max_pixels: int,
    ) -> None:
        self._store, self._guard, self._known = store, guard, known
        self._shipped, self._there = frozenset(shipped), frozenset(store.all_ids())
        self._author = plain_text(author)[:80] or "unknown"
        self._created, self._overwrite, self._max_pixels = created, overwrite, max_pixels
        self._places: dict[str, str] = {}

    def plan(self, source: ImportSource, progress: Progress | None = None) -> ImportPlan:
        """What an import of these rows changes; nothing is written.

        Raises:
            KnowledgeError: the guard or a page that counts is damaged.
        """
        done = ImportPlan(refused=list(source.refused))
        for number, row in enumerate(source.rows):
            if progress:
                progress("checking rows", number, len(source.rows))
            try:
                planned = self._planned(row, source.name)
            except (RowError, InputError) as error:
                done.refused.append(f"{row.place}: {plain_text(error.message).rstrip('.')}")
                continue
            if planned is None:
                done.unchanged += 1
            else:
                done.pages.append(planned)
        if progress:
            progress("checking rows", len(source.rows), len(source.rows))
        return done

    def _planned(self, row: ImportRow, origin: str) -> PlannedPage | None:
        """The page of a row, None where it is there as it is."""
        doc_id = row_id(row)
        if doc_id in self._places:
            raise RowError(f"its page {doc_id} is that of {self._places[doc_id]} too: give them different ids")
        if doc_id in self._shipped:
            raise RowError(f"the page {doc_id} is shipped with Flawscope: give another id")
        blob = b""
        if row.picture is not None:
            try:
                blob = row.picture.read_bytes()
            except OSError as error:
                raise RowError(f"the picture {row.picture.name} cannot be read") from error
        sha256 = hashlib.sha256(blob).hexdigest() if row.picture is not None else ""
        digest = row_sha256(row, sha256)
        if doc_id in self._there and self._is_there(doc_id, digest):
            self._places[doc_id] = row.place
            return None
        page = page_of(row, doc_id, author=self._author, created=self._created, origin=origin[:80], digest=digest)
        bits = self._looked_at(row, page, blob, sha256) if row.picture is not None else ""
        self._places[doc_id] = row.place
        return PlannedPage(row, page, sha256, bits, "changed" if doc_id in self._there else "new")

    def _is_there(self, doc_id: str, digest: str) -> bool:
        """Whether the row was imported before and has not changed since.

        Raises:
            RowError: the page is not that of an import, or a person has changed it since.
        """
        try:
            history = self._store.history(doc_id)
            written = [version for version in history if version.action != "remove"]
            page = self._store.read(written[-1]).page
        except KnowledgeError as error:
            raise RowError(error.message.rstrip(".")) from error
        if page.imported_sha256 is None:
            raise RowError(f"there is a page {doc_id} that was not imported: give another id")
        if page.imported_sha256 == digest:
            return True
        last = history[-1]
        if last.action != "import" and not self._overwrite:
            raise RowError(
                f"{last.author} changed the page {doc_id} since it was imported (version {last.number}, "
                f"{last.action}): kb edit it, or import with --overwrite"
            )
        return False

    def _looked_at(self, row: ImportRow, page: PlantPage, blob: bytes, sha256: str) -> str:
        """Difference hash of a picture that may be taken.

        Raises:
            RowError: it is there already, is a test picture, or the box is none in it.
            InputError: it cannot be read.
        """
        try:
            picture = load_image(blob, max_pixels=self._max_pixels)
        except InputError as error:
            name = row.picture.name if row.picture else ""
            raise RowError(f"the picture {plain_text(name)}: {error.message.rstrip('.')}") from error
        width, height = picture.meta.orig_size_px
        if page.box is not None:
            x0, y0, x1, y1 = page.box
            if not (x0 < x1 <= width and y0 < y1 <= height):
                raise RowError(f"the box {x0},{y0},{x1},{y1} is none in a picture of {width} x {height} px")
        seen = fingerprint(picture.rgb)
        if twin := self._known.find(sha256, seen, leave_out=page.doc_id):
            raise RowError(f"its picture is there already, as {twin}")
        if found := self._guard.find(sha256, picture.rgb):
            raise RowError(f"its picture is the test picture {found}")
        self._known.add(KnownPicture(page.doc_id, sha256, seen.bits, partial(_same, seen)))
        return f"{seen.bits:016x}"


def write_pages(plan: ImportPlan, store: PlantStore, author: str, progress: Progress | None = None) -> list[Version]:
    """Write what was planned; call it while the store is locked.

    Returns:
        The versions, in the order in which they were written.

    Raises:
        KnowledgeError: a picture has changed since it was looked at.
        StorageError: the disk refuses; what was written before is taken back.
    """
    written: list[Version] = []
    try:
        for number, planned in enumerate(plan.pages):
            if progress:
                progress("writing pages", number, len(plan.pages))
            blob = None if planned.row.picture is None else planned.row.picture.read_bytes()
            if blob is not None and hashlib.sha256(blob).hexdigest() != planned.picture_sha256:
                raise KnowledgeError(f"{planned.row.place}: the picture changed while it was read.", hint="Try again.")
            document = store.add(planned.page, blob, planned.picture_hash, action="import", author=author)
            written.append(document.version)
    except BaseException:
        for version in reversed(written):
            store.retract(version)
        raise
    if progress:
        progress("writing pages", len(plan.pages), len(plan.pages))
    return written


def _same(seen: Fingerprint) -> Fingerprint:
    return seen
