"""``train mini``: the laboratory animal that vision-language paths are tried with."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from .shared import HomeOption, ProfileOption, make_console, print_plain, settings
from .train_data import require_torch, require_transformers


def train_mini(
    data: Annotated[Path, typer.Option("--data", help="Folder of labelled products.")],
    hold_out: Annotated[
        list[str] | None, typer.Option("--hold-out", help="Product that it is judged by (default: magnetic_tile).")
    ] = None,
    leave_out: Annotated[
        list[str] | None,
        typer.Option("--leave-out", help="Product of which nothing is seen (default: those that it is tested on)."),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Of the optimiser, fewer for trying.")] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0.1, help="End after so long, however many steps that are.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of weights, cases and pictures.")] = 0,
    workers: Annotated[int, typer.Option("--workers", min=1, max=16, help="Processes, one core each.")] = 2,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the checkpoint.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Train the checkpoint of --profile mini on a CPU: a laboratory animal that reads evidence and hardly sees."""
    loaded = settings(profile=profile, home=home)
    require_transformers()
    require_torch()
    from ..agent.terminal import ProgressBar
    from ..training import mini
    from ..training.mini_schedule import MiniConfig

    config = MiniConfig(minutes=minutes, seed=seed, workers=workers)
    if steps is not None:
        config = dataclasses.replace(config, steps=steps)
    sources = mini.sources_of(
        data,
        list(mini.HOLD_OUT) if hold_out is None else hold_out,
        list(mini.LEAVE_OUT) if leave_out is None else leave_out,
    )
    folder = out or loaded.home.models / "mini"
    gathered = settings(profile="embedded", home=loaded.home.root / "cache" / "mini")
    with ProgressBar(make_console(stderr=True)) as report:
        card = mini.train_mini(sources, gathered, folder, config, resume=resume, report=report)
    print_plain([f"{folder}, described in {folder / 'README.md'}"])
    for name, found in card["measured"].items():
        if found["accuracy"] is not None:
            print_plain([f" {name}: {100 * found['accuracy']:.1f} percent of the held-out questions"])
