"""``models``: the weights the project can use. ``models pull`` is the only command that downloads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..agent.errors import WeightsError
from .shared import HomeOption, make_console, print_line, print_plain, settings

if TYPE_CHECKING:
    from ..tools.weights import FileState, Weights

app = typer.Typer(help="The weights of the models: list, download, verify.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="Name from: flawscope models list.")]


@app.command("list")
def models_list(
    home: HomeOption = None, as_json: Annotated[bool, typer.Option("--json", help="One set a line.")] = False
) -> None:
    """List the weights the project can use: purpose, size, licence, sha256, and whether they are here."""
    from ..tools.weights import CATALOGUE, local_checkpoints

    models = settings(home=home).home.models
    known = {**CATALOGUE, **local_checkpoints(models)}
    rows = [(weights, _presence(weights, models)) for weights in known.values()]
    if as_json:
        import json

        for weights, state in rows:
            files = [{"name": f.name, "url": f.url, "sha256": f.sha256} for f in weights.files]
            row: dict[str, Any] = {"name": weights.name, "here": state, "purpose": weights.purpose}
            row |= {"size_mb": weights.size_mb, "licence": weights.licence, "clip_model": weights.clip_model}
            print_line(json.dumps({**row, "files": files}))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("name", "here", "for", "MB", "licence", "sha256"):
        table.add_column(column, no_wrap=column == "name")  # it is typed after pull, so it must be whole
    for weights, state in rows:
        hashes = [file.sha256 for file in weights.files]
        stated = f"{hashes[0][:12]}…" if hashes[0] else "unknown"
        table.add_row(weights.name, state, weights.purpose, f"{weights.size_mb:,}", weights.licence, stated)
    make_console().print(table)


@app.command("pull")
def models_pull(name: NameArgument, home: HomeOption = None) -> None:
    """Download a set of weights into the state directory and verify it; what is there already is only verified."""
    from ..tools.weights import find_weights, pull

    weights = find_weights(name)
    with _DownloadBar(make_console(stderr=True)) as progress:
        states = pull(weights, settings(home=home).home.models, progress)
    print_plain([_line(state) for state in states])


@app.command("verify")
def models_verify(
    name: Annotated[str | None, typer.Argument(help="Only this set; without it, all that are here.")] = None,
    home: HomeOption = None,
) -> None:
    """Hash the weights that are here and compare with the published sha256. Exit code 9 when one is damaged."""
    from ..tools.weights import CATALOGUE, check_files, find_weights, local_checkpoints

    models = settings(home=home).home.models
    ours = local_checkpoints(models)
    if name is not None:
        chosen = [ours[name] if name in ours else find_weights(name)]
    else:
        chosen = [*CATALOGUE.values(), *ours.values()]
    bad = []
    for weights in chosen:
        if name is None and _presence(weights, models) == "no":
            continue
        states = check_files(weights, models)
        print_plain([_line(state) for state in states])
        bad += [(weights, state) for state in states if state.state in ("damaged", "absent")]
    if bad:
        weights, state = bad[0]
        remedy = "Reinstall flawscope." if weights.shipped else f"Run: flawscope models pull {weights.name}."
        raise WeightsError(f"{state.path} is {state.state}.", hint=remedy)


def _presence(weights: Weights, models: Any) -> str:
    """Whether the files are there, unread: ``shipped``, ``yes``, ``partly`` or ``no``."""
    there = [weights.path(file, models).is_file() for file in weights.files]
    if weights.shipped is not None and all(there):
        return "shipped"
    return "yes" if all(there) else "partly" if any(there) else "no"


def _line(state: FileState) -> str:
    note = {"unverified": " (no published hash to compare with)"}.get(state.state, "")
    return f"{state.state} {state.sha256 or '-'} {state.path}{note}"


class _DownloadBar:
    """A progress bar in bytes on terminals; the object itself is the callback."""

    def __init__(self, console: Any) -> None:
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> _DownloadBar:
        self._bar.start()
        return self

    def __call__(self, name: str, done_bytes: int, total_bytes: int | None) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=total_bytes)
        self._bar.update(self._tasks[name], completed=done_bytes, total=total_bytes)

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()
