"""``kb edit`` and ``kb diff``: change a page of the plant, and see what a change was."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..agent.errors import ConfigError, KnowledgeError
from .kb_shared import (
    AuthorOption,
    PageArgument,
    bytes_of,
    check_box,
    leak_guard,
    now,
    parse_box,
    put_into_effect,
    refuse_known_picture,
    refuse_open_bases,
    store_with,
    user_name,
)
from .shared import HomeOption, ProfileOption, make_console, print_error, print_line, print_plain, settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..agent.settings import LoadedSettings
    from ..tools.imaging import LoadedImage
    from ..tools.knowledge.plant import PlantDocument, PlantStore
    from ..tools.knowledge.plant_page import PlantPage
    from ..tools.knowledge.plant_version import Version

_DRAFTS = "drafts"


def register(app: typer.Typer) -> None:
    """Add the commands to ``kb``."""
    app.command("edit")(edit)
    app.command("diff")(diff)


def edit(
    doc_id: PageArgument,
    note: Annotated[str | None, typer.Option("--note", help="What is seen, why, what to do.")] = None,
    defect_type: Annotated[str | None, typer.Option("--type", help="Defect type.")] = None,
    box: Annotated[
        str | None, typer.Option("--box", metavar="X0,Y0,X1,Y1", help="Where it is, in pixels; none for anywhere.")
    ] = None,
    title: Annotated[str | None, typer.Option("--title", help="Title.")] = None,
    cause: Annotated[list[str] | None, typer.Option("--cause", help="Likely cause; may be repeated.")] = None,
    action: Annotated[str | None, typer.Option("--action", help="What to do with the part.")] = None,
    severity: Annotated[str | None, typer.Option("--severity", help="As the plant rates it.")] = None,
    reaction_plan: Annotated[str | None, typer.Option("--reaction-plan", help="What to do with the process.")] = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="Another photo.")] = None,
    reviewed: Annotated[
        bool | None, typer.Option("--reviewed/--unreviewed", help="Whether a second person checked the page.")
    ] = None,
    reviewer: Annotated[str | None, typer.Option("--reviewer", help="Who checked it (default: the user).")] = None,
    author: AuthorOption = None,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Change a page of the plant as a new version; without options, in your editor."""
    loaded = settings(profile=profile, home=home)
    store = store_with(loaded, doc_id)
    changes = _changes(note, defect_type, title, cause, action, severity, reaction_plan)
    if reviewer is not None and reviewed is False:
        raise ConfigError("--unreviewed takes no --reviewer.")
    state = True if reviewer is not None else reviewed
    nothing = not changes and box is None and picture is None
    who = user_name(reviewer if author is None and nothing and state else author)  # a review is by its reviewer
    if nothing and state is None:
        _edit_as_text(loaded, store, doc_id, who)
        return

    def change(old: PlantDocument, seen: LoadedImage | None) -> PlantPage:
        from ..tools.knowledge.plant_edit import changed_page, reviewed_page, written_by
        from ..tools.knowledge.plant_page import picture_name

        given = dict(changes)
        if picture is not None:
            given["page_image"] = picture_name(picture)
            given["box"] = None  # it was marked in the old picture
        if box is not None:
            given["box"] = _box(box, old, seen)
        page = changed_page(old.page, given, who)
        if picture is not None and seen is not None and seen.sha256 != old.version.picture_sha256 and page == old.page:
            page = written_by(page, who, page.drafted_fields)
        if state is None:
            return page
        return reviewed_page(page, user_name(reviewer) if state else None, now())

    print_plain(_write(loaded, store, doc_id, who, change, picture))


def diff(
    doc_id: PageArgument,
    first: Annotated[int | None, typer.Argument(metavar="[A]", help="A version (default: the last but one).")] = None,
    second: Annotated[int | None, typer.Argument(metavar="[B]", help="Another (default: the last).")] = None,
    home: HomeOption = None,
) -> None:
    """Show what differs between two versions of a page; pictures by their hashes."""
    store = store_with(settings(home=home), doc_id)
    from ..tools.knowledge.plant_edit import difference

    versions = {version.number: version for version in store.history(doc_id) if version.action != "remove"}
    numbers = sorted(versions)
    for number in (first, second):
        if number is not None and number not in versions:
            raise KnowledgeError(
                f"the page {doc_id!r} has no version {number} with a page in it.",
                hint=f"It has {', '.join(map(str, numbers))}.",
            )
    if first is None and len(numbers) < 2:
        raise KnowledgeError(f"the page {doc_id!r} has one version only: there is nothing to compare.")
    a, b = (numbers[-2] if first is None else first), (numbers[-1] if second is None else second)
    for line in difference(store.read(versions[a]), store.read(versions[b])):
        print_line(line)


def _changes(
    note: str | None,
    defect_type: str | None,
    title: str | None,
    cause: list[str] | None,
    action: str | None,
    severity: str | None,
    reaction_plan: str | None,
) -> dict[str, Any]:
    """What was given, in the order in which it takes effect."""
    from ..tools.knowledge.schema import plain_text

    changes: dict[str, Any] = {"note": note, "type_name": defect_type}
    changes["title"] = None if title is None else plain_text(title)
    changes["likely_causes"] = tuple(filter(None, map(plain_text, cause))) if cause else None
    changes["action"] = None if action is None else plain_text(action)
    changes["reaction_plan"] = None if reaction_plan is None else plain_text(reaction_plan)
    given = {key: value for key, value in changes.items() if value is not None}
    if severity is not None:
        given["severity"] = plain_text(severity) or None
    return given


