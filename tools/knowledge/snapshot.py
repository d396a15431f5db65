"""All that a plant knows in one file, and back: the pages with every version, and the fingerprints of the leak guard.

A snapshot is a plain tar archive: ``manifest.json`` with the sha256 of every file, then the files sorted by name, all
with the same owner, mode and time. The same state gives the same bytes. It is not compressed (pictures are already),
so it cannot unfold into more than it is. Nothing of it reaches the base before all of it was read and checked.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import yaml

from ...agent.errors import FlawscopeError, KnowledgeError
from ...agent.home import new_folder, storage_errors, write_atomically
from ..imaging import load_image
from .disk import sync_folder
from .guard import LeakGuard
from .plant import FOLDER as PLANT
from .plant import GUARD, LOCK, PAGE, PlantStore
from .safe_yaml import check_yaml

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
MAX_FILES: Final = 1_000_000
_MAX_MANIFEST_BYTES: Final = 400_000_000
_CHUNK_BYTES: Final = 1 << 20
_UNPACKED: Final = ".restore-"
# What the folder holds: no hidden file but the guard's, nothing above it, nothing that only some systems can name.
_INSIDE = re.compile(
    rf"{PLANT}/[a-z0-9][a-z0-9_.-]{{0,79}}/[0-9]{{4,9}}/(?:page\.yaml|version\.json|picture\.[a-z0-9]{{1,5}})"
    rf"|{PLANT}/\{GUARD}/[a-z0-9][a-z0-9_.-]{{0,63}}\.npz"
)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Snapshot:
    """What a snapshot holds.

    Attributes:
        pages: that count.
        files: of all versions and of the guard.
        sha256: of the archive.
    """

    pages: int
    files: int
    sha256: str


def write_snapshot(folder: Path, target: Path, progress: Progress | None = None, *, sound: bool = True) -> Snapshot:
    """Write the present state; call it while the plant's pages are locked.

    Args:
        folder: of the knowledge base.
        target: the archive; it is there whole or not at all.
        progress: called with (what, done, total).
        sound: whether to refuse a state that could not be restored.

    Raises:
        KnowledgeError: there is nothing, or a page that counts is damaged.
        StorageError: the disk refuses.
    """
    paths = _files(folder / PLANT)
    if not paths:
        raise KnowledgeError("the plant has no pages yet.", hint="Add one: flawscope kb add PICTURE --note …")
    pages = len(_check(folder)) if sound else 0
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    listed: dict[str, dict[str, Any]] = {}
    for done, (name, path) in enumerate(sorted(names.items())):
        if progress:
            progress("hashing", done, len(names))
        listed[name] = {"sha256": _sha256_of(path), "bytes": path.stat().st_size}
    if progress:
        progress("hashing", len(names), len(names))
    manifest = json.dumps({"format": FORMAT, "files": listed}, indent=1, sort_keys=True).encode()

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            archive.addfile(_entry(MANIFEST, len(manifest)), io.BytesIO(manifest))
            for done, name in enumerate(listed):
                if progress:
                    progress("writing the snapshot", done, len(listed))
                with names[name].open("rb") as source:
                    archive.addfile(_entry(name, listed[name]["bytes"]), source)
            if progress:
                progress("writing the snapshot", len(listed), len(listed))

    write_atomically(target, write)
    with storage_errors(target):
        sync_folder(target.parent)
    return Snapshot(pages, len(listed), _sha256_of(target))


def restore_snapshot(
    folder: Path,
    source: Path,
    *,
    keep: Path | None = None,
    shipped: Collection[str] = (),
    progress: Progress | None = None,
) -> Snapshot:
    """Put the state of a snapshot in the place of the present one; call it while the plant's pages are locked.

    Args:
        folder: of the knowledge base.
        source: the archive.
        keep: archive that the present state is written to once the snapshot is known to be good; None for none.
        shipped: ids that the plant cannot use.
        progress: called with (what, done, total).

    Raises:
        KnowledgeError: it is no snapshot, is damaged, or holds what no snapshot can; nothing has changed then.
        StorageError: the disk refuses; nothing has changed then.
    """
    for abandoned in folder.glob(f"{_UNPACKED}*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=folder, prefix=_UNPACKED))
    try:
        files = _unpack(source, fresh, progress)
        try:
            counting = _check(fresh)
        except KnowledgeError as error:
            raise _no_snapshot(source.name, error.message.rstrip(".")) from error
        if taken := sorted(set(counting) & set(shipped)):
            raise _no_snapshot(source.name, f"its page {taken[0]} has the name of a shipped one")
        digest = _sha256_of(source)
        if keep is not None:
            write_snapshot(folder, keep, progress, sound=False)
        _switch(folder / PLANT, fresh / PLANT)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Snapshot(len(counting), files, digest)


def _switch(present: Path, fresh: Path) -> None:
    """Put one folder in the place of the other; a crash leaves the old or the new one, see ``new_folder``."""
    with new_folder(present) as place, storage_errors(present):
        for path in sorted(fresh.iterdir()):
            path.replace(place / path.name)
        if (present / LOCK).exists():  # the same file: who holds the lock holds it in the new folder too
            os.link(present / LOCK, place / LOCK)
        for path in [place, *(path for path in place.rglob("*") if path.is_dir())]:
            sync_folder(path)
    with storage_errors(present):
        sync_folder(present.parent)


def _unpack(source: Path, fresh: Path, progress: Progress | None) -> int:
    """Write the files of an archive below a folder, checked one by one; how many there are."""
    if source.exists() and not source.is_file():  # a pipe would be waited for
        raise KnowledgeError(f"{source} is no file.", hint="Give an archive written by flawscope kb snapshot.")
    try:
        with source.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            size = os.fstat(file.fileno()).st_size
            members = _members(source.name, archive, size)
            listed = _manifest(source.name, archive, next(members, None))
            left = dict(listed)
            for done, member in enumerate(members):
                if progress:
                    progress("checking the snapshot", done, len(listed))
                if member.name not in left:
                    raise _no_snapshot(source.name, f"{_shown(member.name)} is not in its manifest, or is there twice")
                if member.size != left[member.name]["bytes"]:
                    raise _no_snapshot(source.name, f"{_shown(member.name)} has another size than its manifest says")
                _write_member(source.name, archive, member, fresh, left.pop(member.name)["sha256"])
            if left:
                raise _no_snapshot(source.name, f"{_shown(min(left))} is missing")
    except (tarfile.TarError, EOFError, UnicodeError, ValueError) as error:
        raise _no_snapshot(source.name, "it is no tar archive, or is cut off") from error
    except OSError as error:
        if not source.is_file():
            raise KnowledgeError(f"{source} cannot be read: {error.strerror}.") from error
        with storage_errors(fresh):
            raise
    if progress:
        progress("checking the snapshot", len(listed), len(listed))
    return len(listed)


def _members(name: str, archive: tarfile.TarFile, size: int) -> Iterator[tarfile.TarInfo]:
    """The entries, of which each is a plain file within the archive's own size."""
    for number, member in enumerate(archive):
        if number > MAX_FILES:
            raise _no_snapshot(name, f"it has more than {MAX_FILES} files")
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
            raise _no_snapshot(name, f"{_shown(member.name)} is no plain file")
        if not 0 <= member.size <= size:
            raise _no_snapshot(name, f"{_shown(member.name)} claims to be larger than the snapshot")
        yield member


