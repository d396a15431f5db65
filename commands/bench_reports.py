"""``bench reports``: how usable the reports are that a vision-language model writes inside an inspection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .bench_mmad import ProductsOption, ReasonerOption, WeightsOption, names, tell_result
from .shared import HomeOption, ProfileOption, make_console, settings


def register(app: typer.Typer) -> None:
    """Add the command to ``bench``."""
    app.command("reports")(bench_reports)


def bench_reports(
    data: Annotated[Path, typer.Option("--data", help="Folder of a data set with references and test pictures.")],
    profile: ProfileOption = None,
    model: ReasonerOption = None,
    weights: WeightsOption = None,
    products: ProductsOption = None,
    limit: Annotated[int | None, typer.Option("--limit", min=2, help="Test pictures of each product at most.")] = None,
    examples: Annotated[
        int, typer.Option("--examples", min=0, help="Of each defect type, to learn its name from; never tested.")
    ] = 3,
    seed: Annotated[int, typer.Option("--seed", help="Of the draws of examples and test pictures.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Keep records, result.json and results.md here; a run goes on.")
    ] = None,
    home: HomeOption = None,
) -> None:
    """A model's reports in inspections: usable, decided, rightly, named, beside the reasoner without a model."""
    from ..agent.terminal import ProgressBar
    from ..agent.vision_language.loading import weights_identity
    from ..benchmarks.reports import render, run_reports
    from ..benchmarks.untouched import untouched_tests

    loaded = settings(profile=profile, reasoner=model, vlm_weights=weights, home=home)
    with untouched_tests(), ProgressBar(make_console(stderr=True)) as progress:
        result = run_reports(
            data,
            loaded,
            products=names(products),
            limit=limit,
            examples=examples,
            seed=seed,
            weights=weights_identity(loaded),
            out=out,
            progress=progress,
        )
    tell_result(render(result), out)
