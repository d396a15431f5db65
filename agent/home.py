"""Where Flawscope keeps its state, and how it writes: atomically, or not at all."""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import StorageError


class Home:
    """The directory behind ``FLAWSCOPE_HOME``.

    Attributes:
        root: products/, knowledge/, artifacts/, threads/, reviews/, models/ and anchors/ live under it; each is made
            when first written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def products(self) -> Path:
        """One folder per enrolled product."""
        return self.root / "products"

    @property
    def knowledge(self) -> Path:
        """One folder per content hash of the knowledge base."""
        return self.root / "knowledge"

    @property
    def artifacts(self) -> Path:
        """Arrays by content hash."""
        return self.root / "artifacts"

    @property
    def threads(self) -> Path:
        """Conversations and interrupted inspections (SQLite)."""
        return self.root / "threads"

    @property
    def reviews(self) -> Path:
        """What people decided, and what products were before it was applied to them."""
        return self.root / "reviews"

    @property
    def models(self) -> Path:
        """Weights that were downloaded or put there by hand, one folder per set."""
        return self.root / "models"

    @property
    def anchors(self) -> Path:
        """Embedded prompts, one file per prompt set and backbone; may be deleted at any time."""
        return self.root / "anchors"


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the disk's refusals into one line that says what to do.

    Raises:
        StorageError: the disk is full, read-only or not ours.
    """
    try:
        yield
    except OSError as error:
        remedy = {
            errno.ENOSPC: "Free some space",
            errno.EDQUOT: "Free some space",
            errno.EROFS: "The file system is read-only",
            errno.EACCES: "You may not write there",
            errno.EPERM: "You may not write there",
        }.get(error.errno or 0, "Check the disk")
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}.",
            hint=f"{remedy}, or set FLAWSCOPE_HOME (or --out) elsewhere.",
        ) from error


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file so that a reader sees the old one or the whole new one, even after a power cut.

    Args:
        path: the final path; parents are made.
        write: called with a temporary path beside it.

    Raises:
        StorageError: the disk refuses.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text_atomically(path: Path, text: str) -> None:
    """``write_atomically`` for UTF-8 text."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_atomically(path, write)


def write_json_atomically(path: Path, value: Any) -> None:
    """``write_atomically`` for JSON, sorted and indented so that two versions can be compared."""
    write_text_atomically(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a folder beside ``path`` and put it in place only when the block ended well.

    An existing folder is moved aside first and removed last, so that a crash leaves the old or the new one under
    ``path`` and never half of one. What a killed process left beside it is cleared away first; one killed between
    moving the old folder aside and putting the new one in place gets its old folder back.

    Raises:
        StorageError: the disk refuses.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(path)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.new-"))
    owned = _own(temporary)
    try:
        yield temporary
        with storage_errors(path):
            temporary.chmod(0o755)  # mkdtemp's 0o700 would hide the folder from the other users of a shared home
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old-"))
            try:
                if path.exists():
                    path.replace(old / path.name)
                temporary.replace(path)
            finally:
                if not path.exists() and (old / path.name).exists():
                    (old / path.name).replace(path)
                shutil.rmtree(old, ignore_errors=True)
    finally:
        if owned is not None:
            os.close(owned)
        shutil.rmtree(temporary, ignore_errors=True)


def _own(folder: Path) -> int | None:
    """Lock a folder for as long as this process lives; None when another one owns it or the system cannot tell."""
    try:
        import fcntl
    except ImportError:  # Windows: nothing is locked there, and leftovers stay
        return None
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:  # it has just been put in place
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def recover_folder(path: Path) -> None:
    """Put back the old folder of a ``new_folder`` that was killed before the new one was in place."""
    if path.exists() or not path.parent.is_dir():
        return
    unfinished = list(path.parent.glob(f".{glob.escape(path.name)}.new-*"))
    if all(_is_abandoned(folder) for folder in unfinished):
        for aside in path.parent.glob(f".{glob.escape(path.name)}.old-*/{glob.escape(path.name)}"):
            with storage_errors(path):
                aside.replace(path)
            return


def _clear_leftovers(path: Path) -> None:
    """Remove temporary folders of processes that are gone."""
    recover_folder(path)
    unfinished = list(path.parent.glob(f".{glob.escape(path.name)}.new-*"))
    abandoned = [folder for folder in unfinished if _is_abandoned(folder)]
    if len(abandoned) == len(unfinished):  # nobody is at work, so what lies aside belongs to nobody either
        abandoned += path.parent.glob(f".{glob.escape(path.name)}.old-*")
    for folder in abandoned:
        shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    owned = _own(folder)
    if owned is not None:
        os.close(owned)
    return owned is not None


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other process or thread is in such a block; a killed one leaves it.

    Raises:
        StorageError: the disk refuses.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such lock: what is written must tell two writers apart by itself there
        yield
        return
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def lock_beside(path: Path) -> Path:
    """The file to be `alone` with while a SQLite database is made.

    Of several first users that change a new one to write-ahead logging at once, all but one are refused, however long
    they are told to wait.
    """
    return path.with_name(f".{path.name}.lock")


def is_file_or_was(path: Path) -> bool:
    """Whether this is a file, or a link whose file is gone: nothing that somebody put there is passed over silently."""
    return path.is_file() or (path.is_symlink() and not path.exists())
