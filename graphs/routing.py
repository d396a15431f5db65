"""Where an inspection goes next. Every action is taken at most once, so every run ends.

The retry loop is the agent-level analogue of Reason-IAD's entropy-driven search: doubt about the answer decides whether
more evidence is gathered. The paper's own mechanism optimises latent tokens inside the reasoner.
"""

from __future__ import annotations

import time
from typing import Literal

from ..agent.settings import Settings
from .doubt import unsettled
from .state import Action, InspectionState

Next = Literal["zoom", "reference", "self_consistency", "more_docs", "refute", "latent", "human", "report"]
VIEW_ACTIONS = frozenset({"zoom", "reference", "self_consistency"})
"""Actions that look again and so change the score."""
TYPE_DOUBT = 0.5
"""Normalised entropy of the type posterior above which further documents are worth a look."""


def accepted_entropy(state: InspectionState, settings: Settings) -> float:
    """The entropy up to which a verdict stands.

    What was doubtful at first must become clearly certain: pictures in the loop are the hard ones, and a further look
    that barely tips them would lower the accuracy of what is decided. The same holds for a second opinion.
    """
    looked_again = (VIEW_ACTIONS | {"refute", "latent"}) & set(state.get("done", []))
    return min(settings.entropy_settled, settings.entropy_accept) if looked_again else settings.entropy_accept


def contradicting(state: InspectionState) -> tuple[str, ...]:
    """Views that, judged alone, speak against the decision of all; none before a part was looked at again.

    A mean far from the threshold because one view outweighs another is not the certainty that it looks like. The zoom
    may overrule the first look: it saw more pixels of the same place.
    """
    looked_again = VIEW_ACTIONS & set(state.get("done", []))
    overruled = {"whole"} if "zoom" in looked_again else set()
    found = state.get("decision", {}).get("contradicting", ())
    return tuple(view for view in found if view not in overruled) if looked_again else ()


def doubtful(state: InspectionState, settings: Settings) -> bool:
    """Whether the decision needs more evidence.

    It does with a high or unknown entropy, with views that contradict each other, and with a draft that the verifier
    refuted. A reasoner that cannot say how sure it is counts as unsure: unknown is not zero. Where a calibrator gave
    the probability that the answer is right, that takes the entropy's place.
    """
    entropy, unsure = state.get("entropy"), unsettled(state.get("doubt", {}))
    if unsure is None:
        unsure = entropy is None or entropy > accepted_entropy(state, settings)
    return unsure or bool(state.get("fatal")) or bool(contradicting(state))


def left_open(state: InspectionState, settings: Settings) -> bool:
    """Whether a verdict is still there that is in doubt once nothing more is done about it.

    The last round settles such a verdict, but that it is the last one may be known too late: the time can end between
    the answer and what follows it, in a run that was taken up again above all; and a reasoner may not settle.
    """
    if state.get("error") or state.get("decision", {}).get("probability") is None:
        return False  # the verifier refuses a verdict without a calibrated score
    return state.get("draft", {}).get("verdict") in ("OK", "NG") and doubtful(state, settings)


def next_action(state: InspectionState, settings: Settings, available: frozenset[str]) -> Action | None:
    """The next action that can add evidence, or None.

    Args:
        state: after a round of reasoning (or before it, with the previous round's draft).
        settings: actions in order of preference, and the budget.
        available: actions that this product has the material for.
    """
    if state.get("error") or state.get("decision", {}).get("probability") is None:
        return None  # without calibration no action can turn a score into a decision
    taken = state.get("done", [])
    if len(taken) >= settings.max_actions or time.time() - state["started"] > settings.time_budget_s:
        return None
    for action in settings.actions:
        if action in taken or action not in available:
            continue
        if action == "more_docs":
            if _type_doubtful(state):
                return action
        elif doubtful(state, settings):
            return action
    return None


def _type_doubtful(state: InspectionState) -> bool:
    """Further documents matter only for a defect whose type is open."""
    kind = state.get("defect_type") or {}
    entropy = kind.get("entropy")
    return state.get("draft", {}).get("verdict") == "NG" and entropy is not None and entropy > TYPE_DOUBT


def route(state: InspectionState, settings: Settings, available: frozenset[str]) -> Next:
    """After verification: another round, a person, or the report."""
    if state.get("error"):
        return "report"
    action = next_action(state, settings, available)
    if action is not None:
        return action
    undecided = state.get("draft", {}).get("verdict") == "REVIEW" or left_open(state, settings)
    return "human" if undecided and settings.ask_human else "report"
