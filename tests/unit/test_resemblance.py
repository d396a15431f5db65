"""When a page of the plant shows the same deviation, and what may then be said of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flawscope.agent.reasoner import DraftReport, EvidenceBundle, RetrievedDocument
from flawscope.agent.reasoner.evidence import EvidenceReasoner
from flawscope.agent.schemas import Claim, DefectType, Evidence, Verdict
from flawscope.agent.verifier import verify
from flawscope.graphs.evidence import document_evidence
from flawscope.tools.backbones import VisualFeatures
from flawscope.tools.knowledge.plant_page import PlantPage, page_from_note
from flawscope.tools.knowledge.resemblance import CUT, Normal, PlantDeviations, candidates, deviation


def page(note: str = "burr on edge, due to dull punch", product: str = "plate", number: int = 1) -> PlantPage:
    return page_from_note(
        note,
        product,
        type_name=None,
        doc_id=f"{product.lower()}.{number}",
        taken=(),
        author="Ada",
        created="now",
        box=None,
        picture_name="p.png",
    )


def features(*tokens: Any) -> VisualFeatures:
    matrix = np.array([tokens], np.float32)
    return VisualFeatures((matrix,), np.zeros((1, 2), np.float32), (1, len(tokens)))


NORMAL = Normal(np.array([1.0, 1.0], np.float32), np.array([1.0, 2.0], np.float32))
SCORES = np.array([0.0, 0.0, 5.0], np.float32)  # the third patch stands out


def test_a_deviation_is_the_suspicious_place_less_what_is_normal() -> None:
    # ([4, 9] - [1, 1]) / [1, 2] = [3, 4], of length 5
    np.testing.assert_allclose(deviation(features([1, 1], [1, 1], [4, 9]), SCORES, NORMAL), [0.6, 0.8], rtol=1e-6)
    np.testing.assert_array_equal(deviation(features([1, 1], [1, 1], [1, 1]), SCORES, NORMAL), [0.0, 0.0])


def test_normal_has_no_dimension_without_spread() -> None:
    found = Normal.of(np.array([[0, 2, 0], [4, 2, 10]], np.float32))
    np.testing.assert_allclose(found.mean, [2, 2, 5])
    np.testing.assert_allclose(found.spread, [2, 0.2, 5])  # a tenth of the median at least


def test_only_a_clear_likeness_counts() -> None:
    part = features([1, 1], [1, 1], [4, 9])  # deviates along [0.6, 0.8]

    def rows(*rows: Any) -> PlantDeviations:
        pages = tuple(page(number=number) for number in range(len(rows)))
        return PlantDeviations(NORMAL, pages, np.array(rows, np.float32))

    found = rows([1, 0], [0.6, 0.8], [0.6, 0.8]).resembled(part, SCORES)
    assert found is not None
    assert (found.page.doc_id, found.similarity) == ("plate.1", pytest.approx(1.0))
    angle = np.arccos(CUT + 0.01) + np.arctan2(0.8, 0.6)
    assert rows([np.cos(angle), np.sin(angle)]).resembled(part, SCORES) is not None
    angle = np.arccos(CUT - 0.01) + np.arctan2(0.8, 0.6)
    assert rows([np.cos(angle), np.sin(angle)]).resembled(part, SCORES) is None


def test_candidates_are_the_plants_own_words_about_the_product() -> None:
    drafted = page(number=3).model_copy(update={"drafted_by": "m", "drafted_fields": ("description",)})
    pages = [page(), page(product="gear"), page("a scratch and a dent", number=2), drafted]
    assert [found.doc_id for found in candidates(pages, "plate")] == ["plate.1"]


# --- what is said -----------------------------------------------------------------------------------------------------


def record(**fields: Any) -> dict[str, Any]:
    return {"doc_id": "plate.1", "defect_type": "burr", "product": "plate", "similarity": 0.4, "draft": False, **fields}


def bundle(resemblance: float | None, description: str = "burr on edge, due to dull punch") -> EvidenceBundle:
    kept = record(text=f"[document plate.1]\n> Burr\n> In one sentence: {description}\n[end of document]")
    if resemblance is not None:
        kept["resemblance"] = resemblance
    items = [
        Evidence(id="M1", kind="measurement", text="score 5, threshold 2", values={"score": 5.0, "threshold": 2.0}),
        Evidence(id="T1", kind="type", text="unknown 0.9", values={"unknown": 0.9}),
        *(Evidence.model_validate(item) for item in document_evidence({"D1": kept}).values()),
    ]
    document = RetrievedDocument(
        "D1", "plate.1", "burr", "plate", 0.4, description, ("dull punch",), (), "Rework.", kept["text"], resemblance
    )
    return EvidenceBundle(
        product="plate",
        image_score=5.0,
        threshold=2.0,
        probability=0.99,
        calibrated=True,
        defect_type=DefectType(name="unknown", posterior=0.9),
        documents=(document,),
        items=tuple(items),
    )


def said(seen: EvidenceBundle) -> dict[str, Claim]:
    reply = EvidenceReasoner().reason(seen, (), DraftReport)
    checked = verify(reply.draft, seen)
    assert checked.problems == ()
    return {claim.field: claim for claim in checked.draft.claims}


def test_a_likeness_is_named_with_its_page_and_stays_a_likeness() -> None:
    claims = said(bundle(0.93))
    assert claims["description"].text == (
        "It deviates as the part on the plant's page plate.1 does (similarity 0.93): burr on edge, due to dull punch"
    )
    assert claims["root_cause"].text == "Likely cause, if it is the same burr: dull punch."
    assert claims["root_cause"].evidence_ids == ("D1",)
    assert "None of the known defect types" in claims["defect_type"].text  # the type stays open
    assert "person name the defect" in claims["action"].text  # and so does what to do


def test_without_a_likeness_nothing_is_quoted() -> None:
    claims = said(bundle(None))
    assert "description" not in claims
    assert claims["root_cause"].text.startswith("No cause can be named")


def test_the_verifier_cuts_a_cause_that_no_like_page_carries() -> None:
    cause = Claim(field="root_cause", text="Likely cause, if it is the same burr: dull punch.", evidence_ids=("D1",))
    other = cause.model_copy(update={"text": "Likely cause: an earthquake shook the whole factory."})
    reply = EvidenceReasoner().reason(bundle(0.93), (), DraftReport)
    draft = reply.draft.model_copy(update={"claims": (cause, other)})
    kept = verify(draft, bundle(0.93)).draft.claims
    assert kept == (cause,)
    assert verify(draft, bundle(None)).draft.claims == ()
    assert verify(draft, bundle(0.93)).draft.verdict is Verdict.NG
