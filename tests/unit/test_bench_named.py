"""Every benchmark that ``flawscope bench`` runs by its module's name can be run and drawn."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from flawscope.commands import bench


def named_benchmarks() -> list[str]:
    """The modules that the command names, as they stand in its calls."""
    calls = [
        node
        for node in ast.walk(ast.parse(Path(bench.__file__).read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_bench"
    ]
    first = [node.args[0] for node in calls]
    leaves = [leaf for name in first for leaf in ((name.body, name.orelse) if isinstance(name, ast.IfExp) else (name,))]
    return sorted({str(leaf.value) for leaf in leaves if isinstance(leaf, ast.Constant)})


@pytest.mark.parametrize("name", named_benchmarks())
def test_it_has_what_the_command_calls(name: str) -> None:
    module = importlib.import_module(f"flawscope.benchmarks.{name}")
    assert callable(getattr(module, f"run_{name}"))
    assert callable(module.render)


def test_all_of_them_are_found() -> None:
    assert {"fewshot", "peers", "retrieval", "retrieval_scale", "speed"} <= set(named_benchmarks())
