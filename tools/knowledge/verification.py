"""Check what the knowledge base consists of: every hash, vector, picture and link, on disk and in the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import InputError, KnowledgeError, KnowledgeLockedError, KnowledgeUnreachableError
from ..imaging import load_image
from .attachments import FOLDER as ATTACHED
from .attachments import Attachment, check, places, read_attachment, read_marked
from .builder import content_hash, read_base, shipped_documents
from .guard import LeakGuard, guarded_pages
from .plant import FOLDER, PlantDocument, PlantStore
from .plant_index import joint_path, read_vector, settled, vector_path
from .plant_page import UNKNOWN
from .schema import GOOD, KnowledgeDocument
from .store import Store, check_vector
from .vocabulary import vocabulary

if TYPE_CHECKING:
    from ..backbones import Backbone
    from .milvus_server import MilvusServer
    from .retriever import Projection

SAME = 0.9999
"""Cosine from which on a stored vector is the one on disk; float32 sums differ in the seventh digit."""
NEAREST = 10
"""Records among which a page is looked for by its own vector first."""


@dataclass
class Verification:
    """What was looked at and what was found.

    Attributes:
        counts: how many of what were looked at.
        problems: one line each.
        notes: what is no fault, such as a page that the next inspection will embed.
    """

    counts: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify_knowledge(
    folder: Path,
    backbone: Backbone,
    *,
    milvus: bool,
    server: MilvusServer | None = None,
    documents: Sequence[KnowledgeDocument] | None = None,
    projection: Projection | None = None,
) -> Verification:
    """Look at everything; nothing is built, repaired or changed.

    Args:
        folder: parent of all bases and of the plant's pages.
        backbone: whose base is checked.
        milvus: whether the Milvus store is looked into; it must not be open in another process.
        server: looked into instead.
        documents: other pages than the shipped ones.
        projection: a trained retriever, for this backbone.

    Raises:
        KnowledgeLockedError: another process has it open.
        KnowledgeUnreachableError: the server is away.
    """
    done = Verification()
    shipped = tuple(shipped_documents() if documents is None else documents)
    plant = PlantStore(folder / FOLDER)
    done.counts["shipped pages"] = len(shipped)
    own = list(_plant_pages(plant, done))
    done.counts["plant pages"] = len(own)
    known = {page.canonical_type for page in shipped} | set(vocabulary().types) | {UNKNOWN, GOOD}
    for page in (*shipped, *(document.page for document in own)):
        done.problems += _links(page, known)
    _check_guard(LeakGuard(folder), plant, own, done)
    attached = _attached(folder / ATTACHED, {page.doc_id for page in shipped}, done)
    digest = content_hash(shipped, backbone, attached, projection)
    home = folder / digest[:16]
    if not (home / "manifest.json").exists():
        done.notes.append("the base is not built yet: the next inspection builds it")
        return done
    vectors = _vectors(home, shipped, own, digest, done)
    done.counts["vectors"] = len(vectors)
    if server is not None:
        _check_server(server, home, vectors, own, plant, done)
    elif not milvus:
        done.notes.append("the Milvus store is not in use, so it was not looked into")
    elif not (home / "kb.complete").exists():
        done.notes.append("the Milvus store is not complete: the next inspection makes it")
    else:
        _check_store(home, vectors, own, plant, done)
    return done


def _plant_pages(plant: PlantStore, done: Verification) -> Iterator[PlantDocument]:
    """The pages that count, after every version of every page was read."""
    versions = 0
    for doc_id in plant.all_ids():
        try:
            history = plant.history(doc_id)
            done.problems += [
                f"{doc_id}: the record of version {n} does not follow the one before"
                for n in plant.broken_links(doc_id)
            ]
        except KnowledgeError as error:
            done.problems.append(f"{doc_id}: {error.message}")
            continue
        versions += len(history)
        for version in history:
            if version.action == "remove":
                continue
            try:
                document = plant.read(version)
                if (blob := plant.picture(document)) is not None:
                    load_image(blob)
            except (KnowledgeError, InputError) as error:
                done.problems.append(f"{doc_id}: {error.message}")
            else:
                if version is history[-1]:
                    yield document
    done.counts["plant versions"] = versions


def _attached(folder: Path, doc_ids: set[str], done: Verification) -> list[Attachment]:
    """The attached pictures that decide the base, after the files of all were read."""
    found = []
    for place in places(folder):
        try:
            attachment = read_attachment(place)
            check(attachment)
            read_marked(attachment)
        except KnowledgeError as error:
            done.problems.append(error.message)
            continue
        if attachment.record.doc_id not in doc_ids:
            done.notes.append(f"{attachment.record.doc_id}: attached to no page that is shipped")
        elif attachment.is_embedded:
            found.append(attachment)
    if number := len(places(folder)):
        done.counts["attached pictures"] = number
    return found


def _check_guard(guard: LeakGuard, plant: PlantStore, own: Sequence[PlantDocument], done: Verification) -> None:
    """Test pictures among the plant's: added before their data set was guarded, or put there by hand."""
    try:
        sets = guard.sets()
    except KnowledgeError as error:
        done.problems.append(error.message)
        return
    if not sets:
        return
    done.counts["guarded test pictures"] = sum(known.pictures for known in sets)
    for doc_id, found in guarded_pages(guard, plant, own).items():
        done.problems.append(f"{doc_id}: its picture is the test picture {found}")


