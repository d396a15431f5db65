"""How much a verdict may be doubted: by a calibrator's P(correct) where one is loaded, else by the entropy alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..agent.reasoner import ReasonerReply
from ..agent.reasoner.evidence import number
from ..agent.schemas import Evidence
from ..agent.settings import Settings
from .state import InspectionState

if TYPE_CHECKING:
    from ..agent.uncertainty.calibrator import Calibrator

UNCALIBRATED = "uncalibrated"
AGAIN_ID = "S2"
Again = dict[str, list[str | None]]


def to_be_asked_again(state: InspectionState, entropy: float | None, settings: Settings) -> bool:
    """Whether a model is asked again: where it may be, once, and only where its verdict is not settled anyway.

    Args:
        state: with what was asked before.
        entropy: of the verdict; None, unknown, is doubtful.
        settings: ``ask_again`` and ``entropy_settled``.
    """
    return settings.ask_again and not state.get("again") and (entropy is None or entropy > settings.entropy_settled)


def again_evidence(again: Again, verdict: str) -> tuple[dict[str, float | None], dict[str, Any]]:
    """What asking again tells: signs of doubt by name, and the evidence that says so.

    Args:
        again: samples, and verdicts in each order of the options.
        verdict: that was asked about again.
    """
    from ..agent.uncertainty.agreement import SAMPLE_TEMPERATURE, consistency, semantic_entropy

    samples, permuted = again["samples"], again["permuted"]
    agreed = consistency(verdict, permuted)
    signs = {"semantic": semantic_entropy(samples), "permutation": None if agreed is None else 1.0 - agreed}
    same = sum(meaning is not None and meaning.split(" | ")[0] == verdict for meaning in samples)
    text = (
        f"Asked again, {same} of {len(samples)} answers drawn at a temperature of {number(SAMPLE_TEMPERATURE)} say "
        f"{verdict}, and {sum(one == verdict for one in permuted)} of {len(permuted)} orders of the options."
    )
    item = Evidence(id=AGAIN_ID, kind="consistency", text=text, source="model", values=dict(signs))
    return signs, {AGAIN_ID: item.model_dump(mode="json")}


def assessed(
    state: InspectionState, reply: ReasonerReply, calibrator: Calibrator | None, reasoner: str, again: Again
) -> dict[str, Any]:
    """What is known of a reply's doubt, as state.

    Args:
        state: before the reply.
        reply: any reasoner's.
        calibrator: None without one.
        reasoner: who replied.
        again: of `asked_again`.

    Returns:
        ``doubt``: 1 - P(correct) and up to which it stands, empty when nothing calibrates it; ``entropy_source`` that
        says so where a model speaks.
    """
    if calibrator is None:
        said = f"{reply.entropy_source}; {UNCALIBRATED}" if reply.parts else reply.entropy_source
        return {"doubt": {}, "entropy_source": said}
    from ..agent.uncertainty.inspections import inspected
    from ..agent.uncertainty.records import DETECTION

    documents = state.get("documents", {}).values()
    known = inspected(
        product=state.get("product"),
        reasoner=reasoner,
        parts=reply.parts,
        probability=state.get("decision", {}).get("probability"),
        similarities=[d["similarity"] for d in documents if d["similarity"] is not None],
        **again,
    )
    right, chosen = calibrator.p_correct(known), calibrator.threshold(DETECTION)
    if right is None or not chosen.calibrated:
        why = "too few answers" if right is not None else "the calibration saw none like this"
        return {"doubt": {}, "entropy_source": f"{reply.entropy_source}; {UNCALIBRATED}: {why}"}
    doubt = {"p_correct": right, "accepted": chosen.low, "calibrator": calibrator.sha256}
    return {"doubt": doubt, "entropy_source": f"{reply.entropy_source}; calibrated on {calibrator.answers} answers"}


def unsettled(doubt: Mapping[str, Any]) -> bool | None:
    """Whether a calibrated doubt is too large for the answer to stand; None when there is none to tell by."""
    if not doubt:
        return None
    return doubt["accepted"] is None or 1.0 - doubt["p_correct"] > doubt["accepted"]


def doubt_in_words(doubt: Mapping[str, Any]) -> str:
    """Why a calibrated doubt does not let an answer stand; empty when it does, or when there is none."""
    if not unsettled(doubt):
        return ""
    said = f"answers like this one are right with a probability of {doubt['p_correct']:.2f}"
    if doubt["accepted"] is None:
        return f"{said}, and no share of them was right often enough to stand"
    return f"{said}, and {1.0 - doubt['accepted']:.2f} is asked for"
