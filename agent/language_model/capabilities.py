"""What a server can do, found out by trying: what servers claim and what they do differ.

Some drop ``logprobs`` without a word and some ignore ``response_format``. So the question about schemas does not
mention JSON: only a server that enforces the schema answers in it.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ..errors import EndpointError
from .client import ChatClient
from .messages import ChatMessage, ChatReply, TokenLogprob
from .retrying import UNSUPPORTED
from .structured import Form, parse, response_format

TOP_LOGPROBS = (20, 5)
"""How many alternatives are asked for: as many as vLLM, Ollama and OpenAI give, else as few as nearly all do."""
PROBE_TOKENS = 512
IMPOSSIBLE = -100.0
"""Log-probability that no softmax over a model's own scores comes near to for every alternative of an answer."""
ALL = 0.995
"""Share of the probability from which nothing else was possible."""


class _Probe(BaseModel):
    model_config = ConfigDict(extra="forbid")

    light: Literal["red", "green"]


QUESTION = "Which colour of a traffic light means stop, red or green?"
LOOK_UP = "Which colour does lamp 7 show now? Look it up."
LAMP = {
    "type": "function",
    "function": {
        "name": "lamp_colour",
        "description": "Tells the colour that a lamp shows now.",
        "parameters": {"type": "object", "properties": {"lamp": {"type": "integer"}}, "required": ["lamp"]},
    },
}
JSON_TOO = " Answer in JSON."
"""Servers that know no schemas want the word itself in the question."""


@dataclass(frozen=True)
class Capabilities:
    """What was found.

    Attributes:
        model: who answered, as the server names it.
        form: the strictest way in which answers of a given form can be asked for.
        top_logprobs: alternatives that come with each token; None when none do.
        pictures: whether pictures are taken.
        sampling: whether ``temperature`` and ``seed`` are; some hosted models refuse them.
        form_scores: what token probabilities are where a schema is enforced: the model's own (``raw``), or what the
            schema left of them (``masked``), under which forced tokens look certain; None when there are none then.
        tools: whether a tool that a question needs is called in the protocol's own way.
    """

    model: str
    form: Form
    top_logprobs: int | None
    pictures: bool
    sampling: bool = True
    form_scores: Literal["raw", "masked"] | None = None
    tools: bool = False

    def describe(self) -> str:
        """One line for people."""
        forms = {"json_schema": "answers by a schema", "json_object": "answers in JSON", "text": "plain answers only"}
        odds = "no token probabilities" if self.top_logprobs is None else f"top {self.top_logprobs} token probabilities"
        if self.form_scores == "masked":
            odds += " (in a schema those that it leaves)"
        own = "" if self.sampling else ", a temperature of its own"
        tools = ", tool calls" if self.tools else ""
        return f"{self.model}: {forms[self.form]}, {odds}, {'pictures' if self.pictures else 'no pictures'}{tools}{own}"


def probe(client: ChatClient) -> Capabilities:
    """Ask a few short questions, which have the time of one together; call it once for a client.

    Raises:
        EndpointError: the server cannot be reached, refuses the key or model, stays busy, or is too slow.
    """
    examination = _Examination(client, time.monotonic() + client.endpoint.timeout_s)
    try:
        return _examine(examination)
    except EndpointError as error:
        if time.monotonic() >= examination.deadline:
            error.message += " The questions about what it can do share that time."
        raise


@dataclass(frozen=True)
class _Examination:
    """A client whose short questions all end at one time, so that a slow server is not waited for once for each.

    Attributes:
        client: of the server.
        deadline: of ``time.monotonic()``.
    """

    client: ChatClient
    deadline: float

    def ask(self, message: ChatMessage, **options: Any) -> ChatReply:
        """One question; see `ChatClient.complete`."""
        return self.client.complete((message,), max_tokens=PROBE_TOKENS, deadline=self.deadline, **options)


