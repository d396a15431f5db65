"""The client for chat servers, against a server on this machine that answers or misbehaves."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from types import SimpleNamespace
from typing import Any

import httpcore
import pytest
from chat_server import ChatServer, answers, chat_server, completion, drops, hangs, raw, refuses, send, trickles
from pydantic import SecretStr

from flawscope.agent.errors import ConfigError
from flawscope.agent.language_model import (
    ChatClient,
    ChatMessage,
    Endpoint,
    EndpointError,
    TokenLogprob,
    configured_endpoint,
    connecting,
)
from flawscope.agent.language_model import client as questions
from flawscope.agent.language_model.messages import parse_logprobs, without_thoughts
from flawscope.agent.language_model.reading import MAX_REPLY_BYTES
from flawscope.agent.language_model.retrying import wait_s
from flawscope.agent.settings import Settings, describe_settings, load_settings

KEY = "sk-secret-4711"
HELLO = (ChatMessage("user", "hello"),)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        yield running


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def client(server: ChatServer, waits: list[float]) -> Iterator[ChatClient]:
    endpoint = Endpoint(server.url, "tiny", SecretStr(KEY), timeout_s=30.0, retries=2)
    with ChatClient(endpoint, sleep=waits.append) as made:
        yield made


def hasty(server: ChatServer, timeout_s: float = 1.0) -> ChatClient:
    return ChatClient(Endpoint(server.url, "tiny", SecretStr(KEY), timeout_s=timeout_s, retries=2))


def test_a_question_travels_and_its_answer_comes_back(client: ChatClient, server: ChatServer) -> None:
    reply = client.complete([ChatMessage("system", "be brief"), *HELLO], max_tokens=5, temperature=0.0)
    assert (reply.text, reply.finish_reason, reply.model, reply.tries) == ("hello", "stop", "served-name", 1)
    assert (reply.logprobs, reply.usage, reply.was_cut) == (None, {"total": 7}, False)
    (asked,) = server.asked
    assert asked["path"] == "/v1/chat/completions"
    assert asked["headers"]["Authorization"] == f"Bearer {KEY}"
    said = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    assert asked["body"] == {"model": "tiny", "messages": said, "max_tokens": 5, "temperature": 0.0}


def test_without_a_key_none_is_sent(server: ChatServer) -> None:
    with ChatClient(Endpoint(server.url, "tiny")) as keyless:
        keyless.complete(HELLO)
    assert "Authorization" not in server.asked[0]["headers"]


def test_pictures_travel_as_data_urls_where_they_stand(client: ChatClient, server: ChatServer) -> None:
    client.complete([ChatMessage("user", ("good:", b"\x89PNG", "what is it?"))])
    before, picture, after = server.asked[0]["body"]["messages"][0]["content"]
    assert picture == {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}}
    assert (before["text"], after) == ("good:", {"type": "text", "text": "what is it?"})


def test_text_alone_travels_as_one_string() -> None:
    assert ChatMessage("system", ("a", "b")).wire() == {"role": "system", "content": "a\nb"}
    assert ChatMessage("user", "a").and_then("b").wire() == {"role": "user", "content": "a\nb"}


def test_token_probabilities_are_read_where_they_come(client: ChatClient, server: ChatServer) -> None:
    tops = [{"token": "OK", "logprob": -0.1}, {"token": "NG", "logprob": -2.5}]
    server.will(answers("OK", logprobs={"content": [{"token": "OK", "logprob": -0.1, "top_logprobs": tops}]}))
    reply = client.complete(HELLO, top_logprobs=2)
    assert reply.logprobs == (TokenLogprob("OK", -0.1, (("OK", -0.1), ("NG", -2.5))),)
    assert {**server.asked[0]["body"], "messages": 0}["top_logprobs"] == 2
    for none in (
        None,
        {},
        {"content": []},
        {"content": [{"token": "OK"}]},
        {"content": [{"token": "O", "logprob": 5}]},
    ):
        server.will(answers("OK", logprobs=none))
        assert client.complete(HELLO, top_logprobs=2).logprobs is None


def test_tokens_spell_the_answer_without_its_thoughts() -> None:
    def spelt(text: str, *tokens: bytes | str) -> list[str]:
        content = [
            {"token": token, "logprob": -1.0}
            if isinstance(token, str)
            else {"token": repr(token), "logprob": -1.0, "bytes": list(token)}
            for token in tokens
        ]
        return [one.token for one in parse_logprobs({"content": content}, text) or ()]

    assert spelt("OK", "<think>", "OK?", "</think>", "\n\nO", "K", "\n", "<|im_end|>") == ["O", "K"]
    assert spelt("grün", "gr", b"\xc3", b"\xbc", "n") == ["gr", "", "ü", "n"]
    assert spelt("grün", "gr", "\\xc3", "\\xbc", "n") == ["gr", "\\xc3", "\\xbc", "n"]
    assert spelt("", "<think>") == []


def test_a_passing_failure_is_asked_again(client: ChatClient, server: ChatServer, waits: list[float]) -> None:
    server.will(refuses(500, "out of memory"), raw(b'{"choices": [{"mess'), answers("at last"))
    reply = client.complete(HELLO)
    assert (reply.text, reply.tries) == ("at last", 3)
    assert 0.25 <= waits[0] <= 0.5 <= waits[1] <= 1.0


def test_retry_after_is_obeyed(client: ChatClient, server: ChatServer, waits: list[float]) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    server.will(refuses(429, Retry_After="7"), refuses(503, Retry_After=date), answers("done"))
    assert client.complete(HELLO).text == "done"
    assert waits[0] == 7.0
    assert 15.0 < waits[1] <= 20.0


def test_a_server_that_asks_for_more_patience_than_there_is_ends_it_at_once(
    client: ChatClient, server: ChatServer, waits: list[float]
) -> None:
    server.will(refuses(429, "slow down", Retry_After="3600"))
    with pytest.raises(EndpointError, match=r"answered 429: slow down.*wait 3600 s, longer than llm_timeout_s"):
        client.complete(HELLO)
    assert (waits, len(server.asked)) == ([], 1)


@pytest.mark.parametrize(
    ("status", "tries", "words"),
    [(400, 1, "bad thing"), (401, 1, "FLAWSCOPE_LLM_API_KEY"), (404, 1, "llm_base_url"), (500, 3, "asked 3 times")],
)
def test_what_will_not_pass_is_not_asked_again(
    client: ChatClient, server: ChatServer, status: int, tries: int, words: str
) -> None:
    server.will(refuses(status, "bad thing"))
    with pytest.raises(EndpointError, match=rf"answered {status}: bad thing.*{words}|{words}"):
        client.complete(HELLO)
    assert len(server.asked) == tries


def test_a_hanging_server_is_given_up_in_time(server: ChatServer) -> None:
    server.will(hangs(3.0))
    said = r"gave no whole answer within 1 s.*llm_timeout_s"
    with hasty(server) as client, pytest.raises(EndpointError, match=said):
        client.complete(HELLO)
    assert len(server.asked) == 1


def test_a_trickling_server_is_given_up_in_time(server: ChatServer) -> None:
    server.will(trickles(3.0))
    with hasty(server) as client, pytest.raises(EndpointError, match=r"gave no whole answer within 1 s"):
        client.complete(HELLO)


def test_a_server_that_trickles_its_headers_or_an_answer_without_end_is_cut_off(server: ChatServer) -> None:
    sent = []

    def trickle(handler: Any, body: dict[str, Any], start: bytes) -> None:
        handler.wfile.write(start)
        handler.close_connection = True
        for _ in range(200):
            handler.wfile.write(b" ")
            sent.append(start)
            time.sleep(0.02)

    for start in (b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n"):
        server.will(partial(trickle, start=start))
        with hasty(server) as client, pytest.raises(EndpointError, match=r"gave no whole answer within 1 s"):
            client.complete(HELLO)
        assert sent.count(start) < 200


def test_a_name_that_nobody_answers_for_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may take as long as it likes to look a name up, whatever limits a client has."""
    ended, looking = threading.Event(), []

    def never(host: str, *rest: Any, **more: Any) -> Any:
        looking.append(host)
        ended.wait(20.0)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    endpoint = Endpoint("http://plant.invalid:8000/v1", "tiny", timeout_s=0.6, retries=0)
    said = r"plant\.invalid.* cannot be reached.*llm_base_url"
    with ChatClient(endpoint) as client, pytest.raises(EndpointError, match=said):
        client.complete(HELLO)
    ended.set()
    assert looking == ["plant.invalid"]


