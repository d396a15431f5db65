"""Retrieval by the number of documents: candidates against exact search, times, and the rate of inserting.

The shipped pages are a few hundred, so larger bases are made from them. A made page takes the lock features v of a
shipped one, of their real length, and a detour: ``sqrt(c) v + sqrt(1 - c) d``. Here d is the normalised difference of
two other shipped pages, a direction in which real pages differ, and c is the mean cosine of a real page with the
nearest one of the same general type and another product. So the pages made from one lie as close together as those of
one type do, and the clusters lie where the types lie. Their words are those of the origin. A fifth of them holds for
any product, the others for one of fifty. Queries are drawn in the same way and are not in the base.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..tools.blas import single_blas_thread
from ..tools.knowledge.q2k import kde_sample
from ..tools.knowledge.store import LockRecord, Store
from .lite_server import lite_server

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..agent.settings import LoadedSettings
    from ..tools.knowledge.schema import KnowledgeDocument

SIZES = (100, 1_000, 10_000, 100_000)
SERVER_FROM = 20_000
"""From so many documents on, a server is measured too."""
NEIGHBOURS = 64
QUERIES = 50
WORD_QUERIES = 20
PRODUCTS = 50
GENERAL_SHARE = 0.2
CHUNK = 10_000
DOCUMENTS = 4
SAME = 1e-5
"""Cosines closer than this are equal: stores add up in float32."""
SERVER_TIMEOUT_S = 60.0

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Pages:
    """Where made pages come from.

    Attributes:
        vectors: float32 (M, dim) lock features of the shipped pages, unit length.
        texts: their words.
        spread: c, the share of the origin in a made page, see above.
    """

    vectors: NDArray[np.float32]
    texts: tuple[str, ...]
    spread: float

    def draw(self, count: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
        """Vectors (count, dim) of unit length and the origin (count,) of each."""
        origin, one, other = (rng.integers(len(self.vectors), size=count) for _ in range(3))
        other = np.where(one == other, (other + 1) % len(self.vectors), other)
        detour = self.vectors[one] - self.vectors[other]
        detour /= np.maximum(np.linalg.norm(detour, axis=1, keepdims=True), SAME)
        made = np.sqrt(self.spread) * self.vectors[origin] + np.sqrt(1.0 - self.spread) * detour
        return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), np.float32), origin


@dataclass(frozen=True)
class ScaleRow:
    """One store at one size; times in milliseconds as (median, 95th percentile).

    Attributes:
        store: its name.
        documents: how many.
        insert_per_s: documents inserted a second.
        recall: share of the exact 64 nearest among the candidates, mean over queries.
        search_ms: all documents.
        filtered_ms: one product and what is general, as an inspection asks.
        words_ms: by words.
        sample_ms: KDE-Sample on the candidates.
    """

    store: str
    documents: int
    insert_per_s: float
    recall: float
    search_ms: tuple[float, float]
    filtered_ms: tuple[float, float]
    words_ms: tuple[float, float]
    sample_ms: tuple[float, float]


@dataclass(frozen=True)
class ScaleResult:
    """All rows, and what they were made from."""

    rows: tuple[ScaleRow, ...]
    origins: int
    dim: int
    spread: float


def shipped_features(loaded: LoadedSettings) -> Pages:
    """Features of the shipped pages with the configured backbone; their base is built when it is missing."""
    from ..tools.backbones import load_backbone
    from ..tools.knowledge.builder import content_hash, open_knowledge_base, read_base, shipped_documents

    backbone, documents, folder = (
        load_backbone(loaded.settings.backbone, loaded),
        shipped_documents(),
        loaded.home.knowledge,
    )
    digest = content_hash(documents, backbone)
    if not (folder / digest[:16] / "manifest.json").exists():
        with tempfile.TemporaryDirectory() as scratch:
            open_knowledge_base(Path(scratch), backbone, store="memory").close()
            vectors, *_ = read_base(Path(scratch) / digest[:16], documents, digest)
    else:
        vectors, *_ = read_base(folder / digest[:16], documents, digest)
    return Pages(vectors, tuple(d.searchable_text() for d in documents), _cosine_of_types(documents, vectors))


def _cosine_of_types(documents: Sequence[KnowledgeDocument], vectors: NDArray[np.float32]) -> float:
    types = np.array([d.canonical_type for d in documents])
    products = np.array([d.product for d in documents])
    cosines = vectors @ vectors.T
    alike = (types[:, None] == types) & (products[:, None] != products)
    nearest = np.where(alike, cosines, -np.inf).max(axis=1)
    return float(np.clip(nearest[np.isfinite(nearest)].mean(), 0.1, 0.95))


def run_retrieval_scale(
    pages: Pages, sizes: Sequence[int] = SIZES, *, queries: int = QUERIES, seed: int = 0, progress: Progress
) -> ScaleResult:
    """Measure every size on Milvus Lite, and from 20,000 documents on also on ``milvus-lite server``.

    Args:
        pages: what documents are made from.
        sizes: numbers of documents.
        queries: timed searches of each kind.
        seed: of documents and queries.
        progress: told what is being done.
    """
    rows = []
    with single_blas_thread():
        for size in sorted(set(sizes)):
            vectors, origin = pages.draw(size, np.random.default_rng([seed, size]))
            kinds = ["Milvus Lite"] + ["milvus-lite server"] * (size >= SERVER_FROM)
            rows += [_measure(kind, pages, vectors, origin, queries, seed, progress) for kind in kinds]
    return ScaleResult(tuple(rows), len(pages.vectors), pages.vectors.shape[1], pages.spread)


def _measure(
    kind: str,
    pages: Pages,
    vectors: NDArray[np.float32],
    origin: NDArray[np.intp],
    queries: int,
    seed: int,
    progress: Progress,
) -> ScaleRow:
    size, rng = len(vectors), np.random.default_rng([seed, len(vectors), 1])
    products = _products(size, rng)
    keys, asked = pages.draw(queries, rng)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = _open(kind, folder, vectors.shape[1], stack)
        spent = 0.0
        for start in range(0, size, CHUNK):
            progress(f"{kind}: {start:,} of {size:,} documents")
            records = [
                LockRecord(f"d{n:07d}", vectors[n], products[n], "hole", pages.texts[origin[n]])
                for n in range(start, min(start + CHUNK, size))
            ]
            spent += _timed(lambda: store.upsert(records))  # noqa: B023  # called at once
        progress(f"{kind}: searching {size:,} documents")
        store.search(keys[0], NEIGHBOURS)
        found, search_ms = [], []
        for key in keys:
            search_ms.append(_timed(lambda: found.append(store.search(key, NEIGHBOURS))))  # noqa: B023
        wanted = [["general", f"p{n}"] for n in rng.integers(PRODUCTS, size=queries)]
        filtered_ms = [_timed(lambda: store.search(k, NEIGHBOURS, w)) for k, w in zip(keys, wanted, strict=True)]  # noqa: B023
        heads = [" ".join(pages.texts[n].split()[:6]) for n in asked[:WORD_QUERIES]]
        words_ms = [_timed(lambda: store.search_words(head, NEIGHBOURS)) for head in heads]  # noqa: B023
        sample_ms = []
        for hits in found * 3:
            ids, cosines = [h.doc_id for h in hits], [h.similarity for h in hits]
            sample_ms.append(_timed(lambda: kde_sample(cosines, ids, DOCUMENTS)))  # noqa: B023
    exact = -np.sort(-(keys @ vectors.T), axis=1)[:, :NEIGHBOURS]
    recall = [
        sum(hit.similarity >= row[-1] - SAME for hit in hits) / len(row) for hits, row in zip(found, exact, strict=True)
    ]
    return ScaleRow(
        kind,
        size,
        size / spent,
        float(np.mean(recall)),
        _quantiles(search_ms),
        _quantiles(filtered_ms),
        _quantiles(words_ms),
        _quantiles(sample_ms),
    )


def _products(size: int, rng: np.random.Generator) -> list[str]:
    general = rng.random(size) < GENERAL_SHARE
    return ["general" if g else f"p{n}" for g, n in zip(general, rng.integers(PRODUCTS, size=size), strict=True)]


def _open(kind: str, folder: Path, dim: int, stack: ExitStack) -> Store:
    from ..tools.knowledge.milvus import MilvusLiteStore
    from ..tools.knowledge.milvus_server import MilvusServer, MilvusServerStore

    store: Store
    if kind == "Milvus Lite":
        store = MilvusLiteStore(folder, dim)
    else:
        server = stack.enter_context(lite_server(folder / "data"))
        store = MilvusServerStore(MilvusServer(server.uri, timeout_s=SERVER_TIMEOUT_S), "scale", dim)
    stack.callback(store.close)
    return store


def _timed(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _quantiles(seconds: Sequence[float]) -> tuple[float, float]:
    median, high = np.quantile(seconds, [0.5, 0.95])
    return float(median * 1e3), float(high * 1e3)


def render(result: ScaleResult) -> RenderableType:
    """The table, and how KDE-Sample grows from the smallest base to the largest."""
    from rich.console import Group
    from rich.table import Table

    table = Table(
        "store", "documents", "inserted/s", f"recall@{NEIGHBOURS}", "search", "of one product", "words", "KDE-Sample"
    )
    for row in result.rows:
        times = [f"{m:.1f} / {p:.1f}" for m, p in (row.search_ms, row.filtered_ms, row.words_ms, row.sample_ms)]
        table.add_row(row.store, f"{row.documents:,}", f"{row.insert_per_s:,.0f}", f"{row.recall:.4f}", *times)
    embedded = [row for row in result.rows if row.store == "Milvus Lite"]
    growth = embedded[-1].sample_ms[0] / embedded[0].sample_ms[0]
    told = (
        f"Times in ms, median / 95th percentile. Vectors of length {result.dim} around {result.origins} shipped pages, "
        f"c = {result.spread:.2f}. KDE-Sample at {embedded[-1].documents:,} documents takes {growth:.2f} times what it "
        f"takes at {embedded[0].documents:,}."
    )
    return Group(table, told)
