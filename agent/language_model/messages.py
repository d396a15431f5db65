"""What is said to a chat server and what it answers, apart from how it travels."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from ..errors import EndpointError
from ..terminal import clean_line


@dataclass(frozen=True)
class ChatMessage:
    """One turn.

    Attributes:
        role: who speaks.
        text: what is said.
        pictures: PNG files that go with it.
    """

    role: Literal["system", "user", "assistant"]
    text: str
    pictures: tuple[bytes, ...] = ()

    def wire(self) -> dict[str, Any]:
        """The turn as the protocol writes it; pictures become data URLs, so that no server fetches anything."""
        if not self.pictures:
            return {"role": self.role, "content": self.text}
        urls = [f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}" for png in self.pictures]
        shown = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        return {"role": self.role, "content": [*shown, {"type": "text", "text": self.text}]}


@dataclass(frozen=True)
class TokenLogprob:
    """A token of an answer.

    Attributes:
        token: its text.
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
    """

    text: str
    finish_reason: str
    model: str
    logprobs: tuple[TokenLogprob, ...] | None = None
    usage: Mapping[str, int] = field(default_factory=dict)
    tries: int = 1

    @property
    def was_cut(self) -> bool:
        """Whether the answer ended because it grew too long."""
        return self.finish_reason == "length"


class _Top(BaseModel):
    token: str
    logprob: FiniteFloat


class _Token(_Top):
    top_logprobs: list[_Top] | None = None


class _Logprobs(BaseModel):
    content: list[_Token] | None = None


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


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
    if choice.message.refusal:
        raise EndpointError("the language model refused to answer.")
    # A lone surrogate, which JSON can write, is no text: it could be neither sent back nor kept.
    text = without_thoughts((choice.message.content or "").encode("utf-8", "replace").decode())
    if not text and choice.finish_reason != "length":
        raise EndpointError("the language model gave no answer.", retryable=True)
    usage = {key: value for key, value in (completion.usage or {}).items() if isinstance(value, int)}
    model = clean_line(completion.model or "")[:120] or asked_model
    return ChatReply(text, choice.finish_reason or "unknown", model, _logprobs(choice.logprobs), usage, tries)


def without_thoughts(text: str) -> str:
    """An answer without the ``<think>`` part that DeepSeek-R1 and others put before it; one without end is all."""
    _, closed, answer = text.rpartition("</think>")
    if closed:
        return answer.strip()
    return "" if text.lstrip().startswith("<think>") else text.strip()


def _logprobs(found: _Logprobs | None) -> tuple[TokenLogprob, ...] | None:
    if found is None or not found.content:
        return None
    return tuple(
        TokenLogprob(one.token, one.logprob, tuple((top.token, top.logprob) for top in one.top_logprobs or ()))
        for one in found.content
    )
