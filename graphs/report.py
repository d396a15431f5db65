"""The last step: the state becomes an InspectionReport."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from ..agent.claim_checks import DECIDING_FIELDS
from ..agent.reasoner.evidence import words
from ..agent.schemas import (
    Claim,
    DefectType,
    Evidence,
    InspectionReport,
    Region,
    ReportError,
    TraceStep,
    Uncertainty,
    Verdict,
)
from ..prompts import load_prompts
from ..tools.ad_expert.zero_shot import describe_anchors
from .evidence import defect_type, person_evidence
from .planned import failed_checks, planned_action
from .routing import left_open
from .state import InspectionState

if TYPE_CHECKING:
    from ..agent.inspector import InspectionDeps
    from ..tools.product_model import ProductModel

NO_REFERENCES = (
    "No good references are known, so there is nothing to judge against. Enrol the product "
    "(flawscope enroll PRODUCT good/*.jpg) or give references (--reference good.jpg); judging without references is "
    "for the CLIP profiles."
)
IN_DOUBT = "not surely enough to stand, and nothing settled it in time"
CONSTANT = "The picture is one flat colour, so nothing can be inspected. Take it again."


def compose_report(state: InspectionState, deps: InspectionDeps) -> InspectionReport:
    """The report of an inspected picture.

    Args:
        state: after the last round.
        deps: for the provenance.
    """
    draft, decision = state.get("draft", {}), state.get("decision", {})
    verdict, reason = Verdict(draft.get("verdict", "REVIEW")), draft.get("verdict_reason", "")
    if not state.get("scores"):
        verdict, reason = Verdict.REVIEW, CONSTANT if "constant" in state["picture"]["flags"] else NO_REFERENCES
    elif state.get("problems") and state.get("fatal"):
        reason = " ".join([reason, "The verifier refused the draft: " + "; ".join(state["problems"]) + "."]).strip()
    elif state.get("problems") and verdict is Verdict.REVIEW and not reason:
        reason = "; ".join(state["problems"])
    elif left_open(state, deps.settings):
        draft = {**draft, "action": "", "claims": [c for c in draft["claims"] if c["field"] not in DECIDING_FIELDS]}
        verdict, reason = Verdict.REVIEW, f"{verdict} was answered, but {IN_DOUBT}."
    evidence = dict(state.get("evidence", {}))
    human, said, claims = state.get("human"), draft, list(draft.get("claims", []))
    if human:
        verdict, reason = Verdict(human["verdict"]), f"Decided by {human['by']}. {human['note']}".strip()
        evidence |= person_evidence(human, reason)
        said, claims = _as_decided(draft, human, reason)
    elif verdict is Verdict.OK and (failed := failed_checks(evidence)):
        verdict, reason, said, claims = Verdict.REVIEW, failed["text"], {}, [failed]
    kind = state.get("defect_type") if verdict is not Verdict.OK else None
    if verdict is Verdict.NG and (told := planned_action(state, said, deps)):
        evidence, claims = evidence | told.evidence, [*claims, told.claim]
        said = {**said, "action": " ".join(filter(None, (said.get("action", ""), told.claim["text"])))}
    regions = state.get("expert", {}).get("regions", []) if verdict is not Verdict.OK else []
    return InspectionReport(
        image=state["image"],
        sha256=state["picture"]["sha256"],
        product=state.get("product"),
        verdict=verdict,
        verdict_reason=reason,
        image_score=state.get("scores", {}).get("whole") if decision.get("score") is None else decision["score"],
        probability=decision.get("probability"),
        threshold=decision.get("threshold"),
        uncertainty=Uncertainty(
            entropy=state.get("entropy"),
            source=state.get("entropy_source") or "uncalibrated",
            calibrated=decision.get("basis") == "conformal",
            type_entropy=kind["entropy"] if kind else None,
            parts=state.get("answer", {}).get("parts", {}),
            p_correct=state.get("doubt", {}).get("p_correct"),
        ),
        regions=tuple(Region.model_validate(region) for region in regions),
        defect_type=_named_type(kind, said.get("defect_type")) if verdict is not Verdict.OK else None,
        description=said.get("description", ""),
        root_cause=said.get("root_cause", ""),
        consequence=said.get("consequence", ""),
        action=said.get("action", ""),
        evidence=tuple(Evidence.model_validate(item) for item in evidence.values()),
        claims=tuple(Claim.model_validate(claim) for claim in claims),
        trace=_trace(state),
        provenance=provenance(state, deps),
    )


def _as_decided(
    draft: dict[str, Any], human: dict[str, Any], reason: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A draft's words and claims after a person's decision: words for another verdict or type are dropped."""
    named = human.get("defect_type") if human["verdict"] != "OK" else None
    differs = named is not None and named != (draft.get("defect_type") or {}).get("name")
    keep = human["verdict"] == draft.get("verdict") and not differs
    said, claims = (draft, list(draft.get("claims", []))) if keep else ({}, [])
    decided = [{"field": "verdict", "text": reason, "evidence_ids": ["H1"]}]
    if named is not None:
        said = {**said, "defect_type": {"name": named, "posterior": None}}
        text = f"{human['by']} named it {words(named)}."
        decided.append({"field": "defect_type", "text": text, "evidence_ids": ["H1"]})
    fields = {claim["field"] for claim in decided}
    return said, [claim for claim in claims if claim["field"] not in fields] + decided


