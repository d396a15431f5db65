"""A plant's own pages on disk: every version of every page is kept, and none is ever changed.

``<folder>/<doc_id>/<number>/`` holds one version: ``page.yaml``, the picture and ``version.json`` with author, time and
hashes. A version is written beside its place, forced to the disk and renamed, so that a crash leaves it whole or not at
all. The highest number counts; removing a page adds a version without one, so it can be brought back.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import yaml
from pydantic import ValidationError

from ...agent.errors import KnowledgeError
from ...agent.home import recover_folder, storage_errors
from .disk import lock_alone, sync_folder
from .plant_page import PlantPage
from .plant_version import Action, Version, version_from
from .safe_yaml import LOADER

FOLDER = "plant"
"""Beside the bases made of it."""
PAGE, RECORD = "page.yaml", "version.json"
LOCK = ".lock"
GUARD = ".guard"
"""Fingerprints that no page may match, see ``guard``; here, so that all a plant knows is in one folder."""
_NUMBER = re.compile(r"[0-9]{4,}")
_UNFINISHED = ".new-"


@dataclass(frozen=True)
class PlantDocument:
    """A page that counts now, with its picture's file; a control plan may have no picture of a defect."""

    page: PlantPage
    version: Version
    picture: Path | None

    @property
    def key(self) -> str:
        """sha256 of what determines its vector."""
        return hashlib.sha256(f"{self.version.page_sha256} {self.version.picture_sha256}".encode()).hexdigest()


