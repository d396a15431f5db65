"""A tiny data set in the MVTec layout, and training runs on it that can be started in processes of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from fakes import PatchStatistics, texture, with_scratch, with_square
from PIL import Image

from flawscope.benchmarks.datasets import ProductData, load_dataset
from flawscope.tools.ad_expert.expert import ExpertConfig
from flawscope.tools.backbones.clip import load_clip
from flawscope.training.embedded import HeadConfig, train_head
from flawscope.training.loop import LoopConfig
from flawscope.training.samples import EpisodeConfig
from flawscope.training.zero_shot import PromptConfig, train_prompts

SMALL = ExpertConfig(short_side_px=96, bank_size=100)


def write_products(root: Path, names: tuple[str, ...] = ("plate", "ring")) -> Path:
    """Six good references, three good and four defective tests each, squares with masks and scratches without."""
    for number, name in enumerate(names):
        for index in range(9):
            part = texture(100 * number + index)
            _save(part, root / name / ("train" if index < 6 else "test") / "good" / f"{index}.png")
        for index in range(2):
            part = texture(100 * number + 50 + index)
            mask = np.zeros(part.shape[:2], np.uint8)
            mask[30:54, 40:64] = 255
            _save(with_square(part, 30, 40), root / name / "test" / "hole" / f"{index}.png")
            _save(mask, root / name / "ground_truth" / "hole" / f"{index}_mask.png")
            _save(with_scratch(part), root / name / "test" / "scratch" / f"{index}.png")
    return root


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=1)


def small_config(prompt: str = "none", epochs: int = 4, seed: int = 0, learning_rate: float = 2e-3) -> HeadConfig:
    return HeadConfig(
        hidden=8,
        prompt=prompt,  # type: ignore[arg-type]
        expert=SMALL,
        episodes=EpisodeConfig(shots=(3,), episodes=1, synthetic=1),
        loop=LoopConfig(epochs=epochs, batch=2, seed=seed, learning_rate=learning_rate, checkpoint_every=1, patience=0),
    )


def small_prompts(prompt: str = "none", epochs: int = 2, **loop: Any) -> PromptConfig:
    fit = LoopConfig(epochs=epochs, batch=4, learning_rate=2e-3, weight_decay=0.0, betas=(0.5, 0.999), patience=0)
    return PromptConfig(
        prompt=prompt,  # type: ignore[arg-type]
        loop=replace(fit, **loop),
        max_pictures=2,
        hsp_dim=16,
        hsp_atoms=8,
        n_ctx=4,
    )


def telling(steps: Any) -> Callable[[str, int, int], None]:
    """A report that writes how far the training is into shared memory."""

    def report(what: str, done: int, total: int) -> None:
        if what == "training":
            steps.value = done

    return report


def run(data: Path, out: Path, cache: Path, steps: Any, *, resume: bool = False) -> None:
    """Train on ``plate`` while ``ring`` is held out; ``steps.value`` tells how far it is."""
    plate, ring = (product for product in load_dataset(data, ["plate", "ring"]))
    config = small_config("sparse", epochs=6)
    report = telling(steps)
    train_head([(plate, "MIT")], [(ring, "MIT")], PatchStatistics(), out, cache, config, resume=resume, report=report)


def run_prompts(data: Path, out: Path, clip: Path, steps: Any, *, resume: bool = False) -> None:
    """Train CLIP's prompts on ``plate``; nothing is held out, so the weights after the last step are the result."""
    plate, _ = pair(data)
    backbone = load_clip(clip, "tiny", image_size_px=48, home_models=clip, device="cpu")
    config = small_prompts("sparse", epochs=9, checkpoint_every=1)
    train_prompts([plate], [], backbone, out, config, resume=resume, report=telling(steps))


def pair(root: Path) -> list[tuple[ProductData, str]]:
    return [(product, "MIT") for product in load_dataset(root, ["plate", "ring"])]
