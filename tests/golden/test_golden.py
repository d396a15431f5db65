"""What people and programs read, word for word. ``REGENERATE=1 pytest tests/golden`` writes it anew; review it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from flawscope.agent.inspector import Inspector
from flawscope.prompts import FOLDER, load_prompts, render

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
ROUNDED_TO = 1
VOLATILE = {"sha256", "seconds", "provenance", "artifacts", "image"}


def _same(path: Path, text: str) -> None:
    if os.environ.get("REGENERATE"):
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text


def _rounded(value: float) -> float:
    """As far as float sums agree between machines."""
    return round(value, ROUNDED_TO) + 0.0 if abs(value) < 10 else float(f"{value:.2g}")


def _stable(value: Any, key: str = "") -> Any:
    """Floats rounded, also inside sentences; what differs from run to run left out."""
    if isinstance(value, dict):
        return {name: _stable(item, name) for name, item in value.items() if name not in VOLATILE}
    if isinstance(value, list):
        return [_stable(item, key) for item in value]
    if isinstance(value, float):
        return _rounded(value)
    if isinstance(value, str) and key != "source":
        return re.sub(r"-?\d+\.\d+", lambda found: f"{_rounded(float(found[0])):g}", value)
    return value


@pytest.mark.parametrize("picture", ["square", "new_good", "flat"])
def test_reports_read_as_before(plant: Any, picture: str) -> None:
    with Inspector(plant.loaded()) as inspector:
        report = inspector.inspect(getattr(plant, picture), product="plate")
    kept = _stable(report.model_dump(mode="json"))
    _same(HERE / f"report_{picture}.json", json.dumps(kept, indent=2, ensure_ascii=False) + "\n")


def test_prompts_read_as_before() -> None:
    parts = []
    for file in sorted(FOLDER.glob("*.md")):
        prompts = load_prompts(file.stem)
        parts.append(f"# {prompts.name} {prompts.version}\n")
        for section, template in prompts.sections.items():
            variables = {name: f"<{name}>" for name in re.findall(r"{(\w+)}", template)}
            parts.append(f"{section}: {render(prompts.name, section, **variables)}\n")
    _same(HERE / "prompts.txt", "".join(parts))


def test_the_command_line_page_is_not_stale() -> None:
    found = importlib.util.spec_from_file_location("help_pages", HERE / "help_pages.py")
    assert found is not None
    assert found.loader is not None
    help_pages = importlib.util.module_from_spec(found)
    found.loader.exec_module(help_pages)
    _same(DOCS / "cli.md", help_pages.page())
