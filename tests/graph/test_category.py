"""The kind of part reaches any reasoner with its prompt section, and nothing of it can be cited."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import Plant
from fakes import FunctionReasoner

from flawscope.agent.inspector import Inspector
from flawscope.agent.reasoner import DraftReport, EvidenceBundle, ReasonerReply
from flawscope.agent.schemas import Claim, Verdict
from flawscope.agent.verifier import verify
from flawscope.tools.knowledge.base import KnowledgeBase
from flawscope.tools.knowledge.features import TEXT_DIM, LockSpace
from flawscope.tools.knowledge.in_memory import InMemoryStore
from flawscope.tools.knowledge.schema import KnowledgeDocument

SPACE = LockSpace(np.zeros(3, np.float32), np.ones(3, np.float32))


def page(product: str, number: int) -> KnowledgeDocument:
    return KnowledgeDocument(
        doc_id=f"{product}.{number}",
        scope="product",
        product=product,
        defect_type="burr",
        general_type="burr",
        title="Burr",
        description=f"A fin on the {product}.",
    )


def base(**photographs: Any) -> KnowledgeBase:
    """A base whose photographs of each product scatter a little around a direction."""
    rng = np.random.default_rng(0)
    pages, vectors = [], []
    for product, (direction, count) in photographs.items():
        for number in range(count):
            pages.append(page(product, number))
            image = np.asarray(direction, np.float32) + 0.05 * rng.standard_normal(3).astype(np.float32)
            vectors.append(SPACE.embed(image, ""))
    return KnowledgeBase(pages, np.stack(vectors), SPACE, InMemoryStore(3 + TEXT_DIM), "x")


X, Y, Z = np.eye(3, dtype=np.float32)


def test_the_operators_word_is_taken_where_the_base_has_pages() -> None:
    known = base(gear=(X, 5), plate=(Y, 5))
    assert known.category(X, "plate").source == "given"
    assert known.category(X, "my plate").candidates[0][0] == "gear"


def test_a_near_picture_is_predicted_a_far_one_is_not() -> None:
    known = base(gear=(X, 5), plate=(Y, 5))
    found = known.category(X, None)
    assert (found.source, found.candidates[0][0]) == ("predicted", "gear")
    assert found.candidates[0][1] == pytest.approx(1.0)
    assert known.category(Z, None).source == "generic"


def test_few_photographs_make_a_category_possible_at_most() -> None:
    assert base(gear=(X, 2)).category(Z, None).source == "possible"
    words_alone = KnowledgeBase([page("gear", 0)], SPACE.embed(None, "fin")[None], SPACE, InMemoryStore(259), "x")
    assert words_alone.category(X, None).source == "generic"


def seen_by_the_reasoner(plant: Plant, knowledge: KnowledgeBase) -> tuple[EvidenceBundle, Any]:
    bundles: list[EvidenceBundle] = []

    def reply(evidence: EvidenceBundle) -> ReasonerReply:
        bundles.append(evidence)
        return ReasonerReply(DraftReport(verdict=Verdict.NG), 0.0, "scripted")

    with Inspector(plant.loaded(max_actions=0)) as inspector:
        inspector.deps.__dict__["reasoner"] = FunctionReasoner(reply)
        inspector.deps.__dict__["knowledge"] = knowledge
        report = inspector.inspect(plant.square, product="plate")
    return bundles[0], report


def with_depth_of(plant: Plant) -> KnowledgeBase:
    """A base in the inspection's own space, with two pages of the product."""
    from flawscope.tools.backbones import load_backbone

    blank = np.zeros((1, 64, 64, 3), np.uint8)
    depth = sum(t.shape[2] for t in load_backbone("patch-statistics").encode_image(blank).patch_tokens)
    space = LockSpace(np.zeros(depth, np.float32), np.ones(depth, np.float32))
    pages = [page("plate", 0), page("plate", 1)]
    vectors = np.stack([space.embed(np.ones(depth, np.float32), "") for _ in pages])
    return KnowledgeBase(pages, vectors, space, InMemoryStore(depth + TEXT_DIM), "x")


def test_any_reasoner_is_told_of_the_category(plant: Plant) -> None:
    bundle, report = seen_by_the_reasoner(plant, with_depth_of(plant))
    assert bundle.category is not None
    assert bundle.category.text.startswith("The part is a plate, as the operator says.")
    assert "> Defect burr: A fin on the plate." in bundle.category.text
    assert report.provenance["category"] == {"source": "given", "candidates": [["plate", None]]}


def test_the_category_is_no_evidence(plant: Plant) -> None:
    bundle, _ = seen_by_the_reasoner(plant, with_depth_of(plant))
    told = Claim(field="description", text="A fin on the plate.", evidence_ids=("plate.0",))
    checked = verify(DraftReport(verdict=Verdict.NG, claims=(told,)), bundle)
    assert checked.draft.claims == ()
