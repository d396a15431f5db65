"""Labelled pictures with the evidence that an inspection gathers about each, for training and measuring the mini."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..agent.settings import LoadedSettings
from ..benchmarks.datasets import open_dataset
from ..benchmarks.mmad.evidence import MODES, EvidenceSource
from ..benchmarks.mmad.making import Plan, make_questions
from ..benchmarks.mmad.questions import Item, load_items
from ..benchmarks.mmad.workshop import open_workshop
from ..tools.knowledge.schema import KnowledgeDocument
from .mini_data import RealCase
from .questions import PictureSubject, picture_subjects

Progress = Callable[[str, int, int], None]
EXAMPLES = 2
"""Pictures of each type that are set aside as the product's examples."""


def real_cases(
    data: Path,
    products: Sequence[str],
    loaded: LoadedSettings,
    pages: Sequence[KnowledgeDocument],
    *,
    seed: int = 0,
    limit: tuple[int, int] = (40, 20),
    progress: Progress | None = None,
) -> dict[str, list[RealCase]]:
    """Gather evidence about the pictures of some products, each enrolled by its good pictures.

    What was gathered is kept in the home of the settings, so that a second call is quick.

    Args:
        data: labelled data set.
        products: of it; no other is looked at.
        loaded: settings whose home is for this alone.
        pages: of the knowledge base.
        seed: of the choice of pictures.
        limit: good pictures of a product, and defective ones of each type, at most.
        progress: told (what, done, all).

    Returns:
        Cases by product, in the order of the pictures.

    Raises:
        InputError: the data or a picture cannot be read.
    """
    root = loaded.home.root / "set"
    plan = Plan(tuple(products), "mini", limit[0], limit[1], EXAMPLES, seed)
    if not root.exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        make_questions(data, root, plan, pages)
    items = load_items(root)
    source = EvidenceSource(open_workshop(loaded, items, progress), root)
    known = _subjects(data, products, pages)
    by_image: dict[str, Item] = {}
    for item in items.items:
        by_image.setdefault(item.image, item)
    cases: dict[str, list[RealCase]] = {name: [] for name in products}
    for done, (image, item) in enumerate(by_image.items()):
        path = Path(image)
        found = known.get((item.product, path.parent.name, path.name))
        if found is None:
            continue
        evidence = source.of(item)
        cases[item.product].append(
            RealCase(
                subject=found.subject,
                picture=str(root / image),
                references=tuple(str(root / name) for name in item.templates("similar", 1)),
                prior=evidence.prior,
                raw=evidence.raw,
                pages=tuple(
                    tuple(dict.fromkeys((*evidence.type_pages, *evidence.pages[mode])))
                    if mode == "relevance"
                    else evidence.pages[mode]
                    for mode in sorted(MODES, key=lambda mode: mode != "relevance")
                ),
                category=evidence.category,
                good_pages=evidence.good_pages,
            )
        )
        if progress:
            progress("evidence", done + 1, len(by_image))
    return cases


def _subjects(
    data: Path, products: Sequence[str], pages: Sequence[KnowledgeDocument]
) -> dict[tuple[str, str, str], PictureSubject]:
    """What is true of each picture by product, folder and name."""
    dataset = open_dataset(data)
    return {
        (product.name, found.path.parent.name, found.path.name): found
        for product in dataset.products
        if product.name in products
        for found in picture_subjects(dataset, product, pages)
    }
