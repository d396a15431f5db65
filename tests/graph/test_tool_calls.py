"""Tools in the protocol's own way: handed over where a server offers it, answered by id, and every way to go wrong."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from chat_engine import Engine, examined
from chat_server import Act, ChatServer, answers, calls, chat_server, refuses
from conftest import Plant
from langgraph.checkpoint.memory import InMemorySaver

from flawscope.agent.conversation import Answer, Conversation
from flawscope.agent.inspector import InspectionDeps, Inspector
from flawscope.agent.language_model import ChatClient, Endpoint
from flawscope.agent.model_conversation import MAX_CALLS
from flawscope.agent.reasoner.model_reasoner import ModelReasoner
from flawscope.agent.schemas import InspectionReport
from flawscope.agent.vision_language.base import Generated
from flawscope.agent.vision_language.fakes import ScriptedModel
from flawscope.agent.vision_language.served import ServedModel
from flawscope.agent.vision_language.tool_text import ToolCall

TOOLS = ["zoom", "compare_with_reference", "measure", "show_document", "search_documents"]
WIDE = "R1 is 179 px wide [M2]."
TYPE = "The type is hole [T1]."


@pytest.fixture(scope="module")
def report(plant: Plant) -> InspectionReport:
    """NG, a hole at the upper left with R1, M1, T1 and D1."""
    with Inspector(plant.loaded()) as inspector:
        return inspector.inspect(plant.square, product="plate")


@pytest.fixture(scope="module")
def deps(plant: Plant) -> Iterator[InspectionDeps]:
    loaded = plant.deps()
    yield loaded
    loaded.close()


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        yield running


def in_turn(acts: Sequence[Act]) -> Act:
    """One act for each request, the last one for all that follow."""
    left = deque(acts)

    def act(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        (left.popleft() if len(left) > 1 else left[0])(handler, body)

    return act


def ask(
    server: ChatServer, deps: InspectionDeps, report: InspectionReport, *acts: Act, engine: Engine | None = None
) -> tuple[Answer, list[dict[str, Any]]]:
    """An answer to one question, and what the server was asked for it."""
    server.will(examined(engine or Engine(tools=True), in_turn(acts)))
    with ChatClient(Endpoint(server.url, "m", timeout_s=60.0, retries=1)) as client:
        model = ServedModel(client)
        model.warm_up()
        begun = len(server.asked)
        deps.__dict__["reasoner"] = ModelReasoner(model, name="openai_api")
        conversation = Conversation(deps, InMemorySaver(), "t")
        conversation.start(report)
        answer = conversation.ask("Where is it, and how wide?")
    return answer, [request["body"] for request in server.asked[begun:]]


def test_tools_are_handed_over_and_answered_by_id(
    server: ChatServer, deps: InspectionDeps, report: InspectionReport
) -> None:
    answer, asked = ask(server, deps, report, calls(("abc", "measure", '{"region": "R1"}')), answers(WIDE))
    assert (answer.text, answer.cites) == ("R1 is 179 px wide.", ("M2",))
    assert [(call["tool"], call["arguments"], call["failed"]) for call in answer.calls] == [
        ("measure", {"region": "R1"}, False)
    ]
    first, second = asked
    assert [tool["function"]["name"] for tool in first["tools"]] == TOOLS
    zoom = first["tools"][0]["function"]
    assert zoom["parameters"]["type"] == "object"
    assert zoom["parameters"]["properties"]["region"]["type"] == "string"
    assert '{"tool"' not in first["messages"][0]["content"]  # no words about a form of ours
    *_, called, result = second["messages"]
    assert called["role"] == "assistant"
    assert called["tool_calls"] == [
        {"id": "abc", "type": "function", "function": {"name": "measure", "arguments": '{"region": "R1"}'}}
    ]
    assert (result["role"], result["tool_call_id"]) == ("tool", "abc")
    assert result["content"].startswith("[M2] The tool measure says:\n> R1 at the upper left")


def test_calls_side_by_side_keep_their_ids_and_pictures_follow(
    server: ChatServer, deps: InspectionDeps, report: InspectionReport
) -> None:
    both = calls(("a", "zoom", '{"region": "R1"}'), ("b", "measure", {"region": "R1"}), text="I look closer.")
    answer, (_, second) = ask(server, deps, report, both, answers(WIDE))
    assert [call["tool"] for call in answer.calls] == ["zoom", "measure"]
    assert answer.picture is not None
    called, zoomed, measured, pictures = second["messages"][-4:]
    assert (called["content"], [call["id"] for call in called["tool_calls"]]) == ("I look closer.", ["a", "b"])
    assert [(one["role"], one["tool_call_id"]) for one in (zoomed, measured)] == [("tool", "a"), ("tool", "b")]
    assert isinstance(zoomed["content"], str)  # results are words in the protocol
    assert pictures["role"] == "user"
    assert [part["type"] for part in pictures["content"]] == ["text", "image_url", "text"]


def test_ids_that_are_missing_or_repeated_are_given(
    server: ChatServer, deps: InspectionDeps, report: InspectionReport
) -> None:
    twice = calls((None, "measure", '{"region": "R1"}'), ("x", "zoom", "{}"), ("x", "show_document", '{"id": "D1"}'))
    _, (_, second) = ask(server, deps, report, twice, answers(TYPE))
    ids = [call["id"] for one in second["messages"] for call in one.get("tool_calls", ())]
    assert ids == ["call00000", "x", "call00002"]
    assert [one["tool_call_id"] for one in second["messages"] if one["role"] == "tool"] == ids


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("measure", '{"region": ', "the arguments are no JSON"),
        ("measure", '["R1"]', "the arguments are no JSON object"),
        ("measure", '"R1"', "the arguments are no JSON object"),
        ("measure", "x" * 5000, "longer than 4000 letters"),
        ("measure", "", "required"),
        ("measure", None, "required"),
        ("measure", '{"region": "R9"}', "there is no area R9"),
        ("format_disk", '{"path": "/"}', "unknown_tool"),
    ],
)
def test_wrong_calls_are_answered_with_what_is_wrong(
    server: ChatServer, deps: InspectionDeps, report: InspectionReport, name: str, arguments: Any, said: str
) -> None:
    answer, (_, second) = ask(server, deps, report, calls(("q", name, arguments)), answers(TYPE))
    assert answer.text == "The type is hole."
    assert answer.calls[0]["failed"]
    assert said in answer.calls[0]["result"]
    called, result = second["messages"][-2:]
    json.loads(called["tool_calls"][0]["function"]["arguments"])  # templates read it: what is no JSON is not sent back
    assert said.split(" ")[0] in result["content"]


def test_endless_calls_end(server: ChatServer, deps: InspectionDeps, report: InspectionReport) -> None:
    answer, asked = ask(server, deps, report, calls(("same", "measure", '{"region": "R1"}')))
    assert answer.text.startswith("The model asked for tools again and again")
    assert len(answer.calls) == MAX_CALLS
    assert len(asked) == MAX_CALLS + 2
    assert ["tools" in body for body in asked] == [True] * MAX_CALLS + [False] * 2
    ids = [call["id"] for one in asked[-1]["messages"] for call in one.get("tool_calls", ())]
    assert len(set(ids)) == MAX_CALLS


def test_more_calls_at_once_than_may_be_made_are_left_out_with_their_ids(
    server: ChatServer, deps: InspectionDeps, report: InspectionReport
) -> None:
    many = calls(*((f"id{i}", "show_document", '{"id": "D1"}') for i in range(12)))
    answer, (_, second) = ask(server, deps, report, many, answers(TYPE))
    assert len(answer.calls) == MAX_CALLS
    assert [one["tool_call_id"] for one in second["messages"] if one["role"] == "tool"] == ["id0", "id1", "id2"]
    assert len(second["messages"][-MAX_CALLS - 1]["tool_calls"]) == MAX_CALLS


def test_a_call_without_a_name_is_none(server: ChatServer, deps: InspectionDeps, report: InspectionReport) -> None:
    answer, _ = ask(server, deps, report, calls(("a", "", "{}"), text=TYPE))
    assert (answer.text, answer.calls) == ("The type is hole.", ())


def test_a_call_that_a_server_left_in_the_text_is_read(
    server: ChatServer, deps: InspectionDeps, report: InspectionReport
) -> None:
    written = 'I look.\n<tool_call>\n{"name": "measure", "arguments": {"region": "R1"}}\n</tool_call>'
    answer, (_, second) = ask(server, deps, report, answers(written), answers(WIDE))
    assert answer.text == "R1 is 179 px wide."
    called, result = second["messages"][-2:]
    assert (called["content"], result["tool_call_id"]) == ("I look.", called["tool_calls"][0]["id"])


@pytest.mark.parametrize("tools", [False, None])
def test_without_the_servers_own_way_tools_are_told_in_words(
    server: ChatServer, deps: InspectionDeps, report: InspectionReport, tools: bool | None
) -> None:
    written = json.dumps({"tool": "measure", "arguments": {"region": "R1"}})
    answer, asked = ask(server, deps, report, answers(written), answers(WIDE), engine=Engine(tools=tools))
    assert answer.text == "R1 is 179 px wide."
    assert all("tools" not in body for body in asked)
    assert '{"tool": "NAME"' in asked[0]["messages"][0]["content"]
    assert {one["role"] for one in asked[1]["messages"]} == {"system", "user", "assistant"}


def test_a_server_that_refuses_tools_beside_pictures_is_told_in_words(
    server: ChatServer, deps: InspectionDeps, report: InspectionReport
) -> None:
    answer, asked = ask(server, deps, report, refuses(400, "no tools with pictures"), answers(TYPE))
    assert answer.text == "The type is hole."
    assert ["tools" in body for body in asked] == [True, False]
    assert '{"tool": "NAME"' in asked[1]["messages"][0]["content"]


def test_a_server_that_fails_with_tools_leaves_the_reports_answer(
    server: ChatServer, deps: InspectionDeps, report: InspectionReport
) -> None:
    answer, asked = ask(server, deps, report, refuses(401))
    assert answer.text.startswith("The model could not be asked (")
    assert len(asked) == 1


def test_what_it_can_do_with_tools_is_found_out(server: ChatServer) -> None:
    for tools, found in ((True, True), (False, False), (None, False)):
        server.will(Engine(tools=tools))
        with ChatClient(Endpoint(server.url, "m", timeout_s=60.0)) as client:
            can = ServedModel(client).capabilities
        assert can.tools is found
        assert can.describe().endswith(", tool calls") is found


def test_a_model_of_ones_own_may_take_tools_too(deps: InspectionDeps, report: InspectionReport) -> None:
    wanted = Generated("", None, "tool_calls", calls=(ToolCall("measure", {"region": "R1"}),))
    model = ScriptedModel([wanted, WIDE], native=True)
    deps.__dict__["reasoner"] = ModelReasoner(model, name="openai_api")
    conversation = Conversation(deps, InMemorySaver(), "t")
    conversation.start(report)
    assert conversation.ask("How wide is it?").text == "R1 is 179 px wide."
    assert model.handed == [tuple(TOOLS)] * 2
    assert [message.role for message in model.asked[1]] == ["system", "user", "assistant", "tool"]
