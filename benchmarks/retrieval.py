"""Whether retrieval finds the documents of a picture's own product and type, and whether they say different things.

Leave-images-out: half of each type's pictures become visual documents (the picture weighted by the expert's map where
good references exist, the words of the product's page of that type), the other half are queries. The general pages and
the pages on good parts are in the base too, as at inspection. Two keys are compared: the whole picture, as the first
round asks, and the suspicious area, as ``more_docs`` asks. Each is asked with the product given (its documents and the
general ones are searched) and unknown (all are). Every sampler gets the same candidates.

A document's subtopics count when they are of use to the query: product facts and scenario when the product agrees,
description and cause when the type does.

Run: ``python -m flawscope.benchmarks.retrieval --data DIR``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..agent.errors import InputError
from ..tools.ad_expert.expert import ExpertConfig, FittedExpert, ReferenceFit, expert_tokens, prepare
from ..tools.backbones import Backbone, VisualFeatures, load_backbone
from ..tools.defect_features import defect_weights
from ..tools.imaging import load_image
from ..tools.knowledge.base import CANDIDATES
from ..tools.knowledge.builder import picture_of
from ..tools.knowledge.features import LockSpace, image_part
from ..tools.knowledge.in_memory import InMemoryStore
from ..tools.knowledge.q2k import SAMPLERS
from ..tools.knowledge.schema import GOOD, KnowledgeDocument, estimated_tokens, load_documents, quoted_text
from ..tools.knowledge.store import Hit, LockRecord
from .datasets import ProductData, load_product
from .retrieval_metrics import (
    alpha_ndcg_at_k,
    intra_list_similarity,
    mean_of_known,
    ndcg_at_k,
    recall_at_k,
    reciprocal_rank,
    redundancy,
    relevance_grade,
    seek_accuracy,
    subtopic_recall_at_k,
)

K = 4
POOLS = (16, 32, CANDIDATES)
BUDGETS = (600, 1000)
PER_TYPE = 16
"""Pictures of a type at most; more change nothing but the time."""
MIN_PICTURES = 2
KEYS = ("whole picture", "suspicious area")
SCOPES = ("product given", "product unknown")
METRICS = ("seek", "recall", "MRR", "nDCG", "subtopic", "a-nDCG", "redundant", "ILS")

Progress = Callable[[str], None]
Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Picture:
    """A defective picture, described in the two ways that a key or a document needs.

    Attributes:
        page: the shipped page of its product and type.
        name: unique in its product.
        whole: image part, all patches alike, float32 (D,).
        area: image part weighted by the patch scores, as ``more_docs`` asks; like ``whole`` without good references.
        defect: image part weighted by the squared excess of the scores, as a document is stored.
    """

    page: KnowledgeDocument
    name: str
    whole: Vector
    area: Vector
    defect: Vector


@dataclass(frozen=True)
class Entry:
    """One document of the base; ``page`` holds its words and names."""

    doc_id: str
    page: KnowledgeDocument
    image: Vector | None
    tokens: int


@dataclass(frozen=True)
class Arm:
    """A way of choosing: sampler, number of candidates, token budget (None for none)."""

    sampler: str
    pool: int = CANDIDATES
    budget: int | None = None

    @property
    def label(self) -> str:
        """How the table names it."""
        extra = [f"pool {self.pool}"] * (self.pool != CANDIDATES) + [f"{self.budget} tokens"] * (
            self.budget is not None
        )
        return ", ".join([self.sampler, *extra])


ARMS = (
    *(Arm(name) for name in SAMPLERS),
    *(Arm(name, pool) for pool in POOLS if pool != CANDIDATES for name in ("relevance", "paper")),
    *(Arm("relevance", budget=budget) for budget in BUDGETS),
)


@dataclass
class RetrievalResult:
    """What was measured.

    Attributes:
        products: queries per split by product.
        documents: size of the base.
        splits: random splits.
        rows: per (key, scope, arm label), each metric's value per split.
        by_product: seek accuracy per (key, scope, arm label, product), a value per split.
    """

    products: dict[str, int]
    documents: int
    splits: int
    rows: dict[tuple[str, str, str], dict[str, list[float]]] = field(default_factory=dict)
    by_product: dict[tuple[str, str, str, str], list[float]] = field(default_factory=dict)


def run_retrieval(
    data: Path, *, splits: int = 3, progress: Progress | None = None, backbone: Backbone | None = None
) -> RetrievalResult:
    """Measure every sampler on left-out pictures of all products whose types have shipped pages.

    Args:
        data: folder of products in the MVTec layout.
        splits: random halvings of each type's pictures.
        progress: told a line now and then.
        backbone: the embedded one by default.

    Raises:
        InputError: the folder is missing, or no product in it has two pictures of a type with a page.
    """
    tell = progress or (lambda text: None)
    backbone = backbone or load_backbone("efficientnet-lite2")
    pages = load_documents()
    if not data.is_dir():
        raise InputError(f"{data} is not a folder.", hint="Give a folder of products in the MVTec layout.")
    pictures = [picture for product in _products(data, pages) for picture in _describe(*product, backbone, tell)]
    if not pictures:
        raise InputError(
            f"no product in {data} has pictures of a defect type that the knowledge base describes.",
            hint="Expected PRODUCT/test/TYPE with two pictures or more.",
        )
    shared = list(_shared_entries(pages, backbone, tell))
    result = RetrievalResult({}, 0, splits)
    for split in range(splits):
        tell(f"split {split + 1} of {splits}")
        documents, queries = _halve(pictures, split)
        entries = shared + [
            Entry(f"{p.page.doc_id}.{p.name}", p.page, p.defect, estimated_tokens(quoted_text(p.page)))
            for p in documents
        ]
        result.documents = len(entries)
        result.products = {name: sum(q.page.product == name for q in queries) for name in _names(queries)}
        _measure(result, entries, queries)
    return result


def _products(
    data: Path, pages: Sequence[KnowledgeDocument]
) -> Iterator[tuple[ProductData, dict[str, KnowledgeDocument]]]:
    """Products with at least two described types of two pictures or more, and the page of each such type."""
    for folder in sorted(path for path in data.iterdir() if path.is_dir()):
        product = load_product(folder)
        names = [picture.defect_type for picture in product.tests]
        own = {page.defect_type: page for page in pages if page.product == product.name and page.defect_type != GOOD}
        described = {name: page for name, page in own.items() if names.count(name) >= MIN_PICTURES}
        if len(described) > 1:
            yield product, described


def _describe(
    product: ProductData, pages: dict[str, KnowledgeDocument], backbone: Backbone, tell: Progress
) -> Iterator[Picture]:
    config = ExpertConfig()

    def encode(path: Path) -> VisualFeatures:
        return backbone.encode_image(prepare(load_image(path).rgb, config)[None])

    tell(f"{product.name}: references")
    expert: FittedExpert | None = None
    if product.references:
        tokens = [expert_tokens(encode(path)) for path in product.references]
        expert = ReferenceFit(tokens, range(len(tokens)), config).expert
    for name, page in pages.items():
        tell(f"{product.name}: {name}")
        for test in [test for test in product.tests if test.defect_type == name][:PER_TYPE]:
            features = encode(test.path)
            whole = area = defect = image_part(features)
            if expert is not None:
                scores = expert.score_grid(features)
                area = image_part(features, scores.ravel())
                defect = image_part(features, defect_weights(scores))
            yield Picture(page, test.path.stem, whole, area, defect)


def _shared_entries(pages: Sequence[KnowledgeDocument], backbone: Backbone, tell: Progress) -> Iterator[Entry]:
    """General pages and pages on good parts, as the shipped base holds them."""
    tell("general pages")
    for page in pages:
        if page.scope == "general" or page.defect_type == GOOD:
            image = picture_of(page.drawing, backbone) if page.drawing else None
            yield Entry(page.doc_id, page, image, estimated_tokens(quoted_text(page)))


def _halve(pictures: Sequence[Picture], seed: int) -> tuple[list[Picture], list[Picture]]:
    """Half of each type's pictures as documents (the larger half), the others as queries."""
    rng = np.random.default_rng(seed)
    documents, queries = [], []
    for page_id in sorted({picture.page.doc_id for picture in pictures}):
        own = [picture for picture in pictures if picture.page.doc_id == page_id]
        order = [own[i] for i in rng.permutation(len(own))]
        half = (len(own) + 1) // 2
        documents += order[:half]
        queries += order[half:]
    return documents, queries


