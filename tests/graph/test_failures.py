"""Named failures of any step become a report with its error; defects of the program stay visible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import Plant
from fakes import FunctionReasoner

from flawscope.agent import errors
from flawscope.agent.errors import BackendError, ConfigError, FlawscopeError, KnowledgeLockedError, StorageError
from flawscope.agent.inspector import InspectionDeps, Inspector
from flawscope.agent.reasoner.fakes import ScriptedReasoner
from flawscope.agent.schemas import InspectionReport, Verdict
from flawscope.graphs.inspection import build_inspection_graph
from flawscope.graphs.nodes import InspectionNodes
from flawscope.tools.knowledge.builder import KnowledgeBase
from flawscope.tools.product_model import ProductModel


def tree(base: type[FlawscopeError]) -> list[type[FlawscopeError]]:
    return [base, *(below for child in base.__subclasses__() for below in tree(child))]


ERRORS = [kind for kind in tree(FlawscopeError) if kind.__module__ == errors.__name__ and kind is not FlawscopeError]


def made(kind: type[FlawscopeError]) -> FlawscopeError:
    return kind("it", "extra") if kind is errors.MissingExtraError else kind("it broke.", hint="Mend it.")


def run(deps: InspectionDeps, image: Path, product: str | None = "plate") -> InspectionReport:
    state = build_inspection_graph(deps).invoke({"image": str(image), "product": product})
    return InspectionReport.model_validate(state["report"])


def raising(error: BaseException) -> Any:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_named_failure_is_a_report_with_its_code(
    plant: Plant, kind: type[FlawscopeError], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = made(kind)
    monkeypatch.setattr(ProductModel, "localise", raising(error))
    report = run(plant.deps(), plant.square)
    assert report.error is not None
    assert (report.error.code, report.error.exit_code, report.error.message) == (kind.code, kind.exit_code, str(error))
    assert report.verdict is Verdict.REVIEW
    assert report.verdict_reason == str(error)
    assert (report.image_score, report.claims, report.defect_type) == (None, (), None)


STEPS = {
    "load": ("flawscope.graphs.nodes.load_image", None),
    "encode": ("flawscope.tools.views.encode", None),
    "localise": (ProductModel, "localise"),
    "retrieve": (KnowledgeBase, "retrieve"),
    "classify": (ProductModel, "name_type"),
    "verify": ("flawscope.graphs.nodes.verify", None),
    "zoom": ("flawscope.tools.views.VIEWS", "zoom"),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_failure_in_any_step_ends_in_a_report(plant: Plant, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name = STEPS[step]
    fail = raising(StorageError("the disk is full."))
    if step == "zoom":
        from flawscope.tools import views

        monkeypatch.setitem(views.VIEWS, "zoom", fail)
    elif name is None:
        monkeypatch.setattr(where, fail)
    else:
        monkeypatch.setattr(where, name, fail)
    deps = plant.deps(entropy_accept=0.0)
    if step == "zoom":
        from flawscope.agent.reasoner import DraftReport, ReasonerReply

        unsure = ReasonerReply(DraftReport(verdict=Verdict.NG), 1.0, "scripted")
        deps.__dict__["reasoner"] = FunctionReasoner(lambda evidence: unsure)
    report = run(deps, plant.square)
    assert report.error is not None
    assert report.error.exit_code == 10
    assert report.verdict is Verdict.REVIEW


def test_both_paths_failing_in_the_same_step_is_one_failure(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProductModel, "localise", raising(StorageError("the disk is full.")))
    monkeypatch.setattr(KnowledgeBase, "retrieve", raising(KnowledgeLockedError("it is locked.")))
    report = run(plant.deps(), plant.square)
    assert report.error is not None
    assert report.error.code in ("storage", "knowledge_locked")


def test_a_reasoner_that_fails_is_exit_code_7(plant: Plant) -> None:
    deps = plant.deps()
    deps.__dict__["reasoner"] = ScriptedReasoner([BackendError("the server is gone.", hint="Start it.")])
    report = run(deps, plant.square)
    assert report.error is not None
    assert (report.error.exit_code, report.error.message) == (7, "the server is gone. Start it.")


def test_a_reasoner_that_does_not_exist_is_a_report_too(plant: Plant) -> None:
    report = run(plant.deps(reasoner="oracle"), plant.square)
    assert report.error is not None
    assert "unknown reasoner 'oracle'" in report.error.message
    assert report.provenance["reasoner"] == "oracle"


def test_an_unknown_product_and_an_unreadable_picture_are_reports(plant: Plant, tmp_path: Path) -> None:
    with Inspector(plant.loaded()) as inspector:
        unknown = inspector.inspect(plant.square, product="gear")
        missing = inspector.inspect(tmp_path / "none.png", product="plate")
        (tmp_path / "empty.png").touch()
        empty = inspector.inspect(tmp_path / "empty.png", product="plate")
        fine = inspector.inspect(plant.square, product="plate")
    assert [r.error.exit_code if r.error else 0 for r in (unknown, missing, empty, fine)] == [5, 4, 4, 0]
    assert fine.verdict is Verdict.NG  # one failure does not spoil the next picture


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("bug"), AssertionError(), KeyboardInterrupt()])
def test_defects_of_the_program_are_not_hidden(
    plant: Plant, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProductModel, "localise", raising(error))
    with pytest.raises(type(error)):
        run(plant.deps(), plant.square)


def test_after_a_failure_no_step_works_on(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flawscope.tools.views.encode", raising(BackendError("no.")))
    deps = plant.deps()
    report = run(deps, plant.square)
    assert [step.action for step in report.trace] == ["load"]
    assert "knowledge" not in deps.__dict__  # nothing was built for a picture that cannot be inspected


def test_a_picture_that_vanished_from_memory_is_a_named_failure(plant: Plant) -> None:
    nodes = InspectionNodes(plant.deps())
    update = nodes.encode({"image": "x", "product": "plate", "picture": {"rgb": "sha256:" + "0" * 64}})  # type: ignore[typeddict-item]
    assert update["error"]["code"] == "storage"
    assert isinstance(made(ConfigError), FlawscopeError)
