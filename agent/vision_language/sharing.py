"""One checkpoint in memory for all sessions of a process that ask for it, freed when the last one lets go."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .checkpoint import Checkpoint, load_checkpoint


@dataclass(eq=False)
class _Shared:
    """A checkpoint that several use.

    Attributes:
        checkpoint: it.
        users: how many have not let go of it.
    """

    checkpoint: Checkpoint
    users: int = 0


_LOADED: dict[tuple[object, ...], _Shared] = {}
_LOADING = threading.RLock()
_KEEPERS: list[object] = []


def shared_checkpoint(folder: Path, **options: Any) -> Checkpoint:
    """The same checkpoint for everybody in this process: the weights are in memory once, and so is what bounds them.

    Args:
        folder: see `load_checkpoint`.
        options: see `load_checkpoint`.

    Returns:
        It; `release` it when done.
    """
    key = (folder.resolve(), *sorted(options.items()))
    with _LOADING:
        if key not in _LOADED:
            _free_unused()  # two models are what memory limits are for
            _LOADED[key] = _Shared(load_checkpoint(folder, **options))
        _LOADED[key].users += 1
        return _LOADED[key].checkpoint


def release(checkpoint: Checkpoint) -> None:
    """Let go of a shared checkpoint, once for each time it was asked for; the last one frees the weights.

    Args:
        checkpoint: of `shared_checkpoint`; any other one is left alone.
    """
    with _LOADING:
        for shared in _LOADED.values():
            if shared.checkpoint is checkpoint and shared.users > 0:
                shared.users -= 1
        if not _KEEPERS:
            _free_unused()


@contextmanager
def kept_loaded() -> Iterator[None]:
    """Keep what is loaded, used or not, until the end of this: the next session need not read the weights again."""
    mark = object()
    _KEEPERS.append(mark)
    try:
        yield
    finally:
        with _LOADING:
            _KEEPERS.remove(mark)
            if not _KEEPERS:
                _free_unused()


def _free_unused() -> None:
    idle = [key for key, shared in _LOADED.items() if shared.users == 0]
    for key in idle:
        _LOADED.pop(key).checkpoint.features.clear()
    if idle:
        gc.collect()  # modules hold one another
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
