"""Messages of LangChain as turns: text and pictures in order, nothing fetched."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from ...tools.imaging import load_image
from ..errors import InputError
from .messages import Message, Part, Picture
from .tool_text import ToolCall, call_text

Role = Literal["system", "user", "assistant"]
MAX_PIXELS = 50_000_000
"""Of a picture in a message; larger ones are refused before they are decoded."""


def turn(message: BaseMessage, *, native: bool = False) -> Message:
    """A message of LangChain as a turn.

    Args:
        message: any.
        native: for a model that takes tools in its own way: calls and results stay what they are; else they are told
            in words.

    Raises:
        InputError: a kind of message or content that is not known, or a picture that is elsewhere or damaged.
    """
    if isinstance(message, ToolMessage):
        if native:
            return Message("tool", _parts(message.content), call_id=message.tool_call_id)
        name = f" of {message.name}" if message.name else ""
        return Message("user", (f"Result{name}:", *_parts(message.content)))
    if isinstance(message, AIMessage):
        calls = tuple(ToolCall(call["name"], call["args"], call["id"] or "") for call in message.tool_calls)
        if native:
            return Message("assistant", _parts(message.content), calls)
        return Message("assistant", (*_parts(message.content), *([call_text(calls)] if calls else ())))
    if isinstance(message, SystemMessage | HumanMessage):
        role: Role = "system" if isinstance(message, SystemMessage) else "user"
        return Message(role, _parts(message.content))
    raise InputError(f"a message of the kind {message.type!r} cannot be handed to a vision-language model.")


def joined(turns: Sequence[Message]) -> list[Message]:
    """Turns of one speaker that follow one another become one: some chat templates refuse them."""
    found: list[Message] = []
    for one in turns:
        together = one.role != "tool" and not one.calls
        if together and found and found[-1].role == one.role:
            found[-1] = replace(found[-1], parts=(*found[-1].parts, *one.parts))
        else:
            found.append(one)
    return found


def _parts(content: str | list[Any]) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (content,) if content else ()
    return tuple(_part(block) for block in content)


def _part(block: Any) -> Part:
    """One content block: text, OpenAI's ``image_url``, or LangChain's ``image``."""
    if isinstance(block, str):
        return block
    kind = block.get("type") if isinstance(block, dict) else None
    if kind == "text" and isinstance(block.get("text"), str):
        return str(block["text"])
    if kind == "image_url":
        url = block.get("image_url")
        return _picture(url.get("url") if isinstance(url, dict) else url)
    if kind == "image":
        data = block.get("base64", block.get("data"))
        return _picture(block.get("url") if data is None else f"data:image/any;base64,{data}")
    raise InputError(f"a content block of the kind {kind!r} cannot be handed to a vision-language model.")


def _picture(url: Any) -> Picture:
    kind, comma, data = url.partition(",") if isinstance(url, str) else ("", "", "")
    if not (kind.startswith("data:image/") and kind.endswith(";base64") and comma):
        raise InputError(
            "a picture in a message must be a data URL (data:image/png;base64,…).",
            hint="Addresses are not fetched: read the picture and put its bytes into the message.",
        )
    try:
        blob = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise InputError("a picture in a message is no base64.") from None
    return Picture(load_image(blob, max_pixels=MAX_PIXELS).rgb)
