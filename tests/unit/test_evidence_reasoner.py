"""The embedded reasoner decides by entropy and composes only what its evidence carries."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from flawscope.agent.errors import BackendError, ConfigError
from flawscope.agent.reasoner import DraftReport, EvidenceBundle, Reasoner, RetrievedDocument, load_reasoner
from flawscope.agent.reasoner.evidence import EvidenceReasoner, binary_entropy, number, words
from flawscope.agent.reasoner.fakes import ScriptedReasoner
from flawscope.agent.schemas import DefectType, Evidence, Region, TypeCandidate, Verdict
from flawscope.agent.settings import load_settings

MEASURED = Evidence(id="M1", kind="measurement", text="", values={"score": 3.0, "threshold": 2.0})
TYPED = Evidence(id="T1", kind="type", text="", values={})
PAGE = RetrievedDocument(
    "D1", "general.hole", "hole", "general", 0.5, "A round gap.", ("a", "b", "c", "d"), ("e",), "Act.", ""
)


def bundle(**changes: Any) -> EvidenceBundle:
    given = EvidenceBundle("plate", 3.0, 2.0, 0.95, True, items=(MEASURED, TYPED))
    return replace(given, **changes)


def reason(given: EvidenceBundle) -> DraftReport:
    return EvidenceReasoner().reason(given, [], DraftReport).draft


def kind(name: str, posterior: float | None = 0.7) -> DefectType:
    return DefectType(name=name, posterior=posterior, candidates=(TypeCandidate(name=name, posterior=posterior or 0),))


def test_entropy_by_hand() -> None:
    assert binary_entropy(0.5) == 1.0
    assert binary_entropy(0.11) == pytest.approx(0.499916, abs=1e-6)
    for certain in (0.0, 1.0):
        assert math.copysign(1, binary_entropy(certain)) == 1.0  # not -0
        assert binary_entropy(certain) == 0.0


@pytest.mark.parametrize(
    ("probability", "final", "verdict"),
    [
        (0.95, False, Verdict.NG),
        (0.05, False, Verdict.OK),
        (0.55, False, Verdict.NG),  # more evidence may come
        (0.55, True, Verdict.REVIEW),
        (0.45, True, Verdict.REVIEW),
        (0.95, True, Verdict.NG),
        (None, False, Verdict.REVIEW),
        (None, True, Verdict.REVIEW),
    ],
)
def test_decision(probability: float | None, final: bool, verdict: Verdict) -> None:
    assert reason(bundle(probability=probability, final=final)).verdict is verdict


def test_a_view_that_says_the_opposite_leaves_the_last_word_to_a_person() -> None:
    torn = bundle(contradicting=("zoom", "shifted copies"))
    assert reason(torn).verdict is Verdict.NG  # more evidence may come
    draft = reason(replace(torn, final=True))
    assert draft.verdict is Verdict.REVIEW
    assert "judged by the zoom or the shifted copies alone" in draft.verdict_reason


def test_uncertainty_that_cannot_be_known_is_none() -> None:
    assert EvidenceReasoner().reason(bundle(probability=None), [], DraftReport).entropy is None


def test_an_ok_part_has_no_type_and_passes() -> None:
    draft = reason(bundle(image_score=0.1, probability=0.05, defect_type=kind("hole")))
    assert draft.defect_type is None
    assert draft.action == "No action: the part passes."
    assert "below the threshold 2" in draft.verdict_reason


def test_words_come_from_the_page_of_the_named_type_with_three_causes() -> None:
    page = Evidence(id="D1", kind="document", text="")
    draft = reason(bundle(defect_type=kind("hole"), documents=(PAGE,), items=(MEASURED, TYPED, page)))
    assert draft.description == "A round gap."
    assert draft.root_cause == "Likely causes of hole: a; b; c."
    assert draft.action == "Act."
    assert {claim.evidence_ids for claim in draft.claims if claim.field == "root_cause"} == {("D1",)}


def test_the_products_own_page_comes_first() -> None:
    own = replace(PAGE, evidence_id="D2", product="plate", description="Ours.")
    items = (MEASURED, TYPED, *(Evidence(id=i, kind="document", text="") for i in ("D1", "D2")))
    draft = reason(bundle(defect_type=kind("hole"), documents=(PAGE, own), items=items))
    assert draft.description == "Ours."


def test_a_known_type_without_a_page_names_no_cause_and_does_not_call_itself_unknown() -> None:
    other = replace(PAGE, defect_type="scratch")
    draft = reason(bundle(defect_type=kind("hole"), documents=(other,)))
    assert draft.root_cause == ""
    assert "unknown" not in " ".join(claim.text for claim in draft.claims)
    assert draft.action.startswith("Quarantine")


def test_an_incomplete_page_leaves_no_empty_sentences() -> None:
    bare = replace(PAGE, description="", causes=(), consequences=(), action="")
    page = Evidence(id="D1", kind="document", text="")
    draft = reason(bundle(defect_type=kind("hole"), documents=(bare,), items=(MEASURED, TYPED, page)))
    assert all(claim.text for claim in draft.claims)
    assert draft.root_cause == draft.consequence == ""
    assert draft.action.startswith("Quarantine")


@pytest.mark.parametrize("named", [None, kind("unknown"), kind("hole", None)])
def test_an_unknown_type_says_so_and_names_no_cause(named: DefectType | None) -> None:
    draft = reason(bundle(defect_type=named))
    assert draft.defect_type is not None
    assert draft.root_cause.startswith("No cause can be named")


def test_the_strongest_of_several_regions_is_described() -> None:
    regions = tuple(
        Region(id=f"R{n}", box=(n, n, n + 5, n + 5), area_px=20, peak=1 / n, place=place)
        for n, place in ((1, "upper left"), (2, "centre"))
    )
    items = (MEASURED, *(Evidence(id=r.id, kind="region", text="") for r in regions))
    text = reason(bundle(regions=regions, items=items)).description
    assert text == "The strongest of 2 deviations is at the upper left, box [1, 1, 6, 6], 20 px in area."


def test_nothing_is_said_without_evidence() -> None:
    assert reason(bundle(items=())).claims == ()


def test_numbers_and_words() -> None:
    assert [number(v) for v in (0.123456, 12345.0, 2.0)] == ["0.123", "1.23e+04", "2"]
    assert words("cut_lead") == "cut lead"


def test_registry() -> None:
    assert isinstance(load_reasoner(load_settings()), Reasoner)
    assert isinstance(ScriptedReasoner([]), Reasoner)
    with pytest.raises(ConfigError, match="Known: evidence"):
        load_reasoner(load_settings({"reasoner": "oracle"}))


def test_an_empty_script_is_an_error_and_scripted_errors_are_raised() -> None:
    scripted = ScriptedReasoner([BackendError("down.")])
    with pytest.raises(BackendError, match="down"):
        scripted.reason(bundle(), [], DraftReport)
    with pytest.raises(BackendError, match="no reply left"):
        scripted.reason(bundle(), [], DraftReport)
    assert len(scripted.seen) == 2