def _names(queries: Sequence[Picture]) -> list[str]:
    return sorted({query.page.product for query in queries})


def subtopics(query: KnowledgeDocument, page: KnowledgeDocument) -> frozenset[str]:
    """What a page tells that is of use to a query of another page's product and type."""
    same_product = page.product == query.product
    same_type = page.canonical_type == query.canonical_type
    told = {
        "product facts": same_product and bool(page.normal_traits),
        "scenario": same_product and bool(page.scenario),
        "type description": same_type and bool(page.appearance or page.description),
        "cause": same_type and bool(page.likely_causes),
    }
    return frozenset(name for name, useful in told.items() if useful)


def grade(query: KnowledgeDocument, page: KnowledgeDocument) -> int:
    """2 for the same product and its own type, 1 when the product or the general type agrees, else 0."""
    if page.product == query.product:
        return relevance_grade(query.product, query.defect_type, page.product, page.defect_type)
    return relevance_grade(query.product, query.canonical_type, page.product, page.canonical_type)


class _Judge:
    """The metrics of a selection; what depends on the query's page alone is worked out once."""

    def __init__(self, entries: Sequence[Entry], vectors: dict[str, Vector]) -> None:
        self.entries = {entry.doc_id: entry for entry in entries}
        self.pages = {entry.page.doc_id: entry.page for entry in entries}
        self.vectors = vectors
        self.ideal = cache(self._ideal)

    def _ideal(
        self, page_id: str, scope: str
    ) -> tuple[list[int], list[frozenset[str]], frozenset[str], frozenset[str]]:
        page = self.pages[page_id]
        reach = [e for e in self.entries.values() if scope == SCOPES[1] or e.page.product in ("general", page.product)]
        grades = [grade(page, e.page) for e in reach]
        topics = [subtopics(page, e.page) for e in reach]
        relevant = frozenset(e.doc_id for e, g in zip(reach, grades, strict=True) if g == 2)
        # Many pictures share one page, so few sets differ; four of each are all that a ranking of four can use.
        distinct = [kind for kind in sorted(set(topics), key=sorted) for _ in range(min(K, topics.count(kind)))]
        return grades, distinct, relevant, frozenset[str]().union(*topics)

    def metrics(self, query: Picture, scope: str, chosen: Sequence[str]) -> dict[str, float | None]:
        page = query.page
        grades, topics, relevant, wanted = self.ideal(page.doc_id, scope)
        ranked = [self.entries[doc_id].page for doc_id in chosen]
        ranked_grades = [grade(page, found) for found in ranked]
        ranked_topics = [subtopics(page, found) for found in ranked]
        vectors = np.stack([self.vectors[doc_id] for doc_id in chosen])
        return {
            "seek": seek_accuracy([ranked_grades]),
            "recall": recall_at_k(chosen, relevant, K),
            "MRR": reciprocal_rank(chosen, relevant),
            "nDCG": ndcg_at_k(ranked_grades, grades, K),
            "subtopic": subtopic_recall_at_k(ranked_topics, wanted, K),
            "a-nDCG": alpha_ndcg_at_k(ranked_topics, topics, K),
            "redundant": redundancy(vectors),
            "ILS": intra_list_similarity(vectors),
        }


