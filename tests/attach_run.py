"""Pictures attached to pages in a process of its own, which can be killed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fakes import texture, with_square
from PIL import Image

from flawscope.benchmarks.datasets import open_dataset
from flawscope.benchmarks.datasets.examples import examples
from flawscope.tools.knowledge.attaching import AttachReport, Candidate, attach
from flawscope.tools.knowledge.schema import load_documents

PAGES = tuple(page for page in load_documents() if page.product == "leather")


def candidates(root: Path) -> Iterator[Candidate]:
    """The pictures of a data set as the command lists them."""
    dataset = open_dataset(root)
    for product in dataset.products:
        for e in examples(dataset, product):
            source = e.path.relative_to(dataset.root).as_posix()
            yield Candidate(e.path, source, product.name, e.label, e.names, e.is_test, e.mask_paths, e.mask)


def write_cuts(root: Path, number: int) -> Path:
    """Leather in MVTec's layout with so many cuts, each with its mask."""
    for n in range(number):
        for kind, pixels in (
            ("test/cut", with_square(texture(n), 4 + n % 48, 40)),
            ("ground_truth/cut", np.pad(np.full((16, 16), 255, np.uint8), ((4 + n % 48, 76 - n % 48), (40, 40)))),
        ):
            path = root / "leather" / kind / f"{n:03d}{'_mask' * (kind[0] == 'g')}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, compress_level=1)
    return root


def run_attach(data: Path, folder: Path, steps: Any = None, until: int | None = None) -> AttachReport:
    """Attach up to 24 pictures a page; ``steps.value`` tells how many were looked at; it stays at ``until``."""

    def tell(what: str, done: int, total: int) -> None:
        if steps is not None:
            steps.value = done
        while until is not None and done >= until:
            time.sleep(3600)

    return attach(folder, candidates(data), PAGES, dataset="mvtec", licence="x", limit=24, progress=tell)
