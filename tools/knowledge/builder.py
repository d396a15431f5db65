"""Build the knowledge base on first use, and open it afterwards.

A base of shipped pages lives in ``knowledge/<content hash>``: any change of a document, a drawing or the backbone gives
another hash, so a stale base cannot be opened by accident. ``vectors.npz`` is the truth, ``kb.db`` is derived from it.
The pages that a plant wrote itself are added on opening, see ``plant_index``.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import FlawscopeError, KnowledgeError
from ...agent.home import new_folder, storage_errors, write_json_atomically
from ..backbones import Backbone
from .features import LockSpace, grid_weights, image_part
from .in_memory import InMemoryStore
from .lookup import documents_about
from .plant import FOLDER, PlantStore
from .plant_index import SETTLED, plant_vectors, settle
from .q2k import SAMPLERS
from .schema import KnowledgeDocument, load_documents
from .selection import Q2KSelection
from .store import LockRecord, Store

FORMAT = 3
"""Raise when features, drawings or files change meaning."""
PICTURE_SIDE_PX = 320
VARIANTS = 3
CANDIDATES = 32
"""Documents that the store hands to the sampling step; KDE-Sample needs the neighbourhood, not the whole base."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Retrieval:
    """What Q2K chose for one key.

    Attributes:
        documents: in falling similarity.
        similarities: their cosines.
        selection: the sampling step with its clusters, weights and flags.
    """

    documents: tuple[KnowledgeDocument, ...]
    similarities: tuple[float, ...]
    selection: Q2KSelection


class KnowledgeBase:
    """Documents, their lock features and the store that searches them.

    Attributes:
        documents: by doc_id.
        content_hash: of everything the base was made from.
    """

    def __init__(
        self,
        documents: Sequence[KnowledgeDocument],
        vectors: NDArray[np.float32],
        space: LockSpace,
        store: Store,
        content_hash: str,
    ) -> None:
        self.documents = {document.doc_id: document for document in documents}
        self.content_hash = content_hash
        self._vectors = dict(zip(self.documents, vectors, strict=True))
        self._space = space
        self._store = store

    def retrieve(
        self,
        image: NDArray[np.float32] | None,
        text: str,
        *,
        product: str | None,
        k: int,
        mode: Literal["relevance", "paper", "top_k", "mmr"] = "relevance",
        exclude: Sequence[str] = (),
    ) -> Retrieval:
        """Query image to knowledge (Q2K): search the store, then sample among the candidates.

        Args:
            image: image part of the key, see ``features.image_part``.
            text: words of the key: the product and the instruction.
            product: documents of this product and general ones are searched; None for general ones only.
            k: documents wanted.
            mode: how to choose among the candidates.
            exclude: doc_ids already seen.

        Raises:
            KnowledgeError: the key cannot be embedded or the store failed.
        """
        key = self._space.embed(image, text)
        products = ["general"] if product is None else ["general", product]
        limit = min(CANDIDATES + len(exclude), max(1, len(self.documents)))
        skip = set(exclude)
        hits = [
            h for h in self._store.search(key, limit, products) if h.doc_id not in skip and h.doc_id in self.documents
        ]
        ids = [hit.doc_id for hit in hits]
        selection = SAMPLERS[mode](
            [hit.similarity for hit in hits],
            ids,
            k,
            vectors=np.stack([self._vectors[i] for i in ids]) if ids else np.zeros((0, self._space.dim), np.float32),
        )
        chosen = tuple(self.documents[doc_id] for doc_id in selection.doc_ids)
        return Retrieval(chosen, tuple(selection.similarities), selection)

    def documents_about(self, defect_type: str, product: str | None) -> tuple[KnowledgeDocument, ...]:
        """Pages of one type, see ``lookup.documents_about``."""
        return documents_about(self.documents.values(), defect_type, product)

    def close(self) -> None:
        """Let go of the store."""
        self._store.close()


