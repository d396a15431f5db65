"""What the commands that change the plant's pages have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..agent.errors import ConfigError, FlawscopeError, KnowledgeError
from .shared import make_console, print_error, settings

if TYPE_CHECKING:
    from ..agent.settings import LoadedSettings
    from ..tools.imaging import LoadedImage
    from ..tools.knowledge.guard import LeakGuard
    from ..tools.knowledge.known_pictures import KnownPictures
    from ..tools.knowledge.plant import PlantStore
    from ..tools.knowledge.plant_version import Version


def complete_page(incomplete: str) -> list[str]:
    """Names of the plant's pages for the shell."""
    try:
        store = plant_store(settings())
    except ConfigError:
        return []
    return [name for name in store.all_ids() if name.startswith(incomplete)]


PageArgument = Annotated[str, typer.Argument(metavar="ID", help="Name of the page.", autocompletion=complete_page)]
AuthorOption = Annotated[str | None, typer.Option("--author", help="Who says so (default: the user's name).")]


def plant_store(loaded: LoadedSettings) -> PlantStore:
    """The plant's pages."""
    from ..tools.knowledge.plant import FOLDER, PlantStore

    return PlantStore(loaded.home.knowledge / FOLDER)


def leak_guard(loaded: LoadedSettings) -> LeakGuard:
    """The test pictures that no page may hold."""
    from ..tools.knowledge.guard import LeakGuard

    return LeakGuard(loaded.home.knowledge)


def store_with(loaded: LoadedSettings, doc_id: str) -> PlantStore:
    """The store, when it has such a page.

    Raises:
        KnowledgeError: it has none, or only Flawscope ships one.
    """
    from ..tools.knowledge.builder import shipped_documents

    store = plant_store(loaded)
    if doc_id in store.all_ids():
        return store
    if doc_id in {page.doc_id for page in shipped_documents()}:
        raise KnowledgeError(f"{doc_id!r} is shipped with Flawscope: it has no history here and cannot be changed.")
    raise KnowledgeError(f"the plant has no page {doc_id!r}.", hint=store.suggestion(doc_id))


def refuse_open_bases(loaded: LoadedSettings) -> None:
    """Before anything is written: an inspection that is running would not see it, and its store could not be told.

    Raises:
        KnowledgeLockedError: another process has a base open.
    """
    if loaded.settings.store != "milvus":
        return
    from ..tools.knowledge.milvus import refuse_foreign_owner

    for database in loaded.home.knowledge.glob("*/kb.db"):
        refuse_foreign_owner(database)


def pictures_of(store: PlantStore) -> KnownPictures:
    """The pictures that are knowledge already: of the plant's pages, by their names, and those that were attached.

    Raises:
        KnowledgeError: a page, or the record of an attached picture, is damaged.
    """
    from ..tools.imaging import load_image
    from ..tools.knowledge.attachments import FOLDER, Attachment, attachments, read_picture
    from ..tools.knowledge.known_pictures import KnownPicture, KnownPictures
    from ..tools.knowledge.twins import Fingerprint, fingerprint

    found = KnownPictures()
    for document in store.current():
        version = document.version
        if document.picture is None:
            continue

        def seen(path: Path = document.picture) -> Fingerprint:
            return fingerprint(load_image(path).rgb)

        found.add(KnownPicture(version.doc_id, version.picture_sha256, int(version.picture_hash, 16), seen))
    for attached in attachments(store.folder.parent / FOLDER):
        record = attached.record

        def looked_at(attached: Attachment = attached) -> Fingerprint:
            return fingerprint(read_picture(attached))

        name = f"the picture of {record.doc_id} from {record.dataset}"
        found.add(KnownPicture(name, record.source_sha256, int(record.picture_hash, 16), looked_at))
    return found


def refuse_known_picture(store: PlantStore, guard: LeakGuard, picture: LoadedImage, own: str | None = None) -> None:
    """Refuse a picture that another page has, shipped or not, or that is a benchmark's test picture.

    Args:
        store: the plant's pages.
        guard: the test pictures.
        picture: the new one.
        own: page whose picture it is going to be.

    Raises:
        KnowledgeError: it is one of them; the message says which.
    """
    from ..tools.knowledge.twins import fingerprint

    if twin := pictures_of(store).find(picture.sha256, fingerprint(picture.rgb), leave_out=own):
        seen = f"kb history {twin}" if twin in store.all_ids() else "kb list"
        raise KnowledgeError(f"the picture is there already, as {twin}.", hint=f"See it: flawscope {seen}")
    guard.refuse(picture.sha256, picture.rgb)


def put_into_effect(loaded: LoadedSettings, store: PlantStore, written: Sequence[Version]) -> None:
    """Embed what changed and bring the Milvus store along; what cannot take effect is taken back.

    Args:
        loaded: the settings.
        store: the plant's pages, locked.
        written: versions that nobody was told of yet, in the order in which they were written.
    """
    from ..agent.terminal import ProgressBar
    from ..tools.backbones import load_backbone
    from ..tools.knowledge.builder import open_knowledge_base
    from ..tools.knowledge.milvus_server import MilvusServer
    from ..tools.knowledge.retriever import configured_retriever

    try:
        with ProgressBar(make_console(stderr=True)) as progress:
            backbone = load_backbone(loaded.settings.backbone, loaded)
            server = MilvusServer.configured(loaded.settings)
            base = open_knowledge_base(
                loaded.home.knowledge,
                backbone,
                store=loaded.settings.store,
                server=server,
                projection=configured_retriever(loaded.settings, backbone),
                progress=progress,
            )
            base.close()
    except FlawscopeError:
        for version in reversed(written):
            store.retract(version)
        raise
    if base.away is not None:
        print_error(f"{base.away.message} The pages take effect there as soon as it can be reached.")


def parse_box(text: str) -> tuple[int, int, int, int]:
    """A box given as four numbers.

    Raises:
        ConfigError: it is something else.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() and len(part) < 8 for part in parts):
        raise ConfigError(f"--box takes four numbers such as 10,20,60,90, not {text!r}.")
    x0, y0, x1, y1 = map(int, parts)
    return x0, y0, x1, y1


def check_box(box: tuple[int, int, int, int], picture: LoadedImage) -> None:
    """Refuse a box that is none in the picture.

    Raises:
        ConfigError: it is empty or outside.
    """
    x0, y0, x1, y1 = box
    width, height = picture.meta.orig_size_px
    if not (x0 < x1 <= width and y0 < y1 <= height):
        text = ",".join(map(str, box))
        raise ConfigError(f"--box {text} is no box in a picture of {width} x {height} px.", hint="x0 < x1, y0 < y1.")


def bytes_of(picture: Path, sha256: str) -> bytes:
    """The file that was looked at.

    Raises:
        KnowledgeError: it has changed since.
    """
    import hashlib

    blob = picture.read_bytes()
    if hashlib.sha256(blob).hexdigest() != sha256:
        raise KnowledgeError(f"{picture.name} changed while it was read.", hint="Try again.")
    return blob


def user_name(given: str | None) -> str:
    """Who does it: as given, else the user of this computer."""
    import getpass

    if given is not None:
        return given
    try:
        return getpass.getuser()
    except (KeyError, ImportError, OSError):  # a user without a name, as in some containers
        return "unknown"


def now() -> str:
    """UTC, ISO 8601."""
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat(timespec="seconds")
