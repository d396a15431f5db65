"""``kb guard``: the test pictures of benchmarks, which no page may hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..agent.errors import InputError, KnowledgeError
from .kb_shared import leak_guard, plant_store
from .shared import HomeOption, make_console, print_plain, settings

if TYPE_CHECKING:
    from ..benchmarks.datasets import Dataset
    from ..tools.knowledge.guard import GuardedSet

_SHOWN = 6

app = typer.Typer(help="Test pictures of benchmarks, refused as knowledge.", no_args_is_help=True)


def register(parent: typer.Typer) -> None:
    """Add the commands to ``kb``."""
    parent.add_typer(app, name="guard")


@app.command("add")
def add(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET_DIR", help="Folder of a data set.")],
    name: Annotated[str | None, typer.Option("--name", help="Name (default: the data set's, or the folder's).")] = None,
    home: HomeOption = None,
) -> None:
    """Learn to recognise a data set's test pictures; kb add, edit and import refuse them from now on."""
    loaded = settings(home=home)
    from ..agent.terminal import ProgressBar
    from ..benchmarks.datasets import leaving_out, open_dataset
    from ..tools.knowledge.attachments import FOLDER, attachments

    with leaving_out(attachments(loaded.home.knowledge / FOLDER)):  # kb build made knowledge of these
        found = open_dataset(dataset)
    pictures = _test_pictures(found)
    if not pictures:
        raise InputError(f"{dataset} has no test pictures.", hint="Give the folder that holds test/ or a split.")
    from ..tools.knowledge.guard import guarded_pages

    guard, store, known_as = leak_guard(loaded), plant_store(loaded), name or found.name or _name_of(found.root)
    with store.locked():
        replaced = [known for known in guard.sets() if known.name == known_as]
        with ProgressBar(make_console(stderr=True)) as progress:
            known = guard.add(known_as, pictures, progress)
        too_late = guarded_pages(guard, store, store.current())
    print_plain([_line(known)])
    if replaced and replaced[0] != known:
        print_plain([f" in place of {replaced[0].pictures} known by this name; --name keeps two sets apart"])
    if too_late:
        raise KnowledgeError(
            f"{len(too_late)} of the plant's pages hold test pictures already: {', '.join(sorted(too_late)[:_SHOWN])}"
            f"{', …' if len(too_late) > _SHOWN else ''}.",
            hint="Remove them (flawscope kb remove ID): results on that data set would mean nothing.",
        )


@app.command("list")
def list_sets(home: HomeOption = None) -> None:
    """List the data sets whose test pictures are refused."""
    sets = leak_guard(settings(home=home)).sets()
    if not sets:
        make_console(stderr=True).print("No data set is guarded. Guard one: flawscope kb guard add FOLDER")
    print_plain([_line(known) for known in sets])


@app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the data set.")], home: HomeOption = None
) -> None:
    """Forget a data set: its test pictures are refused no longer."""
    loaded = settings(home=home)
    with plant_store(loaded).locked():
        leak_guard(loaded).remove(name)
    print_plain([f"{name}: guarded no longer"])


def _test_pictures(dataset: Dataset) -> list[tuple[str, Path]]:
    """Every test picture with its path in the data set."""
    return [
        (picture.path.relative_to(dataset.root).as_posix(), picture.path)
        for product in dataset.products
        for picture in product.tests
    ]


def _name_of(folder: Path) -> str:
    import re

    return re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-") or "dataset"


def _line(known: GuardedSet) -> str:
    return f"{known.name}: {known.pictures} test pictures {known.sha256[:12]}"
