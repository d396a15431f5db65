"""What the retriever's benchmark asks and how it compares."""

from __future__ import annotations

import numpy as np
import pytest

from flawscope.benchmarks.retriever_seek import SCOPES, Row, compare, seek_pages, share_out
from flawscope.tools.knowledge.schema import KnowledgeDocument, load_documents
from flawscope.training.retriever_pairs import LabelledPart, by_label

PAGES = tuple(
    page
    for page in load_documents()
    if page.product == "leather" or page.doc_id in {"general.cut", "general.glue_residue", "general.hole"}
)
PAGE = {page.doc_id: page for page in PAGES}


def part(label: str, number: int, direction: int) -> LabelledPart:
    """A picture that points into one of four directions, with a little of its own."""
    vector = np.full(4, 0.1 * number, np.float32)
    vector[direction] += 10.0
    page: KnowledgeDocument = PAGE[label]
    return LabelledPart(page.product, page.product, label, page, page.canonical_type, f"{number}.png", vector)


PICTURES = [part("leather.cut", n, 0) for n in range(8)] + [part("leather.glue", n, 1) for n in range(8)]
DRAWINGS = {
    "cut": np.array([9.0, 0, 0, 1], np.float32),
    "glue_residue": np.array([0, 9.0, 0, 1], np.float32),
    "hole": np.array([0, 0, 9.0, 0], np.float32),
}


def test_a_quarter_at_most_becomes_documents_and_single_pictures_are_left_out() -> None:
    documents, queries = share_out([*PICTURES, part("leather.poke", 0, 2)], 0)
    assert {label: len(own) for label, own in by_label(documents).items()} == {"leather.cut": 2, "leather.glue": 2}
    assert len(queries) == 12
    assert not {id(p) for p in documents} & {id(p) for p in queries}
    other, _ = share_out(PICTURES, 1)
    assert [p.name for p in other] != [p.name for p in documents]


def test_plain_pictures_find_their_pages() -> None:
    documents, queries = share_out(PICTURES, 0)
    rows = seek_pages(documents, queries, PAGES, DRAWINGS, None)
    assert len(rows) == len(queries) * len(SCOPES)
    assert all(row.seek == 1.0 for row in rows)
    assert all(row.recall in (0.5, 1.0) for row in rows)
    assert {row.recall for row in rows if row.scope == "general pages"} == {1.0}
    assert all(row.alpha_ndcg is not None and 0.0 < row.alpha_ndcg <= 1.1 for row in rows)


def test_a_general_type_without_a_page_is_not_asked_for() -> None:
    lone = [page for page in PAGES if page.scope == "product"]
    documents, queries = share_out(PICTURES, 0)
    rows = seek_pages(documents, queries, lone, {}, None)
    assert {row.scope for row in rows} == set(SCOPES[:2])


def row(product: str, name: str, seek: float, gain: float | None = 0.5, scope: str = SCOPES[0]) -> Row:
    return Row(product, "x", name, scope, seek, seek, gain)


def test_a_comparison_by_hand() -> None:
    before = [row("a", "1", 0.0), row("a", "2", 1.0), row("b", "1", 0.0), row("b", "1", 1.0, scope=SCOPES[1])]
    after = [row("a", "1", 1.0), row("a", "2", 1.0), row("b", "1", 0.0), row("b", "1", 0.0, scope=SCOPES[1])]
    found = compare(before, after)
    assert found is not None
    assert (found.before, found.after) == (0.25, 0.5)  # macro: a from one half to one, b stays at zero
    assert (found.low, found.high) == (0.0, 0.5)
    assert not found.wins
    sure = compare(before[:1], after[:1])
    assert sure is not None
    assert (sure.low, sure.high, sure.wins) == (1.0, 1.0, True)


def test_a_picture_that_asked_twice_counts_once() -> None:
    before = [row("a", "1", 0.0), row("a", "1", 1.0), row("a", "2", 0.0)]
    after = [row("a", "1", 1.0), row("a", "1", 1.0), row("a", "2", 0.0)]
    found = compare(before, after)
    assert found is not None
    assert (found.before, found.after) == (0.25, 0.5)


def test_nothing_to_compare_is_none() -> None:
    assert compare([], []) is None
    assert compare([row("a", "1", 1.0, None)], [row("a", "1", 1.0, None)], metric="a-nDCG") is None
    with pytest.raises(ValueError, match="shorter"):
        compare([row("a", "1", 1.0)], [])
