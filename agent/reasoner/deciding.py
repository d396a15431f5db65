"""How open a decision is between a model and the expert, and the last word on it."""

from __future__ import annotations

from dataclasses import replace

from ..schemas import Verdict
from .base import EvidenceBundle, ReasonerReply
from .evidence import binary_entropy
from .token_entropy import OptionScores

VERDICTS = tuple(verdict.value for verdict in Verdict)


def entropy_of(scores: OptionScores | None) -> float | None:
    """The entropy of what a value could have been; None when that is unknown."""
    return None if scores is None else scores.entropy


def decision_entropy(
    verdict: OptionScores | None, evidence: EvidenceBundle
) -> tuple[float | None, str, dict[str, float | None]]:
    """How open the decision is between the model and the expert, each of whom may be unknown.

    The largest of three: the model's entropy over OK, NG and REVIEW, the expert's over its calibrated probability, and
    that of the two averaged, REVIEW counting half for each side. Where they agree the last lies between the others;
    where they contradict each other it is near 1, however certain either is.

    Args:
        verdict: the model's probabilities; None when it gives none.
        evidence: with the expert's probability; None when uncalibrated.

    Returns:
        The entropy in [0, 1], where it comes from, and its parts.
    """
    parts: dict[str, float | None] = {
        "expert": None if evidence.probability is None else binary_entropy(evidence.probability),
        "verdict": entropy_of(verdict),
        "mass": None if verdict is None else verdict.mass,
        "disagreement": None,
        **({} if verdict is None else {f"p_{name.lower()}": verdict.probabilities[name] for name in VERDICTS}),
    }
    known = [value for value in (parts["expert"], parts["verdict"]) if value is not None]
    if verdict is None and evidence.probability is None:
        return None, "neither the model nor the expert says how sure it is", parts
    if verdict is None:
        return known[0], "calibrated probability; the model gives no token probabilities", parts
    if evidence.probability is None:
        return known[0], "token probabilities of the verdict; the expert is not calibrated", parts
    said = verdict.probabilities[Verdict.NG.value] + 0.5 * verdict.probabilities[Verdict.REVIEW.value]
    parts["disagreement"] = abs(said - evidence.probability)
    together = binary_entropy(0.5 * (said + evidence.probability))
    return max(*known, together), "token probabilities of the verdict and calibrated probability", parts


def settled(reply: ReasonerReply, evidence: EvidenceBundle) -> ReasonerReply:
    """The last word on an answer: one that is still in doubt is REVIEW.

    Args:
        reply: what was answered.
        evidence: of the last round.
    """
    if reply.draft.verdict is Verdict.REVIEW:
        return reply
    if evidence.contradicting:
        why = f"judged by {' or '.join(f'the {view}' for view in evidence.contradicting)} alone it would be otherwise"
    elif evidence.doubt:
        why = evidence.doubt
    elif reply.entropy is None:
        why = "how sure the answer is cannot be known"
    elif reply.entropy > evidence.entropy_accept:
        why = f"the entropy is {reply.entropy:.2f} of 1, accepted up to {evidence.entropy_accept:.2f}"
    else:
        return reply
    claims = tuple(claim for claim in reply.draft.claims if claim.field not in ("verdict", "action"))
    draft = reply.draft.model_copy(update={"verdict": Verdict.REVIEW, "claims": claims})
    doubt = f"{reply.draft.verdict.value} was answered, but {why}"
    return replace(reply, draft=draft, problems=(*reply.problems, doubt))
