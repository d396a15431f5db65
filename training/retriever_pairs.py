"""What a retriever is trained on: pictures of defects, each with the documents that it should find.

A picture's documents are the other pictures of its product and type, and the general page of its type, which has a
drawing and no photograph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..benchmarks.datasets import GOOD, Dataset, ProductData
from ..benchmarks.datasets.examples import examples
from ..tools.backbones import Backbone
from ..tools.imaging import load_image
from ..tools.knowledge.builder import picture_of
from ..tools.knowledge.page_labels import find_page
from ..tools.knowledge.part_cache import PartCache
from ..tools.knowledge.schema import KnowledgeDocument
from ..tools.knowledge.vocabulary import canonical

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Source:
    """A product of a data set, with the licence of its pictures as given."""

    dataset: Dataset
    product: ProductData
    licence: str


@dataclass(frozen=True, eq=False)
class LabelledPart:
    """A picture of a defect.

    Attributes:
        product: as its pages name it, else as the data set does.
        origin: as the data set names it.
        label: doc_id of its page, or ``product/label`` for a label without a page.
        page: its page; None without one.
        canonical: the general type that its label means; None where that is not known.
        name: of the file; a picture of several defects has several labels under one name.
        part: image part of the picture as a whole, float32 (D,).
    """

    product: str
    origin: str
    label: str
    page: KnowledgeDocument | None
    canonical: str | None
    name: str
    part: NDArray[np.float32]


def describe_pictures(
    sources: Sequence[Source],
    pages: Sequence[KnowledgeDocument],
    backbone: Backbone,
    cache_folder: Path,
    *,
    per_label: int | None = None,
    report: Report | None = None,
) -> list[LabelledPart]:
    """The defective pictures of some products; several pages under one label tell nothing, so those are left out.

    Args:
        sources: labelled products.
        pages: the shipped ones.
        backbone: embeds the pictures.
        cache_folder: of image parts.
        per_label: pictures of a label at most, first by name; None for all.
        report: told (what, done, in all).

    Raises:
        InputError: a picture or a table cannot be read.
        StorageError: the disk refuses.
    """
    found: dict[str, list[tuple[Path, str, str, KnowledgeDocument | None, str | None]]] = {}
    for source in sources:
        for example in examples(source.dataset, source.product):
            page = find_page(source.product.name, example.label, example.names, pages)
            if example.label == GOOD or isinstance(page, int):
                continue
            product = origin = source.product.name
            label, meaning = f"{origin}/{example.label}", canonical(example.label, origin)
            if page is not None:
                product, label, meaning = page.product, page.doc_id, page.canonical_type
            own = found.setdefault(label, [])
            if per_label is None or len(own) < per_label:
                own.append((example.path, product, origin, page, meaning))
    cache = PartCache(cache_folder, backbone)
    total = sum(map(len, found.values()))
    parts: list[LabelledPart] = []
    for label, own in sorted(found.items()):
        for path, product, origin, page, meaning in own:
            if report:
                report("looking at pictures", len(parts), total)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            part = cache.part(digest, lambda path=path: load_image(path).rgb)  # type: ignore[misc]
            name = f"{path.parent.name}/{path.name}"
            parts.append(LabelledPart(product, origin, label, page, meaning, name, part))
    if report:
        report("looking at pictures", total, total)
    return parts


def describe_drawings(pages: Iterable[KnowledgeDocument], backbone: Backbone) -> dict[str, NDArray[np.float32]]:
    """Image part of each general page's drawing, by the type, sorted."""
    drawn = {page.defect_type: page.drawing for page in pages if page.scope == "general" and page.drawing}
    return {name: picture_of(drawing, backbone) for name, drawing in sorted(drawn.items()) if drawing}


def by_label(parts: Iterable[LabelledPart]) -> Mapping[str, list[LabelledPart]]:
    """The pictures of each label, labels sorted."""
    groups: dict[str, list[LabelledPart]] = {}
    for part in parts:
        groups.setdefault(part.label, []).append(part)
    return dict(sorted(groups.items()))
