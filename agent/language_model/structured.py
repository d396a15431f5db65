"""An answer of a given form: asked for in the server's own way where it has one, checked always, repaired once."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import EndpointError
from .client import ChatClient
from .messages import ChatMessage, ChatReply
from .retrying import UNSUPPORTED

Form = Literal["json_schema", "json_object", "text"]
FORMS: tuple[Form, ...] = ("json_schema", "json_object", "text")
"""How a form can be asked for, the strictest first; ``text`` only describes it in words."""
SHOWN_FAULTS = 5
SHOWN_LETTERS = 6000

Answer = TypeVar("Answer", bound=BaseModel)


@dataclass(frozen=True)
class StructuredReply(Generic[Answer]):
    """A checked answer.

    Attributes:
        value: it.
        reply: the last raw answer.
        form: how it was asked for.
        repaired: whether the first answer was wrong.
    """

    value: Answer
    reply: ChatReply
    form: Form
    repaired: bool


def ask_for(
    client: ChatClient,
    messages: Sequence[ChatMessage],
    schema: type[Answer],
    *,
    form: Form = "json_schema",
    max_tokens: int = 2048,
    temperature: float | None = None,
    top_logprobs: int | None = None,
) -> StructuredReply[Answer]:
    """Ask for an answer that parses into ``schema``.

    A server that refuses the form is asked in the next weaker one. An answer that does not parse is sent back once,
    with what is wrong with it. Each of the two has one time limit, however many forms are tried.

    Args:
        client: whom to ask.
        messages: the question; the form is described at the end of its last turn.
        schema: closed, every list and text bounded, so that generation ends.
        form: the strictest to try, see `Capabilities.form`.
        max_tokens: see `ChatClient.complete`.
        temperature: the same.
        top_logprobs: the same.

    Raises:
        EndpointError: the server failed, or the second answer is wrong as well.
    """
    asked = described(messages, schema)
    options: dict[str, Any] = {"max_tokens": max_tokens, "temperature": temperature, "top_logprobs": top_logprobs}
    reply, used = _ask(client, asked, schema, form, _ending(client, options))
    try:
        return StructuredReply(parse(reply, schema), reply, used, repaired=False)
    except EndpointError as error:
        wrong = error.message
    again = [
        *asked,
        ChatMessage("assistant", reply.text[:SHOWN_LETTERS]),
        ChatMessage("user", f"That cannot be used: {wrong} Answer again with the corrected JSON object only."),
    ]
    reply, used = _ask(client, again, schema, used, _ending(client, options))
    return StructuredReply(parse(reply, schema), reply, used, repaired=True)


def parse(reply: ChatReply, schema: type[Answer]) -> Answer:
    """The first JSON object of an answer, checked.

    Raises:
        EndpointError: there is none, it is cut, or it does not fit.
    """
    text = reply.text
    try:
        value, _ = json.JSONDecoder().raw_decode(text, max(text.find("{"), 0))
    except (ValueError, RecursionError):
        why = (
            "it was cut for its length (a reasoning model needs more tokens)"
            if reply.was_cut
            else "it holds no whole JSON object"
        )
        raise EndpointError(f"the language model's answer has not the form that was asked for: {why}.") from None
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)[:SHOWN_FAULTS]
        said = "; ".join(f"{'.'.join(map(str, fault['loc']))[:80] or 'answer'}: {fault['msg']}" for fault in faults)
        raise EndpointError(f"the language model's answer has not the form that was asked for: {said}.") from None


def response_format(schema: type[BaseModel], form: Form) -> dict[str, Any] | None:
    """What the protocol calls the form; None for ``text``."""
    if form == "text":
        return None
    if form == "json_object":
        return {"type": "json_object"}
    wanted = {"name": schema.__name__, "strict": True, "schema": closed(schema.model_json_schema())}
    return {"type": "json_schema", "json_schema": wanted}


def closed(part: Any) -> Any:
    """A JSON Schema whose objects have all of their fields and no others, as strict servers want it.

    What may be left out in Python must be answered then; models that may leave a field out do so when they should not.
    """
    if isinstance(part, list):
        return [closed(one) for one in part]
    if not isinstance(part, dict):
        return part
    found = {key: closed(value) for key, value in part.items() if key != "default"}
    if isinstance(part.get("properties"), dict):
        found["properties"] = {name: closed(value) for name, value in part["properties"].items()}
        found |= {"required": list(part["properties"]), "additionalProperties": False}
    return found


def described(messages: Sequence[ChatMessage], schema: type[BaseModel]) -> list[ChatMessage]:
    """The question with the form in words at the end of its last turn: some templates refuse two turns by one."""
    wanted = json.dumps(schema.model_json_schema(), separators=(",", ":"))
    words = f"Answer with one JSON object and nothing else. It must fit this JSON Schema: {wanted}"
    *before, last = messages
    return [*before, last.and_then(words)] if last.role == "user" else [*messages, ChatMessage("user", words)]


def complete_in_form(
    client: ChatClient,
    messages: Sequence[ChatMessage],
    schema: type[BaseModel],
    form: Form,
    **options: Any,
) -> tuple[ChatReply, Form]:
    """Ask once for JSON of a form; what comes back is not checked.

    A server that enforces the schema is not told about it: it gets the very question that a model in this process
    gets, which is held to the schema as well. In the weaker forms the question ends with the schema in words.

    Args:
        client: whom to ask.
        messages: the question.
        schema: the form.
        form: the strictest to try; a server that refuses it is asked in the next weaker one, all within one time limit.
        options: of `ChatClient.complete`.

    Returns:
        The answer and how it was asked for.

    Raises:
        EndpointError: the server failed.
    """
    options = _ending(client, options)
    if form == "json_schema":
        try:
            return client.complete(messages, response_format=response_format(schema, form), **options), form
        except EndpointError as error:
            if error.status not in UNSUPPORTED:
                raise
        form = "json_object"
    return _ask(client, described(messages, schema), schema, form, options)


def _ending(client: ChatClient, options: dict[str, Any]) -> dict[str, Any]:
    """Options of questions that share the time of one, counted from now."""
    return {"deadline": time.monotonic() + client.endpoint.timeout_s, **options}


def _ask(
    client: ChatClient, messages: Sequence[ChatMessage], schema: type[BaseModel], form: Form, options: dict[str, Any]
) -> tuple[ChatReply, Form]:
    for weaker in FORMS[FORMS.index(form) :]:
        try:
            return client.complete(messages, response_format=response_format(schema, weaker), **options), weaker
        except EndpointError as error:
            if error.status not in UNSUPPORTED or weaker == "text":
                raise
    raise AssertionError("the last form either answers or raises")