def _write(
    loaded: LoadedSettings,
    store: PlantStore,
    doc_id: str,
    who: str,
    change: Callable[[PlantDocument, LoadedImage | None], PlantPage],
    picture: Path | None = None,
    based_on: Version | None = None,
) -> list[str]:
    """Keep the changed page as a new version and put it into effect; lines that say what was done."""
    from ..tools.imaging import load_image
    from ..tools.knowledge.twins import difference_hash

    seen = None if picture is None else load_image(picture, max_pixels=loaded.settings.max_pixels)
    with store.locked():
        refuse_open_bases(loaded)
        last = store.history(doc_id)[-1]
        if last.action == "remove":
            raise KnowledgeError(f"the page {doc_id!r} is removed.", hint="Bring it back: flawscope kb rollback")
        if based_on is not None and last != based_on:
            raise KnowledgeError(f"the page {doc_id!r} has become version {last.number} meanwhile.")
        old = store.read(last)
        if seen is not None:
            refuse_known_picture(store, leak_guard(loaded), seen, own=doc_id)
        page = change(old, seen)
        same_picture = seen is None or seen.sha256 == last.picture_sha256
        if page == old.page and same_picture:
            return [f"{doc_id}: nothing changed"]
        blob, bits = store.picture(old), last.picture_hash
        if picture is not None and seen is not None:
            blob, bits = bytes_of(picture, seen.sha256), f"{difference_hash(seen.rgb):016x}"
        written = store.add(page, blob, bits, action="edit", author=who).version
        put_into_effect(loaded, store, [written])
    lines = [f"{doc_id}: edited as version {written.number}"]
    if old.page.box is not None and page.box is None and not same_picture:
        lines.append(" the box belonged to the old picture and is gone")
    if old.page.reviewed and not page.reviewed:
        lines.append(" not checked by a second person yet")
    return lines


def _box(text: str, old: PlantDocument, seen: LoadedImage | None) -> tuple[int, int, int, int] | None:
    from ..tools.imaging import load_image

    if text.strip().lower() in ("", "none"):
        return None
    marked = parse_box(text)
    if seen is None and old.picture is None:
        raise ConfigError("--box needs a picture, and the page has none.", hint="Add one with --picture.")
    check_box(marked, seen or load_image(old.picture or ""))
    return marked


def _edit_as_text(loaded: LoadedSettings, store: PlantStore, doc_id: str, who: str) -> None:
    """Let a person edit the page's text until it is valid; what was typed stays in a file until it is kept."""
    if not sys.stdin.isatty():
        raise ConfigError("nothing to change was given.", hint="Give an option such as --note, or use a terminal.")
    from ..agent.home import write_text_atomically
    from ..tools.knowledge.plant_edit import editable_text

    version = store.history(doc_id)[-1]
    if version.action == "remove":
        raise KnowledgeError(f"the page {doc_id!r} is removed.", hint="Bring it back: flawscope kb rollback")
    old = store.read(version)
    original = editable_text(old)
    draft = loaded.home.knowledge / _DRAFTS / f"{doc_id}.yaml"
    if not draft.exists() or not _resumed(store, draft, version):
        write_text_atomically(draft, original)
    while True:
        try:
            _open_editor(draft)
        except ConfigError:
            if draft.read_text(encoding="utf-8", errors="replace") == original:
                draft.unlink()
            raise
        text = draft.read_text(encoding="utf-8", errors="replace")
        if text == original:
            draft.unlink()
            print_plain([f"{doc_id}: nothing changed"])
            return
        change = partial(_edited, text=text, who=who)
        try:
            lines = _write(loaded, store, doc_id, who, change, based_on=version)
        except (ConfigError, KnowledgeError) as error:
            print_error(str(error))
            if not typer.confirm("Edit it again?", default=True):
                raise KnowledgeError("the edit was not kept.", hint=f"What you typed is in {draft}.") from error
            version = store.history(doc_id)[-1]  # somebody may have changed it meanwhile, and was told of
            continue
        draft.unlink()
        print_plain(lines)
        return


def _resumed(store: PlantStore, draft: Path, version: Version) -> bool:
    """Whether a draft is taken up again; one that nobody changed is not, since it would undo what came after it."""
    from ..tools.knowledge.plant_edit import editable_text, edited_version

    text = draft.read_text(encoding="utf-8", errors="replace")
    began = edited_version(text)
    base = [one for one in store.history(version.doc_id) if one.number == began and one.action != "remove"]
    if began != version.number and base and text == editable_text(store.read(base[0])):
        return False
    tell = "This is what you typed last time, which was not kept."
    if began != version.number:
        since = f"version {began}" if base else "another version"
        tell += f" It began with {since}, and saving it undoes what changed since"
        tell += f": flawscope kb diff {version.doc_id} {began} {version.number}" if base else "."
    make_console(stderr=True).print(tell, markup=False, soft_wrap=True)
    return True


def _edited(old: PlantDocument, seen: LoadedImage | None, text: str, who: str) -> PlantPage:
    from ..tools.imaging import load_image
    from ..tools.knowledge.plant_edit import changed_page, edited_fields

    page = changed_page(old.page, edited_fields(text), who)
    if page.box is not None and page.box != old.page.box:
        if old.picture is None:
            raise ConfigError("a box needs a picture, and the page has none.")
        check_box(page.box, load_image(old.picture))
    return page


def _open_editor(path: Path) -> None:
    """The person's own editor on a file.

    Raises:
        ConfigError: it cannot be started or failed; the file stays.
    """
    import os
    import shlex
    import subprocess

    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ("notepad" if os.name == "nt" else "vi")
    stays = f"Set EDITOR; what you typed stays in {path}."
    try:
        done = subprocess.run([*shlex.split(editor), str(path)], check=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the editor {editor!r} cannot be started.", hint=stays) from error
    if done.returncode:
        raise ConfigError(f"the editor {editor!r} ended with code {done.returncode}.", hint=stays)
