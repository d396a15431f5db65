"""``kb build``: attach pictures from the user's own data sets to the shipped pages, and build the base."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..agent.errors import ConfigError
from .kb_shared import leak_guard, plant_store, put_into_effect, refuse_open_bases
from .shared import HomeOption, ProfileOption, make_console, print_plain, settings

if TYPE_CHECKING:
    from ..agent.settings import LoadedSettings
    from ..benchmarks.datasets import Dataset
    from ..tools.knowledge.attaching import AttachReport, Candidate

LICENCES = {
    "mvtec": "CC BY-NC-SA 4.0",
    "mvtec-loco": "CC BY-NC-SA 4.0",
    "visa": "CC BY 4.0",
}
"""As their publishers state them."""
_EXAMPLES = 6
"""Names in a line of the report; the rest is counted."""


def register(app: typer.Typer) -> None:
    """Add the command to ``kb``."""
    app.command("build")(build)


def build(
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", metavar="NAME=DIR", help="Data set whose pictures to attach; may be repeated."),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Pictures a page at most (default: 2).")] = None,
    drop: Annotated[
        list[str] | None, typer.Option("--drop", metavar="NAME", help="Take this data set's pictures away again.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the pages with pictures, as PNG.")] = None,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Attach pictures of your own data sets to the shipped pages, which may not bring them, and build the base."""
    loaded = settings(profile=profile, home=home)
    named = _parse(dataset or [])
    from ..agent.terminal import ProgressBar
    from ..tools.knowledge.attaching import DEFAULT_LIMIT, drop_dataset
    from ..tools.knowledge.attachments import FOLDER

    folder = loaded.home.knowledge / FOLDER
    opened = {name: [_open(name, root) for root in roots] for name, roots in named.items()}
    store = plant_store(loaded)
    with store.locked():
        refuse_open_bases(loaded)
        for name in drop or []:
            print_plain([f"{name}: {drop_dataset(folder, name)} pictures taken away"])
        for name, datasets in opened.items():
            with ProgressBar(make_console(stderr=True)) as progress:
                report = _attach(loaded, folder, name, datasets, limit or DEFAULT_LIMIT, progress)
            print_plain(_describe(name, report))
        put_into_effect(loaded, store, [])
    if out is not None:
        print_plain([f"{out}: {_draw(folder, out)} pages drawn"])


def _parse(given: list[str]) -> dict[str, list[Path]]:
    """Folders by name.

    Raises:
        ConfigError: something is not NAME=DIR.
    """
    named: dict[str, list[Path]] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not equals or not name.strip() or not folder.strip():
            raise ConfigError(f"--dataset takes NAME=DIR, not {text!r}.", hint="Such as mvtec=~/data/mvtec_ad.")
        named.setdefault(name.strip(), []).append(Path(folder.strip()).expanduser())
    return named


def _open(name: str, root: Path) -> Dataset:
    """A known name must hold what that data set has; any other name is only what its pictures are filed under."""
    from ..benchmarks.datasets import DATASETS, canonical_name, open_dataset

    known = canonical_name(name)
    return open_dataset(root, known if known in DATASETS else None)


def _attach(
    loaded: LoadedSettings,
    folder: Path,
    name: str,
    datasets: list[Dataset],
    limit: int,
    progress: Callable[[str, int, int], None],
) -> AttachReport:
    from ..tools.knowledge.attaching import attach
    from ..tools.knowledge.builder import shipped_documents

    return attach(
        folder,
        (candidate for dataset in datasets for candidate in _candidates(dataset)),
        shipped_documents(),
        dataset=name,
        licence=_licence(name, datasets[0]),
        limit=limit,
        is_protected=_guard(loaded),
        progress=progress,
    )


def _candidates(dataset: Dataset) -> Iterator[Candidate]:
    from ..benchmarks.datasets.examples import examples
    from ..tools.knowledge.attaching import Candidate

    for product in dataset.products:
        for found in examples(dataset, product):
            source = found.path.relative_to(dataset.root)
            if not source.parts[:-1] or source.parts[0] != product.name:  # the folder given was the product's own
                source = Path(dataset.root.name, source)
            yield Candidate(
                found.path,
                source.as_posix(),
                product.name,
                found.label,
                found.names,
                found.is_test,
                found.mask_paths,
                found.mask,
            )


def _licence(name: str, dataset: Dataset) -> str:
    from ..benchmarks.datasets import canonical_name
    from ..training.card import NOT_STATED, licence_of

    stated = licence_of(dataset.root)
    known = LICENCES.get(canonical_name(name)) or LICENCES.get(dataset.name or "")
    return known or (stated if stated != NOT_STATED else "not stated: for your own use only")


def _guard(loaded: LoadedSettings) -> Callable[[Path], bool] | None:
    """Whether a picture is one of a guarded test split; None when nothing is guarded."""
    from ..tools.imaging import load_image

    guard = leak_guard(loaded)
    if not guard.sets():
        return None

    def is_protected(path: Path) -> bool:
        picture = load_image(path, max_pixels=loaded.settings.max_pixels)
        return guard.find(picture.sha256, picture.rgb) is not None

    return is_protected


def _describe(name: str, report: AttachReport) -> list[str]:
    """What matched and what did not; what begins with a blank is indented."""
    pictures = sum(report.attached.values())
    lines = [
        f"{name}: {pictures} pictures on {len(report.attached)} pages, {report.made} of them new, "
        f"{report.removed} taken away"
    ]
    if report.test_pictures:
        lines.append(
            f" {report.test_pictures} are test pictures of the data set: flawscope bench leaves them out from now on"
        )
    for what, found in (
        ("no pages of the product", report.unknown_products),
        ("no page of the label", report.unknown_labels),
        ("several pages share the label", report.ambiguous),
    ):
        if found:
            lines.append(f" {what}: {_some([f'{key} ({count} pictures)' for key, count in found.items()])}")
    for what, names in (
        ("left for tests, being the only one", report.too_few),
        ("left for tests, being guarded", report.protected),
        ("there already", report.twins),
        ("not readable", report.unread),
        ("were damaged and taken away", report.damaged),
        ("pages of these products without a picture", report.without),
    ):
        if names:
            lines.append(f" {what}: {_some(names)}")
    return lines


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - _EXAMPLES} more" if len(names) > _EXAMPLES else ""
    return ", ".join(names[:_EXAMPLES]) + rest


def _draw(folder: Path, out: Path) -> int:
    from ..agent.terminal import ProgressBar
    from ..tools.knowledge.attachments import shown
    from ..tools.knowledge.builder import shipped_documents
    from ..tools.knowledge.pages import save_pages

    pictures = shown(folder)
    pages = [page for page in shipped_documents() if page.doc_id in pictures]
    with ProgressBar(make_console(stderr=True)) as progress:
        for done, page in enumerate(pages):
            progress("drawing pages", done, len(pages))
            save_pages(page, out, pictures[page.doc_id])
    return len(pages)
