"""Whether trained key and lock projections find more than the plain cosine, on known products and on unseen ones.

Image held out: projections learn from half of each label's pictures, documents are from that half, the other half asks.
Product held out: for each product in turn they learn from all other products' pictures; the base has that product's
pages as it would have in use. Untrained and trained ask with the same pictures against the same base.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..agent.errors import InputError, MissingExtraError
from ..tools.backbones import Backbone, load_backbone
from ..tools.knowledge.schema import KnowledgeDocument, load_documents
from ..training.retriever_pairs import LabelledPart, Source, by_label, describe_drawings, describe_pictures
from .datasets import open_dataset
from .retriever_seek import METRICS, SCOPES, Row, Seek, compare, seek_pages, share_out

if TYPE_CHECKING:
    from ..training.retriever import RetrieverConfig

PER_LABEL = 30
PROTOCOLS = ("image held out", "product held out")
Progress = Callable[[str], None]
Drawings = Mapping[str, NDArray[np.float32]]


@dataclass
class RetrieverResult:
    """What was measured.

    Attributes:
        pictures: by product.
        labels: how many.
        splits: random draws of documents and queries.
        rows: by protocol, (untrained, trained) rows, pair by pair of the same picture and scope.
    """

    pictures: dict[str, int]
    labels: int
    splits: int
    rows: dict[str, tuple[list[Row], list[Row]]] = field(default_factory=dict)

    def seek(self, protocol: str, scope: str, metric: str) -> Seek | None:
        """Untrained beside trained."""
        return compare(*self.rows[protocol], scope=scope, metric=metric)


def run_retriever(
    data: Path,
    *,
    splits: int = 2,
    config: RetrieverConfig | None = None,
    backbone: Backbone | None = None,
    pages: Sequence[KnowledgeDocument] | None = None,
    progress: Progress | None = None,
) -> RetrieverResult:
    """Measure on the products of a data set that have pages of several labels.

    Args:
        data: folder of a data set in any layout.
        splits: random draws.
        config: of the trainings; the seed of each is its split's number.
        backbone: the embedded one by default.
        pages: other pages than the shipped ones.
        progress: told a line now and then.

    Raises:
        InputError: there are fewer than two products with pages.
        MissingExtraError: torch is not installed.
    """
    try:
        from ..training.retriever import RetrieverConfig
    except ImportError as error:
        raise MissingExtraError("Training", "train") from error
    tell = progress or (lambda text: None)
    backbone = backbone or load_backbone("efficientnet-lite2")
    known = tuple(pages or load_documents())
    dataset = open_dataset(data)
    sources = [Source(dataset, product, "") for product in dataset.products]
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        tell("looking at pictures")
        found = describe_pictures(sources, known, backbone, cache, per_label=PER_LABEL)
        parts = [part for part in found if part.page is not None]
        products = sorted({part.product for part in parts})
        if len(products) < 2:
            raise InputError(
                f"{data} has {len(products)} products whose labels have pages; two are needed.",
                hint="Expected PRODUCT/test/TYPE of products that flawscope kb list names.",
            )
        tell("looking at drawings")
        drawings = describe_drawings(known, backbone)
        pictures = {name: sum(part.product == name for part in parts) for name in products}
        result = RetrieverResult(pictures, len(by_label(parts)), splits, {name: ([], []) for name in PROTOCOLS})
        for split in range(splits):
            used = config or RetrieverConfig()
            used = replace(used, loop=replace(used.loop, seed=split))
            bench = _Split(split, parts, drawings, known, used, cache, result, tell)
            bench.image_held_out()
            bench.product_held_out(products)
    return result


@dataclass
class _Split:
    """One random draw."""

    number: int
    parts: list[LabelledPart]
    drawings: Drawings
    pages: tuple[KnowledgeDocument, ...]
    config: RetrieverConfig
    folder: Path
    result: RetrieverResult
    tell: Progress

    def image_held_out(self) -> None:
        """Learn from half of each label."""
        self.tell(f"split {self.number + 1}: image held out")
        rng = np.random.default_rng((self.number, 1))
        learnt, asking = [], []
        for own in by_label(self.parts).values():
            order = [own[i] for i in rng.permutation(len(own))]
            half = (len(own) + 1) // 2
            learnt += order[:half]
            asking += order[half:]
        documents, _ = share_out(learnt, self.number)
        self._ask(PROTOCOLS[0], learnt, documents, asking)

    def product_held_out(self, products: Sequence[str]) -> None:
        """Learn from all products but one."""
        documents, queries = share_out(self.parts, self.number)
        for product in products:
            self.tell(f"split {self.number + 1}: {product} held out")
            rest = [part for part in self.parts if part.product != product]
            self._ask(PROTOCOLS[1], rest, documents, [query for query in queries if query.product == product])

    def _ask(
        self,
        protocol: str,
        learnt: Sequence[LabelledPart],
        documents: Sequence[LabelledPart],
        queries: Sequence[LabelledPart],
    ) -> None:
        from ..training.retriever import fit_projection

        with tempfile.TemporaryDirectory(dir=self.folder) as checkpoints:
            projection, _ = fit_projection(learnt, self.drawings, self.config, Path(checkpoints), fingerprint=protocol)
        for rows, used in zip(self.result.rows[protocol], (None, projection), strict=True):
            rows += seek_pages(documents, queries, self.pages, self.drawings, used)


def render(result: RetrieverResult) -> str:
    """Plain text: one table a protocol, macro over products in per cent, the difference with its 95% interval."""
    lines = [
        f"{sum(result.pictures.values())} pictures, {result.labels} labels ("
        + ", ".join(f"{name} {count}" for name, count in result.pictures.items())
        + ")",
        f"{result.splits} random splits; per cent, macro over products; difference with its 95% bootstrap interval",
    ]
    for protocol in PROTOCOLS:
        lines += ["", protocol, f"{'':<18}{'':<8}{'cosine':>8}{'trained':>9}{'difference':>26}"]
        for scope in SCOPES:
            for metric in METRICS:
                seek = result.seek(protocol, scope, metric)
                if seek is None:
                    continue
                gain = f"{100 * (seek.after - seek.before):+.1f} ({100 * seek.low:+.1f} to {100 * seek.high:+.1f})"
                name = scope if metric == METRICS[0] else ""
                lines.append(f"{name:<18}{metric:<8}{100 * seek.before:>8.1f}{100 * seek.after:>9.1f}{gain:>26}")
    return "\n".join(lines)
