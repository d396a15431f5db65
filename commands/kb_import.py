"""``kb import``: pages from a folder of photos, a table or a control plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..agent.errors import KnowledgeError
from .kb_shared import (
    AuthorOption,
    leak_guard,
    now,
    pictures_of,
    plant_store,
    put_into_effect,
    refuse_open_bases,
    user_name,
)
from .shared import HomeOption, ProfileOption, complete_product, make_console, print_line, print_plain, settings

if TYPE_CHECKING:
    from ..tools.knowledge.plant_import import ImportPlan

_SHOWN = 100


def register(app: typer.Typer) -> None:
    """Add the command to ``kb``."""
    app.command("import")(import_pages)


def import_pages(
    source: Annotated[
        Path, typer.Argument(metavar="PATH", help="Folder of photos with notes, .csv table, or .yaml control plan.")
    ],
    product: Annotated[
        str | None,
        typer.Option("--product", help="Product of what names none.", autocompletion=complete_product),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace also pages that were edited since their import.")
    ] = False,
    author: AuthorOption = None,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Add pages from a folder, a table or a control plan; what is there unchanged is left alone."""
    loaded = settings(profile=profile, home=home)
    from ..agent.terminal import ProgressBar
    from ..tools.knowledge.builder import shipped_documents
    from ..tools.knowledge.import_sources import read_source
    from ..tools.knowledge.plant_import import Importer, write_pages

    who, store = user_name(author), plant_store(loaded)
    found = read_source(source, product)
    for note in found.notes:
        make_console(stderr=True).print(f"{found.name}: {note}", soft_wrap=True, markup=False)

    def planned() -> ImportPlan:
        importer = Importer(
            store,
            leak_guard(loaded),
            pictures_of(store),
            shipped={page.doc_id for page in shipped_documents()},
            author=who,
            created=now(),
            overwrite=overwrite,
            max_pixels=loaded.settings.max_pixels,
        )
        with ProgressBar(make_console(stderr=True)) as progress:
            return importer.plan(found, progress)

    if dry_run:
        plan = planned()
    else:
        with store.locked():
            refuse_open_bases(loaded)
            plan = planned()
            with ProgressBar(make_console(stderr=True)) as progress:
                written = write_pages(plan, store, who, progress)
            if written:
                put_into_effect(loaded, store, written)
    _tell(plan, found.name, dry_run=dry_run)


def _tell(plan: ImportPlan, name: str, *, dry_run: bool) -> None:
    """What was done, what was refused, and an exit code that says whether anything was."""
    print_plain([f" REFUSED {line}" for line in plan.refused[:_SHOWN]])
    if len(plan.refused) > _SHOWN:
        print_line(f" REFUSED {len(plan.refused) - _SHOWN} more")
    done = f"{plan.count('new')} new, {plan.count('changed')} changed, {plan.unchanged} unchanged"
    print_plain([f"{name}: {done}, {len(plan.refused)} refused{' (dry run, nothing was written)' if dry_run else ''}"])
    if plan.refused:
        raise KnowledgeError(f"{len(plan.refused)} of the rows were refused, listed above.")
