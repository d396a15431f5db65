"""Files of arrays with any byte changed or cut anywhere: what is read is what was written, or the reader says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flawscope.agent.artifacts import ArtifactStore
from flawscope.agent.errors import FlawscopeError, KnowledgeError, StorageError
from flawscope.tools.ad_expert.prompt_ensemble import _read as read_anchors
from flawscope.tools.ad_expert.prompt_ensemble import _write as write_anchors
from flawscope.tools.ad_expert.text_anchors import GENERIC, TextAnchors
from flawscope.tools.knowledge.plant_index import keep_vector, read_vector

VECTOR = np.linspace(-1, 1, 5, dtype=np.float32)


def damaged_copies(whole: bytes) -> list[bytes]:
    """Each byte with its lowest, its highest and all bits turned over, and every beginning of the file."""
    found = [whole[:place] for place in range(0, len(whole), 3)]
    for place, byte in enumerate(whole):
        found += [whole[:place] + bytes([byte ^ mask]) + whole[place + 1 :] for mask in (0x01, 0x80, 0xFF)]
    return found


def outcomes(path: Path, read: Callable[[], Any], expected: type[FlawscopeError]) -> dict[str, int]:
    """How many damaged copies were read as they were written, and of how many the reader said that they are damaged."""
    whole = path.read_bytes()
    told = {"same": 0, "said": 0}
    for copy in damaged_copies(whole):
        path.write_bytes(copy)
        try:
            found = read()
        except expected:
            told["said"] += 1
            continue
        told["same"] += 1
        np.testing.assert_array_equal(found, VECTOR)
    return told


def test_kept_vectors_of_pages(tmp_path: Path) -> None:
    path = tmp_path / "vector.npz"
    keep_vector(path, VECTOR)
    told = outcomes(path, lambda: read_vector(path, 5), KnowledgeError)
    assert told["said"] > told["same"] > 0  # an archive has bytes that say nothing, such as its times


def test_artifacts(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    ref = store.put(VECTOR)
    (path,) = (file for file in tmp_path.rglob("*") if file.is_file())
    told = outcomes(path, lambda: ArtifactStore(tmp_path).get(ref), StorageError)
    assert told["said"] > told["same"]


@pytest.mark.filterwarnings("ignore:invalid value")  # weights whose bits were turned over may be infinite
def test_anchors_of_words_are_made_again_or_of_their_length(tmp_path: Path) -> None:
    path, unit = tmp_path / "anchors.npz", np.eye(2, 5, dtype=np.float32)
    write_anchors(path, TextAnchors(unit[0], unit[1:], (GENERIC,), "hash"))
    whole = path.read_bytes()
    told = {"anchors": 0, "again": 0}
    for copy in damaged_copies(whole):
        path.write_bytes(copy)
        told["again" if read_anchors(path, "hash") is None else "anchors"] += 1
    assert min(told.values()) > 0
