"""The one place that downloads. Nothing calls it but ``flawscope models pull``.

A file grows beside its place as ``.NAME.part`` and moves into place once it is whole and its hash is the published one,
so that what lies under its own name was verified. A part that was left by an interrupted download is continued where a
published hash can prove that both pieces belong together, and begun anew where none is published.
"""

from __future__ import annotations

import http.client
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ...agent.errors import StorageError, WeightsError
from ...agent.home import storage_errors
from .catalogue import Weights, WeightsFile
from .files import FileState, by_hand, check_file, sha256_of

TIMEOUT_S = 5.0
"""To connect, and the longest silence of a server; without a network the answer shall come within seconds."""

BLOCK_BYTES = 1 << 20
Progress = Callable[[str, int, int | None], None]
"""Called with the file's name, the bytes that are there, and the bytes of the whole file where they are known."""


def pull(
    weights: Weights, models: Path, progress: Progress | None = None, *, timeout_s: float = TIMEOUT_S
) -> list[FileState]:
    """Download what is missing of a set of weights and verify it.

    Args:
        weights: the set.
        models: the home's folder of models; the files go to its subfolder of the set's name.
        progress: told about each block.
        timeout_s: for connecting, and for each silence.

    Returns:
        The state of each file, ``ok`` or ``unverified``.

    Raises:
        WeightsError: the origin cannot be reached, broke off, or sent something else than was published; the message
            says what to fetch by hand and where to put it.
        StorageError: the disk refuses, is too full, or another process pulls the same file.
    """
    states = []
    for file in weights.files:
        path = weights.path(file, models)
        if weights.shipped is None:
            with storage_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
        state = check_file(weights, file, models)
        if state.state in ("absent", "damaged"):
            if weights.shipped is not None:
                raise WeightsError(f"the shipped weights {file.name} are {state.state}.", hint="Reinstall flawscope.")
            with _hint(by_hand(weights, file, models)):
                _fetch(file, path, progress or (lambda *_: None), timeout_s)
            state = check_file(weights, file, models)
        states.append(state)
    return states


@contextmanager
def _hint(text: str) -> Iterator[None]:
    """Give the errors of the origin the remedy."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(error.message, hint=f"{error.hint or ''} {text}") from error


def _fetch(file: WeightsFile, path: Path, progress: Progress, timeout_s: float) -> None:
    part = path.with_name(f".{path.name}.part")
    with storage_errors(part), part.open("ab") as sink:
        _lock(sink, path)
        if file.sha256 is None:
            sink.truncate(0)
        try:
            with _open(file, part.stat().st_size, timeout_s) as response:
                if response.status != http.client.PARTIAL_CONTENT:
                    sink.truncate(0)  # the origin sends the file from its beginning
                _receive(response, sink, file, progress)
            sink.flush()
            os.fsync(sink.fileno())
        finally:
            sink.flush()
            if part.stat().st_size == 0:
                part.unlink()  # a download that did not begin leaves nothing behind
        found = sha256_of(part)
        if file.sha256 is not None and not found.startswith(file.sha256):
            part.unlink()
            raise WeightsError(f"what came from {file.url} is not the published file (sha256 {found[:12]}…).")
        part.replace(path)


def _open(file: WeightsFile, have: int, timeout_s: float) -> Any:
    """Ask for the rest of a file; a part that is no beginning of it is asked for anew."""
    request = urllib.request.Request(file.url, headers={"User-Agent": "flawscope"})  # noqa: S310 (from the catalogue)
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        return urllib.request.urlopen(request, timeout=timeout_s)  # noqa: S310
    except urllib.error.HTTPError as error:
        if have and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return _open(file, 0, timeout_s)
        raise WeightsError(f"{file.url} answers {error.code} {error.reason}.") from error
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        reason = getattr(error, "reason", error)
        raise WeightsError(f"{file.name} cannot be downloaded: {reason}.") from error


def _receive(response: Any, sink: IO[bytes], file: WeightsFile, progress: Progress) -> None:
    done = sink.seek(0, os.SEEK_END)
    length = response.headers.get("Content-Length")
    total = done + int(length) if length is not None else None
    if total is not None and shutil.disk_usage(Path(sink.name).parent).free < total - done:
        raise StorageError(
            f"{file.name} needs {(total - done) / 1e6:.0f} MB and the disk has less.",
            hint="Free some space, or set FLAWSCOPE_HOME elsewhere.",
        )
    progress(file.name, done, total)
    while True:
        try:
            block = response.read(BLOCK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise _broken_off(file, done, total, str(error)) from error
        if not block:
            break
        sink.write(block)
        done += len(block)
        progress(file.name, done, total)
    if done == 0:
        raise WeightsError(f"what {file.url} sends is empty.")
    if total is not None and done != total:
        raise _broken_off(file, done, total, "the origin closed the connection")


def _broken_off(file: WeightsFile, done: int, total: int | None, reason: str) -> WeightsError:
    whole = f" of {total / 1e6:.1f}" if total is not None else ""
    again = "Run the command again to go on." if file.sha256 is not None else "Run the command again."
    return WeightsError(f"the download of {file.name} broke off at {done / 1e6:.1f}{whole} MB: {reason}.", hint=again)


def _lock(file: IO[bytes], path: Path) -> None:
    """Keep other processes from writing the same part; Windows has no such lock and relies on the hash."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StorageError(
            f"another process is downloading {path.name}.", hint="Wait until it has finished."
        ) from error
