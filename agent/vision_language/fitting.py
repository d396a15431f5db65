"""Which pictures of a question are left out when not all of them fit, and that this is said where they stood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...prompts import render
from .messages import Message, Picture

LEAST_NEEDED = ("overlay", "crop", "reference", "zoom")
"""Beginnings of the labels of pictures that may be left out, in this order, of each the last one first; others stay:
without the part itself there is nothing to ask about."""


def one_picture_less(messages: Sequence[Message]) -> tuple[tuple[Message, ...], str] | None:
    """The conversation without the picture that is needed least, and that one's label; None when all are needed."""
    found = [
        (LEAST_NEEDED.index(kind), -m, -p)
        for m, message in enumerate(messages)
        for p, part in enumerate(message.parts)
        if isinstance(part, Picture) and (kind := part.label.split(" ")[0]) in LEAST_NEEDED
    ]
    if not found:
        return None
    _, m, p = min(found)
    message = messages[-m]
    picture = message.parts[-p]
    label = picture.label if isinstance(picture, Picture) else ""
    parts = (*message.parts[:-p], render("pictures", "left_out"), *message.parts[-p + 1 :])
    return (*messages[:-m], replace(message, parts=parts), *messages[-m + 1 :]), label
