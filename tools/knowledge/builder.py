"""Build the knowledge base on first use, and open it afterwards.

A base of shipped pages lives in ``knowledge/<content hash>``: any change of a document, a drawing or the backbone gives
another hash, so a stale base cannot be opened by accident; so does a picture attached to one (``attachments``).
``vectors.npz`` is the truth, ``kb.db`` is derived from it. The pages that a plant wrote itself are added on opening,
see ``plant_index``.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import FlawscopeError, KnowledgeError
from ...agent.home import new_folder, storage_errors, write_json_atomically
from ..array_files import ARRAY_DAMAGE
from ..backbones import Backbone
from .attachments import FOLDER as ATTACHED
from .attachments import Attachment, embedded, page_keys, picture_features
from .base import KnowledgeBase
from .features import LockSpace, grid_weights
from .in_memory import InMemoryStore
from .joint import JointPictures, PictureFeatures
from .plant import FOLDER, PlantStore
from .plant_index import SETTLED, plant_vectors, settle
from .remote import open_remote
from .schema import KnowledgeDocument, load_documents
from .store import LockRecord, Store

if TYPE_CHECKING:
    from .milvus_server import MilvusServer
    from .retriever import Projection

FORMAT = 3
"""Raise when features, drawings or files change meaning."""
JOINT_FORMAT = 1
"""Likewise of the vectors for words, which only bases of backbones with a text tower have."""
PICTURE_SIDE_PX = 320
VARIANTS = 3

Progress = Callable[[str, int, int], None]


def open_knowledge_base(
    folder: Path,
    backbone: Backbone,
    *,
    store: Literal["milvus", "memory"] = "milvus",
    server: MilvusServer | None = None,
    documents: Sequence[KnowledgeDocument] | None = None,
    projection: Projection | None = None,
    progress: Progress | None = None,
) -> KnowledgeBase:
    """Open the base of the shipped documents and the plant's, building it when there is none for their content hash.

    Args:
        folder: parent of all bases and of the plant's pages.
        backbone: makes the image parts.
        store: Milvus Lite, or a copy in memory that takes no lock.
        server: a Milvus server in place of either. While it is away, what needs it raises, unless that is required of
            opening too.
        documents: other documents than the shipped ones.
        projection: a trained retriever, for this backbone.
        progress: called with (what, done, total) while building.

    Raises:
        KnowledgeError: the base is damaged or locked, or a document cannot be used.
        StorageError: it cannot be written.
    """
    pages = tuple(shipped_documents() if documents is None else documents)
    attached = embedded(folder / ATTACHED, {page.doc_id for page in pages})
    digest = content_hash(pages, backbone, attached, projection)
    home = folder / digest[:16]
    if not (home / "manifest.json").exists():
        _build(home, pages, attached, backbone, projection, digest, progress)
    vectors, space, joint = read_base(home, pages, digest)
    space = replace(space, projection=projection)
    plant = PlantStore(folder / FOLDER)
    own = plant.current()
    if clash := {d.doc_id for d in pages} & {d.page.doc_id for d in own}:
        name = min(clash)
        raise KnowledgeError(
            f"the plant's page {name} has the name of a shipped one.", hint=f"Remove it: flawscope kb remove {name}"
        )
    own_vectors, own_joint = plant_vectors(home, plant, own, backbone, space, joint, progress)
    keys = [d.key for d in own]
    records = [
        LockRecord(d.doc_id, v, d.product, d.defect_type, d.searchable_text())
        for d, v in zip((*pages, *(d.page for d in own)), [*vectors, *own_vectors], strict=True)
    ]
    opened: Store
    if server is not None:
        opened = open_remote(server, home, space.dim, records, len(pages), keys)
    else:
        opened = _open_store(store, home, records, len(pages), keys, space)
    everything = hashlib.sha256("\n".join([digest, *keys]).encode()).hexdigest() if own else digest
    all_pages = (*pages, *(d.page for d in own))
    pictures = None
    if joint is not None:
        pictures = JointPictures.of(backbone, [page.doc_id for page in all_pages], np.stack([*joint, *own_joint]))
    return KnowledgeBase(all_pages, np.stack([*vectors, *own_vectors]), space, opened, everything, pictures)


def shipped_documents() -> tuple[KnowledgeDocument, ...]:
    """The pages that every base holds."""
    return tuple(load_documents())


def content_hash(
    documents: Sequence[KnowledgeDocument],
    backbone: Backbone,
    attached: Sequence[Attachment] = (),
    projection: Projection | None = None,
) -> str:
    """sha256 of everything that determines the vectors."""
    parts = [str(FORMAT), backbone.weights_sha256, str(PICTURE_SIDE_PX), *sorted(d.content_hash() for d in documents)]
    parts += page_keys(attached)
    if projection is not None:
        parts.append(f"retriever {projection.sha256}")
    if backbone.image_size_px is not None:
        parts.append(f"canvas {backbone.image_size_px}")  # the same weights see another picture
    if backbone.has_text:
        parts.append(f"joint {JOINT_FORMAT}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _build(
    home: Path,
    documents: Sequence[KnowledgeDocument],
    attached: Sequence[Attachment],
    backbone: Backbone,
    projection: Projection | None,
    digest: str,
    progress: Progress | None,
) -> None:
    pictures: dict[str, list[PictureFeatures]] = {}
    for done, document in enumerate(documents):
        if progress:
            progress("building the knowledge base", done, len(documents))
        own = [picture_features(a, backbone) for a in attached if a.record.doc_id == document.doc_id]
        own += [drawing_features(document.drawing, backbone)] if document.drawing else []
        if own:
            pictures[document.doc_id] = own
    if progress:
        progress("building the knowledge base", len(documents), len(documents))
    means = {doc_id: PictureFeatures.mean(own) for doc_id, own in pictures.items()}
    example = next(iter(means.values()), None) or _blank(backbone)
    parts = [one.part for several in pictures.values() for one in several] or [np.zeros_like(example.part)]
    space = LockSpace.fit(np.stack(parts))
    if projection is not None:
        space = LockSpace(projection.mean, projection.spread, projection)
    seen = [means.get(document.doc_id) for document in documents]
    texts = [document.searchable_text() for document in documents]
    vectors = [space.embed(None if s is None else s.part, text) for s, text in zip(seen, texts, strict=True)]
    arrays: dict[str, Any] = {"vectors": np.stack(vectors), "mean": space.mean, "spread": space.spread}
    if example.joint is not None:
        nowhere = np.zeros_like(example.joint)
        arrays["joint"] = np.stack([nowhere if s is None or s.joint is None else s.joint for s in seen])
    if (home / "manifest.json").exists():
        return  # another process built the same base meanwhile, and may have it open: it must not be replaced
    with new_folder(home) as fresh:
        with storage_errors(fresh), (fresh / "vectors.npz").open("wb") as file:
            np.savez(file, **arrays)
        digest_of_file = hashlib.sha256((fresh / "vectors.npz").read_bytes()).hexdigest()
        manifest = {
            "format": FORMAT,
            "content_hash": digest,
            "vectors_sha256": digest_of_file,
            "doc_ids": [d.doc_id for d in documents],
            "backbone": backbone.name,
        }
        write_json_atomically(fresh / "manifest.json", manifest)


def picture_of(drawing: str, backbone: Backbone) -> NDArray[np.float32]:
    """Image part of a drawing: the mean over its variants of the defect-weighted tokens."""
    return drawing_features(drawing, backbone).part


def drawing_features(drawing: str, backbone: Backbone) -> PictureFeatures:
    """Features of a drawing: the mean over its variants, their tokens weighted by the defect."""
    from .drawings import draw_defect

    seen = []
    for variant in range(VARIANTS):
        drawn = draw_defect(drawing, variant=variant, size=PICTURE_SIDE_PX)
        features = backbone.encode_image(drawn.image[None])
        seen.append(PictureFeatures.of(features, backbone, grid_weights(drawn.mask, features.grid)))
    return PictureFeatures.mean(seen)


def _blank(backbone: Backbone) -> PictureFeatures:
    """Features of nothing, for their shapes."""
    return PictureFeatures.of(backbone.encode_image(np.full((1, 64, 64, 3), 128, np.uint8)), backbone)


def read_base(
    home: Path, documents: Sequence[KnowledgeDocument], digest: str
) -> tuple[NDArray[np.float32], LockSpace, NDArray[np.float32] | None]:
    """Vectors (n, dim) of the documents of a built base, in their order, and the space they live in.

    Last come their pictures' vectors in the space shared with words, (n, D), of unit length or zero where there is no
    picture; None for a base of a backbone without a text tower.

    Raises:
        KnowledgeError: the base is damaged.
    """
    damaged = KnowledgeError(
        f"the knowledge base at {home} is damaged.", hint="Delete that folder; it is built again on the next run."
    )
    try:
        manifest = json.loads((home / "manifest.json").read_text(encoding="utf-8"))
        blob = (home / "vectors.npz").read_bytes()
        if manifest["content_hash"] != digest or hashlib.sha256(blob).hexdigest() != manifest["vectors_sha256"]:
            raise damaged
        if manifest["doc_ids"] != [d.doc_id for d in documents]:
            raise damaged
        with np.load(io.BytesIO(blob), allow_pickle=False) as file:
            joint = file.get("joint")  # there only with a text tower
            return file["vectors"], LockSpace(file["mean"], file["spread"]), joint
    except ARRAY_DAMAGE as error:
        raise damaged from error


def _open_store(
    kind: Literal["milvus", "memory"],
    home: Path,
    records: Sequence[LockRecord],
    n_shipped: int,
    keys: Sequence[str],
    space: LockSpace,
) -> Store:
    """The store with all records: first the shipped ones, then the plant's, whose ``keys`` tell what changed."""
    if kind == "memory":
        memory = InMemoryStore(space.dim)
        memory.upsert(records)
        return memory
    from .milvus import MilvusLiteStore, refuse_foreign_owner

    marker = home / "kb.complete"
    if not marker.exists():  # first use, or a build that was cut off: start over, the vectors are at hand
        refuse_foreign_owner(home / "kb.db")
        with storage_errors(home):
            (home / SETTLED).unlink(missing_ok=True)
            shutil.rmtree(home / "kb.db", ignore_errors=True)
    store = MilvusLiteStore(home, space.dim)
    shipped = {record.doc_id for record in records[:n_shipped]}
    try:
        if not shipped <= store.doc_ids():
            if marker.exists():
                raise KnowledgeError(
                    f"the knowledge base at {home} does not hold its documents.",
                    hint="Delete that folder; it is built again on the next run.",
                )
            store.upsert(records[:n_shipped])
        settle(home, marker, store, shipped, records[n_shipped:], keys)
    except FlawscopeError:
        store.close()
        raise
    return store
