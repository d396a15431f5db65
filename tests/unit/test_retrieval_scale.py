"""The made pages lie as the docstring says, and the table holds what was measured."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from flawscope.benchmarks.retrieval_scale import NEIGHBOURS, Pages, render, run_retrieval_scale


@pytest.fixture(scope="module")
def pages() -> Pages:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 64))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Pages(vectors.astype(np.float32), tuple(f"burr number {n} on the edge" for n in range(30)), 0.5)


def test_pages_of_one_origin_are_as_alike_as_told(pages: Pages) -> None:
    made, origin = pages.draw(4000, np.random.default_rng(1))
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1.0, atol=1e-5)
    of_first = made[origin == 0]
    cosines = (of_first @ of_first.T)[np.triu_indices(len(of_first), 1)]
    assert cosines.mean() == pytest.approx(0.5, abs=0.05)
    assert (made[origin == 0] @ made[origin == 1].T).mean() < 0.2


def test_exact_search_finds_all_and_the_table_says_so(pages: Pages) -> None:
    told: list[str] = []
    result = run_retrieval_scale(pages, [100, 40], queries=5, progress=told.append)
    assert [(row.store, row.documents) for row in result.rows] == [("Milvus Lite", 40), ("Milvus Lite", 100)]
    assert [row.recall for row in result.rows] == [1.0, 1.0]
    assert all(row.search_ms[0] <= row.search_ms[1] for row in result.rows)
    assert any("searching 100" in line for line in told)
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(render(result))
    assert f"recall@{NEIGHBOURS}" in (text := console.export_text())
    assert "1.0000" in text
