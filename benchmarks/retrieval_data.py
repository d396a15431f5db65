"""Pictures and pages of the retrieval benchmark: what stands in the base and what asks.

Half of each type's pictures become documents as a plant's marked photographs do (half the whole picture, half its
suspicious place, here by the expert's map where good references exist) with the words of the shipped page of that
type; the other half ask. General pages and pages on good parts stand in the base too, as at inspection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..agent.errors import InputError
from ..tools.ad_expert.expert import ExpertConfig, FittedExpert, ReferenceFit, expert_tokens, prepare
from ..tools.backbones import Backbone, VisualFeatures
from ..tools.defect_features import defect_weights
from ..tools.imaging import load_image
from ..tools.knowledge.builder import picture_of
from ..tools.knowledge.features import LockSpace, image_part
from ..tools.knowledge.plant_index import BOX_SHARE
from ..tools.knowledge.schema import GOOD, KnowledgeDocument, estimated_tokens, quoted_text
from .datasets import ProductData, load_product

PER_TYPE = 16
"""Pictures of a type at most; more change nothing but the time."""
MIN_PICTURES = 2

Progress = Callable[[str], None]
Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Picture:
    """A defective picture, described in the ways that a key or a document needs.

    Attributes:
        page: the shipped page of its product and type; where no page has its label, one of its product.
        label: the folder's name.
        name: unique in its product and label.
        whole: image part, all patches alike, float32 (D,).
        area: image part weighted by the patch scores, as ``more_docs`` asks; like ``whole`` without good references.
        lock: image part as a document holds it.
    """

    page: KnowledgeDocument
    label: str
    name: str
    whole: Vector
    area: Vector
    lock: Vector

    @property
    def is_typed(self) -> bool:
        """Whether a page has its label: without one no page can be the right one."""
        return self.page.defect_type == self.label


@dataclass(frozen=True)
class Entry:
    """One document of the base; ``page`` holds its words and names."""

    doc_id: str
    page: KnowledgeDocument
    image: Vector | None
    tokens: int

    @property
    def document(self) -> KnowledgeDocument:
        """The page under the entry's own id."""
        return self.page.model_copy(update={"doc_id": self.doc_id})


def describe_pictures(
    data: Path, pages: Sequence[KnowledgeDocument], backbone: Backbone, tell: Progress
) -> list[Picture]:
    """All defective pictures of the products that have pages.

    Raises:
        InputError: the folder is missing, or no product in it has two pictures of a type with a page.
    """
    if not data.is_dir():
        raise InputError(f"{data} is not a folder.", hint="Give a folder of products in the MVTec layout.")
    products = [load_product(folder) for folder in sorted(path for path in data.iterdir() if path.is_dir())]
    pictures = [picture for product in products for picture in _describe(product, pages, backbone, tell)]
    if not any(picture.is_typed for picture in pictures):
        raise InputError(
            f"no product in {data} has pictures of a defect type that the knowledge base describes.",
            hint="Expected PRODUCT/test/TYPE with two pictures or more.",
        )
    return pictures


def _describe(
    product: ProductData, pages: Sequence[KnowledgeDocument], backbone: Backbone, tell: Progress
) -> Iterator[Picture]:
    own = {page.defect_type: page for page in pages if page.product == product.name}
    tests = [test for test in product.tests if test.is_defective]
    labels = sorted({test.defect_type for test in tests})
    labels = [label for label in labels if sum(test.defect_type == label for test in tests) >= MIN_PICTURES]
    if not own or not labels:
        return
    config = ExpertConfig()

    def encode(path: Path) -> VisualFeatures:
        return backbone.encode_image(prepare(load_image(path).rgb, config)[None])

    tell(f"{product.name}: references")
    expert: FittedExpert | None = None
    if product.references:
        tokens = [expert_tokens(encode(path)) for path in product.references]
        expert = ReferenceFit(tokens, range(len(tokens)), config).expert
    for label in labels:
        tell(f"{product.name}: {label}")
        page = own.get(label) or next(iter(own.values()))
        for test in [test for test in tests if test.defect_type == label][:PER_TYPE]:
            features = encode(test.path)
            whole = area = defect = image_part(features)
            if expert is not None:
                scores = expert.score_grid(features)
                area = image_part(features, scores.ravel())
                defect = image_part(features, defect_weights(scores))
            lock = np.asarray((1.0 - BOX_SHARE) * whole + BOX_SHARE * defect, np.float32)
            yield Picture(page, label, test.path.stem, whole, area, lock)


def shared_entries(pages: Sequence[KnowledgeDocument], backbone: Backbone, tell: Progress) -> list[Entry]:
    """General pages and pages on good parts, as the shipped base holds them."""
    tell("general pages")
    return [
        Entry(page.doc_id, page, picture_of(page.drawing, backbone) if page.drawing else None, _tokens(page))
        for page in pages
        if page.scope == "general" or page.defect_type == GOOD
    ]


def photograph_entries(pictures: Sequence[Picture]) -> list[Entry]:
    """A document for each picture."""
    return [Entry(f"{p.page.product}.{p.label}.{p.name}".lower(), p.page, p.lock, _tokens(p.page)) for p in pictures]


def fit_space(entries: Sequence[Entry]) -> LockSpace:
    """The standardisation that a base of these documents has."""
    return LockSpace.fit(np.stack([entry.image for entry in entries if entry.image is not None]))


def halve(pictures: Sequence[Picture], seed: int) -> tuple[list[Picture], list[Picture]]:
    """Half of each label's pictures as documents (the larger half), the others to ask with."""
    rng = np.random.default_rng(seed)
    documents, queries = [], []
    for group in sorted({(picture.page.product, picture.label) for picture in pictures}):
        own = [picture for picture in pictures if (picture.page.product, picture.label) == group]
        order = [own[i] for i in rng.permutation(len(own))]
        half = (len(own) + 1) // 2
        documents += order[:half]
        queries += order[half:]
    return documents, queries


def _tokens(page: KnowledgeDocument) -> int:
    return estimated_tokens(quoted_text(page))
