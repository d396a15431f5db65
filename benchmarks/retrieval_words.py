"""Whether words find the page that they describe, in wording that the index has not seen.

Two wordings are left out of every page in turn: its other names, and the sentence that describes it. Each is then a
query that must find its page: among all pages, and among those of its product and the general ones. Beside them stands
what an inspection with an instruction finds: a picture with one of the left-out names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..tools.knowledge.features import LockSpace
from ..tools.knowledge.fusion import fuse
from ..tools.knowledge.in_memory import InMemoryStore
from ..tools.knowledge.schema import GOOD, KnowledgeDocument
from ..tools.knowledge.store import LockRecord
from .retrieval_data import Entry, Picture, Progress, fit_space, halve, photograph_entries
from .retrieval_metrics import cluster_means, interval
from .retrieval_unknown import open_base

K = 4
DEPTH = 64
WORDINGS = ("other names", "description")
METHODS = ("words of the key", "BM25", "both, ranks fused")
BASES = ("with photographs", "shipped pages alone")
WAYS = ("words in the key", "and by BM25")


@dataclass
class WordsResult:
    """Per (wording, scope, method) and per (base, way): each query's page or picture, and whether it was found."""

    words: dict[tuple[str, str, str], list[tuple[str, float]]] = field(default_factory=dict)
    instructions: dict[tuple[str, str], list[tuple[str, float]]] = field(default_factory=dict)


def without(page: KnowledgeDocument, wording: str) -> KnowledgeDocument:
    """The page as it is indexed when this wording is left out."""
    left_out = {"aliases": ()} if wording == WORDINGS[0] else {"description": ""}
    return page.model_copy(update=left_out)


def measure_words(result: WordsResult, pages: Sequence[KnowledgeDocument], tell: Progress) -> None:
    """Ask for every defect page by each of its left-out wordings."""
    space = LockSpace(np.zeros(1, np.float32), np.ones(1, np.float32))
    for wording in WORDINGS:
        tell(f"words: {wording} left out")
        indexed = [without(page, wording) for page in pages]
        store = InMemoryStore(space.dim)
        store.upsert(
            [
                LockRecord(p.doc_id, space.embed(None, p.searchable_text()), p.product, p.defect_type, text)
                for p, text in ((page, page.searchable_text()) for page in indexed)
            ]
        )
        for page in pages:
            queries = page.aliases if wording == WORDINGS[0] else (page.description,)
            for query in queries if page.defect_type != GOOD else ():
                for scope, products in (("all pages", None), ("its product's", ["general", page.product])):
                    for method, found in _rank(store, space, query, products).items():
                        row = result.words.setdefault((wording, scope, method), [])
                        row.append((page.doc_id, float(page.doc_id in found[:K])))


def _rank(store: InMemoryStore, space: LockSpace, query: str, products: list[str] | None) -> dict[str, list[str]]:
    by_words = [hit.doc_id for hit in store.search_words(query, DEPTH, products)]
    by_key = [hit.doc_id for hit in store.search(space.key(None, query), DEPTH, products)]
    fused = [doc_id for doc_id, _ in fuse([by_words, by_key])]
    return dict(zip(METHODS, (by_key, by_words, fused), strict=True))


def measure_instructions(
    result: WordsResult,
    pictures: Sequence[Picture],
    shared: Sequence[Entry],
    shipped: Sequence[Entry],
    split: int,
    tell: Progress,
) -> None:
    """Add one split: pictures with one of their page's left-out names, the product given, as an inspection asks."""
    tell(f"split {split + 1}: pictures with words")
    rng = np.random.default_rng(split)
    documents, queries = halve(pictures, split)
    for base_name, given in zip(BASES, ([*shared, *photograph_entries(documents)], shipped), strict=True):
        entries = [replace(entry, page=without(entry.page, WORDINGS[0])) for entry in given]
        right = {entry.doc_id: entry.page.doc_id for entry in entries}
        base = open_base(entries, fit_space(entries))
        for query in queries:
            page = query.page
            words = str(rng.choice(page.aliases)) if page.aliases else page.title
            for way, asked in zip(WAYS, ("", words), strict=True):
                text = f"{page.product} {words}"
                found = base.retrieve(query.whole, text, product=page.product, k=K, mode="mmr", words=asked)
                hit = any(right[document.doc_id] == page.doc_id for document in found.documents)
                name = f"{page.product}.{query.label}.{query.name}"
                result.instructions.setdefault((base_name, way), []).append((name, float(hit)))


def render_words(result: WordsResult) -> list[str]:
    """Lines of at most 100 columns."""
    lines = ["words alone: the right page among 4, in wording left out of the index; per cent, 95% interval over pages"]
    lines.append(f"{'':<14}{'':<16}" + "".join(f"{method:>24}" for method in METHODS))
    for wording in WORDINGS:
        for scope in ("all pages", "its product's"):
            cells = [_cell(result.words.get((wording, scope, method), [])) for method in METHODS]
            lines.append(f"{wording:<14}{scope:<16}" + "".join(f"{cell:>24}" for cell in cells))
    lines += ["", "a picture with a left-out name as instruction, product given: the right page among 4 (MMR)"]
    lines.append(f"{'':<22}" + "".join(f"{way:>24}" for way in WAYS))
    for base in BASES:
        cells = [_cell(result.instructions.get((base, way), [])) for way in WAYS]
        lines.append(f"{base:<22}" + "".join(f"{cell:>24}" for cell in cells))
    return lines


def _cell(values: list[tuple[str, float]]) -> str:
    bounds = interval(*cluster_means(values))
    if bounds is None:
        return "–"
    mean = float(np.mean([value for _, value in values]))
    return f"{100 * mean:.1f} ({100 * bounds[0]:.1f}–{100 * bounds[1]:.1f})"
