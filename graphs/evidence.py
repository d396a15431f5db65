"""Turn what the tools found into evidence with ids, and the state into what a reasoner sees."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..agent.errors import ConfigError, KnowledgeUnreachableError
from ..agent.reasoner import EvidenceBundle, RetrievedDocument
from ..agent.reasoner.evidence import number, words
from ..agent.schemas import DefectType, Evidence, Region, TypeCandidate, Verdict
from ..agent.settings import Settings
from ..tools.ad_expert.calibration import percentile
from .routing import accepted_entropy, contradicting
from .state import InspectionState

if TYPE_CHECKING:
    from ..tools.imaging import ImageMeta
    from ..tools.knowledge.categories import CategoryKnowledge
    from ..tools.knowledge.familiarity import Familiarity
    from ..tools.knowledge.schema import KnowledgeDocument
    from ..tools.views import ViewScore

FLAG_TEXT = {
    "constant": "The picture is one flat colour; there is nothing to inspect.",
    "tiny": "The picture is very small and was enlarged.",
    "huge": "The picture is very large.",
    "multipage": "Only the first page of the file was looked at.",
    "nan": "Some pixels held no number.",
}
AWAY_ID, UNFAMILIAR_ID = "K1", "K2"
VIEW_IDS = {"zoom": ("Z1", "zoom"), "reference": ("C1", "reference"), "self_consistency": ("S1", "consistency")}
VIEW_NAMES = {
    "whole": "whole picture",
    "tiles": "strongest tile",
    "text": "words",
    "zoom": "zoom",
    "reference": "nearest references",
    "self_consistency": "shifted copies",
}


def _item(item_id: str, kind: Any, text: str, source: str, values: Mapping[str, Any]) -> dict[str, Any]:
    item = Evidence(id=item_id, kind=kind, text=text[:2000], source=source, values=dict(values))
    return {item.id: item.model_dump(mode="json")}


def quality_evidence(meta: ImageMeta) -> dict[str, Any]:
    """One item per remarkable property of the picture."""
    found: dict[str, Any] = {}
    for flag in meta.flags:
        if flag in FLAG_TEXT:
            found |= _item(f"Q{len(found) + 1}", "quality", FLAG_TEXT[flag], "decoder", {"flag": flag})
    return found


def region_evidence(regions: Sequence[dict[str, Any]], *, calibrated: bool = True) -> dict[str, Any]:
    """One item per suspicious area.

    Args:
        regions: strongest first.
        calibrated: whether good parts say what is suspicious; else an area only stands out of its own picture.
    """
    what = "Suspicious area" if calibrated else "Area that stands out of the picture (not calibrated)"
    found: dict[str, Any] = {}
    for region in regions:
        x0, y0, x1, y1 = region["box"]
        text = (
            f"{what} at the {region['place']}, box [{x0}, {y0}, {x1}, {y1}], {region['area_px']} px, "
            f"peak {number(region['peak'])}."
        )
        values = {"x0": x0, "y0": y0, "x1": x1, "y1": y1, "area_px": region["area_px"], "peak": region["peak"]}
        found |= _item(region["id"], "region", text, "anomaly_map", values)
    if len(regions) > 1:
        first = found[regions[0]["id"]]
        first["values"]["count"] = len(regions)
    return found


def score_evidence(facts: dict[str, Any], scores: dict[str, float]) -> dict[str, Any]:
    """The measurement that carries the verdict."""
    raw = {f"raw_{view}": score for view, score in scores.items()}
    seen = ", ".join(f"{VIEW_NAMES[view]} {number(score)}" for view, score in scores.items())
    if facts["score"] is None:
        text = (
            f"Raw scores: {seen}. {facts['references']} good references are too few to know how much good parts differ."
        )
        return _item("M1", "measurement", text, "calibration", {"references": facts["references"], **raw})
    text = (
        f"The picture deviates by {number(facts['score'])} spreads of good parts; the alarm threshold is "
        f"{number(facts['threshold'])} ({facts['basis']}, {facts['references']} good references); "
        f"probability of a defect {number(facts['probability'])}. Raw scores: {seen}."
    )
    against = [VIEW_NAMES[view] for view in facts["contradicting"]]
    if against:
        text += f" Judged alone, the other way: {', '.join(against)}."
    values = {key: value for key, value in facts.items() if key != "contradicting"}
    return _item("M1", "measurement", text, "calibration", {**values, **raw})


def zero_shot_evidence(image_score: float, seen: dict[str, Any], weight: float) -> dict[str, Any]:
    """The measurement without references: what words say of the picture, and that nothing calibrates it.

    Args:
        image_score: of the whole picture.
        seen: global_score, map_peak, prompts_sha256, anchors and loc_mode.
        weight: what a reasoner may give it at most.
    """
    text = (
        f"Compared with words for good and for damaged parts the picture scores {number(image_score)}: as a whole "
        f"{number(seen['global_score'])}, at its strongest place {number(seen['map_peak'])}. At 0.5 the words balance; "
        "what good parts of this kind score is not known, so this says where to look and not whether the part is good."
    )
    values = {key: seen[key] for key in ("global_score", "map_peak", "loc_mode", "prompts_sha256")}
    values |= {"image_score": image_score, "weight": weight, "calibrated": False}
    return _item("M1", "measurement", text, "zero-shot", values)


def view_evidence(name: str, seen: ViewScore) -> dict[str, Any]:
    """A further look: zoom, references or shifted copies."""
    item_id, kind = VIEW_IDS[name]
    return _item(item_id, kind, seen.note, name, {"score": seen.score, **seen.values})


def type_evidence(kind: dict[str, Any]) -> dict[str, Any]:
    """The comparison with the known types."""
    shortlist = ", ".join(f"{words(c['name'])} {number(c['posterior'])}" for c in kind["candidates"])
    values = {c["name"]: c["posterior"] for c in kind["candidates"]}
    return _item("T1", "type", f"Comparison with the known defect types: {shortlist}.", kind["source"], values)


def document_records(pages: Sequence[tuple[KnowledgeDocument, float | None]], first: int) -> dict[str, Any]:
    """Documents as plain data under the ids D<first>, D<first+1>, ...

    What a language model drafted and nobody has accepted is left out, and the text says so.

    Args:
        pages: documents with their similarity; None when looked up by type rather than by similarity.
        first: number of the first id.
    """
    from ..tools.knowledge.schema import quoted_text

    return {
        f"D{first + offset}": {
            "doc_id": page.doc_id,
            "defect_type": page.defect_type,
            "product": page.product,
            "similarity": similarity,
            "description": page.description,
            "causes": list(page.likely_causes),
            "consequences": list(page.consequences),
            "action": page.instruction,
            "confirm": page.confirm,
            "look_alikes": {other.defect_type: other.how_to_tell for other in page.look_alikes},
            "text": quoted_text(page),
            "draft": bool(page.pending),
        }
        for offset, (page, similarity) in enumerate((whole.established, seen) for whole, seen in pages)
    }


def document_evidence(documents: dict[str, Any]) -> dict[str, Any]:
    """One item per document; its text is quoted data."""
    found: dict[str, Any] = {}
    for item_id, document in documents.items():
        values = {"defect_type": document["defect_type"], "product": document["product"]}
        if document["similarity"] is not None:
            values["similarity"] = document["similarity"]
        if document["draft"]:
            values["draft"] = True
        text = document["text"]
        if "resemblance" in document:
            values["resemblance"] = document["resemblance"]
            alike = f"The part on the plant's page {document['doc_id']} deviates as this one does"
            text = f"{alike} (similarity {number(document['resemblance'])}).\n{text}"
        found |= _item(item_id, "document", text, document["doc_id"], values)
    return found


def away_evidence(error: KnowledgeUnreachableError, further: bool) -> dict[str, Any]:
    """That the knowledge server did not answer, so that nobody takes missing pages for an empty base.

    Args:
        error: why.
        further: whether pages had been found before.
    """
    what = "without searching for further pages" if further else "without searching the knowledge base"
    text = f"Inspected {what}: {error.message}"
    return _item(AWAY_ID, "knowledge", text, "knowledge server", {"searched": False})


def unfamiliar_evidence(found: Familiarity) -> dict[str, Any]:
    """That the base has nothing near, so that nobody takes its nearest pages for pages about this part."""
    values = {"known": found.known, "similarity": found.similarity, "threshold": found.threshold}
    return _item(UNFAMILIAR_ID, "knowledge", found.sentence, "knowledge base", {**values, "nearest": found.nearest})


def retrieved_documents(records: Mapping[str, Any]) -> tuple[RetrievedDocument, ...]:
    """Documents as a reasoner may quote them.

    Args:
        records: of `document_records`, by evidence id.
    """
    return tuple(
        RetrievedDocument(
            evidence_id=item_id,
            doc_id=document["doc_id"],
            defect_type=document["defect_type"],
            product=document["product"],
            similarity=document["similarity"] or 0.0,
            description=document["description"],
            causes=tuple(document["causes"]),
            consequences=tuple(document["consequences"]),
            action=document["action"],
            text=document["text"],
            resemblance=document.get("resemblance"),
        )
        for item_id, document in records.items()
    )


def bundle(
    state: InspectionState, settings: Settings, *, final: bool, category: CategoryKnowledge | None = None
) -> EvidenceBundle:
    """What the reasoner and the verifier see of the state, and what the reasoner is told of the kind of part."""
    decision = state.get("decision", {})
    kind = state.get("defect_type")
    raw = state.get("scores", {}).get("whole")
    picture, gate, p_value = state.get("picture", {}), state.get("gate", {}), decision.get("p_value")
    return EvidenceBundle(
        product=state.get("product"),
        image_score=raw if decision.get("score") is None else decision["score"],
        threshold=decision.get("threshold"),
        probability=decision.get("probability"),
        calibrated=decision.get("basis") == "conformal",
        zero_shot="zero_shot" in state.get("expert", {}),
        regions=tuple(Region.model_validate(region) for region in state.get("expert", {}).get("regions", [])),
        defect_type=defect_type(kind),
        type_entropy=kind["entropy"] if kind else None,
        documents=retrieved_documents(state.get("documents", {})),
        items=tuple(Evidence.model_validate(item) for item in state.get("evidence", {}).values()),
        entropy_accept=accepted_entropy(state, settings),
        contradicting=tuple(VIEW_NAMES[view] for view in contradicting(state)),
        final=final,
        category=category,
        instruction=state.get("instruction") or "",
        seed=picture.get("sha256", ""),
        size_px=tuple(picture["original_size_px"]) if picture else None,
        percentile=None if p_value is None else percentile(p_value, decision["references"]),
        weight=gate.get("weight", 1.0),
        admitted=gate.get("admitted", False),
        grid=gate.get("grid"),
    )


def told_evidence(seen: EvidenceBundle) -> dict[str, Any]:
    """Evidence with the numbers that only a model is told, so that a sentence which repeats them can be checked."""
    width, height = seen.size_px or (0, 0)
    share = {r.id: min(1.0, r.area_px / max(width * height, r.area_px)) for r in seen.regions}
    found: dict[str, Any] = {}
    for item in seen.items:
        further = {}
        if item.kind == "measurement" and seen.percentile is not None:
            further["percentile"] = 100.0 * seen.percentile
        if item.id in share:
            further["percent_of_picture"] = 100.0 * share[item.id]
        if further:
            whole = item.model_copy(update={"values": {**item.values, **further}})
            found[item.id] = whole.model_dump(mode="json")
    return found


def defect_type(kind: dict[str, Any] | None) -> DefectType | None:
    """The type comparison as the report holds it."""
    if kind is None:
        return None
    candidates = tuple(TypeCandidate(name=c["name"], posterior=c["posterior"]) for c in kind["candidates"])
    return DefectType(name=kind["name"], posterior=kind["posterior"], candidates=candidates)


def question_for_a_person(state: InspectionState) -> dict[str, Any]:
    """The payload of the interrupt: everything a person needs to decide, as plain data."""
    draft = state.get("draft", {})
    return {
        "image": state["image"],
        "product": state.get("product"),
        "question": "Is this part OK or NG?",
        "probability": state.get("decision", {}).get("probability"),
        "regions": state.get("expert", {}).get("regions", []),
        "defect_type": state.get("defect_type"),
        "reasons": [*state.get("problems", []), draft.get("verdict_reason", "")],
        "documents": [document["doc_id"] for document in state.get("documents", {}).values()],
    }


def checked_answer(answer: Any) -> dict[str, Any]:
    """A person's decision in the form the report needs.

    Args:
        answer: ``{"verdict": "OK" | "NG" | "REVIEW"}``, and as wanted ``note``, ``by``, ``defect_type`` (a name) and
            ``box`` (XYXY half-open, px of the original picture).

    Raises:
        ConfigError: it is something else.
    """
    from ..tools.knowledge.schema import plain_text

    if not isinstance(answer, dict) or answer.get("verdict") not in list(Verdict):  # a list: it may be unhashable
        raise ConfigError("a person's decision must be a mapping with a verdict of OK, NG or REVIEW.")
    box = answer.get("box")
    if box is not None and not _is_box(box):
        raise ConfigError("a person's box must be four whole numbers x0, y0, x1, y1 with x0 < x1 and y0 < y1.")
    kind = "_".join(re.findall(r"[a-z0-9]+", plain_text(str(answer.get("defect_type") or "")).lower()))[:40]
    return {
        "verdict": str(answer["verdict"]),
        "note": str(answer.get("note") or "")[:500],
        "by": str(answer.get("by") or "a person")[:80],
        "defect_type": kind or None,
        "box": None if box is None else list(box),
    }


def _is_box(box: Any) -> bool:
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(type(side) is int for side in box):
        return False
    return bool(0 <= box[0] < box[2] and 0 <= box[1] < box[3])


def person_evidence(human: dict[str, Any], reason: str) -> dict[str, Any]:
    """What a person decided.

    Args:
        human: of `checked_answer`.
        reason: the decision in words.
    """
    values = {name: human[name] for name in ("verdict", "note", "defect_type") if human.get(name)}
    values |= dict(zip(("x0", "y0", "x1", "y1"), human.get("box") or (), strict=False))
    return _item("H1", "person", reason, human["by"], values)
