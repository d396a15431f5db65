"""The weights the project can use: where they come from, where they lie, whether they are whole."""

from __future__ import annotations

from .catalogue import CATALOGUE, Weights, WeightsFile, clip_weights_for, find_weights, published_by_sha256
from .files import FileState, check_files, sha256_of
from .local import local_checkpoints
from .pull import pull

__all__ = [
    "CATALOGUE",
    "FileState",
    "Weights",
    "WeightsFile",
    "check_files",
    "clip_weights_for",
    "find_weights",
    "local_checkpoints",
    "published_by_sha256",
    "pull",
    "sha256_of",
]
