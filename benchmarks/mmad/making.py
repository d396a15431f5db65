"""Make a set in MMAD's layout out of a labelled data set: questions from its labels, masks and the pages about it.

What it makes is no MMAD: the questions come from templates, right and wrong options from the knowledge base's pages.
Some defective pictures are set aside as examples, as an operator would give them; they are never asked about.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...agent.errors import ConfigError
from ...agent.home import new_folder, write_json_atomically
from ...tools.knowledge.schema import KnowledgeDocument
from ...training.questions import Question, picture_questions
from ..datasets import GOOD, Dataset, LabelledPicture, ProductData, open_dataset
from .scoring import DETECTION

TEMPLATES = 8
"""Good pictures that are named with each picture, of either kind."""
EXAMPLES = "examples.json"
"""Product -> type -> paths of the pictures that are set aside."""
_THUMBNAIL_PX = 16


@dataclass(frozen=True)
class Plan:
    """What to make.

    Attributes:
        products: whose pictures to ask about.
        name: of the set, the first folder of every path.
        good: good test pictures of each product at most.
        defective: defective ones of each type at most.
        examples: of each type, set aside before.
        seed: of every draw.
    """

    products: tuple[str, ...]
    name: str = "generated"
    good: int = 30
    defective: int = 20
    examples: int = 4
    seed: int = 0


def make_questions(
    data: Path,
    out: Path,
    plan: Plan,
    pages: Sequence[KnowledgeDocument],
    progress: Callable[[str], None] = lambda text: None,
) -> int:
    """Write the set; an unfinished one leaves nothing behind.

    Args:
        data: labelled data set.
        out: new folder.
        plan: what to make.
        pages: of the knowledge base.
        progress: told about each product.

    Returns:
        Questions.

    Raises:
        ConfigError: a product is not in the data, or ``out`` exists.
        InputError: the data cannot be read.
    """
    if out.exists():
        raise ConfigError(f"{out} exists.", hint="Give a new folder.")
    dataset = open_dataset(data)
    known = {product.name: product for product in dataset.products}
    if missing := [name for name in plan.products if name not in known]:
        raise ConfigError(f"{data} has no {', '.join(missing)}.", hint=f"It has: {', '.join(sorted(known))}.")
    entries: dict[str, Any] = {}
    examples: dict[str, dict[str, list[str]]] = {}
    with new_folder(out) as folder:
        for name in plan.products:
            progress(f"questions about {name}")
            made, aside = _product(folder, dataset, known[name], plan, pages)
            entries |= made
            examples[name] = aside
        write_json_atomically(folder / "mmad.json", entries)
        write_json_atomically(folder / EXAMPLES, examples)
        write_json_atomically(folder / "domain_knowledge.json", {plan.name: _knowledge(plan.products, pages)})
    return sum(len(entry["conversation"]) for entry in entries.values())


def read_examples(root: Path) -> Mapping[str, Mapping[str, Sequence[str]]]:
    """The pictures set aside as examples, product -> type -> paths inside the set; empty for a set without any."""
    path = root / EXAMPLES
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _product(
    folder: Path, dataset: Dataset, product: ProductData, plan: Plan, pages: Sequence[KnowledgeDocument]
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Copy a product's pictures; the entries of ``mmad.json`` and the examples set aside."""
    base = Path(plan.name, product.name)
    rng = np.random.default_rng([plan.seed, *product.name.encode()])
    asked, aside = _split(product, plan, rng)
    references = [_copy(path, folder, base / "train" / GOOD) for path in product.references]
    thumbnails = [_thumbnail(path) for path in product.references]
    asks_detection = any(not picture.is_defective for picture in asked)
    by_path: dict[Path, list[Question]] = {}
    for question in picture_questions(dataset, product, pages, seed=plan.seed, references=0):
        if question.picture is not None and (asks_detection or question.task != DETECTION):
            by_path.setdefault(question.picture, []).append(question)
    entries: dict[str, Any] = {}
    for picture in asked:
        questions = by_path.get(picture.path, [])
        if not questions:
            continue
        image = _copy(picture.path, folder, base / "test" / picture.defect_type)
        masks = [_copy(path, folder, base / "test" / "masks" / picture.defect_type) for path in picture.mask_paths]
        drawn = rng.permutation(len(references))[:TEMPLATES]
        entries[image] = {
            "image_path": image,
            "conversation": [_conversation(question) for question in questions],
            "mask_path": str(Path(masks[0]).relative_to(base / "test")) if masks else None,
            "random_templates": [references[int(i)] for i in drawn],
            "similar_templates": [references[i] for i in _nearest(_thumbnail(picture.path), thumbnails)],
        }
    kept = {
        kind: [_copy(picture.path, folder, base / "examples" / kind) for picture in pictures]
        for kind, pictures in aside.items()
    }
    return entries, kept


def _split(
    product: ProductData, plan: Plan, rng: np.random.Generator
) -> tuple[list[LabelledPicture], dict[str, list[LabelledPicture]]]:
    """Which pictures are asked about, in the data set's order, and which are set aside."""
    by_type: dict[str, list[LabelledPicture]] = {}
    for picture in product.tests:
        by_type.setdefault(picture.defect_type, []).append(picture)
    asked: list[LabelledPicture] = []
    aside: dict[str, list[LabelledPicture]] = {}
    for kind, pictures in by_type.items():
        order = [pictures[int(i)] for i in rng.permutation(len(pictures))]
        if kind != GOOD:
            aside[kind], order = order[: plan.examples], order[plan.examples :]
        asked += order[: plan.good if kind == GOOD else plan.defective]
    place = {picture.path: i for i, picture in enumerate(product.tests)}
    return sorted(asked, key=lambda picture: place[picture.path]), aside


def _conversation(question: Question) -> dict[str, Any]:
    return {
        "Question": question.text,
        "Answer": question.answer,
        "Options": dict(zip(question.letters, question.options, strict=True)),
        "type": question.task,
        "annotation": True,
    }


def _copy(path: Path, folder: Path, into: Path) -> str:
    """Copy a file; its path inside the set."""
    target = folder / into / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)
    return (into / path.name).as_posix()


def _thumbnail(path: Path) -> NDArray[np.float32]:
    """A small grey copy, float32, by which similar pictures are found."""
    with Image.open(path) as picture:
        small = picture.convert("L").resize((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.BOX)
    return np.asarray(small, np.float32)


def _nearest(seen: NDArray[np.float32], others: Sequence[NDArray[np.float32]]) -> list[int]:
    distances = [float(np.abs(seen - other).mean()) for other in others]
    return sorted(range(len(others)), key=lambda i: (distances[i], i))[:TEMPLATES]


def _knowledge(products: Iterable[str], pages: Sequence[KnowledgeDocument]) -> dict[str, dict[str, str]]:
    """What the pages say of each product and each of its types: knowledge of an oracle, who knows the product."""
    found: dict[str, dict[str, str]] = {}
    for name in products:
        own = [page for page in pages if page.product == name]
        found[name] = {page.defect_type: page.normal_traits or page.description for page in own}
    return found
