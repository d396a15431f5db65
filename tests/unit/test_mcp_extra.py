"""Without the extra, the MCP server says what to install; with it or not, the command is listed."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest

from flawscope.agent.errors import MissingExtraError
from flawscope.cli import main


def test_the_command_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("flawscope.agent.mcp_server", "flawscope.agent.mcp_tools"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in ("mcp", "mcp.server", "mcp.server.mcpserver.exceptions", "mcp_types"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError):
        import_module("flawscope.agent.mcp_server")
    monkeypatch.setattr(sys, "argv", ["flawscope", "mcp", "--root", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == MissingExtraError.exit_code
    said = capsys.readouterr().err
    assert said == "flawscope: the MCP server needs an optional part. Install it: pip install 'flawscope[mcp]'\n"
