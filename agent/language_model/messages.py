"""What is said to a chat server and what it answers, apart from how it travels."""

from __future__ import annotations

import base64
import json
from codecs import getincrementaldecoder
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from ..errors import EndpointError
from ..terminal import clean_line

Blob = bytes
"""The type, where a field of the protocol takes its name."""


MAX_CALLS = 8
"""Of one answer; further ones are not read."""
MAX_ID = 80


@dataclass(frozen=True)
class CalledTool:
    """A call of a tool, as it travels.

    Attributes:
        id: by which its result is told; empty where the server gave none.
        name: of the tool.
        arguments: JSON text, unchecked.
    """

    id: str
    name: str
    arguments: str

    def wire(self) -> dict[str, Any]:
        """The call as the protocol writes it."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass(frozen=True)
class ChatMessage:
    """One turn.

    Attributes:
        role: who speaks; ``tool`` for the result of a call.
        content: what is said; or texts and PNG files in the order in which the model reads them.
        calls: of tools, that an assistant asked for.
        call_id: which of them a tool's result answers.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str | tuple[str | bytes, ...]
    calls: tuple[CalledTool, ...] = ()
    call_id: str = ""

    @property
    def parts(self) -> tuple[str | bytes, ...]:
        """The content in order."""
        return (self.content,) if isinstance(self.content, str) else self.content

    def wire(self) -> dict[str, Any]:
        """The turn as the protocol writes it; pictures become data URLs, so that no server fetches anything.

        Text alone is one string: some servers take lists of parts from users only.
        """
        texts = [part for part in self.parts if isinstance(part, str)]
        said: Any = "\n".join(texts) if len(texts) == len(self.parts) else [_wire_part(part) for part in self.parts]
        turn: dict[str, Any] = {"role": self.role, "content": said}
        if self.calls:
            turn["tool_calls"] = [call.wire() for call in self.calls]
        if self.call_id:
            turn["tool_call_id"] = self.call_id
        return turn

    def and_then(self, text: str) -> ChatMessage:
        """The same turn with a further text at its end."""
        return replace(self, content=(*self.parts, text))


def _wire_part(part: str | bytes) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "image_url", "image_url": {"url": data_url(part)}}


