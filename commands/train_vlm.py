"""``train tokens`` and ``train lora``: what is learnt beside, or in, a vision-language model."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .shared import HomeOption, ProfileOption, make_console, print_plain, settings
from .train_data import refuse_trained_head, require_torch, require_transformers, split_sources

if TYPE_CHECKING:
    from ..agent.settings import LoadedSettings
    from ..agent.vision_language.qwen import QwenModel

DataOption = Annotated[list[Path], typer.Option("--data", help="Folder of a data set with defects; may be repeated.")]
HoldOutOption = Annotated[
    list[str] | None, typer.Option("--hold-out", help="Product that only decides when to stop; may be repeated.")
]
WeightsOption = Annotated[
    Path | None, typer.Option("--weights", help="Folder of the Qwen2.5-VL checkpoint (default: the profile's).")
]
LicenceOption = Annotated[
    str | None, typer.Option("--licence", help="Licence of the pictures, for the card, where no file states it.")
]
OutOption = Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the results.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")]


def train_tokens(
    data: DataOption,
    weights: WeightsOption = None,
    hold_out: HoldOutOption = None,
    backbone: Annotated[str | None, typer.Option("--backbone", help="Backbone (default: the profile's).")] = None,
    epochs: Annotated[int, typer.Option("--epochs", min=1, max=2, help="At most so many.")] = 2,
    learning_rate: Annotated[float, typer.Option("--learning-rate", min=1e-7, help="At its peak.")] = 1e-4,
    pictures: Annotated[int, typer.Option("--pictures", min=1, help="Labelled pictures a product at most.")] = 120,
    seed: Annotated[int, typer.Option("--seed", help="Of weights, order and questions.")] = 0,
    licence: LicenceOption = None,
    out: OutOption = None,
    resume: ResumeOption = False,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Train prior tokens: the expert's evidence as vectors for a language model, which stays as it is."""
    loaded = settings(profile=profile, home=home, backbone=backbone, vlm_weights=weights)
    refuse_trained_head(loaded)
    require_torch()
    require_transformers()
    sources, held_out = split_sources(data, hold_out or [], licence)
    from dataclasses import replace

    from ..agent.terminal import ProgressBar
    from ..agent.vision_language.prior import TOKENS_FILE
    from ..tools.backbones import load_backbone
    from ..tools.knowledge.builder import shipped_documents
    from ..training import tokens

    model = local_model(loaded)
    folder = out or loaded.home.models / f"prior-tokens-{model.name}"
    loop = replace(tokens.DEFAULT_LOOP, epochs=epochs, learning_rate=learning_rate, seed=seed)
    with closing(model), ProgressBar(make_console(stderr=True)) as report:
        card = tokens.train_tokens(
            sources,
            held_out,
            load_backbone(loaded.settings.backbone, loaded),
            model,
            shipped_documents(),
            folder,
            loaded.home.root / "cache" / "features",
            tokens.TokensConfig(loop=loop, max_pictures=pictures),
            resume=resume,
            report=report,
        )
    print_plain([f"{folder / TOKENS_FILE}, described in {folder / 'card.md'}", *_metrics(card)])


def train_lora(
    data: DataOption,
    weights: WeightsOption = None,
    hold_out: HoldOutOption = None,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="So many; forgetting grows with them.")] = 5,
    pictures: Annotated[int, typer.Option("--pictures", min=1, help="Labelled pictures a product at most.")] = 120,
    seed: Annotated[int, typer.Option("--seed", help="Of weights, order and questions.")] = 0,
    licence: LicenceOption = None,
    out: OutOption = None,
    resume: ResumeOption = False,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Fine-tune a language model by LoRA, for comparison only: see bench forgetting for what it costs."""
    loaded = settings(profile=profile, home=home, vlm_weights=weights)
    require_torch()
    require_transformers("lora")
    sources, held_out = split_sources(data, hold_out or [], licence)
    from dataclasses import replace

    from ..agent.terminal import ProgressBar
    from ..agent.vision_language.adapter import ADAPTER_FILE
    from ..tools.knowledge.builder import shipped_documents
    from ..training import lora
    from ..training.conversations import question_conversations, write_conversations

    model = local_model(loaded)
    folder = out or loaded.home.models / f"lora-{model.name}"
    run = lora.LoraRun(replace(lora.DEFAULT_LOOP, epochs=epochs, seed=seed), max_pictures=pictures)
    pages = shipped_documents()
    asked, judged_by = (
        list(question_conversations(part, pages, seed=seed, shown=run.shown, max_pictures=run.max_pictures))
        for part in (sources, held_out)
    )
    said = folder / lora.CONVERSATIONS_FILE
    count = write_conversations(said, asked)
    # Closed even when it fails: the adapter is put into the weights in memory, which nobody else may be given.
    with closing(model), ProgressBar(make_console(stderr=True)) as report:
        card = lora.train_lora(sources, held_out, asked, judged_by, model, folder, run, resume=resume, report=report)
    print_plain([f"{count} conversations in {said}"])
    print_plain([f"{folder / ADAPTER_FILE}, described in {folder / 'card.md'}", *_metrics(card)])


def local_model(loaded: LoadedSettings) -> QwenModel:
    """The checkpoint of the settings, in this process.

    Raises:
        WeightsError: it is absent or damaged.
    """
    from ..agent.vision_language.loading import load_model
    from ..agent.vision_language.qwen import QwenModel

    model = load_model(loaded, "qwen_vl")
    assert isinstance(model, QwenModel)  # noqa: S101  # the registry's only local one
    return model


def _metrics(card: dict[str, Any]) -> list[str]:
    return [f" {k}: {v:.4f}" if isinstance(v, float) else f" {k}: {v}" for k, v in card["metrics"].items()]
