"""The Inspector on the real store and the shipped backbone: it holds the knowledge base while open, and only then."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from conftest import Plant

from flawscope.agent.inspector import Inspector
from flawscope.agent.schemas import Verdict
from flawscope.agent.settings import load_settings

PROBE = """
import sys
from pathlib import Path
from flawscope.agent.errors import KnowledgeLockedError
from flawscope.tools.knowledge.milvus import refuse_foreign_owner
try:
    refuse_foreign_owner(Path(sys.argv[1]))
    print("free")
except KnowledgeLockedError:
    print("held")
"""


def ask(database: Path) -> str:
    """Whether another process may open the knowledge base."""
    return subprocess.run(
        [sys.executable, "-c", PROBE, str(database)], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_leaving_the_block_lets_go_of_the_knowledge_base(plant: Plant, tmp_path: Path) -> None:
    loaded = load_settings({"home": tmp_path / "home"}, environ={})
    with Inspector(loaded, references=plant.good[:6]) as inspector:
        first = inspector.inspect(plant.square)
        (database,) = (tmp_path / "home" / "knowledge").glob("*/kb.db")
        assert ask(database) == "held"
        second = inspector.inspect(plant.new_good)
    assert ask(database) == "free"
    assert (first.verdict, first.error) == (Verdict.NG, None)
    assert second.verdict is not Verdict.NG
    again = inspector.inspect(plant.square)  # it opens what it needs when it is used once more
    inspector.close()
    assert again.verdict is first.verdict
    assert ask(database) == "free"


def test_an_error_inside_the_block_lets_go_too(plant: Plant, tmp_path: Path) -> None:
    loaded = load_settings({"home": tmp_path / "home", "backbone": "patch-statistics"}, environ={})
    try:
        with Inspector(loaded) as inspector:
            inspector.inspect(plant.square)
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    (database,) = (tmp_path / "home" / "knowledge").glob("*/kb.db")
    assert ask(database) == "free"
