"""``kb add``, ``remove``, ``history``, ``rollback`` and ``verify``: the pages that a plant writes itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..agent.errors import ConfigError, FlawscopeError, KnowledgeError
from .shared import HomeOption, ProfileOption, complete_product, make_console, print_line, print_plain, settings

if TYPE_CHECKING:
    from ..agent.settings import LoadedSettings
    from ..tools.imaging import LoadedImage
    from ..tools.knowledge.plant import PlantStore, Version
    from ..tools.knowledge.plant_page import PlantPage


def complete_page(incomplete: str) -> list[str]:
    """Names of the plant's pages for the shell."""
    try:
        store = _store(settings())
    except ConfigError:
        return []
    return [name for name in store.all_ids() if name.startswith(incomplete)]


PageArgument = Annotated[str, typer.Argument(metavar="ID", help="Name of the page.", autocompletion=complete_page)]
AuthorOption = Annotated[str | None, typer.Option("--author", help="Who says so (default: the user's name).")]


def add(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="Photo of the defect.")],
    note: Annotated[str, typer.Option("--note", help="What is seen, why, what to do.")],
    product: Annotated[
        str, typer.Option("--product", help="Product, or general for all.", autocompletion=complete_product)
    ],
    defect_type: Annotated[
        str | None, typer.Option("--type", help="Defect type (default: the one that the note names, else unknown).")
    ] = None,
    box: Annotated[str | None, typer.Option("--box", metavar="X0,Y0,X1,Y1", help="Where it is, in pixels.")] = None,
    author: AuthorOption = None,
    doc_id: Annotated[str | None, typer.Option("--id", help="Name (default: PRODUCT.TYPE.NUMBER).")] = None,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Add a page of one photo and one note; the next inspection knows it, without training."""
    loaded = settings(profile=profile, home=home)
    from ..tools.imaging import load_image
    from ..tools.knowledge.builder import shipped_documents
    from ..tools.knowledge.plant_page import page_from_note, types_in
    from ..tools.knowledge.twins import difference_hash
    from ..tools.products import list_products

    loaded_picture = load_image(picture, max_pixels=loaded.settings.max_pixels)
    marked = _box(box, loaded_picture) if box is not None else None
    store = _store(loaded)
    with store.locked():
        _refuse_open_bases(loaded)
        taken = {*store.all_ids(), *(page.doc_id for page in shipped_documents())}
        page = page_from_note(
            note,
            product,
            type_name=defect_type,
            doc_id=doc_id,
            taken=taken,
            author=_author(author),
            created=_now(),
            box=marked,
            picture_name=f"picture{_suffix(picture)}",
        )
        if page.doc_id in taken:
            raise KnowledgeError(f"there is a page {page.doc_id!r} already.", hint="Choose another --id.")
        _refuse_twin(store, loaded_picture)
        blob = _bytes(picture, loaded_picture)
        written = store.add(page, blob, f"{difference_hash(loaded_picture.rgb):016x}").version
        _put_into_effect(loaded, store, written)
    print_plain(_added(page))
    if page.defect_type == "unknown":
        named = ", ".join(types_in(page.appearance or page.description, product))
        why = f"the note names {named}" if named else "the note names no type that is known"
        make_console(stderr=True).print(f"The type stays unknown: {why}. Choose one with --type.")
    if product != "general" and product not in list_products(loaded.home.products):
        make_console(stderr=True).print(f"No product {product} is enrolled yet: the page is found once it is.")


def remove(
    doc_id: PageArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    author: AuthorOption = None,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Let a page of the plant count no longer; its versions are kept, and rollback brings it back."""
    loaded = settings(profile=profile, home=home)
    store = _known(loaded, doc_id)
    if not yes and not sys.stdin.isatty():
        raise ConfigError(f"nobody can be asked whether to remove {doc_id!r}.", hint="Add --yes.")
    if not yes and not typer.confirm(f"Remove {doc_id}?"):
        raise typer.Exit(0)
    with store.locked():
        _refuse_open_bases(loaded)
        # The bases are not opened: a damaged page must be removable although another one is damaged as well, and no
        # search gives a page that does not count, whether the Milvus store still holds it or not.
        version = store.remove(doc_id, _author(author))
    print_plain([f"{doc_id}: removed as version {version.number}"])


def history(doc_id: PageArgument, home: HomeOption = None) -> None:
    """Show the versions of a page of the plant: what was done, when, by whom, and the page's hash."""
    for version in _known(settings(home=home), doc_id).history(doc_id):
        print_plain([_line(version)])


