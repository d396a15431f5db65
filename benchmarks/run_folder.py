"""A run on disk: what was scored or answered so far, in a form that survives being killed at any moment.

``run.json`` says what is being run, a log holds a line a picture or question, ``pixels/`` the counts behind the pixel
metrics. A picture is finished when its line is whole; its counts are in place before that line is begun.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..agent.errors import ConfigError, StorageError
from ..agent.home import storage_errors, write_atomically, write_json_atomically
from ..tools.array_files import ARRAY_DAMAGE
from .pixel_curve import PixelCurve

FORMAT = 1
_HEADER, _SCORES, _PIXELS = "run.json", "scores.jsonl", "pixels"


class RunFolder:
    """The finished records of a run, by the value of their field ``key``. Made by :func:`open_run`."""

    def __init__(self, root: Path, records: dict[str, dict[str, Any]], key: str, log: str) -> None:
        self.root = root
        self.records = records
        self.key = key
        self.log = root / log

    def has(self, picture: str, pixels: bool) -> bool:
        """Whether a picture is finished, its counts too where they are wanted."""
        return picture in self.records and (not pixels or self._counts(picture).is_file())

    def add(self, record: Mapping[str, Any], curve: PixelCurve | None = None) -> None:
        """Keep a record: once this returns it is finished for good.

        Args:
            record: with the field ``key``, such as a picture's path inside the data set; JSON values.
            curve: the picture's pixels, None where they are unlabelled.

        Raises:
            StorageError: the disk refuses.
        """
        if curve is not None:
            data = curve.to_bytes()
            write_atomically(self._counts(record[self.key]), lambda path: _write(path, data))
        line = json.dumps(record, allow_nan=False, sort_keys=True) + "\n"
        with storage_errors(self.log), self.log.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        self.records[record[self.key]] = dict(record)

    def curve(self, picture: str) -> PixelCurve:
        """The pixels of a finished picture.

        Raises:
            StorageError: they are damaged.
        """
        path = self._counts(picture)
        try:
            return PixelCurve.from_bytes(path.read_bytes())
        except ARRAY_DAMAGE as error:
            raise StorageError(f"{path} is damaged.", hint="Delete it and run again.") from error

    def _counts(self, picture: str) -> Path:
        return self.root / _PIXELS / f"{picture}.npz"


@contextmanager
def open_run(root: Path, identity: Mapping[str, Any], key: str = "picture", log: str = _SCORES) -> Iterator[RunFolder]:
    """Begin a run in a folder, or take it up again.

    Args:
        root: made when missing.
        identity: all that the scores depend on, JSON values: a run goes on only as what it began.
        key: field that tells its records apart.
        log: file name of the records, a line each.

    Raises:
        ConfigError: the folder holds another run, or something else, or another process is at work in it.
        StorageError: the disk refuses, or the scores are damaged.
    """
    root = root.resolve()
    header = {"format": FORMAT, **json.loads(json.dumps(identity, allow_nan=False))}
    with storage_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / ".lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another process is at work in {root}.", hint="Give another --out.") from None
        _check_header(root, header, log)
        yield RunFolder(root, _read_scores(root / log, key), key, log)


def _check_header(root: Path, header: dict[str, Any], log: str) -> None:
    path = root / _HEADER
    if not path.exists():
        if (root / log).exists():
            raise ConfigError(f"{root} has scores without {_HEADER}.", hint="Give another --out.")
        write_json_atomically(path, header)
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read.", hint="Give another --out.") from error
    if found != header:
        differing = sorted(key for key in {*found, *header} if found.get(key) != header.get(key))
        raise ConfigError(
            f"{root} holds another run: {', '.join(differing)} differ.", hint="Give another --out, or the same options."
        )


def _read_scores(path: Path, key: str) -> dict[str, dict[str, Any]]:
    """The whole lines; what a killed process left of its last one is cut off."""
    if not path.exists():
        return {}
    with storage_errors(path):
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with path.open("rb+") as file:
                file.truncate(whole)
                os.fsync(file.fileno())
    records = {}
    for number, line in enumerate(data[:whole].splitlines(), start=1):
        try:
            record = json.loads(line)
            records[str(record[key])] = record
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"line {number} of {path} is damaged.", hint="Delete the line and run again.") from error
    return records


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
