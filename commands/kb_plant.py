"""``kb add``, ``remove``, ``history``, ``rollback`` and ``verify``: the pages that a plant writes itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..agent.errors import ConfigError, KnowledgeError
from . import kb_edit, kb_guard, kb_import, kb_snapshot
from .kb_shared import (
    AuthorOption,
    PageArgument,
    bytes_of,
    check_box,
    leak_guard,
    now,
    parse_box,
    plant_store,
    put_into_effect,
    refuse_known_picture,
    refuse_open_bases,
    store_with,
    user_name,
)
from .shared import (
    HomeOption,
    MilvusTokenOption,
    MilvusUriOption,
    ProfileOption,
    complete_product,
    make_console,
    print_line,
    print_plain,
    settings,
)

if TYPE_CHECKING:
    from ..agent.settings import LoadedSettings
    from ..tools.knowledge.plant import PlantStore
    from ..tools.knowledge.plant_page import PlantPage
    from ..tools.knowledge.plant_version import Version


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
    from ..tools.knowledge.plant_page import page_from_note, picture_name, types_in
    from ..tools.knowledge.twins import difference_hash
    from ..tools.product_files import list_products

    loaded_picture = load_image(picture, max_pixels=loaded.settings.max_pixels)
    marked = parse_box(box) if box is not None else None
    if marked is not None:
        check_box(marked, loaded_picture)
    store = plant_store(loaded)
    with store.locked():
        refuse_open_bases(loaded)
        taken = {*store.all_ids(), *(page.doc_id for page in shipped_documents())}
        page = page_from_note(
            note,
            product,
            type_name=defect_type,
            doc_id=doc_id,
            taken=taken,
            author=user_name(author),
            created=now(),
            box=marked,
            picture_name=picture_name(picture),
        )
        if page.doc_id in taken:
            raise KnowledgeError(f"there is a page {page.doc_id!r} already.", hint="Choose another --id.")
        refuse_known_picture(store, leak_guard(loaded), loaded_picture)
        blob = bytes_of(picture, loaded_picture.sha256)
        written = store.add(page, blob, f"{difference_hash(loaded_picture.rgb):016x}").version
        put_into_effect(loaded, store, [written])
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
    store = store_with(loaded, doc_id)
    if not yes and not sys.stdin.isatty():
        raise ConfigError(f"nobody can be asked whether to remove {doc_id!r}.", hint="Add --yes.")
    if not yes and not typer.confirm(f"Remove {doc_id}?"):
        raise typer.Exit(0)
    with store.locked():
        refuse_open_bases(loaded)
        # The bases are not opened: a damaged page must be removable although another one is damaged as well, and no
        # search gives a page that does not count, whether the Milvus store still holds it or not.
        version = store.remove(doc_id, user_name(author))
    print_plain([f"{doc_id}: removed as version {version.number}"])


def history(doc_id: PageArgument, home: HomeOption = None) -> None:
    """Show the versions of a page of the plant: what was done, when, by whom, and the page's hash."""
    for version in store_with(settings(home=home), doc_id).history(doc_id):
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
    store = store_with(loaded, doc_id)
    with store.locked():
        refuse_open_bases(loaded)
        _refuse_old_picture(loaded, store, doc_id, number)
        version = store.rollback(doc_id, number, user_name(author)).version
        put_into_effect(loaded, store, [version])
    print_plain([f"{doc_id}: version {version.number} is version {number} again"])


def verify(
    milvus_uri: MilvusUriOption = None,
    milvus_token: MilvusTokenOption = None,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Check every page, picture, hash, link and vector, on disk and in the Milvus store."""
    loaded = settings(profile=profile, home=home, milvus_uri=milvus_uri, milvus_token=milvus_token)
    from ..tools.backbones import load_backbone
    from ..tools.knowledge.milvus_server import MilvusServer
    from ..tools.knowledge.retriever import configured_retriever
    from ..tools.knowledge.verification import verify_knowledge

    backbone = load_backbone(loaded.settings.backbone, loaded)
    server = MilvusServer.configured(loaded.settings)
    embedded = loaded.settings.store == "milvus"
    projection = configured_retriever(loaded.settings, backbone)
    found = verify_knowledge(loaded.home.knowledge, backbone, milvus=embedded, server=server, projection=projection)
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
    kb_edit.register(app)
    kb_import.register(app)
    kb_guard.register(app)
    kb_snapshot.register(app)


def _refuse_old_picture(loaded: LoadedSettings, store: PlantStore, doc_id: str, number: int) -> None:
    """Refuse to bring back a picture that another page shows by now, or that is guarded by now."""
    from ..tools.imaging import load_image

    for version in store.history(doc_id):
        if version.number == number and version.picture_sha256:
            picture = load_image(store.picture(store.read(version)) or b"", max_pixels=loaded.settings.max_pixels)
            refuse_known_picture(store, leak_guard(loaded), picture, own=doc_id)


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