def _named_type(kind: dict[str, Any] | None, named: dict[str, Any] | None) -> DefectType | None:
    """The type that the words speak of, with the posterior that the comparison gave it."""
    compared = defect_type(kind)
    if named is None or compared is None:
        return DefectType.model_validate(named) if named is not None else compared
    shares = {candidate.name: candidate.posterior for candidate in compared.candidates}
    return compared.model_copy(update={"name": named["name"], "posterior": shares.get(named["name"])})


def failure_report(state: InspectionState, deps: InspectionDeps) -> InspectionReport:
    """The record of a picture that could not be inspected: REVIEW with its error, never a judgement."""
    error = state["error"] or {}
    return InspectionReport(
        image=state["image"],
        sha256=state.get("picture", {}).get("sha256"),
        product=state.get("product"),
        verdict=Verdict.REVIEW,
        verdict_reason=error["message"],
        uncertainty=Uncertainty(entropy=None, source="not inspected", calibrated=False),
        trace=_trace(state),
        provenance=provenance(state, deps),
        error=ReportError(code=error["code"], message=error["message"], exit_code=error["exit_code"]),
    )


def _trace(state: InspectionState) -> tuple[TraceStep, ...]:
    return tuple(TraceStep.model_validate(entry) for entry in state.get("trace", []))


@cache
def own_version() -> str:
    """Flawscope's; read once: the lookup opens a file."""
    try:
        return version("flawscope")
    except PackageNotFoundError:
        return "not installed"


def _words(state: InspectionState, product: ProductModel | None) -> dict[str, Any]:
    """The words that were compared with, where there were any, and the map's own levels where no product gives them."""
    if product is not None:
        return {"text": describe_anchors(product.text.anchors, product.text.config)} if product.text else {}
    seen = state.get("expert", {})
    if "zero_shot" not in seen:
        return {}
    told = ("prompts_sha256", "first_prompts_sha256", "anchors", "loc_mode", "types_sha256")
    words = {key: seen["zero_shot"][key] for key in told}
    return {"text": {**words, "levels": seen["levels"]}}


def _told_to_a_model(state: InspectionState) -> dict[str, Any]:
    """What of the map a model was told, and by which prompts."""
    files = {name: load_prompts(name) for name in ("inspect", "category")}
    prompts = {name: {"version": file.version, "sha256": file.sha256} for name, file in files.items()}
    return {"gate": state.get("gate", {}), "prompts": prompts}


def provenance(state: InspectionState, deps: InspectionDeps) -> dict[str, Any]:
    """Everything needed to make this report again."""
    settings = deps.settings.model_dump(mode="json")
    facts: dict[str, Any] = {
        "flawscope": own_version(),
        "python": platform.python_version(),
        "reasoner": deps.settings.reasoner if state.get("error") else deps.reasoner.name,
        "prompts_sha256": load_prompts("report").sha256,
        "settings": {key: {"value": settings[key], "origin": origin} for key, origin in deps.loaded.origins.items()},
        "picture": {**state.get("picture", {}), "anomaly_map": state.get("expert", {}).get("anomaly_map")},
        "problems": state.get("problems", []),
        "doubt": state.get("doubt", {}),
        **({"again": state["again"]} if state.get("again") else {}),
        "answer": {key: value for key, value in state.get("answer", {}).items() if key != "parts"},
    }
    if not state.get("error"):
        product = deps.product(state.get("product"))
        facts["backbone"] = {"name": deps.backbone.name, "weights_sha256": deps.backbone.weights_sha256}
        facts["knowledge"] = deps.knowledge.content_hash
        facts["product"] = product.fingerprint if product else None
        if product is not None and product.head_sha256 is not None:
            facts["trained_head"] = product.head_sha256
        facts["decision"] = state.get("decision", {})
        facts["category"] = state.get("category", {})
        if state.get("gate"):
            facts |= _told_to_a_model(state)
        facts |= _words(state, product)
    return facts
