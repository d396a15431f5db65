"""Weights on the disk: their hashes, and what is there, whole, damaged or missing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...agent.errors import WeightsError
from .catalogue import Weights, WeightsFile


@dataclass(frozen=True)
class FileState:
    """What became of one file.

    Attributes:
        file: as the catalogue describes it.
        path: where it lies or has to be put.
        state: ``ok`` (the hash is the published one), ``unverified`` (it is there and no hash is published),
            ``damaged`` (another hash), ``absent``.
        sha256: what was found; None when absent.
    """

    file: WeightsFile
    path: Path
    state: Literal["ok", "unverified", "damaged", "absent"]
    sha256: str | None = None


def sha256_of(path: Path) -> str:
    """Hash a file, block by block.

    Raises:
        WeightsError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"cannot read the weights {path}: {error.strerror or error}.") from error


def check_file(weights: Weights, file: WeightsFile, models: Path) -> FileState:
    """Hash one file of a set and compare.

    Raises:
        WeightsError: it is there and cannot be read.
    """
    path = weights.path(file, models)
    if not path.is_file():
        return FileState(file, path, "absent")
    found = sha256_of(path)
    if file.sha256 is None:
        return FileState(file, path, "unverified", found)
    return FileState(file, path, "ok" if found.startswith(file.sha256) else "damaged", found)


def check_files(weights: Weights, models: Path) -> list[FileState]:
    """``check_file`` for each file of a set.

    Args:
        weights: the set.
        models: the home's folder of models.
    """
    return [check_file(weights, file, models) for file in weights.files]


def by_hand(weights: Weights, file: WeightsFile, models: Path) -> str:
    """The sentence that says how to do without a network here: what to fetch, and where to put it."""
    stated = f" (sha256 {file.sha256}{'' if len(file.sha256) == 64 else '…'})" if file.sha256 else ""
    return f"Fetch {file.url} where there is a network and put it at {weights.path(file, models)}{stated}."
