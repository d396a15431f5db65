"""A chat server on this machine that answers, or misbehaves, as a test tells it to."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Act = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


@dataclass
class ChatServer:
    """What it will do and what it was asked.

    Attributes:
        acts: one for each request to come; the last one stays.
        asked: path, headers and body of each request.
        at_once: most requests under way at the same time.
    """

    acts: deque[Act] = field(default_factory=deque)
    asked: list[dict[str, Any]] = field(default_factory=list)
    at_once: int = 0
    url: str = ""
    _busy: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def will(self, *acts: Act) -> None:
        """Forget what was to come and do these."""
        self.acts = deque(acts)

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        """One request."""
        body = json.loads(handler.rfile.read(int(handler.headers.get("content-length", 0))) or b"{}")
        with self._lock:
            self._busy += 1
            self.at_once = max(self.at_once, self._busy)
            self.asked.append({"path": handler.path, "headers": dict(handler.headers), "body": body})
            act = self.acts.popleft() if len(self.acts) > 1 else self.acts[0]
        try:
            act(handler, body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client gave up, as it should
        finally:
            with self._lock:
                self._busy -= 1


def completion(text: str | None, finish: str = "stop", **choice: Any) -> dict[str, Any]:
    """The protocol's answer."""
    one = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish, **choice}
    return {"id": "x", "object": "chat.completion", "model": "served-name", "choices": [one], "usage": {"total": 7}}


def send(handler: BaseHTTPRequestHandler, status: int, blob: bytes, **headers: str) -> None:
    """A whole answer."""
    handler.send_response(status)
    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(blob)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(blob)


def answers(text: str | None, finish: str = "stop", **choice: Any) -> Act:
    """Answer with this text."""
    return lambda handler, body: send(handler, 200, json.dumps(completion(text, finish, **choice)).encode())


def calls(*wanted: tuple[str | None, str, Any], text: str | None = None) -> Act:
    """Answer with calls of tools.

    Args:
        wanted: id, name and arguments of each; arguments that are no text are sent as they are.
        text: beside them.
    """
    called = [
        {"type": "function", "function": {"name": name, "arguments": arguments}} | ({} if one is None else {"id": one})
        for one, name, arguments in wanted
    ]
    blob = completion(text, "tool_calls")
    blob["choices"][0]["message"]["tool_calls"] = called
    return raw(json.dumps(blob).encode())


def refuses(status: int, message: str = "", **headers: str) -> Act:
    """Answer with an error."""
    blob = json.dumps({"error": {"message": message}}).encode()
    return lambda handler, body: send(handler, status, blob, **headers)


def raw(blob: bytes, status: int = 200, **headers: str) -> Act:
    """Answer with these bytes."""
    return lambda handler, body: send(handler, status, blob, **headers)


def slow(seconds: float, act: Act) -> Act:
    """Do something after a while."""

    def later(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        time.sleep(seconds)
        act(handler, body)

    return later


def events(
    pieces: Sequence[str],
    finish: str | None = "stop",
    *,
    logprobs: Sequence[dict[str, Any]] | None = None,
    usage: dict[str, int] | None = None,
    end: bytes = b"data: [DONE]\n\n",
    pause_s: float = 0.0,
) -> Act:
    """Answer with a stream of events.

    Args:
        pieces: of the text, an event each.
        finish: in an event of its own; None for none.
        logprobs: of the tokens, one for each piece.
        usage: in the last event.
        end: what the stream ends with.
        pause_s: before each event.
    """

    def act(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream; charset=utf-8")
        handler.send_header("Connection", "close")
        handler.end_headers()
        choices: list[dict[str, Any]] = [{"delta": {"role": "assistant", "content": ""}}]
        choices += [{"delta": {"content": piece}} for piece in pieces]
        for choice, token in zip(choices[1:], logprobs or (), strict=logprobs is not None):
            choice["logprobs"] = {"content": [token]}
        if finish is not None:
            choices.append({"delta": {}, "finish_reason": finish})
        said: list[dict[str, Any]] = [{"model": "served-name", "choices": [{"index": 0, **one}]} for one in choices]
        if usage is not None:
            said.append({"model": "served-name", "choices": [], "usage": usage})
        handler.wfile.write(b": a comment\r\n\r\n")
        for event in said:
            time.sleep(pause_s)
            handler.wfile.write(f"data: {json.dumps(event)}\r\n\r\n".encode())
            handler.wfile.flush()
        handler.wfile.write(end)
        handler.close_connection = True

    return act


def hangs(seconds: float) -> Act:
    """Say nothing for a while."""
    return lambda handler, body: time.sleep(seconds)


def trickles(seconds: float) -> Act:
    """Begin to answer and then send a blank now and then."""

    def act(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.02)

    return act


def drops(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    """Promise more than is sent."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


@contextmanager
def chat_server(*acts: Act) -> Iterator[ChatServer]:
    """Run one on a free port of this machine."""
    state = ChatServer(deque(acts or (answers("hello"),)))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            state.handle(self)

        def log_message(self, format: str, *args: Any) -> None:
            return

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exception(), ConnectionError):  # clients that gave up are what is tested
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
