"""Test doubles that are public, so that integrators can test what they build on a model without one."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from ..errors import BackendError
from .base import Generated, LetterAnswer, OnText, TokenScore
from .messages import Message
from .tool_text import ToolDescription


class ScriptedModel:
    """Answers from two queues, one for words and one for letters; exceptions are raised, an empty queue is an error.

    Attributes:
        asked: the conversations that it was given, in order.
        schemas: the form that each answer in words was asked for in.
        handed: names of the tools that each answer was asked for with, where any were.

    Args:
        words: answers in words, or with calls of tools.
        letters: answers to multiple-choice questions.
        native: whether it takes tools in a way of its own.
    """

    name = "scripted"

    def __init__(
        self,
        words: Iterable[Generated | str | Exception] = (),
        letters: Iterable[Mapping[str, float] | LetterAnswer | str | Exception] = (),
        *,
        native: bool = False,
    ) -> None:
        self.native = native
        self.handed: list[tuple[str, ...]] = []
        self.words = deque(words)
        self.letters = deque(letters)
        self.asked: list[tuple[Message, ...]] = []
        self.schemas: list[type[BaseModel] | None] = []

    def generate(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int = 1024,
        schema: type[BaseModel] | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        on_text: OnText | None = None,
    ) -> Generated:
        """The next answer in words; a plain text comes without token probabilities."""
        self.asked.append(tuple(messages))
        self.schemas.append(schema)
        reply = _next(self.words)
        said = Generated(reply, None, "stop") if isinstance(reply, str) else reply
        if on_text is not None:
            on_text(said.text)
        return said

    def takes_tools(self) -> bool:
        """As it was made."""
        return self.native

    def generate_with_tools(
        self, messages: Sequence[Message], tools: Sequence[ToolDescription], *, max_tokens: int = 1024
    ) -> Generated:
        """The next answer in words."""
        self.handed.append(tuple(tool.name for tool in tools))
        return self.generate(messages, max_tokens=max_tokens)

    def choose(self, messages: Sequence[Message], letters: Sequence[str]) -> LetterAnswer:
        """The next letter: of a whole answer, of probabilities, or a plain letter without any."""
        self.asked.append(tuple(messages))
        reply = _next(self.letters)
        if isinstance(reply, LetterAnswer):
            return reply
        if isinstance(reply, str):
            return LetterAnswer(reply, None, None, reply)
        best = max(reply, key=lambda letter: reply[letter])
        return LetterAnswer(best, dict(reply), 1.0, best)


def _next(queue: deque[Any]) -> Any:
    if not queue:
        raise BackendError("the scripted model has no answer left.")
    reply = queue.popleft()
    if isinstance(reply, Exception):
        raise reply
    return reply


def spoken(
    text: str, *, certainty: float = 1.0, width: int = 4, instead: Mapping[str, float] | None = None
) -> Generated:
    """An answer with token scores: pieces of ``width`` letters, each with the same probability.

    Args:
        text: what is said.
        certainty: probability of each token.
        width: letters of a token.
        instead: further tokens with probabilities, offered at every place.
    """
    others = tuple((token, math.log(p)) for token, p in (instead or {}).items())
    tokens = []
    for begin in range(0, len(text), width):
        piece = text[begin : begin + width]
        left = max(0.0, 1.0 - certainty)
        entropy = -sum(p * math.log(p) for p in (certainty, left) if p > 0.0)
        top = tuple(sorted(((piece, math.log(certainty)), *others), key=lambda pair: -pair[1]))
        tokens.append(TokenScore(piece, math.log(certainty), entropy, top))
    return Generated(text, tuple(tokens), "stop", {"completion_tokens": len(tokens)})
