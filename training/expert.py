"""Which training belongs to which backbone: a reference head to the embedded one, prompts to CLIP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..agent.errors import ConfigError
from ..benchmarks.datasets import ProductData
from ..tools.backbones import Backbone

Report = Callable[[str, int, int], None]
Products = Sequence[tuple[ProductData, str]]


@dataclass(frozen=True)
class Options:
    """What the user may choose.

    Attributes:
        prompt: ``none``, ``sparse`` or ``dense``; for CLIP also ``lista``.
        synthetic_only: leave labelled test pictures out.
        epochs: at most; None for the default of the backbone's recipe.
        seed: of everything random.
        precision: ``fp32`` or ``bf16``.
    """

    prompt: Any = "none"
    synthetic_only: bool = False
    epochs: int | None = None
    seed: int = 0
    precision: Any = "fp32"


def train_expert(
    products: Products,
    held_out: Products,
    backbone: Backbone,
    folder: Path,
    cache_folder: Path,
    *,
    options: Options,
    resume: bool = False,
    device: str = "cpu",
    report: Report | None = None,
) -> list[str]:
    """Train what belongs to the backbone.

    Args:
        products: to train on, each with its licence as given.
        held_out: they decide when to stop.
        backbone: frozen; with a text tower its prompts are trained, else a reference head.
        folder: of the results.
        cache_folder: of features.
        options: of the user.
        resume: go on with a run that was stopped.
        device: torch device.
        report: told (what, done, in all).

    Returns:
        Lines for the user: files and figures.

    Raises:
        ConfigError: the backbone does not go together with the device, or with learnt iterations (``lista``), which
            are for CLIP.
        InputError: the data cannot be used for this.
        WeightsError: the checkpoint in the folder belongs to another run.
        StorageError: the disk refuses.
    """
    if backbone.has_text:
        from ..tools.backbones.clip import ClipBackbone
        from . import zero_shot

        if not isinstance(backbone, ClipBackbone):
            raise ConfigError(f"prompts are trained for CLIP, not for {backbone.name}.")
        if torch.device(device).type != torch.device(backbone.device).type:
            raise ConfigError(f"CLIP has been loaded on {backbone.device}.", hint="Leave --device out.")
        prompts = zero_shot.PromptConfig(
            prompt=options.prompt, real=not options.synthetic_only, loop=_loop(zero_shot.DEFAULT_LOOP, options)
        )
        card = zero_shot.train_prompts(products, held_out, backbone, folder, prompts, resume=resume, report=report)
        return _lines(folder, zero_shot.PROMPTS_FILE, card)
    from . import embedded

    if options.prompt == "lista":  # the head is used without torch, by NumPy's ISTA
        raise ConfigError("learnt iterations (--prompt lista) are for CLIP.", hint="Give --prompt sparse.")
    head = embedded.HeadConfig(prompt=options.prompt)
    episodes = replace(head.episodes, real=not options.synthetic_only)
    head = replace(head, episodes=episodes, loop=_loop(head.loop, options))
    card = embedded.train_head(
        products, held_out, backbone, folder, cache_folder, head, resume=resume, device=device, report=report
    )
    return _lines(folder, embedded.HEAD_FILE, card)


def _loop(loop: Any, options: Options) -> Any:
    return replace(loop, seed=options.seed, precision=options.precision, epochs=options.epochs or loop.epochs)


def _lines(folder: Path, name: str, card: dict[str, Any]) -> list[str]:
    figures = [
        f"  {key}: {value:.4f}" if isinstance(value, float) else f"  {key}: {value}"
        for key, value in card["metrics"].items()
        if value is not None
    ]
    return [f"{folder / name}, described in {folder / 'card.md'}", *figures]
