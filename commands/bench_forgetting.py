"""``bench forgetting``: what fine-tuning by LoRA costs a vision-language model, epoch by epoch."""

from __future__ import annotations

from typing import Annotated

import typer

from ..agent.errors import InputError
from .shared import HomeOption, ProfileOption, make_console, print_line, settings
from .train_data import refuse_trained_head, require_torch, require_transformers, split_sources
from .train_vlm import DataOption, OutOption, ResumeOption, WeightsOption, local_model


def register(app: typer.Typer) -> None:
    """Add the command to ``bench``."""
    app.command("forgetting")(bench_forgetting)


def bench_forgetting(
    data: DataOption,
    hold_out: Annotated[
        list[str], typer.Option("--hold-out", help="Product that the model is examined on; may be repeated.")
    ],
    learn: Annotated[
        list[str] | None, typer.Option("--learn", help="Only these products are learnt; may be repeated.")
    ] = None,
    weights: WeightsOption = None,
    backbone: Annotated[str | None, typer.Option("--backbone", help="Of the expert (default: the profile's).")] = None,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="So many; the paper has 5, 10 and 20.")] = 20,
    learning_rate: Annotated[float, typer.Option("--learning-rate", min=1e-7, help="At its peak.")] = 2e-4,
    pictures: Annotated[int, typer.Option("--pictures", min=1, help="Labelled pictures a product at most.")] = 30,
    questions: Annotated[int, typer.Option("--questions", min=1, help="Of each exam, at most.")] = 200,
    seed: Annotated[int, typer.Option("--seed", help="Of weights, order and questions.")] = 0,
    out: OutOption = None,
    resume: ResumeOption = False,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """LoRA on some products: accuracy on held-out ones and on general questions after each epoch."""
    loaded = settings(profile=profile, home=home, backbone=backbone, vlm_weights=weights)
    refuse_trained_head(loaded)
    require_torch()
    require_transformers("lora")
    sources, held_out = split_sources(data, hold_out, None)
    if learn:
        unknown = sorted(set(learn) - {source.product.name for source in sources})
        if unknown:
            raise InputError(f"--learn {', '.join(unknown)}: no such product, or it is held out.")
        sources = [source for source in sources if source.product.name in learn]
    from dataclasses import replace

    from ..agent.terminal import ProgressBar
    from ..benchmarks.forgetting import render, run_forgetting
    from ..benchmarks.untouched import untouched_tests
    from ..tools.backbones import load_backbone
    from ..tools.knowledge.builder import shipped_documents
    from ..training.lora import DEFAULT_LOOP, LoraRun

    model = local_model(loaded)
    loop = replace(DEFAULT_LOOP, epochs=epochs, learning_rate=learning_rate, seed=seed)
    with untouched_tests(), ProgressBar(make_console(stderr=True)) as report:
        result = run_forgetting(
            sources,
            held_out,
            load_backbone(loaded.settings.backbone, loaded),
            model,
            shipped_documents(),
            out or loaded.home.root / "bench" / f"forgetting-{model.name}",
            loaded.home.root / "cache" / "features",
            LoraRun(loop, max_pictures=pictures),
            questions=questions,
            resume=resume,
            report=report,
        )
    print_line(render(result))
