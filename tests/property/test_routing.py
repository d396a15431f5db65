"""Whatever the reasoner answers and however the settings are, a run ends, repeats nothing and keeps to its budget."""

from __future__ import annotations

import json
import time
from itertools import cycle
from typing import Any, get_args

from conftest import Plant
from fakes import FunctionReasoner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flawscope.agent.reasoner import DraftReport, EvidenceBundle, ReasonerReply
from flawscope.agent.schemas import InspectionReport, Verdict
from flawscope.agent.settings import Settings
from flawscope.graphs.inspection import RECURSION_LIMIT, build_inspection_graph
from flawscope.graphs.routing import Next, doubtful, left_open, next_action, route
from flawscope.graphs.state import Action

ACTIONS = get_args(Action)
entropies = st.none() | st.floats(0, 1)
actions = st.lists(st.sampled_from(ACTIONS), max_size=6).map(tuple)


@st.composite
def states(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "entropy": draw(entropies),
        "fatal": draw(st.booleans()),
        "done": draw(st.lists(st.sampled_from(ACTIONS), unique=True)),
        "started": time.time() - draw(st.sampled_from([0.0, 1e6])),
        "draft": {"verdict": draw(st.sampled_from(["OK", "NG", "REVIEW"]))},
        "decision": draw(st.sampled_from([{}, {"probability": 0.7}, {"probability": 0.7, "contradicting": ["zoom"]}])),
        "defect_type": draw(st.none() | st.floats(0, 1).map(lambda e: {"entropy": e})),
        "error": draw(st.none() | st.just({"code": "x"})),
    }


@given(
    states(), actions, st.integers(0, 5), st.floats(0, 1), st.booleans(), st.frozensets(st.sampled_from(ACTIONS))
)  # fmt: skip
def test_the_next_step_is_new_offered_within_budget_and_earned(
    state: dict[str, Any], wanted: tuple[Any, ...], limit: int, accept: float, ask: bool, offered: frozenset[str]
) -> None:
    chosen = Settings(actions=wanted, max_actions=limit, entropy_accept=accept, ask_human=ask)
    after = route(state, chosen, offered)  # type: ignore[arg-type]
    assert after in get_args(Next)
    if after in ACTIONS:
        assert after == next_action(state, chosen, offered)  # type: ignore[arg-type]
        assert after not in state["done"]
        assert after in offered
        assert after in wanted
        assert len(state["done"]) < limit
        assert not state["error"]
        assert state["decision"]
        assert after == "more_docs" or doubtful(state, chosen)  # type: ignore[arg-type]
    if after == "human":
        assert ask
        assert state["draft"]["verdict"] == "REVIEW" or left_open(state, chosen)  # type: ignore[arg-type]


@given(states())
def test_a_contradiction_is_doubt_once_a_part_was_looked_at_again(state: dict[str, Any]) -> None:
    """The zoom is the exception: it saw more pixels than the first look, and may overrule it."""
    looked_again = bool({"zoom", "reference", "self_consistency"} & set(state["done"]))
    sure = {**state, "entropy": 0.0, "fatal": False}
    for view in ("whole", "zoom", "reference", "self_consistency"):
        against = {**sure, "decision": {"probability": 0.9, "contradicting": [view]}}
        overruled = view == "whole" and "zoom" in state["done"]
        assert doubtful(against, Settings()) == (looked_again and not overruled)  # type: ignore[arg-type]


@given(states(), st.lists(st.sampled_from(ACTIONS[:3]), min_size=1, unique=True))
def test_a_conflict_is_looked_into_while_anything_is_left(state: dict[str, Any], wanted: list[Any]) -> None:
    fresh = {**state, "fatal": True, "error": None, "done": [], "decision": {"probability": 0.9}}
    fresh["started"] = time.time()
    assert next_action(fresh, Settings(actions=tuple(wanted)), frozenset(ACTIONS)) == wanted[0]  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(entropies, st.sampled_from(list(Verdict))), min_size=1, max_size=9),
    actions,
    st.integers(0, 5),
    st.floats(0, 1),
)
def test_every_run_ends(
    plant: Plant, answers: list[tuple[Any, Verdict]], wanted: tuple[Any, ...], limit: int, accept: float
) -> None:
    script = cycle(answers)

    def answer(evidence: EvidenceBundle) -> ReasonerReply:
        entropy, verdict = next(script)
        return ReasonerReply(DraftReport(verdict=verdict), entropy, "random")

    deps = plant.deps(actions=wanted, max_actions=limit, entropy_accept=accept)
    deps.__dict__["reasoner"] = FunctionReasoner(answer)
    given_state = {"image": str(plant.square), "product": "plate"}
    steps: list[str] = []
    rounds = 0
    final: dict[str, Any] = {}
    for update in build_inspection_graph(deps).stream(given_state, stream_mode="updates"):
        json.dumps(update, allow_nan=False)
        steps += list(update)
        rounds += 1
        final = update
    taken = [step for step in steps if step in ACTIONS]
    assert len(taken) == len(set(taken)) <= limit
    assert set(taken) <= set(wanted)
    assert rounds < RECURSION_LIMIT
    report = InspectionReport.model_validate(final["report"]["report"])
    assert report.verdict is not Verdict.OK  # the square is there, whatever is said
