"""Answers of a given form, and what a server can do, against a server that answers as it is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import pytest
from chat_engine import Engine
from chat_server import Act, ChatServer, answers, chat_server, refuses
from pydantic import BaseModel, ConfigDict, Field

from flawscope.agent.language_model import (
    Capabilities,
    ChatClient,
    ChatMessage,
    Endpoint,
    EndpointError,
    ask_for,
    capabilities,
    probe,
    reading,
    structured,
)
from flawscope.agent.language_model import client as questions
from flawscope.agent.language_model.structured import closed, complete_in_form

HELLO = (ChatMessage("user", "hello"),)


class Part(BaseModel):
    """An answer of a form."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=10)]
    colour: Literal["red", "blue"]


GOOD = '{"name": "clip", "colour": "red"}'


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        yield running


@pytest.fixture
def client(server: ChatServer) -> Iterator[ChatClient]:
    with ChatClient(Endpoint(server.url, "tiny", timeout_s=30.0, retries=2), sleep=lambda seconds: None) as made:
        yield made


def clocked(monkeypatch: pytest.MonkeyPatch, each_s: float) -> Callable[[Act], Act]:
    """Stop the client's clock; makes answers that move it."""
    now = [1000.0]
    for module in (capabilities, questions, reading, structured):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def slowly(act: Act) -> Act:
        def acted(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
            now[0] += each_s
            act(handler, body)

        return acted

    return slowly


def test_an_answer_of_the_form_is_checked_and_returned(client: ChatClient, server: ChatServer) -> None:
    server.will(answers(f"Sure!\n```json\n{GOOD}\n```"))
    found = ask_for(client, HELLO, Part)
    assert (found.value, found.form, found.repaired) == (Part(name="clip", colour="red"), "json_schema", False)
    body = server.asked[0]["body"]
    assert body["response_format"]["json_schema"]["schema"]["properties"]["colour"] == {
        "enum": ["red", "blue"],
        "title": "Colour",
        "type": "string",
    }
    assert "JSON Schema" in body["messages"][-1]["content"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ('{"name": "clip"}', "colour: Field required"),
        ('{"name": "clip", "colour": "red", "verdict": "OK"}', "verdict: Extra inputs"),
        ('{"name": "clip", "col', "no whole JSON object"),
        ("I would rather not.", "no whole JSON object"),
        ('{"a":' * 50_000, "no whole JSON object"),
    ],
)
def test_a_wrong_answer_is_sent_back_once(client: ChatClient, server: ChatServer, wrong: str, said: str) -> None:
    server.will(answers(wrong), answers(GOOD))
    found = ask_for(client, HELLO, Part)
    assert found.repaired
    assert said in server.asked[1]["body"]["messages"][-1]["content"]
    server.will(answers(wrong))
    with pytest.raises(EndpointError, match=said):
        ask_for(client, HELLO, Part)
    assert len(server.asked) == 4


def test_a_cut_answer_says_so(client: ChatClient, server: ChatServer) -> None:
    server.will(answers('{"name": "cl', "length"))
    with pytest.raises(EndpointError, match="cut for its length"):
        ask_for(client, HELLO, Part)


def test_a_server_without_forms_is_asked_in_words(client: ChatClient, server: ChatServer) -> None:
    server.will(refuses(400, "unknown response_format"), refuses(422, "no"), answers(GOOD))
    assert ask_for(client, HELLO, Part).form == "text"
    assert [a["body"].get("response_format", {}).get("type") for a in server.asked] == [
        "json_schema",
        "json_object",
        None,
    ]


def test_every_field_of_a_form_is_wanted_and_no_other(client: ChatClient, server: ChatServer) -> None:
    class Whole(BaseModel):
        parts: tuple[Part, ...] = ()
        note: str = ""

    wanted = closed(Whole.model_json_schema())
    assert (wanted["required"], wanted["additionalProperties"]) == (["parts", "note"], False)
    assert "default" not in wanted["properties"]["note"]
    assert wanted["$defs"]["Part"]["required"] == ["name", "colour"]


def test_only_a_server_that_enforces_no_schema_is_told_it(client: ChatClient, server: ChatServer) -> None:
    server.will(answers(GOOD))
    assert complete_in_form(client, HELLO, Part, "json_schema")[1] == "json_schema"
    assert server.asked[0]["body"]["messages"] == [{"role": "user", "content": "hello"}]
    server.will(refuses(400), answers(GOOD))
    assert complete_in_form(client, HELLO, Part, "json_schema")[1] == "json_object"
    (turn,) = server.asked[2]["body"]["messages"]
    assert turn["content"].startswith("hello\nAnswer with one JSON object")


def test_half_a_letter_in_an_answer_can_be_sent_back(client: ChatClient, server: ChatServer) -> None:
    server.will(answers("no \ud800"), answers(GOOD))
    assert ask_for(client, HELLO, Part).repaired
    assert server.asked[1]["body"]["messages"][-2]["content"] == "no ?"


