"""The contract of every vision-language model: one that runs here, one behind a server, one of LangChain's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel

from .messages import Message
from .tool_text import ToolCall, ToolDescription


@dataclass(frozen=True)
class TokenScore:
    """One token of an answer, scored before any grammar, temperature or penalty touched the logits.

    Attributes:
        text: the token's text.
        logprob: natural logarithm of its probability.
        entropy: of the next-token distribution, in nats; over the whole vocabulary where ``whole`` is True, else a
            lower bound from the likeliest tokens with one bucket for the tail.
        top: the likeliest tokens at its place with their log-probabilities, likeliest first.
        whole: whether the entropy is that of the whole vocabulary.
    """

    text: str
    logprob: float
    entropy: float
    top: tuple[tuple[str, float], ...] = ()
    whole: bool = True


@dataclass(frozen=True)
class Generated:
    """An answer in words.

    Attributes:
        text: what was said; empty when nothing was.
        tokens: their scores, ``"".join(t.text for t in tokens) == text`` up to special tokens; None when the model
            gives none, never an empty tuple instead.
        finish_reason: ``stop``, or ``length`` when it was cut.
        usage: ``prompt_tokens``, ``completion_tokens`` and whatever else is counted.
        vocabulary: size of the vocabulary that entropies are normalised by; None when unknown.
        calls: of tools, that the model asked for in its own way.
    """

    text: str
    tokens: tuple[TokenScore, ...] | None
    finish_reason: str
    usage: Mapping[str, Any] = field(default_factory=dict)
    vocabulary: int | None = None
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class LetterAnswer:
    """An answer to a multiple-choice question.

    Attributes:
        letter: the likeliest option; None when the reply names none.
        probabilities: of each option, adding up to 1; None when the model gives no token probabilities.
        mass: share of the whole probability that fell on the options; None with ``probabilities``.
        reply: what was said.
        usage: token counts.
    """

    letter: str | None
    probabilities: Mapping[str, float] | None
    mass: float | None
    reply: str
    usage: Mapping[str, Any] = field(default_factory=dict)

    @property
    def entropy(self) -> float | None:
        """Normalised entropy of the options in [0, 1]; None when unknown, never 0 instead."""
        return None if self.probabilities is None else normalised_entropy(self.probabilities.values())


def normalised_entropy(probabilities: Any) -> float:
    """Entropy of a distribution over n > 1 outcomes divided by log n, in [0, 1]; 0 log 0 is 0.

    Raises:
        ValueError: fewer than two outcomes, or they do not add up to 1.
    """
    values = [float(p) for p in probabilities]
    if len(values) < 2 or not math.isclose(sum(values), 1.0, abs_tol=1e-4):
        raise ValueError("probabilities of at least two outcomes that add up to 1 are needed")
    return min(1.0, max(0.0, -sum(p * math.log(p) for p in values if p > 0.0) / math.log(len(values))))


OnText = Callable[[str], None]
"""Called with each further piece of an answer as it is generated."""


@runtime_checkable
class VisionLanguageModel(Protocol):
    """Answers questions about pictures. Deterministic unless a temperature is asked for."""

    name: str

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
        """Answer in words.

        Args:
            messages: the conversation.
            max_tokens: of the answer, at most.
            schema: the answer is to be JSON of this form, enforced where the model can be held to it; the caller
                validates all the same.
            temperature: 0 for the likeliest token at each place.
            seed: of the sampling.
            on_text: sees the answer grow.

        Raises:
            BackendError: the model failed.
        """
        ...

    def choose(self, messages: Sequence[Message], letters: Sequence[str]) -> LetterAnswer:
        """Answer a multiple-choice question with the letter of an option.

        Args:
            messages: the conversation; its end asks for a letter.
            letters: the options' letters, two at least.

        Raises:
            BackendError: the model failed.
        """
        ...


@runtime_checkable
class CallsTools(Protocol):
    """A model that can be handed tools in a way of its own, instead of being told of them in words."""

    def takes_tools(self) -> bool:
        """Whether it can, here: its server offers it, its chat template has a place for them.

        Raises:
            BackendError: that cannot be found out.
        """
        ...

    def generate_with_tools(
        self, messages: Sequence[Message], tools: Sequence[ToolDescription], *, max_tokens: int = 1024
    ) -> Generated:
        """Answer in words, or by calls of tools, or both; greedy.

        Args:
            messages: the conversation; earlier calls and their results in messages of their own.
            tools: that may be called, one at least.
            max_tokens: of the answer, at most.

        Raises:
            BackendError: the model failed.
        """
        ...