def open_knowledge_base(
    folder: Path,
    backbone: Backbone,
    *,
    store: Literal["milvus", "memory"] = "milvus",
    documents: Sequence[KnowledgeDocument] | None = None,
    progress: Progress | None = None,
) -> KnowledgeBase:
    """Open the base of the shipped documents and the plant's, building it when there is none for their content hash.

    Args:
        folder: parent of all bases and of the plant's pages.
        backbone: makes the image parts.
        store: Milvus Lite, or a copy in memory that takes no lock.
        documents: other documents than the shipped ones.
        progress: called with (what, done, total) while building.

    Raises:
        KnowledgeError: the base is damaged or locked, or a document cannot be used.
        StorageError: it cannot be written.
    """
    pages = tuple(shipped_documents() if documents is None else documents)
    digest = content_hash(pages, backbone)
    home = folder / digest[:16]
    if not (home / "manifest.json").exists():
        _build(home, pages, backbone, digest, progress)
    vectors, space = read_base(home, pages, digest)
    plant = PlantStore(folder / FOLDER)
    own = plant.current()
    if clash := {d.doc_id for d in pages} & {d.page.doc_id for d in own}:
        name = min(clash)
        raise KnowledgeError(
            f"the plant's page {name} has the name of a shipped one.", hint=f"Remove it: flawscope kb remove {name}"
        )
    own_vectors = plant_vectors(home, plant, own, backbone, space, progress)
    keys = [d.key for d in own]
    records = [
        LockRecord(d.doc_id, v, d.product, d.defect_type, d.searchable_text())
        for d, v in zip((*pages, *(d.page for d in own)), [*vectors, *own_vectors], strict=True)
    ]
    opened = _open_store(store, home, records, len(pages), keys, space)
    everything = hashlib.sha256("\n".join([digest, *keys]).encode()).hexdigest() if own else digest
    all_pages = (*pages, *(d.page for d in own))
    return KnowledgeBase(all_pages, np.stack([*vectors, *own_vectors]), space, opened, everything)


def shipped_documents() -> tuple[KnowledgeDocument, ...]:
    """The pages that every base holds."""
    return tuple(load_documents())


def content_hash(documents: Sequence[KnowledgeDocument], backbone: Backbone) -> str:
    """sha256 of everything that determines the vectors."""
    parts = [str(FORMAT), backbone.weights_sha256, str(PICTURE_SIDE_PX), *sorted(d.content_hash() for d in documents)]
    if backbone.image_size_px is not None:
        parts.append(f"canvas {backbone.image_size_px}")  # the same weights see another picture
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _build(
    home: Path, documents: Sequence[KnowledgeDocument], backbone: Backbone, digest: str, progress: Progress | None
) -> None:
    pictures: dict[str, NDArray[np.float32]] = {}
    for done, document in enumerate(documents):
        if progress:
            progress("building the knowledge base", done, len(documents))
        if document.drawing:
            pictures[document.doc_id] = picture_of(document.drawing, backbone)
    if progress:
        progress("building the knowledge base", len(documents), len(documents))
    parts = np.stack(list(pictures.values())) if pictures else np.zeros((1, _depth(backbone)), np.float32)
    space = LockSpace.fit(parts)
    vectors = np.stack([space.embed(pictures.get(d.doc_id), d.searchable_text()) for d in documents])
    if (home / "manifest.json").exists():
        return  # another process built the same base meanwhile, and may have it open: it must not be replaced
    with new_folder(home) as fresh:
        with storage_errors(fresh), (fresh / "vectors.npz").open("wb") as file:
            np.savez(file, vectors=vectors, mean=space.mean, spread=space.spread)
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
    from .drawings import draw_defect

    parts = []
    for variant in range(VARIANTS):
        drawn = draw_defect(drawing, variant=variant, size=PICTURE_SIDE_PX)
        features = backbone.encode_image(drawn.image[None])
        parts.append(image_part(features, grid_weights(drawn.mask, features.grid)))
    return np.asarray(np.mean(parts, axis=0), dtype=np.float32)


def _depth(backbone: Backbone) -> int:
    blank = np.full((1, 64, 64, 3), 128, np.uint8)
    return sum(layer.shape[2] for layer in backbone.encode_image(blank).patch_tokens)


def read_base(home: Path, documents: Sequence[KnowledgeDocument], digest: str) -> tuple[NDArray[np.float32], LockSpace]:
    """Vectors (n, dim) of the documents of a built base, in their order, and the space they live in.

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
        with np.load(home / "vectors.npz", allow_pickle=False) as file:
            return file["vectors"], LockSpace(file["mean"], file["spread"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
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