def _measure(result: RetrievalResult, entries: Sequence[Entry], queries: Sequence[Picture]) -> None:
    """Add one split to the result."""
    space = LockSpace.fit(np.stack([entry.image for entry in entries if entry.image is not None]))
    vectors = {entry.doc_id: space.embed(entry.image, entry.page.searchable_text()) for entry in entries}
    store = InMemoryStore(space.dim)
    store.upsert([LockRecord(e.doc_id, vectors[e.doc_id], e.page.product, e.page.defect_type) for e in entries])
    judge = _Judge(entries, vectors)
    found: dict[tuple[str, str, str], list[tuple[str, dict[str, float | None]]]] = {}
    for query in queries:
        for key_name, image in zip(KEYS, (query.whole, query.area), strict=True):
            for scope in SCOPES:
                known = query.page.product if scope == SCOPES[0] else None
                products = ["general", known] if known else None
                hits = store.search(space.embed(image, known or ""), CANDIDATES, products)
                for arm in ARMS:
                    chosen = _choose(arm, hits, judge)
                    row = found.setdefault((key_name, scope, arm.label), [])
                    row.append((query.page.product, judge.metrics(query, scope, chosen)))
    for label, values in found.items():
        row_of = result.rows.setdefault(label, {metric: [] for metric in METRICS})
        for metric in METRICS:
            mean = mean_of_known([metrics[metric] for _, metrics in values])
            row_of[metric].append(float("nan") if mean is None else mean)
        for product in _names(queries):
            seek = mean_of_known([metrics["seek"] for name, metrics in values if name == product])
            if seek is not None:
                result.by_product.setdefault((*label, product), []).append(seek)