class PlantStore:
    """The pages of a plant.

    Args:
        folder: need not exist; it is made with the first page.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        recover_folder(folder)  # a restore that was killed may have left it aside

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one who writes; what a killed writer left unfinished is cleared away.

        Raises:
            KnowledgeLockedError: another process is writing.
            StorageError: the disk refuses.
        """
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            lock_alone(handle, self.folder / LOCK)
            for unfinished in self.folder.glob(f"{_UNFINISHED}*"):
                shutil.rmtree(unfinished, ignore_errors=True)
            yield
        finally:
            os.close(handle)

    def all_ids(self) -> list[str]:
        """Every page that there is or was, sorted."""
        if not self.folder.is_dir():
            return []
        names = (path.name for path in self.folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        return sorted(name for name in names if self._numbers(name))

    def history(self, doc_id: str) -> list[Version]:
        """All versions of a page, first to last.

        Raises:
            KnowledgeError: there is no such page, or a record is damaged.
        """
        numbers = self._numbers(doc_id)
        if not numbers:
            raise KnowledgeError(f"the plant has no page {doc_id!r}.", hint=self.suggestion(doc_id))
        return [self._record(doc_id, number) for number in numbers]

    def current(self) -> list[PlantDocument]:
        """The pages that count, sorted by id.

        Raises:
            KnowledgeError: a page or record is damaged.
        """
        versions = (self._record(doc_id, self._numbers(doc_id)[-1]) for doc_id in self.all_ids())
        return [self.read(version) for version in versions if version.action != "remove"]

    def read(self, version: Version) -> PlantDocument:
        """The page of a version.

        Raises:
            KnowledgeError: it was removed by that version, or its files are damaged.
        """
        folder = self._place(version.doc_id, version.number)
        if version.action == "remove":
            raise KnowledgeError(f"version {version.number} of {version.doc_id} removed the page: it holds none.")
        try:
            blob = (folder / PAGE).read_bytes()
            if _sha256(blob) != version.page_sha256:
                raise _damaged(version.doc_id, version.number, "the page was changed")
            page = PlantPage.model_validate(yaml.load(blob, LOADER))  # noqa: S506 - a safe loader
        except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
            raise _damaged(version.doc_id, version.number, "the page cannot be read") from error
        if page.doc_id != version.doc_id or (page.page_image is None) != (not version.picture_sha256):
            raise _damaged(version.doc_id, version.number, "it holds another page")
        return PlantDocument(page, version, None if page.page_image is None else folder / page.page_image)

    def add(
        self,
        page: PlantPage,
        picture: bytes | None,
        picture_hash: str,
        *,
        action: Action = "add",
        author: str | None = None,
    ) -> PlantDocument:
        """Keep a page and its picture as the next version; call it while `locked`.

        Args:
            page: its ``page_image`` names the file that the picture is kept in.
            picture: the bytes of the file; None if the page has none.
            picture_hash: see `Version`.
            action: what made the version.
            author: who did it; None for the page's author.

        Raises:
            StorageError: the disk refuses; nothing has changed then.
        """
        blob = page_text(page).encode("utf-8")
        version = replace(self._next(page.doc_id, action, author or page.author), page_sha256=_sha256(blob))
        files = {PAGE: blob}
        if picture is not None:
            version = replace(version, picture_sha256=_sha256(picture), picture_hash=picture_hash)
            files[str(page.page_image)] = picture
        self._write(version, files)
        return self.read(version)

    def remove(self, doc_id: str, author: str) -> Version:
        """Let a page count no longer; call it while `locked`.

        Raises:
            KnowledgeError: there is no such page, or it is removed already.
            StorageError: the disk refuses.
        """
        if self.history(doc_id)[-1].action == "remove":
            raise KnowledgeError(f"the page {doc_id!r} is removed already.", hint=f"See: flawscope kb history {doc_id}")
        version = self._next(doc_id, "remove", author)
        self._write(version, {})
        return version

    def rollback(self, doc_id: str, number: int, author: str) -> PlantDocument:
        """Make an earlier version count again, as a new one; call it while `locked`.

        Raises:
            KnowledgeError: there is no such page or version, or it is damaged.
            StorageError: the disk refuses.
        """
        versions = {version.number: version for version in self.history(doc_id)}
        if number not in versions:
            raise KnowledgeError(
                f"the page {doc_id!r} has no version {number}.",
                hint=f"It has 1 to {max(versions)}.",
            )
        old = self.read(versions[number])
        files = {PAGE: (self._place(doc_id, number) / PAGE).read_bytes()}
        if old.picture is not None:
            files[old.picture.name] = self.picture(old) or b""
        version = self._next(doc_id, "rollback", author)
        kept = {"page_sha256", "picture_sha256", "picture_hash"}
        version = replace(version, **{name: getattr(old.version, name) for name in kept})
        self._write(version, files)
        return self.read(version)

    def retract(self, version: Version) -> None:
        """Take back the version just written, which nobody was told of; call it while `locked`."""
        aside = Path(tempfile.mkdtemp(dir=self.folder, prefix=_UNFINISHED))
        self._place(version.doc_id, version.number).replace(aside / "retracted")
        shutil.rmtree(aside, ignore_errors=True)

    def picture(self, document: PlantDocument) -> bytes | None:
        """The picture's file, None for a page without one.

        Raises:
            KnowledgeError: it is missing or was changed.
        """
        version = document.version
        if document.picture is None:
            return None
        try:
            blob = document.picture.read_bytes()
        except OSError as error:
            raise _damaged(version.doc_id, version.number, "its picture cannot be read") from error
        if _sha256(blob) != version.picture_sha256:
            raise _damaged(version.doc_id, version.number, "its picture was changed")
        return blob

    def broken_links(self, doc_id: str) -> list[int]:
        """Numbers of the versions whose record does not follow the one before it."""
        broken, previous = [], ""
        for place, number in enumerate(self._numbers(doc_id), start=1):
            if number != place or self._record(doc_id, number).previous_sha256 != previous:
                broken.append(number)
            previous = _sha256((self._place(doc_id, number) / RECORD).read_bytes())
        return broken

    # --- one version ------------------------------------------------------------------------------------------------

    def _place(self, doc_id: str, number: int) -> Path:
        return self.folder / doc_id / f"{number:04d}"

    def _numbers(self, doc_id: str) -> list[int]:
        folder = self.folder / doc_id
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", doc_id) or not folder.is_dir():
            return []
        return sorted(int(path.name) for path in folder.iterdir() if _NUMBER.fullmatch(path.name))

    def _record(self, doc_id: str, number: int) -> Version:
        try:
            version = version_from((self._place(doc_id, number) / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise KnowledgeError(
                f"version {number} of the plant's page {doc_id} is damaged: its record cannot be read.",
                hint=f"Restore {self._place(doc_id, number)} from a copy.",
            ) from error
        if (version.doc_id, version.number) != (doc_id, number):
            raise _damaged(doc_id, number, "its record belongs to another page")
        return version

    def _next(self, doc_id: str, action: Action, author: str) -> Version:
        numbers = self._numbers(doc_id)
        previous = _sha256((self._place(doc_id, numbers[-1]) / RECORD).read_bytes()) if numbers else ""
        time = datetime.now(UTC).isoformat(timespec="seconds")
        return Version(doc_id, numbers[-1] + 1 if numbers else 1, action, author, time, "", "", "", previous)

    def _write(self, version: Version, files: dict[str, bytes]) -> None:
        record = json.dumps(version.__dict__, indent=2, sort_keys=True) + "\n"
        place = self._place(version.doc_id, version.number)
        with storage_errors(place):
            fresh = Path(tempfile.mkdtemp(dir=self.folder, prefix=_UNFINISHED))
            try:
                for name, blob in {**files, RECORD: record.encode("utf-8")}.items():
                    with (fresh / name).open("wb") as file:
                        file.write(blob)
                        file.flush()
                        os.fsync(file.fileno())
                fresh.chmod(0o755)
                sync_folder(fresh)
                place.parent.mkdir(exist_ok=True)
                sync_folder(self.folder)
                fresh.replace(place)
                sync_folder(place.parent)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)

    def suggestion(self, doc_id: str) -> str:
        """What to tell someone who asked for a page that is not there."""
        known = self.all_ids()
        if near := difflib.get_close_matches(doc_id, known, n=1):
            return f"Did you mean {near[0]!r}?"
        return f"It has: {', '.join(known[:8])}." if known else "It has none yet: flawscope kb add PICTURE --note …"


def page_text(page: PlantPage) -> str:
    """A page as it is kept, YAML."""
    return yaml.safe_dump(page.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def _sha256(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()


def _damaged(doc_id: str, number: int, what: str) -> KnowledgeError:
    return KnowledgeError(
        f"version {number} of the plant's page {doc_id} is damaged: {what}.",
        hint=f"Restore it from a copy, or: flawscope kb rollback {doc_id} VERSION, flawscope kb remove {doc_id}",
    )
