"""A server that does what engines do, each as far as a test lets it: schemas, token probabilities, pictures, events."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from chat_server import Act, answers, calls, events, refuses, send

Tops = tuple[tuple[str, float], ...]


@dataclass
class Engine:
    """An act of a `ChatServer` that answers as an engine would.

    Attributes:
        text: the answer to everything but the client's own questions about what the server can do.
        tokens: the answer's tokens, each the likeliest of its alternatives and their log-probabilities; none: each
            word of the text is a token.
        forms: kinds of ``response_format`` that it enforces.
        unknown: kinds that it refuses.
        top: alternatives that it gives at most; None for no token probabilities at all.
        pictures: status of its answer to pictures.
        streams: whether it streams; None when it refuses to.
        refused: parameters that it refuses.
        masked: whether probabilities in a form are those that the form leaves.
        apart: whether it refuses to give probabilities in a form.
        tools: whether its model calls tools that it needs; None when the server refuses them.
    """

    text: str = "Red."
    tokens: tuple[Tops, ...] = ()
    forms: frozenset[str] = frozenset({"json_schema", "json_object"})
    unknown: frozenset[str] = frozenset()
    top: int | None = 20
    pictures: int = 200
    streams: bool | None = True
    refused: frozenset[str] = field(default_factory=frozenset)
    masked: bool = False
    apart: bool = False
    tools: bool | None = False

    def __call__(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        """Answer one request."""
        form = body.get("response_format", {}).get("type")
        shown = [message for message in body["messages"] if not isinstance(message["content"], str)]
        if shown and self.pictures != 200:
            send(handler, self.pictures, b'{"error": "text only"}')
        elif form in self.unknown or self.refused & body.keys():
            refuses(400, "unknown parameter")(handler, body)
        elif self.apart and form is not None and "logprobs" in body:
            refuses(400, "no logprobs with response_format")(handler, body)
        elif self.tools is None and body.get("tools"):
            refuses(400, "tools need --enable-auto-tool-choice")(handler, body)
        elif self.tools and body.get("tools") and _asks("lamp 7", body):
            calls(("call_1", "lamp_colour", '{"lamp": 7}'))(handler, body)
        elif self.streams is None and body.get("stream"):
            refuses(422, "no streaming")(handler, body)
        elif self.top is not None and body.get("top_logprobs", 0) > max(self.top, 5):
            refuses(400, f"top_logprobs is at most {self.top}")(handler, body)
        else:
            self._answer(handler, body, form)

    def _answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any], form: str | None) -> None:
        text, tokens = self._said(body, form)
        cut = tokens[: body["max_tokens"]]
        if len(cut) < len(tokens):
            text, tokens = "".join(tops[0][0] for tops in cut), cut
        finish = "length" if len(cut) == body["max_tokens"] else "stop"
        odds = None
        if body.get("logprobs") and self.top is not None:
            masked = self.masked and form in self.forms
            left = [_left(tops) if masked else tops for tops in tokens]
            odds = [_scored(tops, min(self.top, body["top_logprobs"])) for tops in left]
        if body.get("stream") and self.streams:
            events([tops[0][0] for tops in tokens], finish, logprobs=odds)(handler, body)
        else:
            answers(text, finish, **({} if odds is None else {"logprobs": {"content": odds}}))(handler, body)

    def _said(self, body: dict[str, Any], form: str | None) -> tuple[str, tuple[Tops, ...]]:
        if _asks("traffic light", body):
            held = {"json_schema": '{"light": "red"}', "json_object": '{"answer": "red"}'}
            text = held[form] if form in self.forms and form is not None else "Red."
            return text, _words(text)
        return (
            ("".join(tops[0][0] for tops in self.tokens), self.tokens)
            if self.tokens
            else (
                self.text,
                _words(self.text),
            )
        )


def examined(engine: Engine, then: Act) -> Act:
    """An engine while it is asked what it can do, and something else afterwards."""

    def act(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        asked = any(_asks(words, body) for words in ("traffic light", "What colour is this picture?", "lamp 7"))
        (engine if asked else then)(handler, body)

    return act


def _asks(words: str, body: dict[str, Any]) -> bool:
    return words in json.dumps(body["messages"][-1]["content"])


def _words(text: str) -> tuple[Tops, ...]:
    """Tokens of an answer that is rather sure of itself."""
    pieces = [piece if i == 0 else f" {piece}" for i, piece in enumerate(text.split(" "))]
    return tuple(((piece, -0.1), *((f"other{i}", -4.0 - i) for i in range(19))) for piece in pieces)


def _left(tops: Tops) -> Tops:
    return ((tops[0][0], 0.0), *((token, -9999.0) for token, _ in tops[1:]))


def _scored(tops: Tops, count: int) -> dict[str, Any]:
    kept = [{"token": token, "logprob": logprob, "bytes": list(token.encode())} for token, logprob in tops[:count]]
    return {**kept[0], "top_logprobs": kept}
