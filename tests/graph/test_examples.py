"""The example of a parent graph runs. (What the documentation shows is run by test_cookbook.)"""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from conftest import Plant

from flawscope.agent.inspector import Inspector

ROOT = Path(__file__).parents[2]
TEXTILE = ROOT / "examples" / "textile"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example as a module; LangGraph looks the annotations of its state up there."""
    spec = spec_from_file_location("parent_graph", ROOT / "examples" / "parent_graph.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "parent_graph", module)
    spec.loader.exec_module(module)
    return module


def test_parent_graph_sends_parts_by_verdict(example: Any, plant: Plant) -> None:
    with Inspector(plant.loaded(), references=plant.good) as inspector:
        workflow = example.build(inspector)
        parts = [workflow.invoke({"image": str(p)}) for p in (plant.new_good, plant.square, plant.flat)]
    assert [part["report"]["verdict"] for part in parts] == ["OK", "NG", "REVIEW"]
    assert parts[0]["disposition"] == "to the warehouse"
    assert parts[1]["disposition"].startswith("to rework: ")
    assert parts[2]["disposition"].startswith("on hold: The picture is one flat colour")
    assert parts[0]["serial"] == "part-good"


@pytest.mark.usefixtures("_cheap_parts")
def test_parent_graph_on_its_own_textile(
    example: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLAWSCOPE_STORE", "memory")
    example.main([str(TEXTILE / "test" / name) for name in ("good_000.jpg", "global_000.jpg")])
    good, defective = capsys.readouterr().out.splitlines()
    assert good == "part-good_000: OK, to the warehouse"
    assert defective.startswith("part-global_000: NG, to rework: ")
