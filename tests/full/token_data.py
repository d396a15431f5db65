"""Parts with white squares in one of two corners, pages about them, and one training run on a random checkpoint."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from fakes import PatchStatistics, texture
from PIL import Image

from flawscope.agent.vision_language.checkpoint import load_checkpoint
from flawscope.agent.vision_language.qwen import QwenModel
from flawscope.benchmarks.datasets import open_dataset
from flawscope.tools.knowledge.schema import KnowledgeDocument, load_documents
from flawscope.training.loop import LoopConfig
from flawscope.training.picture_evidence import Source
from flawscope.training.tokens import TokensConfig, train_tokens

NAMES = ("plate", "ring")


def write_parts(root: Path, names: tuple[str, ...] = NAMES) -> Path:
    """Four good references, three good and three defective test pictures of each product, with masks."""
    for number, name in enumerate(names):
        for index in range(7):
            part = "train" if index < 4 else "test"
            _save(texture(100 * number + index), root / name / part / "good" / f"{index}.png")
        for index in range(3):
            picture, mask = texture(100 * number + 50 + index), np.zeros((96, 96), np.uint8)
            top, left = (8, 8) if index % 2 else (60, 60)
            picture[top : top + 28, left : left + 28] = 255
            mask[top : top + 28, left : left + 28] = 255
            _save(picture, root / name / "test" / "hole" / f"{index}.png")
            _save(mask, root / name / "ground_truth" / "hole" / f"{index}_mask.png")
    return root


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=1)


def few_pages() -> tuple[KnowledgeDocument, ...]:
    """Enough for four options of every kind."""
    return tuple(page for page in load_documents() if page.product in ("textile", "transistor", "leather"))


def sources(root: Path, name: str) -> list[Source]:
    dataset = open_dataset(root)
    return [Source(dataset, product, "MIT") for product in dataset.products if product.name == name]


def small_config(epochs: int = 2, learning_rate: float = 3e-3, seed: int = 0, patience: int = 0) -> TokensConfig:
    loop = LoopConfig(
        epochs=epochs,
        batch=4,
        learning_rate=learning_rate,
        warm_up=0.03,
        patience=patience,
        seed=seed,
        checkpoint_every=1,
    )
    return TokensConfig(loop=loop, references=4, shown=0)


def local_model(folder: Path) -> QwenModel:
    return QwenModel(load_checkpoint(folder, device="cpu", max_pixels=4 * 784))


def run(
    data: Path,
    checkpoint: Path,
    out: Path,
    steps: Any = None,
    *,
    until: int | None = None,
    resume: bool = False,
    **config: Any,
) -> Any:
    """Train on ``plate`` while ``ring`` is held out; ``steps.value`` tells how far it is; it stays at ``until``."""

    def report(what: str, done: int, total: int) -> None:
        if steps is not None and what == "training":
            steps.value = done
        while until is not None and what == "training" and done >= until:
            time.sleep(3600)

    return train_tokens(
        sources(data, "plate"),
        sources(data, "ring"),
        PatchStatistics(),
        local_model(checkpoint),
        few_pages(),
        out,
        out.parent / "cache",
        small_config(**config),
        resume=resume,
        report=report,
    )
