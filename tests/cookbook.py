"""Runs the code blocks of a page, in order and in one module, as somebody would who copies them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from flawscope.tools.backbones import Backbone
from flawscope.tools.products import enroll_product

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def make_workplace(folder: Path, home: Path, backbone: Backbone) -> None:
    """A folder with the examples, and a home with the textile enrolled, smaller than in the pages."""
    (folder / "examples").symlink_to(ROOT / "examples")
    good = sorted((ROOT / "examples" / "textile" / "good").glob("*.jpg"))[:10]
    enroll_product(home / "products", "textile", good, backbone)


def run_page(name: str, monkeypatch: pytest.MonkeyPatch, *changes: tuple[str, str], **given: Any) -> int:
    """Run a page's blocks.

    Args:
        name: of the page in docs, without its suffix.
        monkeypatch: for the module that the blocks are in; LangGraph looks annotations up there.
        changes: what is written otherwise here, as (in the page, here); it must be in the page.
        given: names that the page says to be the reader's own.

    Returns:
        How many blocks there were.
    """
    page = ModuleType(name.replace("/", "_"))
    vars(page).update(given)
    monkeypatch.setitem(sys.modules, page.__name__, page)
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"docs/{name}.md, block {number}", "exec", dont_inherit=True), vars(page))
    return len(blocks)
