"""``bench ablation`` and ``bench efficiency``: what each module is worth to a vision-language model, and its cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .bench_mmad import (
    LimitOption,
    OutOption,
    ProductsOption,
    ReasonerOption,
    SetOption,
    TasksOption,
    WeightsOption,
    names,
    tell_result,
)
from .shared import ProfileOption, make_console, print_line, settings, status

WorkshopOption = Annotated[
    Path, typer.Option("--workshop", help="Home of its own for the set's products and pages; kept and used again.")
]
TokensOption = Annotated[
    Path | None, typer.Option("--prior-tokens", help="tokens.safetensors of train tokens, for A6.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to ``bench``."""
    app.command("ablation")(bench_ablation)
    app.command("efficiency")(bench_efficiency)


def bench_ablation(
    data: SetOption,
    workshop: WorkshopOption,
    profile: ProfileOption = None,
    model: ReasonerOption = None,
    weights: WeightsOption = None,
    prior_tokens: TokensOption = None,
    arms: Annotated[str | None, typer.Option("--arms", help="Only these rows, such as A0,A5,A8.")] = None,
    steps: Annotated[int, typer.Option("--steps", min=0, help="Of latent reasoning at most.")] = 8,
    min_mass: Annotated[
        float,
        typer.Option("--min-mass", help="Share of the probability on the options that latent reasoning asks for."),
    ] = 0.9,
    stress: Annotated[
        int, typer.Option("--stress", min=0, help="Pictures of each product to ask about with false evidence.")
    ] = 0,
    goods: Annotated[
        int,
        typer.Option("--goods", min=0, help="Good references of each product to ask about, in both orders."),
    ] = 0,
    products: ProductsOption = None,
    tasks: TasksOption = None,
    limit: LimitOption = None,
    out: OutOption = None,
) -> None:
    """The ladder A0 to A9 with its controls, each row against the one before, on a set in MMAD's layout."""
    from ..agent.terminal import ProgressBar
    from ..agent.vision_language.latent import LatentSettings
    from ..agent.vision_language.loading import load_model, weights_identity
    from ..benchmarks.ablation import run_ablation
    from ..benchmarks.ablation_tables import render

    errors = make_console(stderr=True)
    with status(errors, hidden=False) as say:
        say("loading the model")
        model_settings = settings(profile=profile, reasoner=model, vlm_weights=weights)
        found = load_model(model_settings)
    loaded = settings(profile=profile, reasoner="evidence", prior_tokens=prior_tokens, home=workshop)
    with ProgressBar(errors) as progress:
        result = run_ablation(
            data,
            found,
            loaded,
            arms=names(arms),
            products=names(products),
            tasks=names(tasks),
            limit=limit,
            stress=stress,
            goods=goods,
            latent=LatentSettings(steps=steps, min_mass=min_mass),
            weights=weights_identity(model_settings),
            out=out,
            progress=progress,
        )
    tell_result(render(result), out)


def bench_efficiency(
    data: SetOption,
    workshop: WorkshopOption,
    profile: ProfileOption = None,
    model: ReasonerOption = None,
    weights: WeightsOption = None,
    prior_tokens: TokensOption = None,
    pictures: Annotated[int, typer.Option("--pictures", min=1, help="Asked about in each setting.")] = 20,
) -> None:
    """Latency and peak memory of the model with and without each module, beside what ADSeeker reports."""
    from ..agent.terminal import ProgressBar
    from ..benchmarks.efficiency import render, run_efficiency

    flags = {"profile": profile, "reasoner": model, "vlm_weights": weights, "prior_tokens": prior_tokens}
    given = {name: value for name, value in flags.items() if value is not None}
    with ProgressBar(make_console(stderr=True)) as progress:
        result = run_efficiency(data, workshop, given, pictures, progress)
    print_line(render(result))
