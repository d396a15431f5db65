"""Searching an open base: the same answers from both stores, and what an inspection does with words and likeness."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from conftest import FEW_DOCUMENTS
from fakes import PatchStatistics, texture, with_square

from flawscope.agent.errors import KnowledgeError
from flawscope.tools.knowledge.base import KnowledgeBase
from flawscope.tools.knowledge.builder import open_knowledge_base
from flawscope.tools.knowledge.drafting import new_page
from flawscope.tools.knowledge.features import LockSpace, image_part
from flawscope.tools.knowledge.in_memory import InMemoryStore
from flawscope.tools.knowledge.schema import KnowledgeDocument, load_documents
from flawscope.tools.knowledge.store import LockRecord

FEW = tuple(page for page in load_documents() if page.doc_id in FEW_DOCUMENTS)
KEY = image_part(PatchStatistics().encode_image(with_square(texture(1))[None]))


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[KnowledgeBase, KnowledgeBase]]:
    folder = tmp_path_factory.mktemp("knowledge")
    milvus = open_knowledge_base(folder, PatchStatistics(), documents=FEW)
    memory = open_knowledge_base(folder, PatchStatistics(), documents=FEW, store="memory")
    yield milvus, memory
    milvus.close()
    memory.close()


@pytest.mark.parametrize("words", ["", "a light thread along the weave", "scratches", "dent or dents in the panel"])
@pytest.mark.parametrize("image", [None, KEY], ids=["no picture", "picture"])
@pytest.mark.parametrize(
    "filters", [{}, {"product": "textile"}, {"type_name": "crack"}, {"product": "general"}], ids=str
)
def test_both_stores_answer_alike(
    bases: tuple[KnowledgeBase, KnowledgeBase], words: str, image: np.ndarray | None, filters: dict[str, str]
) -> None:
    if image is None and not words:
        for base in bases:
            with pytest.raises(KnowledgeError, match="words or a picture"):
                base.search(words, image)
        return
    one, other = (base.search(words, image, k=5, **filters) for base in bases)
    assert [hit.page.doc_id for hit in one] == [hit.page.doc_id for hit in other]
    assert [hit.score for hit in one] == pytest.approx([hit.score for hit in other], rel=1e-5)
    assert [hit.similarity for hit in one] == pytest.approx([hit.similarity for hit in other])
    product, kind = filters.get("product"), filters.get("type_name")
    for hit in one:
        assert product in (None, hit.page.product)
        assert kind in (None, hit.page.defect_type, hit.page.canonical_type)


def test_an_instruction_brings_a_page_without_a_picture_and_changes_nothing_else(
    bases: tuple[KnowledgeBase, KnowledgeBase],
) -> None:
    for base in bases:
        before = base.retrieve(KEY, "", product="textile", k=4)
        after = base.retrieve(KEY, "", product="textile", k=4, words="the weave and its light threads")
        assert "textile.good" not in {page.doc_id for page in before.documents}
        assert "textile.good" in {page.doc_id for page in after.documents}
        assert len(after.documents) == 4
        assert list(after.similarities) == sorted(after.similarities, reverse=True)
        same = base.retrieve(KEY, "", product="textile", k=4, words="xylophone")
        assert [page.doc_id for page in same.documents] == [page.doc_id for page in before.documents]
        out = base.retrieve(KEY, "textile", product=None, k=4, words="the weave and its light threads")
        assert "textile.good" not in {page.doc_id for page in out.documents}  # another product's page


def test_words_without_a_picture_go_by_words(bases: tuple[KnowledgeBase, KnowledgeBase]) -> None:
    for base in bases:
        found = base.retrieve(None, "scratches", product=None, k=2, words="scratches")
        assert "general.scratch" in {page.doc_id for page in found.documents}
        assert len(found.documents) == 2
        again = base.retrieve(None, "scratch", product=None, k=2, words="scratch", exclude=["general.scratch"])
        assert "general.scratch" not in {page.doc_id for page in again.documents}


def photograph(doc_id: str, product: str = "gear") -> KnowledgeDocument:
    return KnowledgeDocument(
        doc_id=doc_id, scope="product", product=product, defect_type="burr", general_type="burr", title="Burr"
    )


def turned(degrees: float) -> np.ndarray:
    return np.array([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))], np.float32)


def base_of(pictures: dict[str, np.ndarray | None]) -> KnowledgeBase:
    space = LockSpace(np.zeros(2, np.float32), np.ones(2, np.float32))
    pages = [photograph(name, name.split(".")[0]) for name in pictures]
    vectors = np.array([space.embed(pictures[p.doc_id], "burr") for p in pages]).reshape(-1, space.dim)
    store = InMemoryStore(space.dim)
    store.upsert([LockRecord(p.doc_id, v, p.product, p.defect_type) for p, v in zip(pages, vectors, strict=True)])
    return KnowledgeBase(pages, vectors, space, store, "hash")


def test_of_several_pages_under_one_label_the_most_alike_comes_first() -> None:
    base = base_of({"gear.a": turned(0), "gear.b": turned(80), "gear.c": None, "gear.d": turned(40)})

    def named(image: np.ndarray | None) -> list[str]:
        return [page.doc_id for page in base.documents_about("burr", "gear", image)]

    assert named(turned(70)) == ["gear.b", "gear.d", "gear.a", "gear.c"]
    assert named(turned(10)) == ["gear.a", "gear.d", "gear.b", "gear.c"]
    assert named(None) == ["gear.a", "gear.b", "gear.c", "gear.d"]
    assert base.documents_about("burr", "plug", turned(0)) == ()


def test_a_product_is_not_known_by_a_draft_that_nobody_accepted() -> None:
    empty = new_page(
        None, "gear", type_name="burr", doc_id=None, taken=(), author="Ada", created="now", box=None, picture_name=None
    )
    draft = empty.model_copy(
        update={"description": "A fin.", "drafted_by": "a model", "drafted_fields": ("description",)}
    )
    space = LockSpace(np.zeros(2, np.float32), np.ones(2, np.float32))

    def known(page: KnowledgeDocument) -> bool | None:
        base = KnowledgeBase([page], space.embed(None, "burr")[None], space, InMemoryStore(space.dim), "hash")
        assert (base.category(turned(0), "gear").source == "given") is base.familiarity(turned(0), "gear").known
        return base.familiarity(turned(0), "gear").known

    assert known(draft) is False
    assert known(draft.model_copy(update={"drafted_by": None, "drafted_fields": ()})) is True
    assert known(draft.model_copy(update={"page_image": "picture.png"})) is True


def test_a_base_knows_what_is_as_near_as_its_own_photographs_are_to_each_other() -> None:
    pairs = {
        f"{name}.{n}": turned(at + 10 * n) for at, name in zip((0, 90, 180, 270), "abcd", strict=True) for n in (0, 1)
    }
    base = base_of(pairs)
    near = base.familiarity(turned(19), None)
    assert (near.known, near.basis, near.nearest) == (True, "picture", "a.1")
    assert near.similarity == pytest.approx(np.cos(np.deg2rad(9)), abs=1e-5)
    assert near.threshold == pytest.approx(np.cos(np.deg2rad(10)), abs=1e-5)
    assert base.familiarity(turned(50), None).known is False
    assert base.familiarity(turned(50), "new").known is False
    assert base.familiarity(turned(19), "new").known is True
    assert base.familiarity(turned(50), "a").basis == "name"
    assert base.familiarity(None, None).known is None
    assert base.retrieve(turned(50), "", product=None, k=2).familiarity.known is False


def test_an_empty_base_and_one_without_photographs() -> None:
    empty = base_of({})
    found = empty.retrieve(turned(0), "", product=None, k=2)
    assert (found.documents, found.familiarity.basis) == ((), "empty")
    assert found.selection.flags == ("no_knowledge",)
    worded = base_of({"gear.a": None, "gear.b": None})
    assert worded.familiarity(turned(0), "gear").known is True
    assert worded.familiarity(turned(0), "plug").known is False
    assert worded.familiarity(turned(0), None).known is None
