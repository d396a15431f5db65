"""Questions about labelled pictures of a data set: what its labels, masks and pages say is true."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...benchmarks.datasets import GOOD, Dataset, LabelledPicture, ProductData, load_mask
from ...benchmarks.datasets.examples import Example, examples
from ...tools.ad_expert.regions import place_in_words
from ...tools.knowledge.schema import KnowledgeDocument
from .question import TASKS, Question, Task
from .writing import QuestionWriter, Subject, subject_of

NO_TYPE = frozenset({"defective", "mixed", "anomaly", "bad", "ko"})
"""Labels that say that a part is defective and not how."""


@dataclass(frozen=True)
class PictureSubject:
    """A labelled picture and what is true of it.

    Attributes:
        path: the file.
        subject: what it shows.
        mask_paths: drawings of the defect, for who needs them; empty where there are none.
    """

    path: Path
    subject: Subject
    mask_paths: tuple[Path, ...] = ()


def picture_subjects(
    dataset: Dataset, product: ProductData, pages: Sequence[KnowledgeDocument]
) -> Iterator[PictureSubject]:
    """Every test picture of a product: good ones, then each that shows one type of defect.

    A picture of several types, as boxes on a circuit board tell them apart, is asked about only whether it has a
    defect: no single answer would be right to what or where.

    Args:
        dataset: the set it is from.
        product: whose.
        pages: of the knowledge base.

    Raises:
        InputError: a table or mask cannot be read.
    """
    for picture in product.tests:
        if not picture.is_defective:
            yield PictureSubject(picture.path, subject_of(product.name, GOOD, None, pages))
    by_path: dict[Path, list[Example]] = {}
    for example in examples(dataset, product):
        if example.is_test and example.label != GOOD:
            by_path.setdefault(example.path, []).append(example)
    drawn = {picture.path: picture for picture in product.tests}
    for path, found in by_path.items():
        labels = {name for example in found for name in (example.names or (example.label,))}
        if len(labels) > 1:
            yield PictureSubject(path, subject_of(product.name, None, None, pages))
            continue
        label = labels.pop()
        subject = subject_of(product.name, None if label in NO_TYPE else label, _place(drawn[path]), pages)
        yield PictureSubject(path, subject, drawn[path].mask_paths)


def picture_questions(
    dataset: Dataset,
    product: ProductData,
    pages: Sequence[KnowledgeDocument],
    *,
    seed: int = 0,
    tasks: Sequence[Task] = TASKS,
    references: int = 1,
) -> Iterator[Question]:
    """One question of each subtask about each labelled picture, where what is known answers it.

    The order of the pictures is the data set's; wording, wrong options and letters depend on the seed, the product,
    the picture's name and the subtask alone, so that a part of the pictures gets the same questions as all.

    Args:
        dataset: the set.
        product: of it.
        pages: of the knowledge base: right and wrong options come from them.
        seed: of every draw.
        tasks: which subtasks.
        references: good pictures with each question, drawn from the product's; fewer where it has fewer.
    """
    writer = QuestionWriter(pages)
    for found in picture_subjects(dataset, product, pages):
        for task in tasks:
            identity = f"{product.name}/{found.path.parent.name}/{found.path.name}/{task}"
            rng = np.random.default_rng([seed, *identity.encode()])
            question = writer.ask(task, found.subject, rng)
            if question is None:
                continue
            count = min(references, len(product.references))
            chosen = rng.choice(len(product.references), count, replace=False).tolist() if count else []
            yield replace(
                question,
                dataset=dataset.name or dataset.root.name,
                picture=found.path,
                references=tuple(product.references[int(i)] for i in chosen),
            )


def _place(picture: LabelledPicture) -> str | None:
    """Where the largest drawn area lies; None for a picture without a drawing."""
    from scipy import ndimage

    if not picture.mask_paths:
        return None
    with Image.open(picture.path) as image:
        width, height = image.size
    mask: NDArray[np.bool_] | None = load_mask(picture, height, width)
    if mask is None or not mask.any():
        return None
    labels, count = ndimage.label(mask, structure=np.ones((3, 3), dtype=int))
    largest = 1 + int(np.argmax(ndimage.sum_labels(mask, labels, range(1, count + 1))))
    rows, columns = ndimage.find_objects((labels == largest).astype(int))[0]
    return place_in_words((columns.start, rows.start, columns.stop, rows.stop), width, height)
