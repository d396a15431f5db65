"""Answers that come as events: shown as they come, and nothing of the client's promises lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from chat_engine import Engine
from chat_server import ChatServer, answers, chat_server, events, hangs, raw, refuses
from pydantic import SecretStr

from flawscope.agent.language_model import ChatClient, ChatMessage, Endpoint, EndpointError, TokenLogprob
from flawscope.agent.language_model.reading import MAX_REPLY_BYTES
from flawscope.agent.language_model.streaming import Shown

KEY = "sk-secret-4711"
HELLO = (ChatMessage("user", "hello"),)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        yield running


@pytest.fixture
def client(server: ChatServer) -> Iterator[ChatClient]:
    endpoint = Endpoint(server.url, "tiny", SecretStr(KEY), timeout_s=30.0, retries=2)
    with ChatClient(endpoint, sleep=lambda seconds: None) as made:
        yield made


def stream(*lines: str) -> Any:
    return raw("".join(f"data: {line}\n\n" for line in lines).encode(), Content_Type="text/event-stream")


def test_pieces_are_shown_as_they_come_and_put_together(client: ChatClient, server: ChatServer) -> None:
    scores = [{"token": word, "logprob": -0.5, "top_logprobs": []} for word in ("\n It", " is", " red", ".\n")]
    server.will(events(["\n It", " is", " red", ".\n"], "length", logprobs=scores, usage={"completion_tokens": 4}))
    seen: list[str] = []
    reply = client.complete(HELLO, on_text=seen.append, top_logprobs=1)
    assert (seen, reply.text) == (["It", " is", " red", "."], "It is red.")
    assert (reply.finish_reason, reply.model, reply.usage) == ("length", "served-name", {"completion_tokens": 4})
    assert reply.logprobs == tuple(TokenLogprob(word, -0.5) for word in ("It", " is", " red", "."))
    assert server.asked[0]["body"]["stream"] is True
    server.will(answers("x"))
    client.complete(HELLO)
    assert "stream" not in server.asked[-1]["body"]


def test_a_server_that_does_not_stream_shows_its_answer_at_once(client: ChatClient, server: ChatServer) -> None:
    seen: list[str] = []
    server.will(Engine("It is red.", streams=False))
    client.complete(HELLO, on_text=seen.append)
    assert seen == ["It is red."]


def test_a_server_that_refuses_to_stream_is_not_asked_to_again(client: ChatClient, server: ChatServer) -> None:
    seen: list[str] = []
    server.will(Engine("It is red.", streams=None))
    for _ in range(2):
        assert client.complete(HELLO, on_text=seen.append).tries == 1
    assert seen == ["It is red."] * 2
    assert ["stream" in asked["body"] for asked in server.asked] == [True, False, False]


def test_a_refusal_for_another_reason_leaves_streaming_alone(client: ChatClient, server: ChatServer) -> None:
    server.will(refuses(400, "too long"))
    with pytest.raises(EndpointError, match="too long"):
        client.complete(HELLO, on_text=print)
    server.will(answers("x"))
    client.complete(HELLO, on_text=lambda piece: None)
    assert ["stream" in asked["body"] for asked in server.asked] == [True, False, True]


@pytest.mark.parametrize(
    "broken",
    [
        refuses(503),
        events([], None, end=b""),
        stream('{"choices": [{"delta": '),
        stream('{"error": {"message": "overloaded", "code": 503}}'),
        stream('{"error": "CUDA out of memory"}'),
        stream("[DONE]"),
        raw(b"data: x\n\n", Content_Type="text/event-stream"),
    ],
)
def test_what_fails_before_anything_was_shown_is_tried_again(
    client: ChatClient, server: ChatServer, broken: Any
) -> None:
    seen: list[str] = []
    server.will(broken, events(["It ", "is"]))
    reply = client.complete(HELLO, on_text=seen.append)
    assert (reply.text, reply.tries, seen) == ("It is", 2, ["It", " is"])


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (b"", "broke off"),
        (
            b'data: {"error": {"message": "out of ' + KEY.encode() + b'", "code": 500}}\n\n',
            r"out of \*\*\*",
        ),
        (b'data: {"error": {"message": "no more", "code": 400}}\n\n', "answered 400: no more"),
    ],
)
def test_what_was_shown_is_not_said_twice(client: ChatClient, server: ChatServer, end: bytes, said: str) -> None:
    seen: list[str] = []
    server.will(events(["It ", "is"], None, end=end))
    with pytest.raises(EndpointError, match=said) as caught:
        client.complete(HELLO, on_text=seen.append)
    assert (seen, len(server.asked)) == (["It", " is"], 1)
    assert KEY not in str(caught.value)


def test_an_end_without_its_mark_is_an_end(client: ChatClient, server: ChatServer) -> None:
    server.will(events(["yes"], "stop", end=b""))
    assert client.complete(HELLO, on_text=lambda piece: None).text == "yes"
    server.will(events(["yes"], None))
    assert client.complete(HELLO, on_text=lambda piece: None).finish_reason == "unknown"


@pytest.mark.parametrize("late", [hangs(3.0), events(["a "] * 150, pause_s=0.02)])
def test_a_slow_stream_is_cut_off_in_time(server: ChatServer, late: Any) -> None:
    server.will(late)
    seen: list[str] = []
    with (
        ChatClient(Endpoint(server.url, "tiny", timeout_s=1.0)) as client,
        pytest.raises(EndpointError, match=r"no whole answer within 1 s"),
    ):
        client.complete(HELLO, on_text=seen.append)
    assert len(seen) < 150


def test_a_stream_without_end_is_not_read_to_its_end(client: ChatClient, server: ChatServer) -> None:
    server.will(raw(b":" * (MAX_REPLY_BYTES + 100_000), Content_Type="text/event-stream"))
    with pytest.raises(EndpointError, match="larger than"):
        client.complete(HELLO, on_text=lambda piece: None)


def test_whoever_is_shown_the_answer_may_stop_it(client: ChatClient, server: ChatServer) -> None:
    def stop(piece: str) -> None:
        raise KeyboardInterrupt

    server.will(events(["a "] * 100, pause_s=0.01))
    with pytest.raises(KeyboardInterrupt):
        client.complete(HELLO, on_text=stop)

    def cannot(piece: str) -> None:
        piece.encode("ascii")

    server.will(events(["é"]))
    with pytest.raises(UnicodeEncodeError):
        client.complete(HELLO, on_text=cannot)


def shown(*pieces: str) -> list[str]:
    seen: list[str] = []
    showing = Shown(seen.append)
    for piece in pieces:
        showing.add(piece)
    return seen


def test_thoughts_are_not_shown() -> None:
    assert shown("<", "think", "> hm", "</think>", "\n", " yes", " no") == ["yes", " no"]
    assert shown("< ", "b") == ["<", " b"]
    assert shown("hm", "</think>", "yes") == ["hm", "yes"]
    assert shown("<think> for ever") == []


def test_an_event_may_come_in_pieces(client: ChatClient, server: ChatServer) -> None:
    event = {"choices": [{"delta": {"content": "grün"}, "finish_reason": "stop"}]}
    blob = f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()

    def act(handler: Any, body: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Content-Length", str(len(blob)))
        handler.end_headers()
        for at in range(len(blob)):
            handler.wfile.write(blob[at : at + 1])
            handler.wfile.flush()

    server.will(act)
    assert client.complete(HELLO, on_text=lambda piece: None).text == "grün"
