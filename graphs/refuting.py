"""What an attempt to refute a suspicion may change: the probability a little, and never its side.

The model's answer is an opinion, the calibrated probability rests on measured good parts. So the answer may at most
double or halve the odds, in proportion to how far it is from even and to how much of the model's probability its two
options had; and it may not carry the probability across one half, which is where the measurement decides.
"""

from __future__ import annotations

import math
from typing import Any

from ..agent.reasoner.base import Refutation
from ..agent.reasoner.evidence import number
from ..agent.schemas import Evidence

ODDS = 2.0
EVEN = 0.5
EVIDENCE_ID = "F1"


def moved(probability: float, defect: float | None, mass: float | None) -> float:
    """The probability of a defect after a refutation was tried.

    Args:
        probability: before, in [0, 1].
        defect: what the model gave to a defect, in [0, 1]; None moves nothing.
        mass: of its two options, in [0, 1]; None moves nothing.

    Returns:
        In [0, 1], on the same side of one half, with odds within a factor of two.
    """
    if defect is None or mass is None or probability in (0.0, EVEN, 1.0):
        return probability
    factor: float = ODDS ** (mass * (2.0 * defect - 1.0))
    after = probability * factor / (probability * factor + 1.0 - probability)
    low, high = (EVEN, 1.0) if probability > EVEN else (0.0, math.nextafter(EVEN, 0.0))
    return min(high, max(low, after))


def as_state(tried: Refutation) -> dict[str, Any]:
    """A refutation as plain data."""
    return {
        "region_id": tried.region_id,
        "explanation": tried.explanation,
        "defect": tried.defect,
        "mass": tried.mass,
    }


def outcome(tried: Refutation) -> str:
    """What came of it in a line for people; not the model's own words, which nobody has checked."""
    if tried.defect is None:
        return f"Asked to explain {tried.region_id} as normal, the model did not say how likely it holds that to be."
    return f"Asked to explain {tried.region_id} as normal, the model still gave {number(tried.defect)} to a defect."


def applied(judged: dict[str, Any], tried: dict[str, Any] | None) -> dict[str, Any]:
    """A judgement with what was tried against it.

    Args:
        judged: change of state with ``decision`` and ``evidence``.
        tried: of `as_state`; None when nothing was.

    Returns:
        The same with the moved probability and the evidence for it; the measurement itself stays as it was measured.
    """
    decision = judged.get("decision", {})
    before = decision.get("probability")
    if tried is None or before is None:
        return judged
    after = moved(before, tried["defect"], tried["mass"])
    text = f"Asked to explain {tried['region_id']} as normal variation of good parts, the model "
    if tried["defect"] is None:
        text += "gave an explanation, but not how likely it holds it to be, so the probability stays as it was."
    else:
        text += (
            f"still gave {number(tried['defect'])} to a defect; the probability goes from {number(before)} to "
            f"{number(after)}, odds within a factor of two."
        )
    # The explanation is kept for people; were it part of the text, a sentence of the report could rest on it.
    values = {"defect": tried["defect"], "before": before, "after": after, "explanation": tried["explanation"]}
    item = Evidence(id=EVIDENCE_ID, kind="refutation", text=text, source="model", values=values)
    decision = {**decision, "probability": after, "probability_before_refutation": before}
    evidence = {**judged.get("evidence", {}), EVIDENCE_ID: item.model_dump(mode="json")}
    return {**judged, "decision": decision, "evidence": evidence}
