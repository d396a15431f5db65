"""What a server can do, found out by trying: what servers claim and what they do differ.

Some drop ``logprobs`` without a word and some ignore ``response_format``. So the question about schemas does not
mention JSON: only a server that enforces the schema answers in it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ..errors import EndpointError
from .client import ChatClient
from .messages import ChatMessage, ChatReply
from .retrying import PASSING
from .structured import UNSUPPORTED, Form, parse, response_format

TOP_LOGPROBS = 5
PROBE_TOKENS = 512


class _Probe(BaseModel):
    model_config = ConfigDict(extra="forbid")

    light: Literal["red", "green"]


QUESTION = "Which colour of a traffic light means stop, red or green?"
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
    """

    model: str
    form: Form
    top_logprobs: int | None
    pictures: bool

    def describe(self) -> str:
        """One line for people."""
        forms = {"json_schema": "answers by a schema", "json_object": "answers in JSON", "text": "plain answers only"}
        odds = "no token probabilities" if self.top_logprobs is None else f"top {self.top_logprobs} token probabilities"
        return f"{self.model}: {forms[self.form]}, {odds}, {'pictures' if self.pictures else 'no pictures'}"


def probe(client: ChatClient) -> Capabilities:
    """Ask a few short questions; call it once for a client.

    Raises:
        EndpointError: the server cannot be reached, refuses the key or model, or stays busy.
    """
    form, reply = _form(client)
    return Capabilities(reply.model, form, _top_logprobs(client), _pictures(client))


def _form(client: ChatClient) -> tuple[Form, ChatReply]:
    """The strictest form that the server enforces; the plain question must work, or nothing will."""
    plain = client.complete((ChatMessage("user", QUESTION),), max_tokens=PROBE_TOKENS)
    forms: tuple[Form, ...] = ("json_schema", "json_object")
    for form in forms:
        reply = _unless_refused(client, form=form)
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


def _top_logprobs(client: ChatClient) -> int | None:
    reply = _unless_refused(client, top_logprobs=TOP_LOGPROBS)
    if reply is None or reply.logprobs is None:
        return None
    return min(len(token.top) for token in reply.logprobs) or None


def _pictures(client: ChatClient) -> bool:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (64, 64), (220, 30, 30)).save(file, format="PNG")
    shown = (ChatMessage("user", "What colour is this picture? One word.", (file.getvalue(),)),)
    try:
        client.complete(shown, max_tokens=PROBE_TOKENS, retries=0)
    except EndpointError as error:
        if error.status in UNSUPPORTED or error.status == 500:  # llama.cpp answers 500 to a picture it cannot take
            return False
        raise
    return True


def _unless_refused(client: ChatClient, *, form: Form = "text", top_logprobs: int | None = None) -> ChatReply | None:
    try:
        return client.complete(
            (ChatMessage("user", QUESTION + JSON_TOO * (form == "json_object")),),
            max_tokens=PROBE_TOKENS,
            response_format=response_format(_Probe, form),
            top_logprobs=top_logprobs,
        )
    except EndpointError as error:
        if error.status is None or error.status in PASSING - {500}:
            raise
        return None
