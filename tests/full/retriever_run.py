"""Two tiny products whose labels have pages, and a training run on them that a process of its own can start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from fakes import PatchStatistics, texture, with_square
from PIL import Image

from flawscope.benchmarks.datasets import open_dataset
from flawscope.tools.knowledge.schema import KnowledgeDocument, load_documents
from flawscope.training.loop import LoopConfig
from flawscope.training.retriever import RetrieverConfig, train_retriever
from flawscope.training.retriever_pairs import Source

COLOURS = {
    "leather/cut": (230, 40, 40),
    "leather/glue": (40, 60, 235),
    "wood/hole": (30, 200, 40),
    "wood/scratch": (0, 0, 0),
}
KNOWN = {"leather.cut", "leather.glue", "leather.good", "wood.hole", "wood.scratch"}
KNOWN |= {"general.cut", "general.glue_residue", "general.hole", "general.scratch"}
PAGES: tuple[KnowledgeDocument, ...] = tuple(page for page in load_documents() if page.doc_id in KNOWN)


def write_products(root: Path) -> Path:
    """Two products of two labels with five pictures each, squares of one colour a label; one good picture."""
    for number, (place, colour) in enumerate(COLOURS.items()):
        product, label = place.split("/")
        folder = root / product / "test" / label
        folder.mkdir(parents=True)
        for n in range(5):
            rgb = with_square(texture(10 * number + n), 20 + 6 * n, 30, colour=colour)
            Image.fromarray(np.asarray(rgb)).save(folder / f"{n}.png", compress_level=1)
        good = root / product / "test" / "good"
        good.mkdir(exist_ok=True)
        Image.fromarray(texture(90 + number)).save(good / "0.png", compress_level=1)
    return root


def config(epochs: int = 6, seed: int = 0) -> RetrieverConfig:
    loop = LoopConfig(epochs=epochs, batch=8, learning_rate=1e-2, seed=seed, patience=0, checkpoint_every=1)
    return RetrieverConfig(hidden=8, loop=loop)


def sources(data: Path) -> list[Source]:
    dataset = open_dataset(data)
    return [Source(dataset, product, "MIT") for product in dataset.products]


def run(data: Path, out: Path, steps: Any = None, *, resume: bool = False, **options: Any) -> dict[str, Any]:
    """Train; ``steps.value`` counts what was reported, over all trainings."""

    def report(what: str, done: int, total: int) -> None:
        if steps is not None:
            steps.value += 1

    cache = out.parent / "cache"
    return train_retriever(
        sources(data), PAGES, PatchStatistics(), out, cache, config(**options), resume=resume, report=report
    )
