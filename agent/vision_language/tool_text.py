"""Tools and calls of tools, and how they are written for models that are not handed tools in a way of their own.

Such a model is told of tools in words and calls one by a JSON object as its answer.

A call is ``{"tool": NAME, "arguments": {…}}``, one or a list of them, alone or in a code fence; and what models trained
for tools write of their own accord: ``<tool_call>{"name": …, "arguments": …}</tool_call>`` (Qwen, Hermes).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_CALLS = 8
"""Of one answer; further ones are not read."""
TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)
MAX_ARGUMENTS = 4_000
"""Letters of a call's arguments; longer ones are refused."""
FENCED = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class ToolCall:
    """A call that a model asked for; neither name nor arguments are checked.

    Attributes:
        name: of the tool.
        arguments: by name; empty where they could not be read.
        id: by which its result is told; empty where the model gave none.
        fault: why the arguments could not be read; empty when they were.
    """

    name: str
    arguments: Mapping[str, Any]
    id: str = ""
    fault: str = ""


@dataclass(frozen=True)
class ToolDescription:
    """What a model is told of a tool.

    Attributes:
        name: of the tool.
        description: what it does.
        parameters: JSON Schema of its arguments.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]


def native_description(tool: ToolDescription) -> dict[str, Any]:
    """A tool as OpenAI's protocol and the chat templates of Hugging Face write it."""
    parameters = {"type": "object", "properties": {}, **tool.parameters}
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": parameters},
    }


def called(name: str, arguments: str | Mapping[str, Any], call_id: str = "") -> ToolCall:
    """A call whose arguments came apart from its name.

    Args:
        name: of the tool.
        arguments: by name, or as JSON; what is none, or too long, becomes the call's fault.
        call_id: see `ToolCall`.
    """
    if isinstance(arguments, str):
        if len(arguments) > MAX_ARGUMENTS:
            return ToolCall(name, {}, call_id, f"the arguments are longer than {MAX_ARGUMENTS} letters")
        try:
            arguments = _sendable(json.loads(arguments or "{}"))
        except (ValueError, RecursionError):
            return ToolCall(name, {}, call_id, "the arguments are no JSON")
    if not isinstance(arguments, dict):
        return ToolCall(name, {}, call_id, "the arguments are no JSON object")
    return ToolCall(name, arguments, call_id)


def words_beside(text: str) -> str:
    """What an answer says beside its calls; empty when it is nothing but a call."""
    rest = TAGGED.sub("", text).strip()
    return "" if parse_tool_calls(rest) else rest


def tool_instructions(tools: Sequence[ToolDescription], *, forced: bool = False) -> str:
    """What a model has to know to use tools.

    Args:
        tools: that it may use.
        forced: whether it must use one.
    """
    lines = [f"- {t.name}: {' '.join(t.description.split())} Arguments: {_compact(t.parameters)}" for t in tools]
    how = 'answer with one JSON object and nothing else: {"tool": "NAME", "arguments": {...}}'
    if forced:
        return "\n".join([f"Use one of these tools; {how}.", *lines])
    return "\n".join([f"These tools may be used; to use one, {how}. Else answer in words.", *lines])


def call_text(calls: Sequence[ToolCall]) -> str:
    """Calls as a model writes them."""
    written = [{"tool": call.name, "arguments": dict(call.arguments)} for call in calls]
    return _compact(written[0] if len(written) == 1 else written)


def parse_tool_calls(text: str) -> tuple[ToolCall, ...]:
    """The calls in an answer; none when it is an answer in words, or no call can be made out.

    Args:
        text: of a model.
    """
    tagged = [_json(body) for body in TAGGED.findall(text)]
    found = tagged or [_json(body) for body in (*FENCED.findall(text), text)]
    for values in found if not tagged else [tagged]:
        calls = [call for one in (values if isinstance(values, list) else [values]) for call in _call(one)]
        if calls:
            return tuple(calls[:MAX_CALLS])
    return ()


def _call(value: Any) -> list[ToolCall]:
    if not isinstance(value, dict):
        return []
    name = value.get("tool", value.get("name"))
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):  # as OpenAI writes them
        arguments = _json(arguments)
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        return []
    return [ToolCall(name, arguments)]


def _json(text: str) -> Any:
    """A JSON value that a text begins with; None for none."""
    try:
        return _sendable(json.JSONDecoder().raw_decode(text.strip())[0])
    except (ValueError, RecursionError):
        return None


def _sendable(value: Any) -> Any:
    """A JSON value that can be sent and kept: a half of a surrogate pair, which JSON can write, becomes ``?``.

    Numbers that JSON cannot write, such as NaN, become None.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_sendable(one) for one in value]
    if isinstance(value, dict):
        return {_sendable(key): _sendable(one) for key, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
