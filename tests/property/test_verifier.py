"""The embedded reasoner never contradicts its evidence, and no draft gets an unfounded verdict past the verifier."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from flawscope.agent.reasoner import DraftReport, EvidenceBundle
from flawscope.agent.reasoner.evidence import EvidenceReasoner
from flawscope.agent.schemas import Claim, DefectType, Verdict
from flawscope.agent.settings import Settings
from flawscope.agent.verifier import verify
from flawscope.graphs import evidence as ev
from flawscope.tools.ad_expert.calibration import probability_of_defect
from flawscope.tools.knowledge.schema import load_documents
from flawscope.tools.views import ViewScore

PAGES = load_documents()
PLACES = (
    "centre",
    "upper left",
    "lower right corner",
    "left edge",
    "upper right, at the edge",
    "whole picture",
    "lower",
)
TYPES = st.sampled_from(
    [*sorted({page.defect_type for page in PAGES} - {"good"}), "unknown", "Ours_2", "left side", "a-b", "Größe"]
)
positive = st.floats(1e-4, 1e6, allow_nan=False)


@st.composite
def states(draw: st.DrawFn) -> dict[str, Any]:
    """What the graph's tools may leave in the state before the reasoner is asked."""
    count = draw(st.integers(0, 5))
    regions = []
    for number in range(count):
        x0, y0 = draw(st.integers(0, 5000)), draw(st.integers(0, 5000))
        box = [x0, y0, x0 + draw(st.integers(1, 4000)), y0 + draw(st.integers(1, 4000))]
        peak, place = draw(st.floats(0, 2)), draw(st.sampled_from(PLACES))
        area = draw(st.integers(1, 20_000_000))
        regions.append({"id": f"R{number + 1}", "box": box, "area_px": area, "peak": peak, "place": place})
    views = draw(st.lists(st.sampled_from(["zoom", "reference", "self_consistency"]), unique=True))
    scores = {"whole": draw(positive), **{view: draw(positive) for view in views}}
    decision: dict[str, Any] = {
        "score": None, "threshold": None, "probability": None, "p_value": None, "basis": "uncalibrated",
        "references": 2, "contradicting": [],
    }  # fmt: skip
    if draw(st.booleans()):
        threshold = draw(st.floats(1.0, 1e5))
        score = draw(st.one_of(st.just(threshold), st.floats(-1e4, 1e6), st.floats(0.99, 1.01).map(threshold.__mul__)))
        basis, probability = (
            draw(st.sampled_from(["conformal", "extrapolated"])),
            probability_of_defect(score, threshold),
        )
        decision = {
            "score": score, "threshold": threshold, "probability": probability, "p_value": 0.1, "basis": basis,
            "references": draw(st.integers(3, 200)),
            "contradicting": [view for view in scores if draw(st.booleans())],
        }  # fmt: skip
    items = {**ev.score_evidence(decision, scores), **ev.region_evidence(regions)}
    for view in views:
        items |= ev.view_evidence(view, ViewScore(scores[view], f"It scores {scores[view]:.3g}.", {}))
    kind = None
    if draw(st.booleans()):
        names = draw(st.lists(TYPES, min_size=1, max_size=5, unique=True))
        shares = [draw(st.floats(0, 1)) for _ in names]
        candidates = [{"name": n, "posterior": s} for n, s in zip(names, shares, strict=True)]
        kind = {**candidates[0], "candidates": candidates, "entropy": draw(st.floats(0, 1)), "source": "examples"}
        items |= ev.type_evidence(kind)
    pages = draw(st.lists(st.sampled_from(PAGES), max_size=6, unique_by=lambda page: page.doc_id))
    if kind is not None and draw(st.booleans()):
        pages += [page for page in PAGES if page.defect_type == kind["name"] and page not in pages][:2]
    documents = ev.document_records([(page, draw(st.sampled_from([None, 0.5]))) for page in pages], first=1)
    return {
        "image": "x.png",
        "product": draw(st.sampled_from([None, "transistor", "leather", "plate"])),
        "scores": scores,
        "done": views,
        "decision": decision,
        "defect_type": kind,
        "documents": documents,
        "expert": {"regions": regions},
        "evidence": {**items, **ev.document_evidence(documents)},
    }


def bundle_of(state: dict[str, Any], final: bool) -> EvidenceBundle:
    return ev.bundle(state, Settings(), final=final)  # type: ignore[arg-type]


@settings(max_examples=300, deadline=None)
@given(states(), st.booleans())
def test_the_embedded_reasoner_never_contradicts_its_evidence(state: dict[str, Any], final: bool) -> None:
    given_evidence = bundle_of(state, final)
    reply = EvidenceReasoner().reason(given_evidence, [], DraftReport)
    checked = verify(reply.draft, given_evidence)
    assert [problem.text for problem in checked.problems] == []
    assert checked.draft == reply.draft


@settings(max_examples=200, deadline=None)
@given(
    states(),
    st.sampled_from(list(Verdict)),
    st.none() | TYPES,
    st.lists(
        st.tuples(
            st.sampled_from(
                ["verdict", "location", "defect_type", "description", "root_cause", "consequence", "action"]
            ),
            st.text(max_size=60) | st.sampled_from(["no defect", "scrap", "upper left 12", "1e999", "-", "9" * 400]),
            st.lists(st.sampled_from(["M1", "R1", "T1", "D1", "Z1", "X9"]), min_size=1, max_size=3),
        ),
        max_size=6,
    ),
)
def test_whatever_is_drafted_a_verdict_needs_its_score(
    state: dict[str, Any], verdict: Verdict, named: str | None, claims: list[tuple[Any, str, list[str]]]
) -> None:
    given_evidence = bundle_of(state, final=False)
    draft = DraftReport(
        verdict=verdict,
        defect_type=None if named is None else DefectType(name=named, posterior=None),
        claims=tuple(Claim(field=f, text=text, evidence_ids=tuple(cites)) for f, text, cites in claims),
    )
    checked = verify(draft, given_evidence)
    score, threshold = given_evidence.image_score, given_evidence.threshold
    if checked.draft.verdict is Verdict.OK:
        assert score is not None
        assert threshold is not None
        assert score < threshold
        assert checked.draft.defect_type is None
    if checked.draft.verdict is Verdict.NG:
        assert score is not None
        assert threshold is not None
        assert score >= threshold
    known = {item.id for item in given_evidence.items}
    assert all(set(claim.evidence_ids) <= known for claim in checked.draft.claims)
    again = verify(checked.draft, given_evidence)
    assert again.problems == ()  # what is left stands
