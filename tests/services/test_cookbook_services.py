"""The cookbook's pages that need the extras: MCP, the MES example, and checkpoints in PostgreSQL."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from cookbook import make_workplace, run_page
from postgres_server import postgres_server

from flawscope.tools.backbones import Backbone


@pytest.fixture(autouse=True)
def _workplace(
    tmp_path: Path, home: Path, _cheap_parts: None, embedded_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_workplace(tmp_path, home, embedded_backbone)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLAWSCOPE_STORE", "memory")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_mcp(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_page("cookbook/mcp", monkeypatch) == 2
    said = capfd.readouterr().out.splitlines()
    assert said[0] == "NG ['text', 'image']"
    assert said[1] == "'/etc/hostname' is not in the folders that this server may read."
    assert "'name': 'textile', 'references': 10" in said[2]


def test_mes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_page("cookbook/mes", monkeypatch) == 1
    said = capsys.readouterr()
    assert said.out.startswith("the control plan gives this defect no severity in numbers ['ship', ")
    assert said.err.split()[:2] == ["receive", "inspect/see"]


def test_mes_and_node_on_postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    with postgres_server() as url:
        database = url.replace("postgresql://", "postgresql+psycopg://")
        run_page("cookbook/mes", monkeypatch, ("sqlite:///mes.db", database), ("sqlite:///mes.checkpoints.db", url))
        run_page("cookbook/node", monkeypatch, ("sqlite:///line3.checkpoints.db", url))
    assert not list(Path().glob("*.db"))