def _manifest(name: str, archive: tarfile.TarFile, first: tarfile.TarInfo | None) -> Mapping[str, Mapping[str, Any]]:
    if first is None or first.name != MANIFEST or first.size > _MAX_MANIFEST_BYTES:
        raise _no_snapshot(name, "it does not begin with a manifest")
    try:
        manifest = json.loads(_stream(archive, first).read())
        files = manifest["files"]
        known = manifest["format"] == FORMAT
        sound = all(
            isinstance(entry["sha256"], str) and type(entry["bytes"]) is int and _INSIDE.fullmatch(path)
            for path, entry in files.items()
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _no_snapshot(name, "its manifest cannot be read") from error
    if not known:
        raise _no_snapshot(name, f"its format is not {FORMAT}; a newer Flawscope may have written it")
    if not files:
        raise _no_snapshot(name, "it holds no files")
    if not sound:
        raise _no_snapshot(name, "its manifest names a file that no snapshot holds")
    found: Mapping[str, Mapping[str, Any]] = files
    return found


def _write_member(name: str, archive: tarfile.TarFile, member: tarfile.TarInfo, fresh: Path, sha256: str) -> None:
    path = fresh.joinpath(*member.name.split("/"))  # the manifest has checked what it is made of
    digest = hashlib.sha256()
    source = _stream(archive, member)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            while chunk := source.read(_CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
    if digest.hexdigest() != sha256:
        raise _no_snapshot(name, f"{_shown(member.name)} does not have its hash")


def _stream(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream = archive.extractfile(member)
    if stream is None:  # of a plain file there is always one
        raise tarfile.ReadError(member.name)
    return stream


def _check(folder: Path) -> list[str]:
    """Ids of the pages that count below a folder, after everything that an inspection reads was read.

    Raises:
        KnowledgeError: something is damaged; the message says what.
    """
    store, counting = PlantStore(folder / PLANT), []
    LeakGuard(folder).sets()
    for doc_id in store.all_ids():
        try:
            last = store.history(doc_id)[-1]
            for page in (folder / PLANT / doc_id).glob(f"*/{PAGE}"):  # old versions too: diff and rollback load them
                with suppress(yaml.YAMLError):  # an old version may be damaged, and whoever reads it is told
                    check_yaml(page.read_bytes())
            if last.action == "remove":
                continue
            picture = store.picture(store.read(last))
            if picture is not None:
                load_image(picture)
        except (ValueError, OSError) as error:
            raise KnowledgeError(f"the page {doc_id} is damaged: it cannot be read.") from error
        except KnowledgeError:
            raise
        except FlawscopeError as error:
            raise KnowledgeError(f"the page {doc_id} is damaged: {error.message}") from error
        counting.append(doc_id)
    return counting


def _files(folder: Path) -> list[Path]:
    """Files of pages and of the guard; locks and what a killed writer left are neither."""
    found = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()] if folder.is_dir() else []
    return [path for path in found if _INSIDE.fullmatch(path.relative_to(folder.parent).as_posix())]


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)  # owner 0, time 0
    entry.size, entry.mode = size, 0o644
    return entry


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shown(name: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in name)[:80]


def _no_snapshot(name: str, why: str) -> KnowledgeError:
    return KnowledgeError(f"{name} cannot be restored: {why}.", hint="Nothing has changed. Take another snapshot.")
