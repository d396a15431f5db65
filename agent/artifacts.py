"""Arrays by content: the graph's state holds short references, the arrays stay out of checkpoints."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from ..tools.array_files import ARRAY_DAMAGE
from .errors import StorageError
from .home import write_atomically

KEPT_IN_MEMORY = 64
"""Arrays that stay at hand; a single inspection needs fewer than twenty."""


class ArtifactStore:
    """A content-addressed store of arrays with a small memory in front.

    Args:
        root: where arrays are written; None keeps them in memory only (scripts without a checkpointer, where nothing
            can be resumed and a disk write per picture would only cost time).
    """

    def __init__(self, root: Path | None = None) -> None:
        self._root = root
        self._recent: OrderedDict[str, NDArray[Any]] = OrderedDict()

    def put(self, array: NDArray[Any]) -> str:
        """Store an array and return its reference, ``xxh3:…`` of dtype, shape and bytes."""
        data = np.ascontiguousarray(array)
        ref = reference_of(data)
        if ref not in self._recent:
            self._recent[ref] = data
            if self._root is not None:
                path = self._path(ref)
                if not path.exists():
                    write_atomically(path, lambda temporary: _save(temporary, data))
        self._recent.move_to_end(ref)
        if len(self._recent) > KEPT_IN_MEMORY:
            self._recent.popitem(last=False)
        return ref

    def get(self, ref: str) -> NDArray[Any]:
        """Load an array.

        Raises:
            StorageError: it is gone or damaged.
        """
        if ref in self._recent:
            return self._recent[ref]
        if self._root is None:
            raise StorageError(f"artifact {ref[:19]}… is no longer in memory.", hint="Inspect the picture again.")
        try:
            with self._path(ref).open("rb") as file:  # a path would stay open where the file is damaged
                array: NDArray[Any] = np.load(file, allow_pickle=False)
        except ARRAY_DAMAGE as error:
            raise StorageError(
                f"artifact {ref[:19]}… is missing or damaged.", hint="Inspect the picture again."
            ) from error
        if reference_of(array) != ref:
            raise StorageError(f"artifact {ref[:19]}… is damaged.", hint="Inspect the picture again.")
        return array

    def _path(self, ref: str) -> Path:
        root = self._root or Path()
        digest = ref.removeprefix("xxh3:")
        return root / digest[:2] / f"{digest}.npy"


def reference_of(array: NDArray[Any]) -> str:
    """``xxh3:…`` of an array's dtype, shape and bytes."""
    # Tells arrays apart and notices damage; nobody's honesty depends on it, and a picture's sha256 takes milliseconds.
    digest = xxhash.xxh3_128(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).tobytes() if array.size == 0 else np.ascontiguousarray(array).data)
    return f"xxh3:{digest.hexdigest()}"


def _save(path: Path, array: NDArray[Any]) -> None:
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)
