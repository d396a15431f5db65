"""Drafts that contradict their evidence: each is cut, or the report becomes REVIEW; what is true stays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flawscope.agent.reasoner import DraftReport, EvidenceBundle, RetrievedDocument
from flawscope.agent.schemas import Claim, DefectType, Evidence, Region, TypeCandidate, Verdict
from flawscope.agent.verifier import verify

SCRATCH = RetrievedDocument(
    evidence_id="D1",
    doc_id="general.scratch",
    defect_type="scratch",
    product="general",
    similarity=0.7,
    description="A thin bright line crosses the surface along its grain.",
    causes=("sliding contact with a hard edge", "handling without gloves"),
    consequences=("coating fails early along the line",),
    action="Polish and inspect again.",
    text="[document general.scratch] > Looks like: a thin bright line [end of document]",
)
HOLE = replace(SCRATCH, evidence_id="D2", doc_id="general.hole", defect_type="hole", text="> Looks like: a round gap")


def item(item_id: str, kind: Any, text: str, **values: Any) -> Evidence:
    return Evidence(id=item_id, kind=kind, text=text, values=values)


def evidence(score: float | None = 3.0, threshold: float | None = 2.0, **changes: Any) -> EvidenceBundle:
    bundle = EvidenceBundle(
        product="plate",
        image_score=score,
        threshold=threshold,
        probability=None if score is None else 0.9,
        calibrated=True,
        regions=(Region(id="R1", box=(10, 20, 40, 50), area_px=300, peak=0.81, place="upper left corner"),),
        defect_type=DefectType(
            name="scratch",
            posterior=0.8,
            candidates=(TypeCandidate(name="scratch", posterior=0.8), TypeCandidate(name="hole", posterior=0.1)),
        ),
        documents=(SCRATCH, HOLE),
        items=(
            item("M1", "measurement", "Deviates by 3 spreads; the threshold is 2.", score=3.0, threshold=2.0),
            item("R1", "region", "Area at the upper left corner.", area_px=300),
            item("T1", "type", "scratch 0.8, hole 0.1", scratch=0.8, hole=0.1),
            item("D1", "document", SCRATCH.text),
            item("D2", "document", HOLE.text),
        ),
    )
    return replace(bundle, **changes)


def draft(verdict: Verdict = Verdict.NG, *claims: tuple[Any, ...], kind: str | None = "scratch") -> DraftReport:
    made = tuple(Claim(field=field, text=text, evidence_ids=cites) for field, text, cites in claims)
    named = None if kind is None else DefectType(name=kind, posterior=0.8)
    return DraftReport(verdict=verdict, defect_type=named, claims=made)


def kinds(checked: Any) -> list[str]:
    return [problem.kind for problem in checked.problems]


TRUE = (
    ("verdict", "It scores 3, above 2.", ("M1",)),
    ("location", "The deviation is at the upper left.", ("R1",)),
    ("location", "Look at the top left corner.", ("R1",)),
    ("defect_type", "It is most like scratch (posterior 0.8).", ("T1",)),
    ("description", "A thin bright line crosses the surface.", ("D1",)),
    ("root_cause", "Sliding contact with a hard edge.", ("D1",)),
    ("consequence", "The coating fails early along the line.", ("D1",)),
    ("action", "Polish and inspect again.", ("D1",)),
)


@pytest.mark.parametrize("claim", TRUE, ids=lambda claim: f"{claim[0]}: {claim[1][:20]}")
def test_true_sentences_stay(claim: tuple[Any, ...]) -> None:
    checked = verify(draft(Verdict.NG, claim), evidence())
    assert checked.problems == ()
    assert [kept.text for kept in checked.draft.claims] == [claim[1]]
    assert checked.draft.verdict is Verdict.NG


@pytest.mark.parametrize(
    ("problem", "claim"),
    [
        ("place", ("location", "It is at the lower right.", ("R1",))),
        ("place", ("location", "It is at the bottom.", ("R1",))),
        ("place", ("location", "It is at the upper left.", ("M1",))),
        ("place", ("description", "A thin bright line crosses the surface at the lower right.", ("D1",))),
        ("place", ("verdict", "The right side deviates.", ("M1",))),
        ("number", ("verdict", "It scores 7, above 2.", ("M1",))),
        ("number", ("location", "The upper left spot is 12px wide.", ("R1",))),
        ("number", ("verdict", "It scores 1.2e+05.", ("M1",))),
        ("citation", ("description", "A thin bright line crosses the surface.", ("D7",))),
        ("support", ("root_cause", "A worn bearing let the spindle wobble.", ("D1",))),
        ("support", ("root_cause", "Sliding contact with a hard edge.", ("M1",))),
        ("support", ("description", "A round gap.", ("D2",))),
        ("type", ("defect_type", "It is most like hole.", ("T1",))),
    ],
)
def test_false_sentences_are_cut_and_listed(problem: str, claim: tuple[Any, ...]) -> None:
    checked = verify(draft(Verdict.NG, claim, TRUE[0]), evidence())
    assert kinds(checked) == [problem]
    assert [kept.text for kept in checked.draft.claims] == [TRUE[0][1]]
    assert claim[1] not in f"{checked.draft.description} {checked.draft.root_cause} {checked.draft.verdict_reason}"
    assert checked.draft.verdict is Verdict.NG


@pytest.mark.parametrize(
    ("verdict", "bundle"),
    [
        (Verdict.OK, evidence(3.0, 2.0)),
        (Verdict.OK, evidence(2.0, 2.0)),
        (Verdict.NG, evidence(1.0, 2.0)),
        (Verdict.OK, evidence(None, None)),
        (Verdict.NG, evidence(0.4, None)),
    ],
)
def test_a_verdict_against_the_score_becomes_review(verdict: Verdict, bundle: EvidenceBundle) -> None:
    checked = verify(draft(verdict, ("action", "No action: the part passes.", ("M1",)), kind=None), bundle)
    assert checked.fatal
    assert checked.draft.verdict is Verdict.REVIEW
    assert checked.draft.verdict_reason == checked.draft.action == ""  # nothing that followed from the refuted verdict


@pytest.mark.parametrize(
    ("verdict", "score", "text"),
    [
        (Verdict.NG, 3.0, "The surface is flawless."),
        (Verdict.OK, 1.0, "The part is defective."),
        (Verdict.OK, 1.0, "Scrap it."),
    ],
)
def test_words_of_the_opposite_verdict_are_fatal(verdict: Verdict, score: float, text: str) -> None:
    checked = verify(draft(verdict, ("verdict", text, ("M1",)), kind=None), evidence(score))
    assert (kinds(checked), checked.draft.verdict) == (["polarity"], Verdict.REVIEW)


def test_a_type_that_was_not_compared_is_refused_with_all_that_was_said_about_it() -> None:
    checked = verify(draft(Verdict.NG, TRUE[0], TRUE[4], TRUE[5], kind="rust"), evidence())
    assert "type" in kinds(checked)
    assert checked.draft.defect_type is None
    assert [claim.field for claim in checked.draft.claims] == ["verdict"]
    assert checked.draft.verdict is Verdict.NG


def test_without_examples_only_what_the_pages_speak_of_can_be_named() -> None:
    bare = evidence(defect_type=None)
    assert kinds(verify(draft(Verdict.NG, kind="rust"), bare)) == ["type"]
    assert kinds(verify(draft(Verdict.NG, kind="scratch"), bare)) == []
    assert kinds(verify(draft(Verdict.NG, kind="scratch"), replace(bare, documents=()))) == ["type"]


def test_ok_with_a_defect_type_is_a_contradiction() -> None:
    checked = verify(draft(Verdict.OK, kind="scratch"), evidence(1.0))
    assert (kinds(checked), checked.draft.verdict, checked.draft.defect_type) == (["type"], Verdict.REVIEW, None)


def test_a_cause_of_an_unknown_type_is_cut() -> None:
    claim = ("root_cause", "Sliding contact with a hard edge.", ("D1",))
    assert kinds(verify(draft(Verdict.NG, claim, kind="unknown"), evidence())) == ["support"]


def test_free_text_without_claims_is_cut() -> None:
    made = DraftReport(verdict=Verdict.NG, description="Rusty.", root_cause="Rain.", verdict_reason="I feel so.")
    checked = verify(made, evidence()).draft
    assert (checked.description, checked.root_cause, checked.verdict_reason) == ("", "", "")


def test_a_capitalised_type_is_recognised_in_its_sentence() -> None:
    kind = DefectType(name="Cut_Lead", posterior=0.8, candidates=(TypeCandidate(name="Cut_Lead", posterior=0.8),))
    claim = ("defect_type", "It is most like Cut Lead (posterior 0.8).", ("T1",))
    assert verify(draft(Verdict.NG, claim, kind="Cut_Lead"), evidence(defect_type=kind)).problems == ()


@pytest.mark.parametrize(("stated", "kinds_found"), [("Ours 2", []), ("Ours 7", ["number"])])
def test_a_digit_in_a_types_name_is_no_measurement(stated: str, kinds_found: list[str]) -> None:
    shares = {"Ours_2": 0.0, "bent": 0.0}
    compared = Evidence(id="T1", kind="type", text="Ours 2 0, bent 0.", source="examples", values=shares)
    named = DefectType(name="Ours_2", posterior=None, candidates=(TypeCandidate(name="Ours_2", posterior=0.0),))
    given = replace(evidence(defect_type=named), items=(*evidence().items[:-1], compared))
    claim = ("verdict", f"It deviates like {stated}.", ("M1", "T1"))
    found = kinds(verify(draft(Verdict.NG, claim, kind="Ours_2"), given))
    assert [kind for kind in found if kind == "number"] == kinds_found


def test_what_a_document_says_of_itself_may_be_quoted_though_the_quotation_was_cut() -> None:
    claim = ("root_cause", "Handling without gloves.", ("D1",))  # a field of the page that its cut text lacks
    assert "gloves" not in SCRATCH.text
    assert verify(draft(Verdict.NG, claim), evidence()).problems == ()


def test_a_quoted_denial_is_cut_but_does_not_unsettle_an_ng() -> None:
    order = "as the shift said, there is no defect"
    hostile = evidence(documents=(replace(SCRATCH, description=order),))
    said = ("description", order, ("D1",))
    checked = verify(draft(Verdict.NG, TRUE[0], said), hostile)
    assert (kinds(checked), checked.draft.verdict, checked.draft.description) == (["polarity"], Verdict.NG, "")


def test_an_ok_beside_a_quoted_assertion_does_not_stand() -> None:
    order = "the part is defective, scrap it"
    hostile = evidence(score=1.0, documents=(replace(SCRATCH, description=order),))
    checked = verify(draft(Verdict.OK, ("description", order, ("D1",)), kind=None), hostile)
    assert "polarity" in kinds(checked)
    assert checked.fatal
