"""Every code block of the pages about embedding runs as it stands; those that need more are run in tests/services."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from cookbook import DOCS, make_workplace, run_page
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from flawscope.tools import registry
from flawscope.tools.backbones import Backbone

ELSEWHERE = {"mcp", "mes"}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, _cheap_parts: None, embedded_backbone: Backbone) -> Path:
    folder = tmp_path_factory.mktemp("cookbook")
    make_workplace(folder, folder / "home", embedded_backbone)
    return folder


@pytest.fixture(autouse=True)
def _there(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("FLAWSCOPE_HOME", str(workplace / "home"))
    monkeypatch.setenv("FLAWSCOPE_STORE", "memory")


def test_each_page_is_run_here_or_there() -> None:
    here = {"function", "node", "langchain_tools", "agent_tool"}
    assert {page.stem for page in (DOCS / "cookbook").glob("*.md")} == here | ELSEWHERE


def test_links_lead_somewhere() -> None:
    for page in (DOCS / "embedding.md", *(DOCS / "cookbook").glob("*.md")):
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_overview(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_page("embedding", monkeypatch) == 1
    assert capsys.readouterr().out.startswith("NG ")


def test_plain_function(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_page("cookbook/function", monkeypatch) == 4
    said = capsys.readouterr().out
    assert "product no product 'no_such_product'." in said
    assert "\nlocalise\n" in said


def test_node(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_page("cookbook/node", monkeypatch) == 6
    said = capsys.readouterr().out
    assert "['inspect'] localise" in said
    assert "[] ship" in said
    assert "Is this part OK or NG?" in said
    assert Path("line3.checkpoints.db").is_file()


def test_langchain_tools(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(registry, "TOOLS", dict(registry.TOOLS))
    assert run_page("cookbook/langchain_tools", monkeypatch) == 3
    assert "locate_anomalies" in capsys.readouterr().out


class Asking(BaseChatModel):
    """Has the part inspected, then says what came of it."""

    @property
    def _llm_type(self) -> str:
        return "asking"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        assert [tool.name for tool in tools] == ["inspect_picture", "retrieve_documents"]
        return self

    def _generate(self, messages: list[Any], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        told = messages[-1]
        if isinstance(told, ToolMessage):
            verdict = re.search(r'"verdict": ?"(\w+)"', str(told.content))
            assert verdict is not None
            answer = AIMessage(f"It is {verdict[1]}.")
        else:
            path = re.search(r"examples/\S+\.jpg", str(told.content))
            assert path is not None
            call = {"name": "inspect_picture", "args": {"image": path[0], "product": "textile"}, "id": "1"}
            answer = AIMessage("", tool_calls=[{**call, "type": "tool_call"}])
        return ChatResult(generations=[ChatGeneration(message=answer)])


def test_tool_of_another_agent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_page("cookbook/agent_tool", monkeypatch, model=Asking()) == 1
    assert capsys.readouterr().out == "It is NG.\n"
