"""Whether a base says so when it knows nothing near: every product in turn is taken out of it and asked about.

Known queries are left-out pictures of the products that stay, unknown ones are all pictures of the product taken out;
neither names a product, so that the picture alone must tell. The threshold is the base's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..tools.knowledge.base import KnowledgeBase
from ..tools.knowledge.features import LockSpace
from ..tools.knowledge.in_memory import InMemoryStore
from ..tools.knowledge.store import LockRecord
from .detection_metrics import image_auroc
from .retrieval_data import Entry, Picture, Progress, fit_space, halve, photograph_entries
from .retrieval_metrics import CONFIDENCE, cluster_means, interval, mean_of_known

K = 4
RESAMPLES = 300


@dataclass(frozen=True)
class Asked:
    """One query of one split while one product was out.

    Attributes:
        out: the product taken out.
        picture: which picture asked.
        is_known: whether its product was in the base.
        similarity: of the nearest page's picture.
        refused: whether the base called it unknown.
        type_found: whether a page of its general type was among the K; None where no page has its label.
    """

    out: str
    picture: str
    is_known: bool
    similarity: float
    refused: bool
    type_found: bool | None = None


@dataclass
class UnknownResult:
    """What was measured.

    Attributes:
        asked: every query.
        empty_refused: share of queries that an empty base refused.
    """

    asked: list[Asked] = field(default_factory=list)
    empty_refused: float | None = None

    def auroc(self, out: str | None = None) -> float | None:
        """Whether known queries are nearer than unknown ones; of one product taken out, or of all pooled."""
        rows = [row for row in self.asked if out in (None, row.out)]
        return image_auroc([row.similarity for row in rows], [row.is_known for row in rows])

    def auroc_interval(self) -> tuple[float, float] | None:
        """Of the pooled figure, over resampled pictures: one picture asks in several splits, known and unknown."""
        groups: dict[str, list[Asked]] = {}
        for row in self.asked:
            groups.setdefault(row.picture, []).append(row)
        rng, lists, found = np.random.default_rng(0), list(groups.values()), []
        for _ in range(RESAMPLES):
            rows = [row for index in rng.integers(0, len(lists), len(lists)) for row in lists[index]]
            value = image_auroc([row.similarity for row in rows], [row.is_known for row in rows])
            found += [] if value is None else [value]
        if not found:
            return None
        low, high = np.quantile(found, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
        return float(low), float(high)


def open_base(entries: Sequence[Entry], space: LockSpace) -> KnowledgeBase:
    """A base in memory with these documents, as an inspection asks it."""
    documents = [entry.document for entry in entries]
    vectors: NDArray[np.float32] = np.zeros((len(entries), space.dim), np.float32)
    for row, entry in enumerate(entries):
        vectors[row] = space.embed(entry.image, entry.page.searchable_text())
    store = InMemoryStore(space.dim)
    store.upsert(
        [
            LockRecord(d.doc_id, v, d.product, d.defect_type, d.searchable_text())
            for d, v in zip(documents, vectors, strict=True)
        ]
    )
    return KnowledgeBase(documents, vectors, space, store, "benchmark")


def measure_unknown(
    result: UnknownResult, pictures: Sequence[Picture], shared: Sequence[Entry], split: int, tell: Progress
) -> None:
    """Add one split to the result."""
    documents, queries = halve(pictures, split)
    for out in sorted({picture.page.product for picture in pictures}):
        tell(f"split {split + 1}: without {out}")
        kept = [picture for picture in documents if picture.page.product != out]
        if not kept:
            continue
        entries = [e for e in shared if e.page.product != out] + photograph_entries(kept)
        base = open_base(entries, fit_space(entries))
        strangers = [picture for picture in pictures if picture.page.product == out]
        for query in [query for query in queries if query.page.product != out] + strangers:
            is_known = query.page.product != out
            seen = base.familiarity(query.whole, None)
            name = f"{query.page.product}.{query.label}.{query.name}"
            type_found = None
            if not is_known and query.is_typed:
                nearest = base.search(image=query.whole, k=K)
                type_found = any(hit.page.canonical_type == query.page.canonical_type for hit in nearest)
            result.asked.append(Asked(out, name, is_known, seen.similarity or -1.0, seen.known is False, type_found))
    if split == 0:
        space = fit_space([*shared, *photograph_entries(documents)])
        empty = open_base([], space)
        found = [empty.retrieve(query.whole, "", product=None, k=K) for query in queries]
        result.empty_refused = float(np.mean([not f.documents and f.familiarity.known is False for f in found]))


def render_unknown(result: UnknownResult) -> list[str]:
    """Lines of at most 80 columns."""
    lines = [
        "unknown products: one taken out of the base, asked by picture alone; per cent",
        f"{'taken out':<18}{'AUROC':>8}{'known refused':>16}{'unknown refused':>18}{'its type found':>17}",
    ]
    outs = sorted({row.out for row in result.asked})
    for out in [*outs, None]:
        rows = [row for row in result.asked if out in (None, row.out)]
        known = [row.refused for row in rows if row.is_known]
        unknown = [row.refused for row in rows if not row.is_known]
        types = mean_of_known([None if row.type_found is None else float(row.type_found) for row in rows])
        cells = [result.auroc(out), _mean(known), _mean(unknown), types]
        shown = ["–" if cell is None else f"{100 * cell:.1f}" for cell in cells]
        lines.append(f"{out or 'all':<18}{shown[0]:>8}{shown[1]:>16}{shown[2]:>18}{shown[3]:>17}")
    if (bounds := result.auroc_interval()) is not None:
        lines.append(f"AUROC over all: 95% interval {100 * bounds[0]:.1f} to {100 * bounds[1]:.1f} over pictures")
    refused = [(row.picture, float(row.refused)) for row in result.asked if row.is_known]
    if (bounds := interval(*cluster_means(refused))) is not None:
        lines.append(f"known refused: 95% interval {100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}")
    if result.empty_refused is not None:
        lines.append(f"empty base: nothing read, and said so, in {100 * result.empty_refused:.0f}% of queries")
    return lines


def _mean(values: Sequence[bool]) -> float | None:
    return float(np.mean(values)) if values else None