def found_at(monkeypatch: pytest.MonkeyPatch, name: str, *addresses: str) -> list[str]:
    """Let a name have these addresses; the names that are looked up from now on."""
    looked: list[str] = []
    usual = socket.getaddrinfo

    def found(host: str, port: int, *rest: Any, **more: Any) -> Any:
        looked.append(host)
        return (
            [one for each in addresses for one in usual(each, port, *rest, **more)]
            if host == name
            else usual(host, port, *rest, **more)
        )

    monkeypatch.setattr(socket, "getaddrinfo", found)
    return looked


def test_a_name_is_looked_up_once_and_its_next_address_is_tried(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = found_at(monkeypatch, "plant.invalid", "127.0.0.77", "127.0.0.1")  # at the first there is nobody
    port = server.url.rsplit(":", 1)[1]
    with ChatClient(Endpoint(f"http://plant.invalid:{port}", "tiny", retries=0)) as client:
        assert client.complete(HELLO).text == "hello"
    assert looked.count("plant.invalid") == 1
    assert server.asked[0]["headers"]["Host"].startswith("plant.invalid:")


@pytest.mark.parametrize(("timeout_s", "tried"), [(1.0, 1), (25.0, 3), (600.0, 4)])
def test_addresses_where_nobody_answers_share_the_time(
    monkeypatch: pytest.MonkeyPatch, timeout_s: float, tried: int
) -> None:
    """By a clock that only the waiting for them moves."""
    now, waited = [1000.0], list[float]()

    def silent(self: Any, host: str, port: int, timeout: float, *rest: Any) -> Any:
        waited.append(timeout)
        now[0] += timeout
        raise httpcore.ConnectTimeout(host)

    found_at(monkeypatch, "plant.invalid", *(f"127.0.0.{number}" for number in range(71, 75)))
    for module in (connecting, questions):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=time.sleep))
    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", silent)
    endpoint = Endpoint("http://plant.invalid:8000/v1", "tiny", timeout_s=timeout_s, retries=0)
    with ChatClient(endpoint) as client, pytest.raises(EndpointError, match=r"plant\.invalid.* cannot be reached"):
        client.complete(HELLO)
    assert len(waited) == tried
    assert max(waited) <= connecting.CONNECT_S
    assert sum(waited) <= timeout_s + 1e-6


