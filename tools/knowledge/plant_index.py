"""Vectors of a plant's pages, beside the base that they are searched with.

Only what changed is embedded: a vector's file is named by the hashes of its page and picture. ``plant.json`` tells
which of them the Milvus store holds. A process that is killed while Milvus Lite writes can leave files that it cannot
read again, so the mark of a complete store is taken away for as long as it changes: without it, it is made anew.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import KnowledgeError
from ...agent.home import storage_errors, write_atomically, write_json_atomically
from .features import LockSpace, grid_weights, image_part

if TYPE_CHECKING:
    from ..backbones import Backbone
    from .plant import PlantDocument, PlantStore
    from .store import LockRecord, Store

VECTORS = "plant_vectors"
SETTLED = "plant.json"
BOX_SHARE = 0.5
"""Weight of a marked defect within its picture's image part: a first look asks with whole pictures, a second one with
the suspicious place, and both must find the page."""

Progress = Callable[[str, int, int], None]


def plant_vectors(
    home: Path,
    store: PlantStore,
    documents: Sequence[PlantDocument],
    backbone: Backbone,
    space: LockSpace,
    progress: Progress | None,
) -> list[NDArray[np.float32]]:
    """Lock features of the pages, each read from its file or embedded and kept.

    Raises:
        KnowledgeError: a picture or a kept vector is damaged.
        StorageError: a vector cannot be written.
    """
    vectors = []
    missing = sum(not vector_path(home, document).exists() for document in documents)
    done = 0
    for document in documents:
        path = vector_path(home, document)
        if not path.exists():
            if progress:
                progress("learning the plant's pages", done, missing)
            vector = space.embed(_picture_part(store, document, backbone), document.page.searchable_text())
            keep_vector(path, vector)
            done += 1
        vectors.append(read_vector(path, space.dim))
    if progress and missing:
        progress("learning the plant's pages", missing, missing)
    return vectors


def vector_path(home: Path, document: PlantDocument) -> Path:
    """Where a base keeps the vector of a page."""
    return home / VECTORS / f"{document.key[:32]}.npz"


def read_vector(path: Path, dim: int | None = None) -> NDArray[np.float32]:
    """A kept vector, float32 (dim,); of any length when None is asked for.

    Raises:
        KnowledgeError: the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            vector, digest = np.asarray(file["vector"], np.float32), str(file["sha256"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(path) from error
    if vector.shape != (dim or vector.size,) or hashlib.sha256(vector.tobytes()).hexdigest() != digest:
        raise _damaged(path)
    return vector


def settled(home: Path) -> dict[str, str]:
    """Key of each page that the Milvus store holds, by doc_id.

    Raises:
        KnowledgeError: the file is damaged.
    """
    path = home / SETTLED
    if not path.exists():
        return {}
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path) from error
    if not isinstance(known, dict):
        raise _damaged(path)
    return {str(doc_id): str(key) for doc_id, key in known.items()}


def settle(
    home: Path, marker: Path, store: Store, shipped: set[str], records: Sequence[LockRecord], keys: Sequence[str]
) -> None:
    """Bring a Milvus store that holds the shipped pages to those of the plant.

    Args:
        home: of the base.
        marker: the file that says that the store is complete.
        store: changed only where it differs.
        shipped: ids of the shipped pages.
        records: the plant's.
        keys: of each record, see ``PlantDocument.key``.
    """
    known, present = settled(home), store.doc_ids()
    wanted = {record.doc_id: key for record, key in zip(records, keys, strict=True)}
    stale = [r for r in records if known.get(r.doc_id) != wanted[r.doc_id] or r.doc_id not in present]
    gone = sorted(present - shipped - set(wanted))
    if stale or gone:
        with storage_errors(marker):
            marker.unlink(missing_ok=True)
        store.delete(gone)
        store.upsert(stale)
    if known != wanted:
        write_json_atomically(home / SETTLED, wanted)
    with storage_errors(marker):
        marker.touch()


def _picture_part(store: PlantStore, document: PlantDocument, backbone: Backbone) -> NDArray[np.float32] | None:
    from ..imaging import load_image
    from ..views import encode

    blob = store.picture(document)
    if blob is None:
        return None
    picture = load_image(blob)
    features = encode(backbone, None, picture.rgb)
    whole = image_part(features)
    if document.page.box is None:
        return whole
    x0, y0, x1, y1 = document.page.box
    mask = np.zeros(picture.rgb.shape[:2], np.bool_)
    sx, sy = picture.meta.scale_x, picture.meta.scale_y
    mask[int(y0 * sy) : max(int(y1 * sy), int(y0 * sy) + 1), int(x0 * sx) : max(int(x1 * sx), int(x0 * sx) + 1)] = True
    marked = image_part(features, grid_weights(mask, features.grid))
    return np.asarray((1.0 - BOX_SHARE) * whole + BOX_SHARE * marked, np.float32)


def keep_vector(path: Path, vector: NDArray[np.float32]) -> None:
    """Write a vector as ``read_vector`` reads it.

    Raises:
        StorageError: the disk refuses.
    """
    digest = hashlib.sha256(vector.tobytes()).hexdigest()

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, vector=vector, sha256=np.array(digest))

    write_atomically(path, write)


def _damaged(path: Path) -> KnowledgeError:
    return KnowledgeError(f"{path} is damaged.", hint="Delete that file; it is made again on the next run.")
