"""Vectors of a plant's pages, beside the base that they are searched with.

Only what changed is embedded: a vector's file is named by the hashes of its page and picture. ``plant.json`` tells
which of them the Milvus store holds. A process that is killed while Milvus Lite writes can leave files that it cannot
read again, so the mark of a complete store is taken away for as long as it changes: without it, it is made anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import KnowledgeError
from ...agent.home import storage_errors, write_atomically, write_json_atomically
from ..array_files import ARRAY_DAMAGE
from .features import LockSpace, grid_weights
from .joint import PictureFeatures

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
    joint: NDArray[np.float32] | None,
    progress: Progress | None,
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    """Lock features of the pages, each read from its file or embedded and kept.

    Beside them their pictures' vectors in the space shared with words: as long as those of ``joint``, the shipped
    pages', and zero without a picture. There are none when that is None.

    Raises:
        KnowledgeError: a picture or a kept vector is damaged.
        StorageError: a vector cannot be written.
    """
    vectors: list[NDArray[np.float32]] = []
    in_words: list[NDArray[np.float32]] = []
    missing = sum(not _is_embedded(home, document, joint) for document in documents)
    done = 0
    for document in documents:
        path, joint_file = vector_path(home, document), joint_path(home, document)
        if not _is_embedded(home, document, joint):
            if progress:
                progress("learning the plant's pages", done, missing)
            seen = _picture_features(store, document, backbone)
            keep_vector(path, space.embed(None if seen is None else seen.part, document.page.searchable_text()))
            if seen is not None and seen.joint is not None:
                keep_vector(joint_file, seen.joint)
            done += 1
        vectors.append(read_vector(path, space.dim))
        if joint is not None:
            length = joint.shape[1]
            pictured = bool(document.version.picture_sha256)
            in_words.append(read_vector(joint_file, length) if pictured else np.zeros(length, np.float32))
    if progress and missing:
        progress("learning the plant's pages", missing, missing)
    return vectors, in_words


def _is_embedded(home: Path, document: PlantDocument, joint: NDArray[np.float32] | None) -> bool:
    has_joint = joint is None or not document.version.picture_sha256 or joint_path(home, document).exists()
    return has_joint and vector_path(home, document).exists()


def vector_path(home: Path, document: PlantDocument) -> Path:
    """Where a base keeps the vector of a page."""
    return home / VECTORS / f"{document.key[:32]}.npz"


def joint_path(home: Path, document: PlantDocument) -> Path:
    """Where a base keeps the vector of a page's picture in the space shared with words."""
    return home / VECTORS / f"{document.key[:32]}.joint.npz"


def read_vector(path: Path, dim: int | None = None) -> NDArray[np.float32]:
    """A kept vector, float32 (dim,); of any length when None is asked for.

    Raises:
        KnowledgeError: the file is damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            vector, digest = np.asarray(kept["vector"], np.float32), str(kept["sha256"])
    except ARRAY_DAMAGE as error:
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


def _picture_features(store: PlantStore, document: PlantDocument, backbone: Backbone) -> PictureFeatures | None:
    from ..imaging import load_image
    from ..views import encode

    blob = store.picture(document)
    if blob is None:
        return None
    picture = load_image(blob)
    features = encode(backbone, None, picture.rgb)
    whole = PictureFeatures.of(features, backbone)
    if document.page.box is None:
        return whole
    x0, y0, x1, y1 = document.page.box
    mask = np.zeros(picture.rgb.shape[:2], np.bool_)
    sx, sy = picture.meta.scale_x, picture.meta.scale_y
    mask[int(y0 * sy) : max(int(y1 * sy), int(y0 * sy) + 1), int(x0 * sx) : max(int(x1 * sx), int(x0 * sx) + 1)] = True
    marked = PictureFeatures.of(features, backbone, grid_weights(mask, features.grid))
    # Words speak of what is marked; the whole picture is half of its joint vector already.
    return PictureFeatures((1.0 - BOX_SHARE) * whole.part + BOX_SHARE * marked.part, marked.joint)


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