@pytest.mark.parametrize("ask", [ask_for, lambda *question: complete_in_form(*question, "json_schema")])
def test_all_forms_of_a_question_share_one_time_limit(
    monkeypatch: pytest.MonkeyPatch, client: ChatClient, server: ChatServer, ask: Any
) -> None:
    """By a clock that only the server's answers move: of 30 s the first two forms take 24."""
    slowly = clocked(monkeypatch, 12.0)
    server.will(slowly(refuses(400)), slowly(refuses(400)), slowly(answers(GOOD)))
    with pytest.raises(EndpointError, match="within 30 s"):
        ask(client, HELLO, Part)
    assert len(server.asked) == 3


def test_an_answer_that_is_sent_back_has_the_time_of_a_new_question(
    monkeypatch: pytest.MonkeyPatch, client: ChatClient, server: ChatServer
) -> None:
    slowly = clocked(monkeypatch, 14.0)
    server.will(slowly(refuses(400)), slowly(answers("no")), slowly(answers(GOOD)))
    assert ask_for(client, HELLO, Part).repaired


# --- capabilities -----------------------------------------------------------------------------------------------------


def test_capabilities_are_found_by_trying(client: ChatClient, server: ChatServer) -> None:
    server.will(Engine())
    assert probe(client) == Capabilities("served-name", "json_schema", 20, pictures=True, form_scores="raw")
    server.will(Engine(forms=frozenset({"json_object"}), top=None, pictures=500))
    found = probe(client)
    assert found == Capabilities("served-name", "json_object", None, pictures=False)
    assert found.describe() == "served-name: answers in JSON, no token probabilities, no pictures"
    server.will(Engine(forms=frozenset(), top=None, pictures=400))
    assert probe(client).form == "text"
    server.will(answers("<think> red, that is", "length"))  # a reasoning model that does not come to its end
    assert probe(client).form == "text"


@pytest.mark.parametrize(("each_s", "asked"), [(4.9, 6), (5.5, 6), (11.0, 3), (29.0, 2), (31.0, 1)])
def test_all_questions_of_an_examination_share_one_time_limit(
    monkeypatch: pytest.MonkeyPatch, client: ChatClient, server: ChatServer, each_s: float, asked: int
) -> None:
    """By a clock that only the server's answers move: 30 s are there for what takes six questions."""
    server.will(clocked(monkeypatch, each_s)(Engine()))
    if 6 * each_s < 30.0:
        assert probe(client).form == "json_schema"
    else:
        with pytest.raises(EndpointError, match=r"within 30 s\. The questions about what it can do share that time"):
            probe(client)
    assert len(server.asked) == asked


def test_a_server_is_asked_for_as_many_alternatives_as_it_gives(client: ChatClient, server: ChatServer) -> None:
    server.will(Engine(top=8))  # refuses 20
    assert probe(client).top_logprobs == 5
    server.will(Engine(refused=frozenset({"logprobs"})))
    assert probe(client).top_logprobs is None


def test_probabilities_that_a_temperature_of_0_left_are_none(client: ChatClient, server: ChatServer) -> None:
    tops = [{"token": "Red", "logprob": 0.0}, {"token": "Green", "logprob": -9999.0}]
    server.will(answers("Red", logprobs={"content": [{**tops[0], "top_logprobs": tops}]}))
    assert probe(client).top_logprobs is None


def test_probabilities_under_a_schema_may_be_what_it_left(client: ChatClient, server: ChatServer) -> None:
    server.will(Engine(masked=True))
    found = probe(client)
    assert (found.top_logprobs, found.form_scores) == (20, "masked")
    assert "top 20 token probabilities (in a schema those that it leaves)" in found.describe()
    server.will(Engine(apart=True))
    found = probe(client)
    assert (found.form, found.top_logprobs, found.form_scores) == ("json_schema", 20, None)


def test_a_server_with_a_temperature_of_its_own_is_asked_without(client: ChatClient, server: ChatServer) -> None:
    server.will(Engine(refused=frozenset({"temperature"})))
    found = probe(client)
    assert found == Capabilities("served-name", "json_schema", 20, True, sampling=False, form_scores="raw")
    assert found.describe().endswith("pictures, a temperature of its own")
    assert all("temperature" not in asked["body"] for asked in server.asked[1:])


def test_a_refused_key_is_no_missing_capability(client: ChatClient, server: ChatServer) -> None:
    server.will(refuses(401))
    with pytest.raises(EndpointError, match="401"):
        probe(client)
    server.will(answers("Red."), refuses(503))
    with pytest.raises(EndpointError, match="503"):
        probe(client)


@pytest.mark.parametrize("words", ["What colour is this picture?", "lamp 7"])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_failure_that_passes_is_no_end_of_the_examination(
    client: ChatClient, server: ChatServer, words: str, status: int
) -> None:
    engine, faults = Engine(tools=True), iter([refuses(status, Retry_After="0")])

    def act(handler: Any, body: dict[str, Any]) -> None:
        asked = words in json.dumps(body["messages"][-1]["content"])
        (next(faults, engine) if asked else engine)(handler, body)

    server.will(act)
    found = probe(client)
    assert (found.pictures, found.tools) == (True, True)


def test_what_a_server_cannot_do_is_asked_once_more_and_no_oftener(client: ChatClient, server: ChatServer) -> None:
    server.will(Engine(pictures=500))
    assert not probe(client).pictures
    shown = [asked for asked in server.asked if not isinstance(asked["body"]["messages"][0]["content"], str)]
    assert len(shown) == 2
