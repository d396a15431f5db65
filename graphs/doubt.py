"""How much a verdict may be doubted: by a calibrator's P(correct) where one is loaded, else by the entropy alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..agent.reasoner import ReasonerReply
from .state import InspectionState

if TYPE_CHECKING:
    from ..agent.uncertainty.calibrator import Calibrator

UNCALIBRATED = "uncalibrated"


def assessed(
    state: InspectionState, reply: ReasonerReply, calibrator: Calibrator | None, reasoner: str
) -> dict[str, Any]:
    """What is known of a reply's doubt, as state.

    Args:
        state: before the reply.
        reply: any reasoner's.
        calibrator: None without one.
        reasoner: who replied.

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