@pytest.mark.parametrize(("taken_s", "left"), [(3.0, 2.0), (5.0, None)])
def test_tls_gets_what_the_connection_left_of_the_time(
    monkeypatch: pytest.MonkeyPatch, taken_s: float, left: float | None
) -> None:
    now, said = [1000.0], list[Any]()

    class Made(httpcore.NetworkStream):
        def start_tls(self, context: Any, server_hostname: str | None = None, timeout: float | None = None) -> Any:
            said.append((server_hostname, timeout))

        def close(self) -> None:
            said.append("closed")

    def slow(self: Any, host: str, port: int, timeout: float, *rest: Any) -> Any:
        now[0] += taken_s
        return Made()

    monkeypatch.setattr(connecting, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", slow)
    made = connecting.InTime().connect_tcp("127.0.0.1", 443, 5.0)
    with contextlib.nullcontext() if left else pytest.raises(httpcore.ConnectTimeout):
        made.start_tls(ssl.create_default_context(), "plant.invalid", 5.0)
    assert said == [("plant.invalid", left) if left else "closed"]


def test_a_connection_that_breaks_is_tried_again(client: ChatClient, server: ChatServer) -> None:
    server.will(drops, answers("whole"))
    assert client.complete(HELLO).text == "whole"


def test_nobody_there_is_said_with_the_address(waits: list[float]) -> None:
    with chat_server() as gone:
        url = gone.url
    with (
        ChatClient(Endpoint(url, "tiny", retries=1), sleep=waits.append) as client,
        pytest.raises(EndpointError, match=r"at 127\.0\.0\.1:\d+ failed.*llm_base_url"),
    ):
        client.complete(HELLO)
    assert len(waits) == 1


def test_a_huge_answer_is_not_read_to_its_end(client: ChatClient, server: ChatServer) -> None:
    server.will(raw(b" " * (MAX_REPLY_BYTES + 1_000_000)))
    with pytest.raises(EndpointError, match="larger than"):
        client.complete(HELLO)


def test_an_answer_compressed_against_our_wish_is_refused(client: ChatClient, server: ChatServer) -> None:
    server.will(raw(b"\x1f\x8b", Content_Encoding="gzip"))
    with pytest.raises(EndpointError, match="compresses"):
        client.complete(HELLO)
    assert server.asked[0]["headers"]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed_with_the_key(client: ChatClient, server: ChatServer, status: int) -> None:
    with chat_server() as elsewhere:
        server.will(raw(b"", status, Location=f"{elsewhere.url}/steal"))
        with pytest.raises(EndpointError, match=r"redirects to 127\.0\.0\.1; that is not followed"):
            client.complete(HELLO)
        assert elsewhere.asked == []


@pytest.mark.parametrize(
    "body",
    [b"[]", b'"x"', b'{"choices": []}', b'{"choices": [{"message": 3}]}', b'{"error": "no"}', b"[" * 100_000, b"null"],
)
def test_an_answer_of_another_protocol_is_an_error(client: ChatClient, server: ChatServer, body: bytes) -> None:
    server.will(raw(body))
    with pytest.raises(EndpointError, match=r"no usable|no whole JSON"):
        client.complete(HELLO)


def test_refusals_and_silence_are_errors(client: ChatClient, server: ChatServer) -> None:
    refused = completion(None)
    refused["choices"][0]["message"]["refusal"] = "I will not"
    server.will(raw(json.dumps(refused).encode()))
    with pytest.raises(EndpointError, match="refused to answer"):
        client.complete(HELLO)
    server.will(answers(""))
    with pytest.raises(EndpointError, match=r"gave no answer\. It was asked 3 times"):
        client.complete(HELLO)
    server.will(answers("<think>for ever", "length"))
    cut = client.complete(HELLO)
    assert (cut.text, cut.was_cut) == ("", True)


def test_thoughts_are_left_out() -> None:
    assert without_thoughts("<think>\nhm\n</think>\n\nyes") == without_thoughts("hm</think> yes") == "yes"
    assert without_thoughts("<think> hm") == ""
    assert without_thoughts(" yes ") == "yes"


def test_a_server_that_knows_the_limit_by_its_new_name_is_asked_by_it(client: ChatClient, server: ChatServer) -> None:
    server.will(refuses(400, "Use 'max_completion_tokens' instead."), answers("yes"))
    assert client.complete(HELLO, max_tokens=9).text == "yes"
    client.complete(HELLO, max_tokens=8)
    limits = [{k: v for k, v in a["body"].items() if k.startswith("max")} for a in server.asked]
    assert limits == [{"max_tokens": 9}, {"max_completion_tokens": 9}, {"max_completion_tokens": 8}]


def test_no_more_questions_at_once_than_allowed(server: ChatServer) -> None:
    gate = threading.Barrier(2, timeout=10)

    def meet(handler: Any, body: dict[str, Any]) -> None:
        gate.wait()  # only passes when two are there
        send(handler, 200, json.dumps(completion("yes")).encode())

    server.will(meet)
    with ChatClient(Endpoint(server.url, "tiny", concurrency=2)) as client:
        threads = [threading.Thread(target=client.complete, args=(HELLO,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (len(server.asked), server.at_once) == (6, 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [("ALL_PROXY", "socks5://me:hush@here:1"), ("HTTPS_PROXY", "foo://me:hush@here"), ("SSL_CERT_FILE", "/no/such")],
)
def test_an_environment_that_no_client_can_be_made_with_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(EndpointError, match=name) as caught:
        ChatClient(Endpoint("https://far.example/v1", "tiny"))
    assert "hush" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("host", ["a" * 70, "ex..ample", "exa\u2603mple", "xn--a"])
def test_a_host_that_no_name_can_be_is_an_error(host: str, waits: list[float]) -> None:
    with (
        ChatClient(Endpoint(f"http://{host}/v1", "tiny"), sleep=waits.append) as client,
        pytest.raises(EndpointError, match=r"can be no language-model server.*llm_base_url"),
    ):
        client.complete(HELLO)
    assert waits == []


def test_what_a_server_calls_itself_cannot_steer_a_terminal(client: ChatClient, server: ChatServer) -> None:
    server.will(raw(json.dumps(completion("red") | {"model": "\x1b]0;x\x07one\ntwo"}).encode()))
    assert client.complete(HELLO).model == "\ufffd]0;x\ufffdone two"
    server.will(raw(json.dumps(completion("red") | {"model": " "}).encode()))
    assert client.complete(HELLO).model == "tiny"


# --- the key ----------------------------------------------------------------------------------------------------------


def test_the_key_is_in_no_error_log_or_repr(
    client: ChatClient, server: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    seen = [repr(client.endpoint), repr(vars(client))]
    html = f"<html>{KEY}</html>".encode()
    for act in (refuses(401, f"bad key {KEY}"), raw(KEY.encode(), 500), raw(html, 502), drops, raw(b"{")):
        server.will(act)
        with pytest.raises(EndpointError) as caught:
            client.complete(HELLO)
        seen.append("".join(traceback.format_exception(caught.value)))
    assert "bad key ***" in seen[2]
    assert "<html>" not in seen[4]
    assert not any(KEY in text for text in (*seen, caplog.text))


def test_the_key_is_masked_where_settings_are_shown_or_recorded() -> None:
    environ = {
        "FLAWSCOPE_LLM_API_KEY": KEY,
        "FLAWSCOPE_LLM_BASE_URL": "http://gpu:8000/v1/",
        "FLAWSCOPE_LLM_MODEL": "m",
    }
    loaded = load_settings(environ=environ)
    (row,) = [row for row in describe_settings(loaded) if row.name == "llm_api_key"]
    assert (row.value, row.origin) == ("**********", "env FLAWSCOPE_LLM_API_KEY")
    assert KEY not in repr(loaded) + loaded.model_dump_json() + str(loaded.settings.model_dump(mode="json"))
    endpoint = configured_endpoint(loaded.settings)
    assert (endpoint.base_url, endpoint.model) == ("http://gpu:8000/v1", "m")
    assert endpoint.api_key is not None
    assert endpoint.api_key.get_secret_value() == KEY


def test_the_key_may_not_stand_in_a_file(tmp_path: Any) -> None:
    file = tmp_path / "site.toml"
    file.write_text(f'llm_api_key = "{KEY}"\n')
    with pytest.raises(ConfigError, match="must not stand in a file") as caught:
        load_settings(config_file=file, environ={})
    assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("key", [f"{KEY}\nX: y", f"{KEY} x", f"{KEY}é"])
def test_a_key_that_fits_no_header_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ConfigError, match="printable ASCII") as caught:
        load_settings(environ={"FLAWSCOPE_LLM_API_KEY": key})
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_by_http_the_key_goes_to_the_server_and_through_no_proxy(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, server.url.removesuffix("/v1"))
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    endpoint = Endpoint("http://plant.invalid/v1", "tiny", SecretStr(KEY), retries=0)
    with ChatClient(endpoint) as client, pytest.raises(EndpointError):
        client.complete(HELLO)
    assert server.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "gpu:8000",
        "file:///etc/passwd",
        "http://",
        "http://g:99999999",
        f"http://u:{KEY}@gpu/v1",
        f"http://gpu/v1?key={KEY}",
        f"http://u:{KEY}/x@gpu/v1",
        f"http://u:{KEY}",
    ],
)
def test_an_address_that_is_none_or_hides_a_key_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="llm_base_url") as caught:
        load_settings(environ={"FLAWSCOPE_LLM_BASE_URL": url})
    assert KEY not in str(caught.value)


def test_nothing_set_is_said() -> None:
    with pytest.raises(ConfigError, match="llm_base_url is missing"):
        configured_endpoint(Settings(profile="embedded"))
    with pytest.raises(ConfigError, match="llm_model is missing"):
        configured_endpoint(Settings(llm_base_url="http://gpu/v1"))


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_waits_double_up_to_a_limit_and_spread_downwards() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert [wait_s(n, None, now, 0.0) for n in (0, 1, 2, 10)] == [0.5, 1.0, 2.0, 30.0]
    assert wait_s(0, None, now, 0.5) == 0.375
    assert wait_s(0, "Thu, 01 Jan 2026 00:00:30 GMT", now, 0.9) == 30.0
    assert wait_s(3, "-5", now, 0.0) == 0.0
    assert [wait_s(0, junk, now, 0.0) for junk in ("soon", "nan", "", "inf")] == [0.5] * 4
    assert wait_s(0, "Mon, 01 Jan 99999999999999 00:00:00 GMT", now, 0.0) == 0.5
    assert wait_s(0, "1e300", now, 0.0) == 1e6
