"""What no search may do: depend on an order, let a page through a filter, or refuse the nearer of two pictures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from flawscope.tools.knowledge.familiarity import judge, least_familiar
from flawscope.tools.knowledge.features import LockSpace
from flawscope.tools.knowledge.fusion import fuse
from flawscope.tools.knowledge.in_memory import InMemoryStore
from flawscope.tools.knowledge.schema import KnowledgeDocument
from flawscope.tools.knowledge.search import Scope, search_pages
from flawscope.tools.knowledge.store import LockRecord

rankings = st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=8), max_size=4)


@given(rankings, st.randoms())
def test_fusion_does_not_depend_on_the_order_of_its_rankings(given_rankings: list[list[str]], random: object) -> None:
    fused = fuse(given_rankings)
    shuffled = list(given_rankings)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert fuse(shuffled) == fused
    assert {doc_id for doc_id, _ in fused} == {doc_id for ranking in given_rankings for doc_id in ranking}
    assert fused == sorted(fused, key=lambda item: (-item[1], item[0]))


@given(rankings, st.permutations("abcdefgh"))
def test_fusion_calls_documents_by_any_name(given_rankings: list[list[str]], names: list[str]) -> None:
    other = dict(zip("abcdefgh", names, strict=True))
    renamed = fuse([[other[doc_id] for doc_id in ranking] for ranking in given_rankings])
    assert {(other[doc_id], share) for doc_id, share in fuse(given_rankings)} == set(renamed)


@given(st.lists(st.sampled_from("abcdefgh"), min_size=2, unique=True), rankings, st.data())
def test_moving_up_never_costs_a_place(ranking: list[str], others: list[list[str]], data: st.DataObject) -> None:
    at = data.draw(st.integers(1, len(ranking) - 1))
    higher = list(ranking)
    higher[at - 1], higher[at] = higher[at], higher[at - 1]

    def place(rankings_: list[list[str]]) -> int:
        return [doc_id for doc_id, _ in fuse(rankings_)].index(ranking[at])

    assert place([higher, *others]) <= place([ranking, *others])


PRODUCTS, LABELS, GENERAL = ("general", "gear", "plug"), ("scratch", "mark"), ("scratch", "stain")
WORDS = ("burr", "scratch", "edge", "housing", "dull", "mark")
DEPTH = 5
SPACE = LockSpace(np.zeros(DEPTH, np.float32), np.ones(DEPTH, np.float32))


@st.composite
def pages(draw: st.DrawFn) -> KnowledgeDocument:
    product, label = draw(st.sampled_from(PRODUCTS)), draw(st.sampled_from(LABELS))
    general = product == "general"
    return KnowledgeDocument(
        doc_id=f"d{draw(st.integers(0, 10**6))}",
        scope="general" if general else "product",
        product=product,
        defect_type=label,
        general_type=None if general else draw(st.sampled_from(GENERAL)),
        title=" ".join(draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4))),
    )


@given(
    st.lists(pages(), max_size=12, unique_by=lambda page: page.doc_id),
    st.sampled_from([None, *PRODUCTS, "unheard of"]),
    st.sampled_from([None, *LABELS, *GENERAL, "unheard of"]),
    st.lists(st.sampled_from(WORDS), max_size=3),
    st.integers(0, 2**32 - 1),
    st.integers(1, 6),
)
def test_a_filter_lets_nothing_through_and_keeps_nothing_back(
    given_pages: list[KnowledgeDocument], product: str | None, kind: str | None, words: list[str], seed: int, k: int
) -> None:
    rng = np.random.default_rng(seed)
    documents: Mapping[str, KnowledgeDocument] = {page.doc_id: page for page in given_pages}
    images = {doc_id: rng.normal(size=DEPTH).astype(np.float32) if rng.random() < 0.8 else None for doc_id in documents}
    vectors = {i: SPACE.embed(images[i], page.searchable_text()) for i, page in documents.items()}
    store = InMemoryStore(SPACE.dim)
    store.upsert(
        [LockRecord(i, vectors[i], p.product, p.defect_type, p.searchable_text()) for i, p in documents.items()]
    )
    scope = Scope.of(documents, product, kind)
    image = rng.normal(size=DEPTH).astype(np.float32)
    found = search_pages(store, SPACE, vectors, scope, words=" ".join(words), image=image, k=k)
    for hit in found:
        assert product in (None, hit.page.product)
        assert kind in (None, hit.page.defect_type, hit.page.canonical_type)
        assert (hit.word_score is not None) or (hit.similarity is not None)
    pictured = {i for i in scope.pages if images[i] is not None}
    worded = {i for i, page in scope.pages.items() if set(words) & set(page.searchable_text().split())}
    assert len(found) == min(k, len(pictured | worded))
    assert len({hit.page.doc_id for hit in found}) == len(found)
    alone = search_pages(store, SPACE, vectors, scope, image=image, k=k)
    cosines = [hit.similarity for hit in alone]
    assert cosines == sorted(cosines, key=lambda c: -(c or 0.0))
    assert {hit.page.doc_id for hit in alone} <= pictured


@given(
    st.floats(-1, 1), st.floats(-1, 1), st.one_of(st.none(), st.floats(-1, 1)), st.one_of(st.none(), st.just("gear"))
)
def test_the_nearer_of_two_pictures_is_never_the_unknown_one(
    one: float, other: float, threshold: float | None, product: str | None
) -> None:
    near, far = judge(max(one, other), threshold, "a", product), judge(min(one, other), threshold, "a", product)
    rank = {False: 0, None: 1, True: 2}
    assert rank[near.known] >= rank[far.known]
    assert bool(far.sentence) == (far.known is False)


@given(st.integers(0, 2**32 - 1), st.integers(2, 30))
def test_the_threshold_does_not_depend_on_the_order_of_the_pages(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(count, DEPTH)).astype(np.float32)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    products = [PRODUCTS[n] for n in rng.integers(0, 3, count)]
    order = rng.permutation(count)
    found = least_familiar(images, products)
    again = least_familiar(images[order], [products[n] for n in order])
    assert (found is None) == (again is None)
    if found is not None and again is not None:
        assert abs(found - again) < 1e-6
        nearest = [
            max((float(images[a] @ images[b]) for b in others), default=2)
            for a in range(count)
            for others in [[b for b in range(count) if b != a and products[b] == products[a]]]
        ]
        refused = np.mean([value < found - 1e-6 for value in nearest if value < 2])
        assert refused <= 0.05 + 1.0 / count