def _choose(arm: Arm, hits: Sequence[Hit], judge: _Judge) -> tuple[str, ...]:
    pool = hits[: arm.pool]
    ids = [hit.doc_id for hit in pool]
    return SAMPLERS[arm.sampler](
        [hit.similarity for hit in pool],
        ids,
        K,
        vectors=np.stack([judge.vectors[doc_id] for doc_id in ids]),
        token_counts=[judge.entries[doc_id].tokens for doc_id in ids],
        token_budget=arm.budget,
    ).doc_ids


def render(result: RetrievalResult) -> str:
    """Plain text of 80 columns: one table per key and scope, means in percent, then seek accuracy by product."""
    queries = sum(result.products.values())
    lines = [
        f"{result.documents} documents, {queries} queries ("
        + ", ".join(f"{n} {c}" for n, c in result.products.items())
        + "),",
        f"{result.splits} random splits, {K} documents each; per cent, mean over splits, spread of seek after the sign",
    ]
    for key in KEYS:
        for scope in SCOPES:
            lines += ["", f"key: {key}, {scope}", f"{'':<23}{'seek':>10}" + "".join(f"{m:>7.6}" for m in METRICS[1:])]
            for arm in ARMS:
                values = result.rows[key, scope, arm.label]
                cells = "".join(f"{100 * float(np.mean(values[m])):>7.1f}" for m in METRICS[1:])
                lines.append(f"{arm.label:<23}{_spread(values['seek']):>10}{cells}")
    lines += ["", "seek accuracy by product, key: whole picture"]
    for scope in SCOPES:
        lines.append(f"{scope:<23}" + "".join(f"{name[:12]:>14}" for name in result.products))
        for sampler in SAMPLERS:
            found = [result.by_product.get((KEYS[0], scope, sampler, name), []) for name in result.products]
            lines.append(f"{sampler:<23}" + "".join(f"{_spread(v):>14}" for v in found))
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    deviation = f"±{100 * float(np.std(values, ddof=1)):.1f}" if len(values) > 1 else ""
    return f"{100 * float(np.mean(values)):.1f}{deviation}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of this benchmark alone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of products in the MVTec layout")
    parser.add_argument("--splits", type=int, default=3, help="random halvings")
    options: Any = parser.parse_args(arguments)

    def tell(text: str) -> None:
        print(text, file=sys.stderr)  # noqa: T201

    print(render(run_retrieval(options.data, splits=options.splits, progress=tell)))  # noqa: T201


if __name__ == "__main__":
    main()
