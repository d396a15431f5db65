"""``products plan``: the control plan of a product, with its history."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..agent.errors import ConfigError, InputError
from .shared import HomeOption, complete_product, print_line, settings

if TYPE_CHECKING:
    from ..tools.control_plan.store import PlanStore

app = typer.Typer(help="A product's control plan: set, show, edit, history, rollback.", no_args_is_help=True)

ProductArgument = Annotated[str, typer.Argument(autocompletion=complete_product, help="Name of the product.")]
ByOption = Annotated[str | None, typer.Option("--by", help="Who sets it (default: the user's name).")]
NoteOption = Annotated[str, typer.Option("--note", help="Why, for the history.")]


def _store(home: Path | None) -> PlanStore:
    from ..tools.control_plan.store import PlanStore

    return PlanStore(settings(home=home).home.root / "plans")


def _author(given: str | None) -> str:
    if given:
        return given
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "unknown"


def _edited(text: str) -> str:
    """What a person makes of a text in their editor.

    Raises:
        ConfigError: the editor cannot be started or fails.
    """
    import os
    import shlex
    import subprocess
    import tempfile

    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            subprocess.run([*shlex.split(editor), str(path)], check=True)  # the user's own editor
            return path.read_text(encoding="utf-8")
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise ConfigError(
                f"the editor {editor!r} failed.", hint="Set EDITOR, or use: products plan set."
            ) from error


@app.command("show")
def plan_show(
    product: ProductArgument,
    version: Annotated[int | None, typer.Option("--version", min=1, help="An older one.")] = None,
    home: HomeOption = None,
) -> None:
    """Print the plan as it was written."""
    print_line(_store(home).text(product, version).rstrip("\n"))


@app.command("set")
def plan_set(
    product: ProductArgument,
    file: Annotated[Path, typer.Argument(help="YAML file.")],
    note: NoteOption = "",
    by: ByOption = None,
    home: HomeOption = None,
) -> None:
    """Check a plan and make it the newest version."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not text in UTF-8.") from error
    entry = _store(home).set(product, text, author=_author(by), note=note, name=file.name)
    print_line(f"{product}: control plan, version {entry.version}. What it says of regions holds once enrolled anew.")


@app.command("edit")
def plan_edit(product: ProductArgument, note: NoteOption = "", by: ByOption = None, home: HomeOption = None) -> None:
    """Open the plan in $EDITOR; what is saved is checked and becomes the newest version."""
    store = _store(home)
    text = store.text(product) if store.history(product) else f"products:\n  - product: {product}\n"
    edited = _edited(text)
    if edited == text:
        raise ConfigError("nothing was changed, so the plan stays as it is.")
    entry = store.set(product, edited, author=_author(by), note=note, name="what you saved")
    print_line(f"{product}: control plan, version {entry.version}.")


@app.command("history")
def plan_history(product: ProductArgument, home: HomeOption = None) -> None:
    """List the versions, oldest first."""
    for entry in _store(home).history(product):
        said = " ".join(f"{entry.author}: {entry.note}".split()) if entry.note else entry.author
        print_line(f"{entry.version:>4}  {entry.created}  {entry.sha256[:12]}  {said}")


@app.command("rollback")
def plan_rollback(
    product: ProductArgument,
    version: Annotated[int, typer.Argument(min=1, help="Version that shall hold again.")],
    by: ByOption = None,
    home: HomeOption = None,
) -> None:
    """Make an older version hold again; it becomes the newest, and nothing is lost."""
    entry = _store(home).roll_back(product, version, author=_author(by))
    print_line(f"{product}: control plan, version {entry.version} (as version {version}).")