def data_url(png: bytes) -> str:
    """A PNG file as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


@dataclass(frozen=True)
class TokenLogprob:
    """A token of an answer.

    Attributes:
        token: what it adds to the answer.
        logprob: natural logarithm of its probability.
        top: the likeliest tokens at its place with theirs, likeliest first.
    """

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class ChatReply:
    """An answer.

    Attributes:
        text: what was said, without the thoughts of a reasoning model; empty when it was cut while it thought.
        finish_reason: ``stop``, ``length`` when it was cut, or whatever the server says.
        model: who answered, as the server names it.
        logprobs: of each token; None when the server gave none, which some do without saying so.
        usage: token counts.
        tries: how often it was asked.
        calls: of tools, that the model asked for.
    """

    text: str
    finish_reason: str
    model: str
    logprobs: tuple[TokenLogprob, ...] | None = None
    usage: Mapping[str, int] = field(default_factory=dict)
    tries: int = 1
    calls: tuple[CalledTool, ...] = ()

    @property
    def was_cut(self) -> bool:
        """Whether the answer ended because it grew too long."""
        return self.finish_reason == "length"


class _Top(BaseModel):
    token: str
    logprob: Annotated[FiniteFloat, Field(le=1e-3)]  # rounding lifts some a little above 0
    bytes: list[Annotated[int, Field(ge=0, le=255)]] | None = None

    def blob(self) -> Blob:
        return self.token.encode("utf-8", "replace") if self.bytes is None else Blob(self.bytes)


class _Token(_Top):
    top_logprobs: list[_Top] | None = None


class _Logprobs(BaseModel):
    content: list[_Token] = Field(min_length=1)


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None
    tool_calls: Any = None


class _Function(BaseModel):
    name: Annotated[str, Field(min_length=1)]
    arguments: Any = None


class _Call(BaseModel):
    id: str | None = None
    function: _Function


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: Any = None


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    model: str | None = None
    usage: dict[str, Any] | None = None


def parse_reply(body: Any, asked_model: str, tries: int) -> ChatReply:
    """Read a decoded answer.

    Args:
        body: the JSON value.
        asked_model: stands in for a name that the server leaves out.
        tries: see `ChatReply`.

    Raises:
        EndpointError: it has not the protocol's form, or the model refused or said nothing.
    """
    try:
        completion = _Completion.model_validate(body)
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors(include_url=False, include_input=False)[0]["loc"])
        raise EndpointError(
            f"the language-model server's answer has no usable {place or 'form'}.",
            hint="Check that llm_base_url is an OpenAI-compatible server.",
        ) from None
    choice = completion.choices[0]
    if choice.message.refusal or choice.finish_reason == "content_filter":
        raise EndpointError("the language model refused to answer.")
    text = without_thoughts(choice.message.content or "")
    calls = _calls(choice.message.tool_calls)
    if not text and not calls and choice.finish_reason != "length":
        raise EndpointError("the language model gave no answer.", retryable=True)
    usage = {key: value for key, value in (completion.usage or {}).items() if isinstance(value, int)}
    model = clean_line(completion.model or "")[:120] or asked_model
    logprobs = parse_logprobs(choice.logprobs, text)
    return ChatReply(text, choice.finish_reason or "unknown", model, logprobs, usage, tries, calls)


def _calls(found: Any) -> tuple[CalledTool, ...]:
    """The calls of an answer, as far as they name a tool; some servers write arguments as an object, not as text."""
    calls = []
    for one in found[:MAX_CALLS] if isinstance(found, list) else ():
        try:
            call = _Call.model_validate(one)
        except ValidationError:
            continue
        given = call.function.arguments
        text = given if isinstance(given, str) else "" if given is None else json.dumps(given)
        name, arguments = (part.encode("utf-8", "replace").decode() for part in (call.function.name, text))
        calls.append(CalledTool(clean_line(call.id or "")[:MAX_ID], clean_line(name)[:MAX_ID], arguments))
    return tuple(calls)


def without_thoughts(text: str) -> str:
    """An answer without the ``<think>`` part that DeepSeek-R1 and others put before it; one without end is all.

    A lone surrogate, which JSON can write, is no text: it could be neither sent back nor kept, and becomes ``?``.
    """
    text = text.encode("utf-8", "replace").decode()
    _, closed, answer = text.rpartition("</think>")
    if closed:
        return answer.strip()
    return "" if text.lstrip().startswith("<think>") else text.strip()


def parse_logprobs(found: Any, text: str) -> tuple[TokenLogprob, ...] | None:
    """The tokens of an answer with their log-probabilities.

    Args:
        found: the protocol's ``logprobs`` of a choice.
        text: the answer; tokens of the thoughts before it and of the blanks around it are left out.

    Returns:
        None when there are none, or none that mean anything: an answer without them is an answer.
    """
    try:
        tokens = _Logprobs.model_validate(found).content
    except ValidationError:
        return None
    scored = [
        TokenLogprob(
            piece,
            min(one.logprob, 0.0),
            tuple((top.token, min(top.logprob, 0.0)) for top in one.top_logprobs or ()),
        )
        for one, piece in _spelling(tokens, text.encode())
    ]
    return tuple(scored) or None


def _spelling(tokens: Sequence[_Token], answer: Blob) -> Iterator[tuple[_Token, str]]:
    """The tokens that an answer lies in, each with what it adds; a letter of several comes with the last of them.

    Where the bytes of the tokens do not spell the answer, since servers write odd ones in their own ways, all tokens
    are given as they are called.
    """
    if not answer:
        return
    blobs = [token.blob() for token in tokens]
    begin = b"".join(blobs).rfind(answer)
    if begin < 0:
        yield from ((token, token.token) for token in tokens)
        return
    letters, at = getincrementaldecoder("utf-8")(), -begin
    for token, blob in zip(tokens, blobs, strict=True):
        inside = blob[max(0, -at) : max(0, len(answer) - at)]
        at += len(blob)
        if inside:
            yield token, letters.decode(inside)
