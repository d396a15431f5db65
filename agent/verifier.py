"""The verifier: no report leaves whose words contradict the map, the score or the cited document.

It checks any reasoner's draft against the evidence, sentence by sentence. A sentence that is wrong or that nothing
carries is cut and the cut is listed; a contradicted verdict or type is fatal: the report becomes REVIEW, never OK.
What is quoted from a cited page word for word is judged more mildly than what a reasoner says in words of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .claim_checks import DECIDING_FIELDS, QUOTING_FIELDS, Problem, check_named_type, problems_of
from .reasoner.base import DraftReport, EvidenceBundle
from .reasoner.evidence import UNKNOWN
from .schemas import Claim, Verdict
from .sentences import sentences

__all__ = ["Problem", "Verification", "verify"]


@dataclass(frozen=True)
class Verification:
    """The outcome.

    Attributes:
        draft: the draft with the refuted sentences cut, REVIEW when something fatal was found.
        problems: everything found, in order.
    """

    draft: DraftReport
    problems: tuple[Problem, ...]

    @property
    def fatal(self) -> bool:
        """Whether the draft's verdict or type was contradicted."""
        return any(problem.fatal for problem in self.problems)


def verify(draft: DraftReport, evidence: EvidenceBundle) -> Verification:
    """Check a draft against its evidence.

    Args:
        draft: any reasoner's answer.
        evidence: the bundle it was given.

    Returns:
        The draft without its refuted sentences. Free text that no kept claim carries is cut with them.
    """
    problems = [*_check_verdict(draft, evidence), *_check_type(draft, evidence)]
    kept: list[Claim] = []
    for claim in draft.claims:
        checked, found = _checked_claim(claim, draft, evidence)
        problems += found
        kept += checked
    fatal = any(problem.fatal for problem in problems)
    refuted_type = any(problem.kind == "type" and not problem.of_sentence for problem in problems)
    if refuted_type:
        kept = [claim for claim in kept if claim.field not in QUOTING_FIELDS and claim.field != "defect_type"]
    if fatal:  # what to do with the part follows from a verdict that no longer stands
        kept = [claim for claim in kept if claim.field not in DECIDING_FIELDS]

    def said(*fields: str) -> str:
        return " ".join(claim.text for claim in kept if claim.field in fields)

    checked_draft = draft.model_copy(
        update={
            "verdict": Verdict.REVIEW if fatal else draft.verdict,
            "defect_type": None if refuted_type else draft.defect_type,
            "verdict_reason": said("verdict"),
            "description": said("location", "description"),
            "root_cause": said("root_cause"),
            "consequence": said("consequence"),
            "action": said("action"),
            "claims": tuple(kept),
        }
    )
    return Verification(checked_draft, tuple(problems))


def _checked_claim(
    claim: Claim, draft: DraftReport, evidence: EvidenceBundle
) -> tuple[tuple[Claim, ...], list[Problem]]:
    """A claim without its refuted sentences, and what was wrong with them."""
    items = {item.id: item for item in evidence.items}
    missing = [cite for cite in claim.evidence_ids if cite not in items]
    if missing:
        return (), [Problem("citation", f"a sentence cites {', '.join(missing)}, which does not exist")]
    pieces = sentences(claim.text)
    found: list[Problem] = []
    standing = []
    for piece in pieces:
        problem = next(problems_of(claim.model_copy(update={"text": piece}), draft, evidence), None)
        if problem is None:
            standing.append(piece)
        else:
            found.append(problem)
    if claim.field == "defect_type" and not found:
        found += check_named_type(claim, draft)
        standing = [] if found else standing
    if not found:
        return (claim,), []
    return ((claim.model_copy(update={"text": " ".join(standing)}),) if standing else ()), found


def _check_verdict(draft: DraftReport, evidence: EvidenceBundle) -> Iterator[Problem]:
    if draft.verdict is Verdict.REVIEW:
        return
    name = draft.verdict.value
    if evidence.image_score is None or evidence.threshold is None:
        yield Problem("verdict", f"{name} was answered without a calibrated score", fatal=True)
        return
    alarming = evidence.image_score >= evidence.threshold
    if alarming and draft.verdict is Verdict.OK:
        yield Problem(
            "verdict", f"OK was answered, but the score {evidence.image_score:.3g} reaches the threshold", fatal=True
        )
    if not alarming and draft.verdict is Verdict.NG:
        yield Problem(
            "verdict", f"NG was answered, but the score {evidence.image_score:.3g} is below the threshold", fatal=True
        )


def _check_type(draft: DraftReport, evidence: EvidenceBundle) -> Iterator[Problem]:
    if draft.defect_type is None:
        return
    if draft.verdict is Verdict.OK:
        yield Problem("type", f"OK was answered together with the defect type {draft.defect_type.name}", fatal=True)
        return
    if draft.defect_type.name == UNKNOWN:
        return
    if draft.defect_type.name not in evidence.shortlist:
        what = "candidates of the comparison" if evidence.defect_type else "types of the pages that were found"
        yield Problem("type", f"the type {draft.defect_type.name} is not among the {what}")
