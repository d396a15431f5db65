"""Whether retrieval finds the documents of a picture's own product and type, and whether they say different things.

Leave-images-out, see ``retrieval_data``. Two keys are compared: the whole picture, as the first round asks, and the
suspicious area, as ``more_docs`` asks. Each is asked with the product given (its documents and the general ones are
searched) and unknown (all are). Every sampler gets the same candidates, and again the same budget of tokens instead of
the same number of documents. Beside it stand products that the base does not hold (``retrieval_unknown``) and queries
of words (``retrieval_words``).

Run: ``python -m flawscope.benchmarks.retrieval --data DIR``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..tools.backbones import Backbone, load_backbone
from ..tools.knowledge.base import CANDIDATES
from ..tools.knowledge.builder import picture_of
from ..tools.knowledge.in_memory import InMemoryStore
from ..tools.knowledge.q2k import SAMPLERS
from ..tools.knowledge.schema import estimated_tokens, load_documents, quoted_text
from ..tools.knowledge.store import Hit, LockRecord
from .retrieval_data import (
    Entry,
    Picture,
    Progress,
    describe_pictures,
    fit_space,
    halve,
    photograph_entries,
    shared_entries,
)
from .retrieval_judge import METRICS, Judge, K
from .retrieval_metrics import cluster_means, interval, mean_of_known
from .retrieval_unknown import UnknownResult, measure_unknown, render_unknown
from .retrieval_words import WordsResult, measure_instructions, measure_words, render_words
from .untouched import untouched_tests

BUDGETS = (600, 1200)
"""Tokens of documents in a prompt: about two pages, and about four."""
MAX_IN_BUDGET = 12
KEYS = ("whole picture", "suspicious area")
SCOPES = ("product given", "product unknown")
ORACLE = "oracle"
DEFAULT = "mmr"
"""What the embedded profile uses; the tables mark it with a star."""


@dataclass(frozen=True)
class Arm:
    """A way of choosing: sampler, and token budget (None for K documents)."""

    sampler: str
    budget: int | None = None

    @property
    def label(self) -> str:
        """How the table names it."""
        return self.sampler if self.budget is None else f"{self.sampler}, {self.budget} tokens"

    @property
    def shown(self) -> str:
        """The label, the default's with a star."""
        return self.label.replace(DEFAULT, f"{DEFAULT} *") if self.sampler == DEFAULT else self.label


ARMS = tuple(Arm(name) for name in (*SAMPLERS, ORACLE))
BUDGET_ARMS = tuple(Arm(name, budget) for budget in BUDGETS for name in (*SAMPLERS, ORACLE))

Row = tuple[str, str, dict[str, float | None]]
"""Product, picture, and metrics of one query of one split."""


@dataclass
class RetrievalResult:
    """What was measured.

    Attributes:
        products: queries per split by product.
        documents: size of the base.
        splits: random splits.
        rows: every query per (key, scope, arm label).
        unknown: products that the base does not hold.
        words: queries of words.
    """

    products: dict[str, int]
    documents: int
    splits: int
    rows: dict[tuple[str, str, str], list[Row]] = field(default_factory=dict)
    unknown: UnknownResult = field(default_factory=UnknownResult)
    words: WordsResult = field(default_factory=WordsResult)

    def mean(self, key: str, scope: str, arm: str, metric: str, product: str | None = None) -> float | None:
        """Mean of a metric over all queries of all splits, or of one product's."""
        return mean_of_known([m[metric] for name, _, m in self.rows[key, scope, arm] if product in (None, name)])

    def interval(self, key: str, scope: str, arm: str, metric: str) -> tuple[float, float] | None:
        """Its 95% bootstrap interval over pictures."""
        return interval(*cluster_means([(picture, m[metric]) for _, picture, m in self.rows[key, scope, arm]]))


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
    pictures = describe_pictures(data, pages, backbone, tell)
    typed = _of_several_types(pictures)
    shared = shared_entries(pages, backbone, tell)
    drawn = {entry.doc_id for entry in shared}
    shipped = [*shared, *(_pictureless(page, backbone) for page in pages if page.doc_id not in drawn)]
    result = RetrievalResult({}, 0, splits)
    measure_words(result.words, pages, tell)
    for split in range(splits):
        tell(f"split {split + 1} of {splits}")
        documents, queries = halve(typed, split)
        entries = [*shared, *photograph_entries(documents)]
        result.documents = len(entries)
        names = sorted({query.page.product for query in queries})
        result.products = {name: sum(query.page.product == name for query in queries) for name in names}
        _measure(result, entries, queries)
        measure_instructions(result.words, typed, shared, shipped, split, tell)
        measure_unknown(result.unknown, pictures, shared, split, tell)
    return result


