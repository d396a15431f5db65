"""The compiled graph from picture to report: paths, retries, verdicts, what is streamed and kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Plant
from fakes import FunctionReasoner
from langgraph.checkpoint.memory import InMemorySaver

from flawscope.agent.inspector import InspectionDeps, Inspector
from flawscope.agent.reasoner import DraftReport, EvidenceBundle, ReasonerReply
from flawscope.agent.reasoner.evidence import EvidenceReasoner
from flawscope.agent.reasoner.fakes import ScriptedReasoner
from flawscope.agent.schemas import Claim, InspectionReport, Verdict
from flawscope.graphs import nodes, routing
from flawscope.graphs.inspection import build_inspection_graph
from flawscope.tools import views
from flawscope.tools.ad_expert.calibration import Calibration, Decision
from flawscope.tools.knowledge.base import KnowledgeBase
from flawscope.tools.knowledge.familiarity import Familiarity

FIRST_ROUND = ["see", "localise", "retrieve", "classify", "reason", "verify"]
ROUND = ["classify", "reason", "verify"]


def reply(verdict: str, entropy: float | None, *claims: tuple[Any, ...]) -> ReasonerReply:
    made = tuple(Claim(field=field, text=text, evidence_ids=cites) for field, text, cites in claims)
    return ReasonerReply(DraftReport(verdict=Verdict(verdict), claims=made), entropy, "scripted")


def run(deps: InspectionDeps, image: Path, product: str | None = "plate") -> tuple[list[str], InspectionReport]:
    """Names of the steps in order, and the report."""
    steps, report = [], None
    for update in build_inspection_graph(deps).stream({"image": str(image), "product": product}, stream_mode="updates"):
        steps += list(update)
        json.dumps(update, allow_nan=False)  # plain data at every step
        if "report" in update:
            report = InspectionReport.model_validate(update["report"]["report"])
    assert report is not None
    return steps, report


def scripted(plant: Plant, reasoner: Any, **flags: Any) -> InspectionDeps:
    deps = plant.deps(**flags)
    deps.__dict__["reasoner"] = reasoner
    return deps


# Straight through


def test_a_defective_part_is_ng_with_place_type_and_cited_words(plant: Plant) -> None:
    steps, report = run(plant.deps(), plant.square)
    assert sorted(steps[:3]) == sorted(FIRST_ROUND[:3])
    # The verdict is clear; the type of a square is not, but a base that does not know the product is asked no further.
    assert steps[3:] == [*ROUND, "report"]
    assert report.verdict is Verdict.NG
    assert report.image_score is not None
    assert report.threshold is not None
    assert report.image_score > report.threshold
    x0, y0, x1, y1 = report.regions[0].box
    assert x0 <= 110 < x1
    assert y0 <= 120 < y1
    assert report.regions[0].place.startswith("upper left")
    assert report.defect_type is not None
    assert report.defect_type.name == "hole"
    cited = {cite for claim in report.claims for cite in claim.evidence_ids}
    assert {"M1", "R1", "T1"} <= cited
    assert report.root_cause.startswith("Likely causes of hole: ")
    assert report.provenance["problems"] == []


def test_a_good_part_is_ok_and_carries_no_defect(plant: Plant) -> None:
    _, report = run(plant.deps(), plant.new_good)
    assert report.verdict is Verdict.OK
    assert (report.regions, report.defect_type, report.root_cause) == ((), None, "")
    assert report.uncertainty.calibrated


def test_both_knowledge_paths_end_before_the_type_is_named(plant: Plant) -> None:
    steps, report = run(plant.deps(), plant.square)
    assert steps.index("classify") > max(steps.index("localise"), steps.index("retrieve"))
    assert {item.kind for item in report.evidence} >= {"measurement", "region", "document", "type"}


def test_inspecting_twice_gives_the_same_report_apart_from_timings(plant: Plant) -> None:
    def plain(report: InspectionReport) -> dict[str, Any]:
        found = report.model_dump(mode="json")
        for entry in found["trace"]:
            del entry["seconds"]
        return found

    with Inspector(plant.loaded()) as inspector:
        first, second = (inspector.inspect(plant.scratch, product="plate") for _ in range(2))
    with Inspector(plant.loaded()) as another:
        third = another.inspect(plant.scratch, product="plate")
    assert plain(first) == plain(second) == plain(third)


def test_the_drawing_shows_every_step(plant: Plant) -> None:
    drawn = build_inspection_graph(plant.deps()).get_graph()
    assert {*FIRST_ROUND, "zoom", "reference", "self_consistency", "more_docs", "human", "report"} <= set(drawn.nodes)
    edges = {(edge.source, edge.target) for edge in drawn.edges}
    assert {("see", "localise"), ("see", "retrieve"), ("verify", "zoom"), ("zoom", "classify")} <= edges
    assert "verify" in drawn.draw_mermaid()


def test_the_instruction_reaches_retrieval(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    deps, heard = plant.deps(), []
    retrieve = deps.knowledge.retrieve

    def listen(key: Any, text: str, **kwargs: Any) -> Any:
        heard.append(text)
        return retrieve(key, text, **kwargs)

    monkeypatch.setattr(deps.knowledge, "retrieve", listen)
    graph = build_inspection_graph(deps)
    graph.invoke({"image": str(plant.square), "product": "plate", "instruction": "look for holes"})
    assert heard[0] == "plate look for holes"


# Doubt and retries


def doubting(entropy: float | None) -> FunctionReasoner:
    """Always as unsure as this; its verdict follows the score."""

    def answer(evidence: EvidenceBundle) -> ReasonerReply:
        assert evidence.image_score is not None
        assert evidence.threshold is not None
        return reply("NG" if evidence.image_score >= evidence.threshold else "OK", entropy)

    return FunctionReasoner(answer)


@pytest.mark.parametrize("entropy", [1.0, None])
def test_doubt_takes_every_view_once_in_the_order_of_the_settings(plant: Plant, entropy: float | None) -> None:
    deps = scripted(plant, doubting(entropy), actions=("self_consistency", "zoom", "reference"))
    steps, report = run(deps, plant.square)
    taken = ["self_consistency", "zoom", "reference"]
    assert steps[3:] == [*ROUND, *[step for action in taken for step in (action, *ROUND)], "report"]
    kinds = [item.kind for item in report.evidence]
    assert [kinds.count(kind) for kind in ("zoom", "reference", "consistency")] == [1, 1, 1]
    assert report.uncertainty.entropy == entropy


def test_certainty_takes_none(plant: Plant) -> None:
    steps, _ = run(scripted(plant, doubting(0.0)), plant.scratch)
    assert steps[3:] == [*ROUND, "report"]


def test_a_conflict_with_the_score_forces_a_second_look_however_sure_the_reasoner_is(plant: Plant) -> None:
    for entropy in (0.0, None):
        reasoner = FunctionReasoner(lambda evidence, entropy=entropy: reply("OK", entropy))
        steps, report = run(scripted(plant, reasoner), plant.square)
        assert "zoom" in steps
        assert report.verdict is Verdict.REVIEW
        assert "The verifier refused the draft" in report.verdict_reason
        assert "OK was answered, but the score" in report.verdict_reason
        assert report.action == ""


@pytest.mark.parametrize(("against", "verdict"), [((), Verdict.NG), (("zoom",), Verdict.REVIEW)])
def test_certainty_against_a_view_that_says_the_opposite_is_none(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, against: tuple[str, ...], verdict: Verdict
) -> None:
    def decide(self: Calibration, scores: dict[str, float], false_alarm: float) -> Decision:
        if len(scores) == 1:
            return Decision(3.0, 3.0, 0.5, 0.05, "conformal")
        return Decision(9.0, 3.0, 0.999, 0.01, "conformal", against)

    monkeypatch.setattr(Calibration, "decide", decide)
    steps, report = run(plant.deps(), plant.square)
    assert "zoom" in steps
    assert ("self_consistency" in steps) == bool(against)  # a contradiction is looked into
    assert report.verdict is verdict
    assert ("judged by the zoom alone" in report.verdict_reason) == bool(against)
    measured = next(item for item in report.evidence if item.id == "M1")
    assert ("Judged alone, the other way: zoom." in measured.text) == bool(against)


@pytest.mark.parametrize("limit", [0, 1, 2])
def test_the_budget_of_actions_holds(plant: Plant, limit: int) -> None:
    steps, _ = run(scripted(plant, doubting(1.0), max_actions=limit), plant.square)
    assert sum(step in ("zoom", "reference", "self_consistency", "more_docs") for step in steps) == limit


def test_no_action_starts_after_the_time_budget(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(routing.time, "time", lambda: now[0])
    monkeypatch.setattr(nodes.time, "time", lambda: now[0])
    zoom = views.VIEWS["zoom"]

    def slow(*args: Any) -> Any:
        now[0] += 31.0
        return zoom(*args)

    monkeypatch.setitem(views.VIEWS, "zoom", slow)
    steps, _ = run(scripted(plant, doubting(1.0), time_budget_s=30.0), plant.square)
    assert steps[3:] == [*ROUND, "zoom", *ROUND, "report"]


@pytest.mark.parametrize("ask_human", [False, True])
def test_a_verdict_in_doubt_does_not_stand_because_time_ran_out_before_it_was_settled(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, ask_human: bool
) -> None:
    now = [1000.0]
    monkeypatch.setattr(routing.time, "time", lambda: now[0])
    monkeypatch.setattr(nodes.time, "time", lambda: now[0])
    check = nodes.verify

    def slow(*args: Any) -> Any:
        now[0] += 31.0
        return check(*args)

    monkeypatch.setattr(nodes, "verify", slow)

    class Undecided(EvidenceReasoner):
        def reason(self, evidence: EvidenceBundle, images: Any, schema: Any) -> ReasonerReply:
            return super().reason(replace(evidence, probability=0.5), images, schema)

    deps = scripted(plant, Undecided(), time_budget_s=30.0, ask_human=ask_human)
    if ask_human:
        graph, config = build_inspection_graph(deps, InMemorySaver()), {"configurable": {"thread_id": "t"}}
        state = graph.invoke({"image": str(plant.square), "product": "plate"}, config)  # type: ignore[call-overload]
        assert "__interrupt__" in state
        return
    steps, report = run(deps, plant.square)
    assert steps[3:] == [*ROUND, "report"]
    assert report.verdict is Verdict.REVIEW
    assert "NG was answered, but" in report.verdict_reason
    assert report.action == ""
    assert not [claim for claim in report.claims if claim.field in ("verdict", "action")]


def test_all_four_actions_fit_under_the_recursion_limit_of_a_parent(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    from langgraph.graph import END, START, StateGraph

    monkeypatch.setattr(KnowledgeBase, "familiarity", lambda *asked: Familiarity(True, "name"))

    from flawscope.graphs.state import InspectionState

    def unsure(evidence: EvidenceBundle) -> ReasonerReply:
        return reply("NG", 1.0)

    deps = scripted(plant, FunctionReasoner(unsure), max_actions=5)
    product = deps.product("plate")
    assert product is not None
    deps.products["plate"] = replace(product, types=_Undecided())  # type: ignore[arg-type]
    parent = StateGraph(InspectionState)
    parent.add_node("inspect", build_inspection_graph(deps))
    parent.add_edge(START, "inspect")
    parent.add_edge("inspect", END)
    state = parent.compile().invoke({"image": str(plant.square), "product": "plate"})
    taken = [entry["action"] for entry in state["report"]["trace"]]
    assert {"zoom", "reference", "self_consistency", "more_docs"} <= set(taken)


class _Undecided:
    """A type model that cannot tell its types apart."""

    def posterior(self, feature: Any) -> list[tuple[str, float]]:
        return [("hole", 0.5), ("scratch", 0.5)]


def test_more_documents_brings_pages_not_seen_before(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KnowledgeBase, "familiarity", lambda *asked: Familiarity(True, "name"))
    deps = plant.deps(actions=("more_docs",), documents=2)
    product = deps.product("plate")
    assert product is not None
    deps.products["plate"] = replace(product, types=_Undecided())  # type: ignore[arg-type]
    steps, report = run(deps, plant.square)
    assert steps.count("more_docs") == 1
    sources = [item.source for item in report.evidence if item.kind == "document"]
    assert len(sources) == len(set(sources)) == 5  # two at first, the page of the type named, two more


def test_zoom_can_turn_ok_into_ng(plant: Plant) -> None:
    """The first look at a real defect is made to stay just below the threshold; the real zoom then finds it."""
    deps = plant.deps(actions=("zoom",), entropy_accept=0.3)
    product = deps.product("plate")
    assert product is not None
    whole = run(plant.deps(), plant.square)[1].evidence
    raw = next(item.values["raw_whole"] for item in whole if item.id == "M1")
    assert isinstance(raw, float)
    table = product.calibration.scores.copy()
    spread = table[:, 0] - np.median(table[:, 0])
    table[:, 0] = raw + spread - 0.9 * spread.max()  # good parts scatter around this picture's score
    deps.products["plate"] = replace(product, calibration=Calibration(product.calibration.views, table))
    before = run(_copy_without_actions(plant, deps), plant.square)[1]
    steps, after = run(deps, plant.square)
    assert before.verdict in (Verdict.OK, Verdict.REVIEW)
    assert "zoom" in steps
    assert after.verdict is Verdict.NG
    zoomed = next(step for step in after.trace if step.action == "zoom")
    assert zoomed.entropy_before is not None
    assert zoomed.entropy_before > 0.3
    assert any(item.kind == "zoom" for item in after.evidence)


def _copy_without_actions(plant: Plant, deps: InspectionDeps) -> InspectionDeps:
    without = plant.deps(max_actions=0, entropy_accept=0.3)
    without.products.update(deps.products)
    return without


def test_the_last_round_settles_for_review(plant: Plant) -> None:
    seen: list[bool] = []

    class Embedded(EvidenceReasoner):
        def reason(self, evidence: EvidenceBundle, images: Any, schema: Any) -> ReasonerReply:
            seen.append(evidence.final)
            return super().reason(replace(evidence, probability=0.5), images, schema)

    steps, report = run(scripted(plant, Embedded(), max_actions=1), plant.square)
    assert steps.count("zoom") == 1
    assert seen == [False, False, True]
    assert report.verdict is Verdict.REVIEW


# Where nothing can be decided


def test_without_references_the_verdict_is_review_with_both_remedies(plant: Plant) -> None:
    steps, report = run(plant.deps(), plant.square, product=None)
    assert report.verdict is Verdict.REVIEW
    assert "flawscope enroll" in report.verdict_reason
    assert "--reference" in report.verdict_reason
    assert (report.image_score, report.probability, report.uncertainty.entropy) == (None, None, None)
    assert steps[3:] == [*ROUND, "report"]


def test_a_flat_picture_is_review_even_of_an_enrolled_product(plant: Plant) -> None:
    _, report = run(plant.deps(), plant.flat)
    assert report.verdict is Verdict.REVIEW
    assert "one flat colour" in report.verdict_reason
    assert report.image_score is None
    assert "quality" in {item.kind for item in report.evidence}


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_references_are_never_a_confident_verdict(plant: Plant, count: int) -> None:
    with Inspector(plant.loaded(), references=plant.good[:count]) as inspector:
        report = inspector.inspect(plant.square)
    assert report.error is None
    assert report.verdict is Verdict.REVIEW
    assert report.probability is None
    measured = next(item for item in report.evidence if item.id == "M1")
    assert f"{count} good references are too few" in measured.text
    json.loads(report.model_dump_json(), parse_constant=_no_constants)


def _no_constants(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def test_few_references_are_marked_as_extrapolated(plant: Plant) -> None:
    with Inspector(plant.loaded(), references=plant.good[:4]) as inspector:
        report = inspector.inspect(plant.square)
    assert report.verdict is Verdict.NG
    assert not report.uncertainty.calibrated
    assert report.provenance["decision"]["basis"] == "extrapolated"


def test_references_and_a_product_together_are_refused(plant: Plant) -> None:
    from flawscope.agent.errors import ConfigError

    with Inspector(plant.loaded(), references=plant.good[:3]) as inspector, pytest.raises(ConfigError, match="either"):
        inspector.inspect(plant.square, product="plate")


# Foreign reasoners


def test_the_report_names_the_type_that_its_words_are_about(plant: Plant) -> None:
    from flawscope.agent.schemas import DefectType

    def second_best(evidence: EvidenceBundle) -> ReasonerReply:
        claim = Claim(field="defect_type", text="It is most like scratch.", evidence_ids=("T1",))
        kind = DefectType(name="scratch", posterior=0.99)
        return ReasonerReply(DraftReport(verdict=Verdict.NG, defect_type=kind, claims=(claim,)), 0.0, "scripted")

    _, report = run(scripted(plant, FunctionReasoner(second_best)), plant.square)
    assert report.defect_type is not None
    assert report.defect_type.name == "scratch"
    compared = {candidate.name: candidate.posterior for candidate in report.defect_type.candidates}
    assert report.defect_type.posterior == compared["scratch"] < 0.5  # the comparison's number, not the claimed one


def test_an_invented_cause_does_not_reach_the_report(plant: Plant) -> None:
    invented = ("root_cause", "A meteorite struck the line.", ("D1",))
    _, report = run(scripted(plant, ScriptedReasoner([reply("NG", 0.0, invented)])), plant.square)
    assert "meteorite" not in report.model_dump_json().replace(json.dumps(report.provenance), "")
    assert report.root_cause == ""
    assert report.provenance["problems"]


def test_steps_are_told_in_order_as_they_end(plant: Plant) -> None:
    with Inspector(plant.loaded()) as inspector:
        events = list(inspector.stream(plant.scratch, product="plate"))
    assert [kind for kind, _ in events] == ["step"] * 6 + ["report"]
    report = events[-1][1]
    assert isinstance(report, InspectionReport)
    traced = [entry.action for entry in report.trace]
    assert (traced[:2], sorted(traced[2:])) == (["load", "encode"], sorted(FIRST_ROUND[1:]))  # to see is both