def _links(page: KnowledgeDocument, known: set[str]) -> list[str]:
    from .drawings import DRAWN_TYPES

    problems = []
    if page.general_type is not None and page.general_type not in known:
        problems.append(f"{page.doc_id}: there is no general type {page.general_type}")
    problems += [
        f"{page.doc_id}: there is no type {other.defect_type} to mistake it for"
        for other in page.look_alikes
        if other.defect_type not in known
    ]
    if page.drawing is not None and page.drawing not in DRAWN_TYPES:
        problems.append(f"{page.doc_id}: there is no drawing {page.drawing}")
    return problems


def _vectors(
    home: Path,
    shipped: Sequence[KnowledgeDocument],
    own: Sequence[PlantDocument],
    digest: str,
    done: Verification,
) -> dict[str, NDArray[np.float32]]:
    """Vector of each page that has a sound one."""
    try:
        stored, space, joint = read_base(home, shipped, digest)
    except KnowledgeError as error:
        done.problems.append(error.message)
        return {}
    found = {page.doc_id: vector for page, vector in zip(shipped, stored, strict=True)}
    for document in own:
        path = vector_path(home, document)
        if not path.exists():
            done.notes.append(f"{document.page.doc_id}: the next inspection embeds it")
            continue
        try:
            found[document.page.doc_id] = read_vector(path, space.dim)
            if joint is not None and document.version.picture_sha256:
                _check_joint(home, document, joint.shape[1], done)
        except KnowledgeError as error:
            done.problems.append(f"{document.page.doc_id}: {error.message}")
    for doc_id, vector in list(found.items()):
        try:
            check_vector(vector, space.dim, f"the vector of {doc_id}")
        except KnowledgeError as error:
            done.problems.append(error.message)
            del found[doc_id]
    return found


def _check_joint(home: Path, document: PlantDocument, length: int, done: Verification) -> None:
    """The vector of a page's picture that words are compared with."""
    path = joint_path(home, document)
    if not path.exists():
        done.notes.append(f"{document.page.doc_id}: the next inspection embeds its picture for words")
        return
    check_vector(read_vector(path, length), length, f"the vector for words of {document.page.doc_id}")


def _check_store(
    home: Path,
    vectors: dict[str, NDArray[np.float32]],
    own: Sequence[PlantDocument],
    plant: PlantStore,
    done: Verification,
) -> None:
    from .milvus import MilvusLiteStore

    if not vectors:
        return
    if not (home / "kb.db").is_dir():
        done.problems.append(f"the Milvus store {home / 'kb.db'} is missing")
        return
    try:
        held = settled(home)
        store: Store = MilvusLiteStore(home, len(next(iter(vectors.values()))))
    except KnowledgeLockedError:
        raise
    except KnowledgeError as error:
        done.problems.append(error.message)
        return
    try:
        _compare(store, vectors, held, own, plant, done)
    finally:
        store.close()


def _check_server(
    server: MilvusServer,
    home: Path,
    vectors: dict[str, NDArray[np.float32]],
    own: Sequence[PlantDocument],
    plant: PlantStore,
    done: Verification,
) -> None:
    from .milvus_server import MilvusServerStore
    from .remote import COMPLETE, collection_of, state_folder

    state = state_folder(home, server)
    if not vectors:
        return
    if not (state / COMPLETE).exists():
        done.notes.append(f"the base is not complete on {server.uri}: the next inspection puts it there")
        return
    try:
        held = settled(state)
        store = MilvusServerStore(server, collection_of(home), len(next(iter(vectors.values()))), create=False)
    except KnowledgeUnreachableError:
        raise
    except KnowledgeError as error:
        done.problems.append(error.message)
        return
    try:
        _compare(store, vectors, held, own, plant, done)
    finally:
        store.close()


def _is_found(store: Store, doc_id: str, vector: NDArray[np.float32], records: int) -> bool:
    """Whether a record is found by its own vector, however many others have the same one."""
    limit = NEAREST
    while True:
        hits = store.search(vector, limit)
        if doc_id in {hit.doc_id for hit in hits if hit.similarity >= SAME}:
            return True
        if len(hits) < limit or hits[-1].similarity < SAME or limit >= records:
            return False
        limit = min(8 * limit, records)


def _compare(
    store: Store,
    vectors: dict[str, NDArray[np.float32]],
    held: dict[str, str],
    own: Sequence[PlantDocument],
    plant: PlantStore,
    done: Verification,
) -> None:
    """Ids and vectors of the store against those on disk; what a crash left to be done again is a note."""
    present, mine = store.doc_ids(), {document.page.doc_id: document.key for document in own}
    done.counts["records in Milvus"] = len(present)
    pending = {doc_id for doc_id, key in mine.items() if held.get(doc_id) != key}
    removed = set(plant.all_ids()) - set(mine)
    for doc_id in sorted(set(vectors) - present - pending):
        done.problems.append(f"{doc_id}: missing in the Milvus store")
    for doc_id in sorted(present - set(vectors) - set(mine)):
        if doc_id in removed:
            done.notes.append(f"{doc_id}: the next inspection takes it out of the Milvus store")
        else:
            done.problems.append(f"{doc_id}: in the Milvus store, but no page has that name")
    for doc_id in sorted(pending):
        done.notes.append(f"{doc_id}: the next inspection puts it into the Milvus store")
    for doc_id in sorted((set(vectors) & present) - pending):
        if not _is_found(store, doc_id, vectors[doc_id], len(present)):
            done.problems.append(f"{doc_id}: its vector in the Milvus store is another one")
