"""``train``: weights of one's own on a frozen backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..agent.errors import ConfigError
from .shared import HomeOption, ProfileOption, make_console, print_plain, settings
from .train_data import labelled_sources, require_torch, split_products
from .train_mini import train_mini
from .train_vlm import train_lora, train_tokens

app = typer.Typer(help="Train weights of your own on a frozen backbone.", no_args_is_help=True)


@app.callback()
def train() -> None:
    """Train weights of your own on a frozen backbone."""


@app.command("expert")
def train_expert(
    data: Annotated[list[Path], typer.Option("--data", help="Folder of products, or of one; may be repeated.")],
    hold_out: Annotated[
        list[str] | None, typer.Option("--hold-out", help="Product that only decides when to stop; may be repeated.")
    ] = None,
    backbone: Annotated[str | None, typer.Option("--backbone", help="efficientnet-lite2 or clip.")] = None,
    prompt: Annotated[
        str, typer.Option("--prompt", help="none, sparse (HSP), dense of the same size; CLIP: lista.")
    ] = "none",
    synthetic_only: Annotated[
        bool, typer.Option("--synthetic-only", help="Learn from made defects on good pictures alone.")
    ] = False,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="At most so many.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of weights, order, references and made defects.")] = 0,
    licence: Annotated[
        str | None, typer.Option("--licence", help="Licence of the pictures, for the card, where no file states it.")
    ] = None,
    precision: Annotated[str, typer.Option("--precision", help="fp32, or bf16 for mixed precision.")] = "fp32",
    device: Annotated[str | None, typer.Option("--device", help="cpu or cuda; by default cuda where it is.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the results.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Train the expert's head (embedded backbone) or its prompts (CLIP) on labelled products and made defects."""
    for name, value, known in (
        ("prompt", prompt, ("none", "sparse", "dense", "lista")),
        ("precision", precision, ("fp32", "bf16")),
    ):
        if value not in known:
            raise ConfigError(f"--{name} takes {', '.join(known)}, not {value!r}.")
    loaded = settings(profile=profile, home=home, backbone=backbone)
    require_torch()
    import torch

    if device is not None and device.split(":")[0] not in ("cpu", "cuda"):
        raise ConfigError(f"--device takes cpu or cuda, not {device!r}.")
    if device is not None and device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError("there is no CUDA device.", hint="Leave --device out.")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    products, held_out = split_products(data, hold_out or [], licence)

    from ..agent.terminal import ProgressBar
    from ..tools.backbones import load_backbone
    from ..training import expert

    name = loaded.settings.backbone
    folder = out or loaded.home.models / f"expert-{name}"
    with ProgressBar(make_console(stderr=True)) as report:
        lines = expert.train_expert(
            products,
            held_out,
            load_backbone(name, loaded),
            folder,
            loaded.home.root / "cache" / "features",
            options=expert.Options(prompt, synthetic_only, epochs, seed, precision),
            resume=resume,
            device=device,
            report=report,
        )
    print_plain(lines)


@app.command("retriever")
def train_retriever(
    data: Annotated[list[Path], typer.Option("--data", help="Folder of a data set with defects; may be repeated.")],
    backbone: Annotated[str | None, typer.Option("--backbone", help="Backbone (default: the profile's).")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Instead of 10.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of weights, order and pairs.")] = 0,
    licence: Annotated[
        str | None, typer.Option("--licence", help="Licence of the pictures, for the card, where no file states it.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the results.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Train projections that bring pictures of one defect type together, and say whether they help unseen products."""
    loaded = settings(profile=profile, home=home, backbone=backbone)
    require_torch()
    from ..agent.terminal import ProgressBar
    from ..tools.backbones import load_backbone
    from ..tools.knowledge.builder import shipped_documents
    from ..training import retriever

    sources = labelled_sources(data, licence)
    name = loaded.settings.backbone
    folder = out or loaded.home.models / f"retriever-{name}"
    config = retriever.with_options(retriever.RetrieverConfig(), epochs=epochs, seed=seed)
    with ProgressBar(make_console(stderr=True)) as report:
        card = retriever.train_retriever(
            sources,
            shipped_documents(),
            load_backbone(name, loaded),
            folder,
            loaded.home.root / "cache" / "parts",
            config,
            resume=resume,
            report=report,
        )
    print_plain([f"{folder / retriever.RETRIEVER_FILE}, described in {folder / 'card.md'}"])
    print_plain([f" {k}: {v:.4f}" if isinstance(v, float) else f" {k}: {v}" for k, v in card["metrics"].items()])
    if not card["unseen"]:
        print_plain([" not measured on products left out: fewer than two have pages"])


app.command("tokens")(train_tokens)
app.command("lora")(train_lora)
app.command("mini")(train_mini)
