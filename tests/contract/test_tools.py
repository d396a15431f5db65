"""Every tool of the registry keeps the contract, and an agent's graph can call it."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Plant
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from pydantic import ValidationError

from flawscope.agent.errors import ProductError
from flawscope.agent.inspector import Inspector
from flawscope.tools import registry
from flawscope.tools.knowledge.schema import load_documents
from flawscope.tools.registry import TOOLS, ToolSpec, args_schema, build_langchain_tools

ARGUMENTS: dict[str, dict[str, Any]] = {
    "inspect_picture": {"instruction": "look for holes"},
    "locate_anomalies": {},
    "name_defect_type": {},
    "zoom": {"x": 110, "y": 120},
    "compare_with_reference": {},
    "compare_with_template": {},
    "check_parts": {},
    "measure_region": {"box": [10, 10, 60, 40], "scale_px_per_mm": 10.0},
    "retrieve_documents": {"query": "round hole", "k": 2},
}


@pytest.fixture(scope="module")
def inspector(plant: Plant) -> Iterator[Inspector]:
    with Inspector(plant.loaded()) as opened:
        yield opened


@pytest.fixture(scope="module")
def tools(inspector: Inspector) -> dict[str, Any]:
    return {tool.name: tool for tool in build_langchain_tools(inspector)}


def arguments(name: str, plant: Plant, **changed: Any) -> dict[str, Any]:
    return {"image": str(plant.square), "product": "plate", **ARGUMENTS[name], **changed}


def plain(result: Any) -> Any:
    """The result, which must survive JSON unchanged."""
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    return result


def test_each_tool_has_arguments_here() -> None:
    assert set(ARGUMENTS) == set(TOOLS)


@pytest.mark.parametrize("name", TOOLS)
def test_names_and_descriptions(name: str, tools: dict[str, Any]) -> None:
    assert name.isidentifier()
    assert name == TOOLS[name].load().__name__ == tools[name].name
    assert len(TOOLS[name].description) > 40
    assert tools[name].description == TOOLS[name].description


@pytest.mark.parametrize("name", TOOLS)
def test_the_schema_is_the_signature(name: str, tools: dict[str, Any]) -> None:
    parameters = list(inspect.signature(TOOLS[name].load()).parameters.values())
    assert parameters[0].name == "inspector"
    schema = tools[name].args_schema.model_json_schema()
    assert list(schema["properties"]) == [parameter.name for parameter in parameters[1:]]
    required = [parameter.name for parameter in parameters[1:] if parameter.default is parameter.empty]
    assert schema.get("required", []) == required
    assert all(field.get("description") for field in schema["properties"].values())
    assert schema["additionalProperties"] is False
    with pytest.raises(ValidationError):
        args_schema(name, TOOLS[name].load()).model_validate({"colour": "red"})


@pytest.mark.parametrize("name", TOOLS)
def test_results_are_plain_data(name: str, tools: dict[str, Any], plant: Plant) -> None:
    result = plain(tools[name].invoke(arguments(name, plant)))
    assert not result.get("error")
    assert "provenance" not in result


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in TOOLS for kind in ("missing", "empty")]
    + [(name, "flat") for name in sorted(set(TOOLS) - {"inspect_picture", "retrieve_documents"})],
)
def test_bad_pictures_become_records(name: str, kind: str, tools: dict[str, Any], plant: Plant, tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    image = {"missing": tmp_path / "none.png", "empty": tmp_path / "empty.png", "flat": plant.flat}[kind]
    result = plain(tools[name].invoke(arguments(name, plant, image=str(image))))
    assert result["error"]["code"] == "input"
    assert result["error"]["message"].endswith(".")


@pytest.mark.parametrize("name", sorted(set(TOOLS) - {"retrieve_documents"}))
def test_unknown_products_become_records(name: str, tools: dict[str, Any], plant: Plant) -> None:
    result = plain(tools[name].invoke(arguments(name, plant, product="nothing")))
    assert result["error"]["code"] == "product"


@pytest.mark.parametrize("name", ["locate_anomalies", "name_defect_type", "zoom", "compare_with_reference"])
def test_without_references_there_is_nothing_to_look_with(name: str, tools: dict[str, Any], plant: Plant) -> None:
    assert tools[name].invoke(arguments(name, plant, product=None))["error"]["code"] == "product"


def test_references_stand_in_for_a_product(plant: Plant) -> None:
    with Inspector(plant.loaded(), references=plant.good[:4]) as own:
        locate = {tool.name: tool for tool in build_langchain_tools(own)}["locate_anomalies"]
        assert locate.invoke({"image": str(plant.square)})["regions"]
        assert locate.invoke({"image": str(plant.square), "product": "plate"})["error"]["code"] == "config"


def test_they_say_what_the_inspection_says(tools: dict[str, Any], plant: Plant) -> None:
    report = tools["inspect_picture"].invoke(arguments("inspect_picture", plant))
    found = tools["locate_anomalies"].invoke(arguments("locate_anomalies", plant))
    named = tools["name_defect_type"].invoke(arguments("name_defect_type", plant))
    assert report["verdict"] == "NG"
    assert found["regions"] == report["regions"]
    assert (found["image_score"], found["threshold"]) == (report["image_score"], report["threshold"])
    assert named["defect_type"]["name"] == report["defect_type"]["name"] == "hole"


def test_a_good_part_has_no_defect_type(tools: dict[str, Any], plant: Plant) -> None:
    named = tools["name_defect_type"].invoke({"image": str(plant.new_good), "product": "plate"})
    assert named == {"defect_type": None, "reason": "nothing on the part is suspicious"}


def test_zoom_looks_where_it_is_told(tools: dict[str, Any], plant: Plant) -> None:
    def seen(**where: Any) -> Any:
        return tools["zoom"].invoke({"image": str(plant.square), "product": "plate", **where})

    on_the_square, opposite = seen(x=110, y=120), seen(x=400, y=400)
    assert on_the_square["window"] == [0, 0, 240, 240]
    assert opposite["window"] == [240, 240, 480, 480]
    assert on_the_square["score"] > 2 * opposite["score"]
    assert seen(box=[60, 70, 160, 170]) == on_the_square
    assert seen()["score"] > 2 * opposite["score"]
    for wrong in ({"x": 480, "y": 0}, {"x": 3}, {"x": 3, "y": 3, "box": [0, 0, 9, 9]}, {"box": [900, 0, 950, 9]}):
        assert seen(**wrong)["error"]["code"] == "input"


def test_the_reference_is_a_picture_of_the_product(tools: dict[str, Any], plant: Plant) -> None:
    seen = tools["compare_with_reference"].invoke(arguments("compare_with_reference", plant))
    assert seen["reference"] in [path.name for path in plant.good]
    assert Path(seen["reference_picture"]).is_file()
    assert seen["score"] > seen["typical_of_good"]


def test_documents_by_words_by_picture_or_both(tools: dict[str, Any], plant: Plant) -> None:
    retrieve = tools["retrieve_documents"]
    (page,) = (page for page in load_documents() if page.doc_id == "general.dent")
    by_words = retrieve.invoke({"query": f"{page.title}. {page.appearance}", "k": 3})["documents"]
    assert by_words[0]["doc_id"] == page.doc_id
    assert [page["similarity"] for page in by_words] == sorted((p["similarity"] for p in by_words), reverse=True)
    assert by_words[0]["text"].startswith("[document ")
    assert len(retrieve.invoke({"image": str(plant.scratch), "k": 2})["documents"]) == 2
    assert len(retrieve.invoke({"image": str(plant.scratch), "query": "hole", "k": 1})["documents"]) == 1
    assert retrieve.invoke({})["error"]["code"] == "knowledge"


# In an agent's graph


class Scripted(BaseChatModel):
    """Calls what it was told to call, then says done."""

    calls: list[dict[str, Any]]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _generate(self, messages: list[Any], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        last = messages[-1]
        message = AIMessage("done") if isinstance(last, ToolMessage) else AIMessage("", tool_calls=self.calls)
        return ChatResult(generations=[ChatGeneration(message=message)])


def run_agent(inspector: Inspector, calls: list[dict[str, Any]], checkpointer: Any = None) -> list[AnyMessage]:
    """One turn of a tool-calling agent; the messages after the question."""
    tools = build_langchain_tools(inspector)
    numbered = [{**call, "id": f"call-{number}", "type": "tool_call"} for number, call in enumerate(calls)]
    model = Scripted(calls=numbered).bind_tools(tools)
    graph = StateGraph(MessagesState)
    graph.add_node("agent", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "agent")
    graph.add_conditional_edges("agent", tools_condition)
    graph.add_edge("tools", "agent")
    config: Any = {"configurable": {"thread_id": "t"}, "recursion_limit": 6}
    out = graph.compile(checkpointer=checkpointer).invoke({"messages": [HumanMessage("Is it good?")]}, config)
    return list(out["messages"][1:])


@pytest.mark.parametrize("name", TOOLS)
def test_an_agent_calls_it(name: str, inspector: Inspector, plant: Plant) -> None:
    _, answer, last = run_agent(inspector, [{"name": name, "args": arguments(name, plant)}])
    assert isinstance(answer, ToolMessage)
    assert not json.loads(str(answer.content)).get("error")
    assert last.content == "done"


@pytest.mark.parametrize("checkpointer", [None, InMemorySaver()], ids=["plain", "checkpointed"])
def test_several_calls_in_one_turn(inspector: Inspector, plant: Plant, checkpointer: Any) -> None:
    images = [plant.square, plant.new_good, plant.scratch, plant.square]
    calls = [{"name": "inspect_picture", "args": {"image": str(image), "product": "plate"}} for image in images]
    _, *answers, _ = run_agent(inspector, calls, checkpointer)
    told = [json.loads(str(answer.content)) for answer in answers]
    assert [report["image"] for report in told] == [str(image) for image in images]
    assert [report["verdict"] == "NG" for report in told] == [True, False, True, True]
    assert [report["error"] for report in told] == [None] * 4


def test_failures_do_not_end_the_agent(inspector: Inspector, plant: Plant, tmp_path: Path) -> None:
    calls = [
        {"name": "zoom", "args": {"image": str(tmp_path / "none.png"), "product": "plate"}},
        {"name": "zoom", "args": {"image": str(plant.square), "product": "plate", "x": "left"}},
        {"name": "solder", "args": {}},
    ]
    _, *answers, last = run_agent(inspector, calls)
    assert json.loads(str(answers[0].content))["error"]["code"] == "input"
    assert "x" in str(answers[1].content)
    assert "solder is not a valid tool" in str(answers[2].content)
    assert last.content == "done"


def gauge(inspector: Inspector, kind: str) -> dict[str, Any]:
    """A tool that fails as it is told."""
    raise {"named": ProductError("no such gauge."), "defect": ZeroDivisionError("a defect of the program")}[kind]


def test_a_new_tool_is_one_line_and_its_own_defects_are_seen(
    inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "my_plant_tools", sys.modules[__name__])
    monkeypatch.setattr(registry, "TOOLS", {"gauge": ToolSpec("my_plant_tools:gauge", "Measure the part.")})
    (tool,) = build_langchain_tools(inspector)
    assert tool.invoke({"kind": "named"}) == {"error": {"code": "product", "message": "no such gauge."}}
    with pytest.raises(ZeroDivisionError):
        tool.invoke({"kind": "defect"})
