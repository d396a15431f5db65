"""A conversation as it leaves this process: words and pictures in order, nothing that a chat template would obey."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..language_model.messages import CalledTool, ChatMessage
from .messages import Message, Picture, without_slots

MARKS = re.compile(r"<(?=\||/?(?:s>|im_|image|img|video|audio|start_of|end_of|tool_))|\[(?=/?INST\])", re.IGNORECASE)
"""Begins of what chat templates of the common families (Qwen, LLaVA, InternVL, Llama, Mistral, Gemma) take for turns
and places of pictures: a page or a note that holds them would speak in another's name, or shift the pictures."""


def outgoing(messages: Sequence[Message], max_pixels: int) -> tuple[ChatMessage, ...]:
    """The conversation for a server.

    Args:
        messages: slots are left out; texts that then stand side by side become one, on lines of their own.
        max_pixels: larger pictures are reduced to so many.
    """
    return tuple(_turn(message, max_pixels) for message in without_slots(messages))


def _turn(message: Message, max_pixels: int) -> ChatMessage:
    parts: list[str | bytes] = []
    for part in message.parts:
        if isinstance(part, Picture):
            parts.append(png(part.rgb, max_pixels))
        elif isinstance(part, str):
            text = plain(part)
            if parts and isinstance(parts[-1], str):
                before = str(parts.pop())
                # as a model in this process reads them, where one of them has its line's end already
                text = before + ("" if before.endswith("\n") or text.startswith("\n") else "\n") + text
            parts.append(text)
    calls = tuple(
        CalledTool(call.id, plain(call.name), plain(json.dumps(dict(call.arguments), default=str)))
        for call in message.calls
    )
    return ChatMessage(message.role, tuple(parts), calls, message.call_id)


def plain(text: str) -> str:
    """Text that cannot pretend to be a turn or a picture, whichever model's template it gets into."""
    return MARKS.sub(lambda found: f"{found.group()} ", text)


def png(rgb: NDArray[np.uint8], max_pixels: int) -> bytes:
    """A picture as a file.

    Args:
        rgb: uint8 (H, W, 3).
        max_pixels: H x W at most; larger ones are reduced, sides in proportion.
    """
    from PIL import Image

    height, width = rgb.shape[:2]
    picture = Image.fromarray(rgb)
    if height * width > max_pixels:
        scale = math.sqrt(max_pixels / (height * width))
        picture = picture.resize((max(1, int(width * scale)), max(1, int(height * scale))), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, format="PNG", compress_level=1)
    return file.getvalue()
