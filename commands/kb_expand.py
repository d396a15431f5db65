"""``kb expand``, ``accept`` and ``reject``: a language model drafts what a page leaves open, a person decides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..agent.errors import ConfigError, KnowledgeError
from .kb_shared import (
    AuthorOption,
    PageArgument,
    bytes_of,
    check_box,
    complete_page,
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
from .shared import HomeOption, ProfileOption, complete_product, make_console, print_plain, settings

if TYPE_CHECKING:
    from ..agent.settings import LoadedSettings
    from ..tools.imaging import LoadedImage
    from ..tools.knowledge.drafting import Draft
    from ..tools.knowledge.plant import PlantStore
    from ..tools.knowledge.plant_page import PlantPage

DRAFT_TOKENS = 6000
"""A reasoning model thinks before it writes, and its thoughts count."""
SENT_SIDE_PX = 1024
ReviewerOption = Annotated[str | None, typer.Option("--reviewer", help="Who decides (default: the user's name).")]


@dataclass(frozen=True)
class _Start:
    """A page before its draft, with its picture's file where there is one."""

    page: PlantPage
    version: int
    blob: bytes | None
    picture_hash: str
    picture: LoadedImage | None


def expand(
    doc_id: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="A page of the plant that has gaps.", autocompletion=complete_page),
    ] = None,
    product: Annotated[
        str | None,
        typer.Option("--product", help="For a new page: its product, or general.", autocompletion=complete_product),
    ] = None,
    defect_type: Annotated[str | None, typer.Option("--type", help="For a new page: its defect type.")] = None,
    note: Annotated[str | None, typer.Option("--note", help="What is known already.")] = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="Photo of the defect.")] = None,
    box: Annotated[str | None, typer.Option("--box", metavar="X0,Y0,X1,Y1", help="Where it is, in pixels.")] = None,
    name: Annotated[str | None, typer.Option("--id", help="Name of a new page.")] = None,
    author: AuthorOption = None,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Let the configured language model draft what a page leaves open; it counts once a person accepts it."""
    new = (product, defect_type, note, picture, box, name)
    if (doc_id is None) != (product is not None and defect_type is not None) or (doc_id and any(new)):
        raise ConfigError("name either a page of the plant, or the --product and --type of a new one.")
    if box is not None and picture is None:
        raise ConfigError("--box needs a --picture.")
    loaded = settings(profile=profile, home=home)
    from ..agent.language_model import configured_endpoint

    configured_endpoint(loaded.settings)  # before anything is read: without one nothing can be drafted
    store = plant_store(loaded)
    if doc_id is not None:
        start = _existing(loaded, doc_id)
    else:
        assert product is not None and defect_type is not None  # noqa: S101, PT018  # checked above
        start = _new(loaded, store, product, defect_type, note, picture, box, name, user_name(author))
    from ..tools.knowledge.drafting import gaps, with_draft

    if not gaps(start.page):
        raise KnowledgeError(f"the page {start.page.doc_id} has no gaps.", hint="A person may edit it: kb edit.")
    draft, model = _ask(loaded, store, start)
    page = with_draft(start.page, draft, model)
    with store.locked():
        refuse_open_bases(loaded)
        if (store.history(page.doc_id)[-1].number if page.doc_id in store.all_ids() else 0) != start.version:
            raise KnowledgeError(f"the page {page.doc_id} changed while it was drafted.", hint="Expand it again.")
        if start.version == 0 and start.picture is not None:
            refuse_known_picture(store, leak_guard(loaded), start.picture)
        by = user_name(author)
        written = store.add(page, start.blob, start.picture_hash, action="draft", author=by).version
        put_into_effect(loaded, store, [written])
    print_plain([f"{page.doc_id}: drafted by {page.drafted_by}, not reviewed; version {written.number}", *_words(page)])
    make_console(stderr=True).print(
        f"Nothing of it is quoted until a person accepts it: flawscope kb accept {page.doc_id} --reviewer NAME",
        soft_wrap=True,
    )


def accept(
    doc_id: PageArgument, reviewer: ReviewerOption = None, profile: ProfileOption = None, home: HomeOption = None
) -> None:
    """Answer for a draft: from now on its words are quoted, and the page names who accepted them."""
    loaded = settings(profile=profile, home=home)
    from ..tools.knowledge.drafting import accepted

    store, by = store_with(loaded, doc_id), user_name(reviewer)
    with store.locked():
        refuse_open_bases(loaded)
        start = _existing(loaded, doc_id)
        page = accepted(start.page, by, now())
        written = store.add(page, start.blob, start.picture_hash, action="accept", author=by).version
        put_into_effect(loaded, store, [written])
    print_plain([f"{doc_id}: draft accepted by {by} as version {written.number}", *_words(start.page)])
    if not page.reviewed:
        make_console(stderr=True).print(
            f"The other words are by the same person, so somebody else must review the page: "
            f"flawscope kb edit {doc_id} --reviewed --reviewer NAME",
            soft_wrap=True,
        )


def reject(
    doc_id: PageArgument, reviewer: ReviewerOption = None, profile: ProfileOption = None, home: HomeOption = None
) -> None:
    """Drop a draft: the page is as it was before, or removed when nothing else was in it."""
    loaded = settings(profile=profile, home=home)
    from ..tools.knowledge.drafting import rejected

    store, by = store_with(loaded, doc_id), user_name(reviewer)
    with store.locked():
        refuse_open_bases(loaded)
        start = _existing(loaded, doc_id)
        page = rejected(start.page, _before_drafts(store, doc_id))
        if page is None:
            written = store.remove(doc_id, by)
        else:
            written = store.add(page, start.blob, start.picture_hash, action="reject", author=by).version
            put_into_effect(loaded, store, [written])
    left = "the page held nothing else and is removed" if page is None else "the page is without it"
    print_plain([f"{doc_id}: draft rejected as version {written.number}; {left}"])


def register(app: typer.Typer) -> None:
    """Add the commands to ``kb``."""
    for command in (expand, accept, reject):
        app.command(command.__name__)(command)


def _existing(loaded: LoadedSettings, doc_id: str) -> _Start:
    """A page that counts, as it stands."""
    from ..tools.imaging import load_image

    store = store_with(loaded, doc_id)
    version = store.history(doc_id)[-1]
    document = store.read(version)
    blob = store.picture(document)
    picture = None if blob is None else load_image(blob)
    return _Start(document.page, version.number, blob, version.picture_hash, picture)


def _before_drafts(store: PlantStore, doc_id: str) -> PlantPage | None:
    """The page as it last was without a draft; None when it began with one."""
    for version in reversed(store.history(doc_id)):
        if version.action == "remove":
            return None
        page = store.read(version).page
        if not page.drafted_fields:
            return page
    return None


def _new(
    loaded: LoadedSettings,
    store: PlantStore,
    product: str,
    defect_type: str,
    note: str | None,
    picture: Path | None,
    box: str | None,
    name: str | None,
    author: str,
) -> _Start:
    """A page that does not exist yet."""
    from ..tools.imaging import load_image
    from ..tools.knowledge.builder import shipped_documents
    from ..tools.knowledge.drafting import new_page
    from ..tools.knowledge.plant_page import picture_name
    from ..tools.knowledge.twins import difference_hash

    seen = None if picture is None else load_image(picture, max_pixels=loaded.settings.max_pixels)
    marked = None if box is None else parse_box(box)
    taken = {*store.all_ids(), *(page.doc_id for page in shipped_documents())}
    page = new_page(
        note,
        product,
        type_name=defect_type,
        doc_id=name,
        taken=taken,
        author=author,
        created=now(),
        box=marked,
        picture_name=None if picture is None else picture_name(picture),
    )
    if page.doc_id in taken:
        raise KnowledgeError(f"there is a page {page.doc_id!r} already.", hint="Choose another --id.")
    if seen is None or picture is None:
        return _Start(page, 0, None, "", None)
    if marked is not None:
        check_box(marked, seen)
    refuse_known_picture(store, leak_guard(loaded), seen)  # before it is sent anywhere
    return _Start(page, 0, bytes_of(picture, seen.sha256), f"{difference_hash(seen.rgb):016x}", seen)


def _ask(loaded: LoadedSettings, store: PlantStore, start: _Start) -> tuple[Draft, str]:
    """The model's answer and the model's name."""
    from ..agent.language_model import ChatClient, ChatMessage, ask_for, configured_endpoint, probe
    from ..tools.knowledge.builder import shipped_documents
    from ..tools.knowledge.drafting import Draft, context_pages, question

    endpoint = configured_endpoint(loaded.settings)
    pages = (*shipped_documents(), *(document.page for document in store.current()))
    console = make_console(stderr=True)
    with ChatClient(endpoint) as client:
        can = probe(client)
        console.print(f"{endpoint.base_url}: {can.describe()}", soft_wrap=True, markup=False)
        shown = (_png(start.picture),) if start.picture is not None and can.pictures else ()
        size_px = start.picture.meta.orig_size_px if start.picture is not None and shown else None
        told, asked = question(start.page, context_pages(start.page, pages), picture_size_px=size_px)
        messages = (ChatMessage("system", told), ChatMessage("user", (*shown, asked)))
        found = ask_for(client, messages, Draft, form=can.form, max_tokens=DRAFT_TOKENS)
    return found.value, found.reply.model


def _png(picture: LoadedImage) -> bytes:
    """A picture as it is sent: small enough for any server."""
    import io

    from PIL import Image

    small = Image.fromarray(picture.rgb)
    small.thumbnail((SENT_SIDE_PX, SENT_SIDE_PX))
    file = io.BytesIO()
    small.save(file, format="PNG")
    return file.getvalue()


def _words(page: PlantPage) -> list[str]:
    """A draft's words, a line each, for whoever reviews them."""
    lines = []
    for name in page.drafted_fields:
        value = getattr(page, name)
        said = [value] if isinstance(value, str) else list(value)
        texts = [one if isinstance(one, str) else f"{one.defect_type}: {one.how_to_tell}" for one in said]
        lines += [f" {name.replace('_', ' ')}: {text}" for text in texts]
    return lines