def _examine(examination: _Examination) -> Capabilities:
    greedy: dict[str, Any] = {"temperature": 0.0, "seed": 0}
    plain = _unless_refused(examination, **greedy)
    if plain is None:
        greedy = {}
        plain = examination.ask(ChatMessage("user", QUESTION))
    form, reply = _form(examination, plain, greedy)
    top_logprobs = _top_logprobs(examination, greedy)
    return Capabilities(
        reply.model,
        form,
        top_logprobs,
        _pictures(examination, greedy),
        bool(greedy),
        _form_scores(examination, form, top_logprobs, greedy),
        _tools(examination, greedy),
    )


def _form(examination: _Examination, plain: ChatReply, greedy: dict[str, Any]) -> tuple[Form, ChatReply]:
    """The strictest form that the server enforces."""
    forms: tuple[Form, ...] = ("json_schema", "json_object")
    for form in forms:
        reply = _unless_refused(examination, form=form, **greedy)
        if reply is None:
            continue
        try:
            parse(reply, _Probe)
        except EndpointError:
            if form == "json_object" and reply.text.lstrip().startswith("{"):
                return form, reply  # JSON of a form of its own
            continue
        return form, reply
    return "text", plain


def _top_logprobs(examination: _Examination, greedy: dict[str, Any]) -> int | None:
    """Some servers refuse more than they give, others give fewer without a word."""
    for asked in TOP_LOGPROBS:
        reply = _unless_refused(examination, top_logprobs=asked, **greedy)
        if reply is not None:
            return None if reply.logprobs is None else _alternatives(reply.logprobs)
    return None


def _alternatives(tokens: Sequence[TokenLogprob]) -> int | None:
    """How many come with each token; None where all but the chosen ones have no probability at all.

    That is what a temperature of 0 leaves of a distribution: such numbers say what was chosen, not how surely.
    """
    others = [logprob for token in tokens for _, logprob in token.top[1:]]
    if others and max(others) < IMPOSSIBLE:
        return None
    return min(len(token.top) for token in tokens) or None


def _form_scores(
    examination: _Examination, form: Form, top_logprobs: int | None, greedy: dict[str, Any]
) -> Literal["raw", "masked"] | None:
    """Whether something other than a brace was likely where a brace was forced; nobody had asked for JSON."""
    if form == "text" or top_logprobs is None:
        return None
    reply = _unless_refused(examination, form=form, top_logprobs=top_logprobs, **greedy)
    if reply is None or reply.logprobs is None:
        return None
    begins = sum(math.exp(logprob) for token, logprob in reply.logprobs[0].top if token.lstrip()[:1] in ("{", ""))
    return "masked" if begins > ALL else "raw"


def _pictures(examination: _Examination, greedy: dict[str, Any]) -> bool:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (64, 64), (220, 30, 30)).save(file, format="PNG")
    shown = ChatMessage("user", (file.getvalue(), "What colour is this picture? One word."))
    return _taken(examination, shown, **greedy) is not None


def _tools(examination: _Examination, greedy: dict[str, Any]) -> bool:
    """Whether a model that needs a tool calls it, and the server says so in the protocol's way.

    Some servers refuse tools unless they were started for them, some pass them over, some leave a call in the text.
    """
    reply = _taken(examination, ChatMessage("user", LOOK_UP), tools=(LAMP,), **greedy)
    return reply is not None and any(call.name == "lamp_colour" for call in reply.calls)


def _taken(examination: _Examination, message: ChatMessage, **options: Any) -> ChatReply | None:
    """The answer to what a server may be unable to take; None where it refuses it, of which a 500 is one way.

    llama.cpp answers so to a picture that it cannot take. So a 500 is asked again once, since what it says holds for
    the life of the process, and no oftener; what can only pass is asked as often as any question.
    """
    for retries in (1, None):
        try:
            return examination.ask(message, retries=retries, **options)
        except EndpointError as error:
            if error.status in UNSUPPORTED | {500}:
                return None
            if retries is None or not error.retryable:
                raise
    raise AssertionError("the second try either answers or raises")


def _unless_refused(examination: _Examination, *, form: Form = "text", **options: Any) -> ChatReply | None:
    try:
        return examination.ask(
            ChatMessage("user", QUESTION + JSON_TOO * (form == "json_object")),
            response_format=response_format(_Probe, form),
            **options,
        )
    except EndpointError as error:
        if error.status not in UNSUPPORTED | {500}:
            raise
        return None
