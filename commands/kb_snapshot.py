"""``kb snapshot`` and ``kb restore``: all that the plant knows in one file, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..agent.errors import ConfigError
from .kb_shared import plant_store, put_into_effect, refuse_open_bases
from .shared import HomeOption, ProfileOption, make_console, print_plain, settings

_KEPT = "snapshots"


def register(app: typer.Typer) -> None:
    """Add the commands to ``kb``."""
    app.command("snapshot")(snapshot)
    app.command("restore")(restore)


def snapshot(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The archive to write (.tar).")],
    replace: Annotated[bool, typer.Option("--replace", help="Replace the file if there is one.")] = False,
    home: HomeOption = None,
) -> None:
    """Write the plant's pages with all versions, and the leak guard, into one archive."""
    loaded = settings(home=home)
    if file.exists() and not replace:
        raise ConfigError(f"{file} exists already.", hint="Add --replace, or choose another name.")
    from ..agent.terminal import ProgressBar
    from ..tools.knowledge.snapshot import write_snapshot

    with plant_store(loaded).locked(), ProgressBar(make_console(stderr=True)) as progress:
        done = write_snapshot(loaded.home.knowledge, file, progress)
    print_plain([f"{file}: {done.pages} pages, {done.files} files, sha256 {done.sha256}"])


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An archive written by kb snapshot.")],
    discard: Annotated[bool, typer.Option("--discard", help="Do not keep the present state as a snapshot.")] = False,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Put the state of a snapshot in the place of the present one, which is kept as a snapshot itself."""
    loaded = settings(profile=profile, home=home)
    from ..agent.terminal import ProgressBar
    from ..tools.knowledge.builder import shipped_documents
    from ..tools.knowledge.snapshot import restore_snapshot

    folder, store = loaded.home.knowledge, plant_store(loaded)
    shipped = {page.doc_id for page in shipped_documents()}
    with store.locked():
        refuse_open_bases(loaded)
        kept = None
        with ProgressBar(make_console(stderr=True)) as progress:
            if store.all_ids() and not discard:
                kept = _free_name(folder / _KEPT)
            done = restore_snapshot(folder, file, keep=kept, shipped=shipped, progress=progress)
        print_plain([f"{file}: {done.pages} pages restored, sha256 {done.sha256}"])
        if kept is not None:
            print_plain([f" the state before is kept: {kept}"])
        put_into_effect(loaded, store, [])


def _free_name(folder: Path) -> Path:
    from datetime import UTC, datetime

    stem = f"before-restore-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    names = (folder / f"{stem}{'' if n == 1 else f'-{n}'}.tar" for n in range(1, 1000))
    return next(path for path in names if not path.exists())