def rollback(
    doc_id: PageArgument,
    number: Annotated[int, typer.Argument(metavar="VERSION", help="The version that shall count again.")],
    author: AuthorOption = None,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Make an earlier version of a page count again, as a new version."""
    loaded = settings(profile=profile, home=home)
    store = _known(loaded, doc_id)
    with store.locked():
        _refuse_open_bases(loaded)
        version = store.rollback(doc_id, number, _author(author)).version
        _put_into_effect(loaded, store, version)
    print_plain([f"{doc_id}: version {version.number} is version {number} again"])


def verify(profile: ProfileOption = None, home: HomeOption = None) -> None:
    """Check every page, picture, hash, link and vector, on disk and in the Milvus store."""
    loaded = settings(profile=profile, home=home)
    from ..tools.backbones import load_backbone
    from ..tools.knowledge.verification import verify_knowledge

    backbone = load_backbone(loaded.settings.backbone, loaded)
    found = verify_knowledge(loaded.home.knowledge, backbone, milvus=loaded.settings.store == "milvus")
    print_plain([", ".join(f"{number} {what}" for what, number in found.counts.items())])
    print_plain([f" {note}" for note in found.notes])
    print_plain([f" FAULT {problem}" for problem in found.problems])
    if found.problems:
        raise KnowledgeError(f"the knowledge base has {len(found.problems)} faults, listed above.")
    print_line("no faults")


def register(app: typer.Typer) -> None:
    """Add the commands to ``kb``."""
    for command in (add, remove, history, rollback, verify):
        app.command(command.__name__)(command)


def _store(loaded: LoadedSettings) -> PlantStore:
    from ..tools.knowledge.plant import FOLDER, PlantStore

    return PlantStore(loaded.home.knowledge / FOLDER)


def _known(loaded: LoadedSettings, doc_id: str) -> PlantStore:
    """The store, when it has such a page.

    Raises:
        KnowledgeError: it has none, or only Flawscope ships one.
    """
    from ..tools.knowledge.builder import shipped_documents

    store = _store(loaded)
    if doc_id in store.all_ids():
        return store
    if doc_id in {page.doc_id for page in shipped_documents()}:
        raise KnowledgeError(f"{doc_id!r} is shipped with Flawscope: it has no history here and cannot be removed.")
    raise KnowledgeError(f"the plant has no page {doc_id!r}.", hint=store.suggestion(doc_id))


def _refuse_open_bases(loaded: LoadedSettings) -> None:
    """Before anything is written: an inspection that is running would not see it, and its store could not be told."""
    if loaded.settings.store != "milvus":
        return
    from ..tools.knowledge.milvus import refuse_foreign_owner

    for database in loaded.home.knowledge.glob("*/kb.db"):
        refuse_foreign_owner(database)


def _refuse_twin(store: PlantStore, picture: LoadedImage) -> None:
    from ..tools.imaging import load_image
    from ..tools.knowledge.twins import MAX_DISTANCE_BITS, are_twins, fingerprint, hamming

    mine = fingerprint(picture.rgb)
    for document in store.current():
        version = document.version
        same = version.picture_sha256 == picture.sha256
        if not same and hamming(int(version.picture_hash, 16), mine.bits) <= MAX_DISTANCE_BITS:
            same = are_twins(fingerprint(load_image(store.picture(document)).rgb), mine)
        if same:
            raise KnowledgeError(
                f"the picture is there already, as {version.doc_id}.",
                hint=f"See it: flawscope kb history {version.doc_id}",
            )


def _put_into_effect(loaded: LoadedSettings, store: PlantStore, written: Version) -> None:
    """Embed what changed and bring the Milvus store along; what cannot take effect is taken back."""
    from ..agent.terminal import ProgressBar
    from ..tools.backbones import load_backbone
    from ..tools.knowledge.builder import open_knowledge_base

    try:
        with ProgressBar(make_console(stderr=True)) as progress:
            backbone = load_backbone(loaded.settings.backbone, loaded)
            open_knowledge_base(loaded.home.knowledge, backbone, store=loaded.settings.store, progress=progress).close()
    except FlawscopeError:
        store.retract(written)
        raise


def _box(text: str, picture: LoadedImage) -> tuple[int, int, int, int]:
    """A box given as four numbers.

    Raises:
        ConfigError: it is something else, empty or outside the picture.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() and len(part) < 8 for part in parts):
        raise ConfigError(f"--box takes four numbers such as 10,20,60,90, not {text!r}.")
    x0, y0, x1, y1 = map(int, parts)
    width, height = picture.meta.orig_size_px
    if not (x0 < x1 <= width and y0 < y1 <= height):
        raise ConfigError(f"--box {text} is no box in a picture of {width} x {height} px.", hint="x0 < x1, y0 < y1.")
    return x0, y0, x1, y1


def _bytes(picture: Path, seen: LoadedImage) -> bytes:
    """The file that was looked at.

    Raises:
        KnowledgeError: it has changed since.
    """
    import hashlib

    blob = picture.read_bytes()
    if hashlib.sha256(blob).hexdigest() != seen.sha256:
        raise KnowledgeError(f"{picture.name} changed while it was read.", hint="Try again.")
    return blob


def _suffix(picture: Path) -> str:
    suffix = picture.suffix.lower()
    return suffix if suffix[1:].isalnum() and suffix.isascii() and len(suffix) <= 6 else ".img"


def _author(given: str | None) -> str:
    import getpass

    if given is not None:
        return given
    try:
        return getpass.getuser()
    except (KeyError, ImportError, OSError):  # a user without a name, as in some containers
        return "unknown"


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat(timespec="seconds")


def _added(page: PlantPage) -> list[str]:
    where = f", box {list(page.box)}" if page.box else ""
    lines = [f"{page.doc_id}: added for {page.product}, type {page.defect_type}{where}"]
    if page.likely_causes:
        lines.append(f" cause: {'; '.join(page.likely_causes)}")
    if page.action:
        lines.append(f" action: {page.action}")
    return lines


def _line(version: Version) -> str:
    return f"{version.number} {version.action} {version.time} by {version.author} {version.page_sha256[:12]}".rstrip()
