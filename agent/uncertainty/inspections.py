"""An inspection's verdict as an answer whose doubt can be calibrated: in the graph, and from finished reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..schemas import InspectionReport, Verdict
from .records import DETECTION, Answered, AnswerRecord

NO_PRODUCT = "none"


def inspected(
    *,
    product: str | None,
    reasoner: str,
    parts: Mapping[str, float | None],
    probability: float | None,
    similarities: Iterable[float],
    samples: Iterable[str | None] = (),
    permuted: Iterable[str | None] = (),
) -> Answered:
    """What is known of how sure a verdict is.

    Args:
        product: that it was compared with.
        reasoner: who decided.
        parts: of a model's entropy, with ``p_ok``, ``p_ng`` and ``p_review`` where its tokens gave them; empty for a
            reasoner that decides by the calibrated probability itself.
        probability: calibrated probability of a defect; None when uncalibrated.
        similarities: of the documents found.
        samples: what drawn answers mean; none when nothing was drawn.
        permuted: the verdict in each order of the options; none when it was not asked again.
    """
    shares = {name: parts.get(f"p_{name.lower()}") for name in (v.value for v in Verdict)}
    known = {name: share for name, share in shares.items() if share is not None}
    if len(known) == len(shares):
        p_defect: float | None = known["NG"] + 0.5 * known["REVIEW"]
    elif not parts and probability is not None:
        known, p_defect = {"OK": 1.0 - probability, "NG": probability}, probability
    else:
        known, p_defect = {}, None
    leaning = probability if p_defect is None else p_defect
    return Answered(
        task=DETECTION,
        product=product or NO_PRODUCT,
        model=reasoner,
        answer=None if leaning is None else (Verdict.NG if leaning >= 0.5 else Verdict.OK).value,
        probabilities=known or None,
        mass=parts.get("mass"),
        p_defect=None if p_defect is None else min(1.0, p_defect),
        s_cal=probability,
        retrieval_similarity=max(similarities, default=None),
        samples=tuple(samples),
        permuted=tuple(permuted),
    )


def record_of(report: InspectionReport, *, defective: bool) -> AnswerRecord | None:
    """A finished report with the truth, as a line of a log; None for one without a leaning to either side.

    A report that ended in REVIEW counts by the side that it leaned to: how much doubt that deserves is what is fitted.

    Args:
        report: of any reasoner.
        defective: whether the part is.
    """
    if report.error is not None or any(item.kind == "person" for item in report.evidence):
        return None
    facts: dict[str, Any] = report.provenance
    known = inspected(
        product=report.product,
        reasoner=str(facts.get("reasoner", "")),
        parts=report.uncertainty.parts,
        probability=report.probability,
        similarities=[
            value
            for item in report.evidence
            if item.kind == "document" and isinstance(value := item.values.get("similarity"), float)
        ],
        **facts.get("again", {}),
    )
    if known.answer is None:
        return None
    truth = (Verdict.NG if defective else Verdict.OK).value
    fields = known.model_dump() | {
        "id": report.sha256 or report.image,
        "truth": truth,
        "correct": known.answer == truth,
    }
    return AnswerRecord.model_validate(fields)
