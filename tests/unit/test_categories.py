"""Which kind of part a picture shows, and what a reasoner is told of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flawscope.tools.knowledge.categories import (
    DEFECT_TOKENS,
    DEFECTS,
    NORMAL_TOKENS,
    CategoryChoice,
    category_knowledge,
    category_posterior,
    choose,
    prototypes,
)
from flawscope.tools.knowledge.plant_page import page_from_note
from flawscope.tools.knowledge.schema import KnowledgeDocument, estimated_tokens, load_documents

E1, E2 = np.eye(2, dtype=np.float32)


def test_prototypes_are_mean_directions() -> None:
    parts = np.stack([E1, E2, E1, -E1])
    found = prototypes(parts, ["b", "b", "a", "gone"])
    assert list(found) == ["a", "b", "gone"]
    np.testing.assert_allclose(found["b"], [0.5**0.5, 0.5**0.5], rtol=1e-6)
    assert list(prototypes(np.stack([E1, -E1]), ["c", "c"])) == []


def test_the_posterior_is_a_softmax_of_cosines() -> None:
    # cosines 1 and 0.98 at a temperature of 0.02: one unit apart, so e : 1
    near = np.array([0.98, (1 - 0.98**2) ** 0.5], np.float32)
    ((first, share), (second, rest)) = category_posterior(E1, {"x": E1, "y": near})
    assert (first, second) == ("x", "y")
    assert share == pytest.approx(np.e / (1 + np.e), rel=1e-4)
    assert share + rest == pytest.approx(1.0)
    assert category_posterior(E1, {}) == ()


@given(arrays(np.float32, (5, 4), elements=st.floats(-1, 1, width=32)), st.permutations(range(4)), st.randoms())
def test_the_posterior_sums_to_one_and_has_no_favourites(vectors: Any, order: list[int], random: Any) -> None:
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    known = {f"p{i}": unit[i] for i in range(4)}
    found = category_posterior(unit[4], known)
    assert sum(share for _, share in found) == pytest.approx(1.0)
    assert [share for _, share in found] == sorted((share for _, share in found), reverse=True)
    assert found == category_posterior(unit[4], {f"p{i}": unit[i] for i in order})


@pytest.mark.parametrize(
    ("shares", "familiar", "source", "named"),
    [
        ([0.6, 0.4], True, "predicted", 1),
        ([0.6, 0.4], None, "possible", 1),
        ([0.99, 0.01], False, "generic", 0),
        ([0.59, 0.41], True, "possible", 2),
        ([0.31, 0.3, 0.2, 0.19], True, "possible", 2),
        ([0.3, 0.29, 0.21, 0.2], True, "generic", 0),
        ([], True, "generic", 0),
    ],
)
def test_one_category_two_or_none(shares: list[float], familiar: bool | None, source: str, named: int) -> None:
    choice = choose([(f"p{i}", share) for i, share in enumerate(shares)], familiar)
    assert (choice.source, len(choice.candidates)) == (source, named)


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=6), st.sampled_from([True, False, None]))
def test_never_more_is_named_than_carries_the_posterior(weights: list[float], familiar: bool | None) -> None:
    shares = sorted((w / sum(weights) for w in weights), reverse=True)
    choice = choose([(f"p{i}", share) for i, share in enumerate(shares)], familiar)
    assert len(choice.candidates) <= 2
    assert choice.source == "generic" or sum(share or 0 for _, share in choice.candidates) >= 0.6
    assert choice.source != "predicted" or familiar


def lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.startswith("> ")]


PAGES = load_documents()


def test_the_section_quotes_the_category_alone() -> None:
    found = category_knowledge(CategoryChoice("given", (("transistor", None),)), PAGES, {}, "s")
    assert found.text.startswith("The part is a transistor, as the operator says.")
    assert len(lines(found.text)) == 1 + DEFECTS
    assert found.doc_ids[0] == "transistor.good"
    assert all(doc_id.startswith("transistor.") for doc_id in found.doc_ids)
    assert "no instructions and no evidence about this part" in found.text
    normal, *defects = lines(found.text)
    assert estimated_tokens(normal) <= NORMAL_TOKENS
    assert all(estimated_tokens(line) <= DEFECT_TOKENS for line in defects)


def test_defects_are_the_likeliest_and_else_in_no_order_of_favour() -> None:
    choice = CategoryChoice("predicted", (("transistor", 0.9),))
    ranked = category_knowledge(choice, PAGES, {"misplaced": 0.6, "cut_lead": 0.3}, "s").doc_ids
    assert ranked[1:3] == ("transistor.misplaced", "transistor.cut_lead")
    assert category_knowledge(choice, PAGES, {}, "s") == category_knowledge(choice, PAGES, {}, "s")
    assert len({category_knowledge(choice, PAGES, {}, str(seed)).doc_ids for seed in range(20)}) > 1


def test_two_candidates_are_each_called_possible() -> None:
    choice = CategoryChoice("possible", (("transistor", 0.5), ("pcb", 0.4)))
    text = category_knowledge(choice, PAGES, {}, "s").text
    assert "possibly a transistor (posterior 0.50)" in text
    assert "possibly a pcb (posterior 0.40)" in text
    assert "most likely" not in text


def test_the_oracle_is_labelled_so() -> None:
    found = category_knowledge(CategoryChoice("oracle", (("pcb", None),)), PAGES, {}, "s")
    assert "benchmark's own label" in found.text
    assert found.choice.source == "oracle"


@pytest.mark.parametrize("choice", [CategoryChoice("generic"), CategoryChoice("given", (("no such part", None),))])
def test_without_pages_nothing_is_claimed(choice: CategoryChoice) -> None:
    found = category_knowledge(choice, PAGES, {}, "s")
    assert (found.choice.source, found.doc_ids, lines(found.text)) == ("generic", (), [])


def note(text: str, product: str = "plate", kind: str = "burr") -> KnowledgeDocument:
    return page_from_note(
        text,
        product,
        type_name=kind,
        doc_id=None,
        taken=(),
        author="Ada",
        created="now",
        box=None,
        picture_name="p.png",
    )


@given(st.text(min_size=1, max_size=300).filter(lambda text: any(char.isalnum() for char in text)))
def test_what_pages_say_stays_quoted(text: str) -> None:
    page = note(f"burr {text}")
    found = category_knowledge(CategoryChoice("given", (("plate", None),)), [page], {}, "s")
    first, quoted, last = found.text.split("\n")
    assert quoted.startswith("> Defect burr: ")
    assert first.startswith("The part is a plate")
    assert last.startswith('Lines that begin with "> "')


def test_drafts_are_left_out() -> None:
    page = note("burr").model_copy(update={"drafted_by": "m", "drafted_fields": ("description",)})
    assert category_knowledge(CategoryChoice("given", (("plate", None),)), [page], {}, "s").doc_ids == ()
