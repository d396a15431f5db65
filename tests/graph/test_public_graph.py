"""What integrators build on: the graph's signature, its schemas and its nodes. A change here breaks their workflows."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest
from conftest import Plant
from langgraph.checkpoint.memory import InMemorySaver

import flawscope.graphs as graphs
from flawscope.agent.inspector import InspectionDeps
from flawscope.agent.settings import load_settings
from flawscope.graphs import InspectionInput, InspectionOutput, InspectionState, build_inspection_graph
from flawscope.graphs import evidence as ev

COMMITTED = Path(__file__).parents[2] / "docs" / "graph.schema.json"


def public_face() -> str:
    """All that docs/embedding.md promises to keep."""
    graph = build_inspection_graph(InspectionDeps(load_settings({}, environ={})))
    face = {
        "input": graph.get_input_jsonschema(),
        "output": graph.get_output_jsonschema(),
        "state": {name: kind.__forward_arg__ for name, kind in sorted(InspectionState.__annotations__.items())},
        "nodes": sorted(set(graph.get_graph().nodes)),
        "question": sorted(ev.question_for_a_person({"image": "a.png"})),  # type: ignore[typeddict-item]
        "answer": sorted(ev.checked_answer({"verdict": "OK"})),
    }
    return json.dumps(face, indent=2, sort_keys=True) + "\n"


def test_the_committed_face_is_the_graphs() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == public_face(), (
        "docs/graph.schema.json is not what the graph is. Another optional key is a minor version, anything else a "
        "major one. If it is meant, write it again:\n  PYTHONPATH=tests:tests/graph python -c "
        "'import test_public_graph as t; t.COMMITTED.write_text(t.public_face())'"
    )


def test_the_signature() -> None:
    signature = inspect.signature(build_inspection_graph)
    assert str(signature) == (
        "(deps: 'InspectionDeps', checkpointer: 'Checkpointer' = None)"
        " -> 'CompiledStateGraph[InspectionState, None, InspectionInput, InspectionOutput]'"
    )


def test_what_must_be_sent_and_what_comes_back(plant: Plant) -> None:
    sent = typing.get_type_hints(InspectionInput)
    assert sent == {"image": str, "product": str | None, "instruction": str}
    assert typing.get_type_hints(InspectionOutput) == {"report": dict[str, Any]}
    found = build_inspection_graph(plant.deps()).invoke({"image": str(plant.square), "product": "plate"})
    assert set(found) == {"report"}
    assert found["report"]["verdict"] == "NG"


def test_the_public_names() -> None:
    assert sorted(graphs.__all__) == graphs.__all__
    assert {name: getattr(graphs, name).__name__ for name in graphs.__all__} == {name: name for name in graphs.__all__}
    assert set(graphs.__all__) <= set(dir(graphs))
    with pytest.raises(AttributeError, match="has no attribute 'build_graph'"):
        _ = graphs.build_graph


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, flawscope.graphs; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"langgraph", "numpy", "pydantic", "torch"} & set(found)


def test_steps_are_streamed_as_they_end(plant: Plant) -> None:
    graph = build_inspection_graph(plant.deps())
    given: Any = {"image": str(plant.square), "product": "plate"}
    names = [name for update in graph.stream(given, stream_mode="updates") for name in update]
    assert names[0] == "see"
    assert set(names[1:3]) == {"localise", "retrieve"}
    assert names[-1] == "report"


def test_going_back_to_a_step_and_on_from_there(plant: Plant, tmp_path: Path) -> None:
    graph = build_inspection_graph(plant.deps(tmp_path / "artifacts"), InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "part"}}
    first = graph.invoke({"image": str(plant.square), "product": "plate"}, thread)
    assert first["report"]["verdict"] == "NG"
    before = next(step for step in graph.get_state_history(thread) if step.next == ("classify",))
    changed = graph.update_state(before.config, {"scores": {"whole": 0.0}}, as_node="localise")
    changed = graph.update_state(changed, {"documents": {}}, as_node="retrieve")
    again = graph.invoke(None, changed)
    assert again["report"]["verdict"] == "OK"
    assert again["report"]["image_score"] < again["report"]["threshold"] < first["report"]["image_score"]
    kept = next(step for step in graph.get_state_history(thread) if step.config == before.config)
    assert kept.values["scores"]["whole"] > 0.0  # the past is not rewritten, the thread has forked


def test_a_graph_server_finds_the_graph(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    config = json.loads((COMMITTED.parents[1] / "langgraph.json").read_text(encoding="utf-8"))
    assert config["dependencies"] == ["."]
    module, _, name = config["graphs"]["inspect"].partition(":")
    for key, value in {"HOME": str(plant.home), "BACKBONE": "patch-statistics", "STORE": "memory"}.items():
        monkeypatch.setenv(f"FLAWSCOPE_{key}", value)
    monkeypatch.delitem(sys.modules, module, raising=False)
    graph = getattr(importlib.import_module(module), name)
    monkeypatch.delitem(sys.modules, module)
    assert graph.checkpointer is None  # the server brings its own
    assert graph.get_input_jsonschema() == json.loads(COMMITTED.read_text(encoding="utf-8"))["input"]