def _of_several_types(pictures: Sequence[Picture]) -> list[Picture]:
    """Pictures whose label has a page, of products with two such labels or more: with one there is nothing to seek."""
    typed = [picture for picture in pictures if picture.is_typed]
    labels = {(picture.page.product, picture.label) for picture in typed}
    products = [product for product, _ in labels]
    return [picture for picture in typed if products.count(picture.page.product) > 1]


def _pictureless(page: Any, backbone: Backbone) -> Entry:
    image = picture_of(page.drawing, backbone) if page.drawing else None
    return Entry(page.doc_id, page, image, estimated_tokens(quoted_text(page)))


def _measure(result: RetrievalResult, entries: Sequence[Entry], queries: Sequence[Picture]) -> None:
    """Add one split to the result."""
    space = fit_space(entries)
    vectors = {entry.doc_id: space.embed(entry.image, entry.page.searchable_text()) for entry in entries}
    store = InMemoryStore(space.dim)
    store.upsert([LockRecord(e.doc_id, vectors[e.doc_id], e.page.product, e.page.defect_type) for e in entries])
    judge = Judge(entries, vectors)
    for query in queries:
        name = f"{query.page.product}.{query.label}.{query.name}"
        for key_name, image in zip(KEYS, (query.whole, query.area), strict=True):
            for scope in SCOPES:
                known = query.page.product if scope == SCOPES[0] else None
                products = ["general", known] if known else None
                hits = store.search(space.key(image, known or ""), CANDIDATES, products)
                first = (key_name, scope) == (KEYS[0], SCOPES[0])
                for arm in (*ARMS, *(BUDGET_ARMS if first else ())):
                    chosen = _choose(arm, hits, judge, query)
                    metrics = judge.metrics(query.page, known is not None, chosen)
                    result.rows.setdefault((key_name, scope, arm.label), []).append((query.page.product, name, metrics))


def _choose(arm: Arm, hits: Sequence[Hit], judge: Judge, query: Picture) -> tuple[str, ...]:
    ids = [hit.doc_id for hit in hits]
    k = K if arm.budget is None else MAX_IN_BUDGET
    if arm.sampler == ORACLE:
        return judge.oracle(query.page, ids, k, arm.budget)
    return SAMPLERS[arm.sampler](
        [hit.similarity for hit in hits],
        ids,
        k,
        vectors=np.stack([judge.vectors[doc_id] for doc_id in ids]),
        token_counts=[judge.entries[doc_id].tokens for doc_id in ids],
        token_budget=arm.budget,
    ).doc_ids


def render(result: RetrievalResult) -> str:
    """Plain text of 100 columns."""
    queries = sum(result.products.values())
    lines = [
        f"{result.documents} documents, {queries} queries ("
        + ", ".join(f"{n} {c}" for n, c in result.products.items())
        + "),",
        f"{result.splits} random splits, {K} documents each; per cent, 95% bootstrap interval over pictures; "
        "* the default",
    ]
    for key in KEYS:
        for scope in SCOPES:
            lines += ["", f"key: {key}, {scope}", _head(("seek", *METRICS[1:]))]
            for arm in ARMS:
                cells = "".join(f"{_percent(result.mean(key, scope, arm.label, m)):>9}" for m in METRICS[1:])
                lines.append(f"{arm.shown:<22}{_cell(result, (key, scope, arm.label), 'seek'):>19}{cells}")
    lines += ["", f"equal token budget, key: {KEYS[0]}, {SCOPES[0]}"]
    lines.append(f"{'':<34}{'relevance':>22}{'subtopic recall':>22}{'seek':>22}")
    for arm in BUDGET_ARMS:
        where = (KEYS[0], SCOPES[0], arm.label)
        cells = "".join(f"{_cell(result, where, metric):>22}" for metric in ("relevance", "subtopic", "seek"))
        lines.append(f"{arm.shown:<34}{cells}")
    lines += ["", f"seek accuracy by product, key: {KEYS[0]}"]
    for scope in SCOPES:
        lines.append(f"{scope:<22}" + "".join(f"{name[:13]:>14}" for name in result.products))
        for sampler in SAMPLERS:
            shares = [result.mean(KEYS[0], scope, sampler, "seek", name) for name in result.products]
            lines.append(f"{sampler:<22}" + "".join(f"{_percent(share):>14}" for share in shares))
    return "\n".join([*lines, "", *render_unknown(result.unknown), "", *render_words(result.words)])


def _head(metrics: Sequence[str]) -> str:
    return f"{'':<22}{metrics[0]:>19}" + "".join(f"{metric[:8]:>9}" for metric in metrics[1:])


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def _cell(result: RetrievalResult, where: tuple[str, str, str], metric: str) -> str:
    bounds = result.interval(*where, metric)
    mean = _percent(result.mean(*where, metric))
    return mean if bounds is None else f"{mean} ({100 * bounds[0]:.1f}–{100 * bounds[1]:.1f})"


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
    with untouched_tests():
        main()
