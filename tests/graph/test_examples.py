"""The example runs, and so does every code block of the page about embedding."""

from __future__ import annotations

import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import Plant

from flawscope.agent.inspector import Inspector
from flawscope.tools.backbones import Backbone
from flawscope.tools.products import enroll_product

ROOT = Path(__file__).parents[2]
TEXTILE = ROOT / "examples" / "textile"
BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "embedding.md").read_text(encoding="utf-8"), re.M | re.S)


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


@pytest.mark.usefixtures("_cheap_parts")
def test_the_page_about_embedding(
    home: Path,
    embedded_backbone: Backbone,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    good = sorted((TEXTILE / "good").glob("*.jpg"))[:10]
    enroll_product(home / "products", "textile", good, embedded_backbone)
    monkeypatch.setenv("FLAWSCOPE_STORE", "memory")
    monkeypatch.chdir(ROOT)
    assert len(BLOCKS) == 6
    page = ModuleType("embedding_page")
    monkeypatch.setitem(sys.modules, page.__name__, page)
    for number, block in enumerate(BLOCKS, start=1):
        exec(compile(block, f"docs/embedding.md, block {number}", "exec", dont_inherit=True), vars(page))
    said = capsys.readouterr().out
    assert "localise" in said
    assert "Is this part OK or NG?" in said
