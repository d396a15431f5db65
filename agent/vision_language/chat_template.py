"""A conversation in a checkpoint's own chat form, with nothing in its texts that the form would obey."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from .messages import Message, Picture, Slot
from .tool_text import ToolCall, ToolDescription, native_description

MARKS = re.compile(r"<(?=\||/?tool_)")
"""Begins of special tokens, and of the fences that templates put around calls of tools and their results."""


def rendered(
    processor: Any, messages: Sequence[Message], tools: Sequence[ToolDescription], slot_text: Callable[[Slot], str]
) -> str:
    """The prompt as text, up to the place where the model begins to answer.

    Args:
        processor: with the chat template.
        messages: the conversation.
        tools: that the model is told of by the template.
        slot_text: what keeps the places of a slot's vectors.
    """
    turns = []
    for message in messages:
        turn: dict[str, Any] = {"role": message.role, "content": [_content(part, slot_text) for part in message.parts]}
        if message.calls:
            turn["tool_calls"] = [_native_call(call) for call in message.calls]
        if message.call_id:
            turn["tool_call_id"] = message.call_id
        turns.append(turn)
    given = {"tools": [native_description(tool) for tool in tools]} if tools else {}
    return str(processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **given))


def template_shows_tools(processor: Any) -> bool:
    """Whether a chat template writes tools, calls and results where it is given them; many leave them out."""
    from jinja2 import TemplateError

    names = ("tool_one", "call_two", "result_three")
    asked = (
        Message("user", ("?",)),
        Message("assistant", (), (ToolCall(names[1], {}, "call00001"),)),
        Message("tool", (names[2],), call_id="call00001"),
    )
    try:
        text = rendered(processor, asked, (ToolDescription(names[0], "", {}),), lambda slot: "")
    except (TemplateError, TypeError, KeyError, ValueError):  # what templates that know no such turns raise
        return False
    return all(name in text for name in names)


def plain(text: str) -> str:
    """Text that cannot pretend to be a turn, a picture, a slot, a tool's call or its result."""
    return MARKS.sub("< ", text)


def _content(part: str | Picture | Slot, slot_text: Callable[[Slot], str]) -> dict[str, Any]:
    if isinstance(part, Picture):
        return {"type": "image"}
    return {"type": "text", "text": slot_text(part) if isinstance(part, Slot) else plain(part)}


def _native_call(call: ToolCall) -> dict[str, Any]:
    arguments = json.loads(plain(json.dumps(dict(call.arguments), default=str)))
    return {"id": call.id, "type": "function", "function": {"name": plain(call.name), "arguments": arguments}}
