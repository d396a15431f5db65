"""The public names, what importing them costs, and that no module imports by the folders' bare names."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import flawscope.agent as agent

ROOT = Path(__file__).parents[2]
BARE = {"agent", "tools", "graphs", "prompts", "benchmarks", "cli"}
HEAVY = {
    "numpy",
    "pydantic",
    "torch",
    "pymilvus",
    "langgraph",
    "langchain_core",
    "sklearn",
    "scipy",
    "onnxruntime",
    "PIL",
}


def test_every_public_name_is_there_and_every_error_is_public() -> None:
    from flawscope.agent import errors

    loaded = {name: getattr(agent, name) for name in agent.__all__}
    assert sorted(agent.__all__) == agent.__all__
    named_errors = {name for name, value in vars(errors).items() if isinstance(value, type)} - {"ClassVar"}
    assert named_errors == {
        name for name, value in loaded.items() if getattr(value, "__module__", "") == errors.__name__
    }
    assert set(agent.__all__) <= set(dir(agent))
    assert {"Inspector", "InspectionReport", "Verdict", "Settings", "load_settings"} <= set(loaded)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Manager'"):
        _ = agent.Manager


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, flawscope.agent; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not HEAVY & set(found)


def test_nothing_is_imported_by_a_folders_bare_name() -> None:
    """`import tools` works by accident in the repository's root and breaks when installed."""
    files = subprocess.run(
        ["git", "ls-files", "-z", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    found = []
    for name in filter(None, files):
        if name.startswith("tests/cli/") or not (ROOT / name).exists():
            continue
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module or ""]
            else:
                continue
            found += [f"{name}:{node.lineno}: {m}" for m in modules if m.partition(".")[0] in BARE]
    assert found == []
