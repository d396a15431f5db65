"""Arrays by content: same array, same reference; what is gone or damaged is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flawscope.agent import artifacts
from flawscope.agent.artifacts import ArtifactStore
from flawscope.agent.errors import StorageError

ARRAYS: list[NDArray[Any]] = [
    np.arange(6, dtype=np.uint8).reshape(1, 2, 3),
    np.ones((3, 2), np.float16),
    np.zeros((0, 4), np.float32),
    np.arange(12, dtype=np.float64).reshape(3, 4)[:, ::2],
    np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{a.shape}")
def test_arrays_come_back_from_memory_and_from_disk(array: NDArray[Any], tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    ref = store.put(array)
    for found in (store.get(ref), ArtifactStore(tmp_path).get(ref)):
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
    assert ArtifactStore().put(array.copy()) == ref


def test_shape_and_type_are_part_of_the_content() -> None:
    store, zeros = ArtifactStore(), np.zeros(4, np.float32)
    refs = {store.put(a) for a in (zeros, zeros.reshape(2, 2), zeros.view(np.int32), np.zeros(2, np.float64))}
    assert len(refs) == 4


def test_an_array_is_written_once(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    refs = {store.put(np.ones(3)) for _ in range(3)}
    assert len(refs) == 1
    assert len(list(tmp_path.rglob("*.npy"))) == 1
    assert not list(tmp_path.rglob(".*"))  # no temporary file is left


def test_memory_is_bounded_and_the_latest_stay() -> None:
    store = ArtifactStore()
    refs = [store.put(np.full(1, n)) for n in range(artifacts.KEPT_IN_MEMORY + 1)]
    assert store.get(refs[-1])[0] == artifacts.KEPT_IN_MEMORY
    with pytest.raises(StorageError, match=r"no longer in memory\. Inspect the picture again"):
        store.get(refs[0])


@pytest.mark.parametrize("damage", ["gone", "empty", "truncated", "flipped", "another"])
def test_what_is_gone_or_damaged_on_disk_is_said(damage: str, tmp_path: Path) -> None:
    ref = ArtifactStore(tmp_path).put(np.arange(100.0))
    (path,) = tmp_path.rglob("*.npy")
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "another":
        np.save(path, np.arange(100.0) + 1)
    else:
        changed = {"empty": b"", "truncated": data[:-30], "flipped": data[:-1] + bytes([data[-1] ^ 1])}
        path.write_bytes(changed[damage])
    with pytest.raises(StorageError, match="damaged"):
        ArtifactStore(tmp_path).get(ref)


def test_a_disk_that_refuses_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        ArtifactStore(tmp_path / "file").put(np.ones(2))
