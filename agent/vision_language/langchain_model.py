"""One of LangChain's chat models as a vision-language model: whatever has an integration can be the reasoner.

Time limits, retries and keys are the chat model's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from pydantic import BaseModel

from ..errors import BackendError, FlawscopeError
from ..language_model.messages import ChatMessage, parse_logprobs, without_thoughts
from ..language_model.streaming import Shown
from ..language_model.structured import described
from .base import Generated, LetterAnswer, OnText
from .messages import Message
from .outgoing import outgoing
from .reported import letter_answer, reported_k, token_scores
from .served import LETTER_TOKENS, MAX_PIXELS

FIELDS = {
    "max_tokens": ("max_tokens", "max_output_tokens", "num_predict", "max_new_tokens"),
    "temperature": ("temperature",),
    "seed": ("seed",),
}
"""What LangChain's integrations call the parameters of a question; each knows some of them."""
ROLES: Mapping[str, type[BaseMessage]] = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}

Result = TypeVar("Result")


class ChatModelAdapter:
    """Asks a chat model of LangChain.

    Token probabilities are read where the chat model was made to ask for them (such as ``ChatOpenAI(logprobs=True,
    top_logprobs=20)``); it is not asked to where it was not.

    Attributes:
        name: of the chat model.

    Args:
        chat: the chat model; it is not changed.
        keep: parameters (``max_tokens``, ``temperature``, ``seed``) that stay as the chat model has them, such as a
            temperature that its provider does not let anybody set.
        max_pixels: larger pictures are reduced before they are handed over.
    """

    def __init__(self, chat: BaseChatModel, *, keep: Collection[str] = (), max_pixels: int = MAX_PIXELS) -> None:
        self._chat = chat
        self._keep = frozenset(keep)
        self._max_pixels = max_pixels
        model = next(
            (getattr(chat, key) for key in ("model_name", "model") if isinstance(getattr(chat, key, None), str)), None
        )
        self.name = str(model or chat._llm_type)

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
        """Answer in words; see `VisionLanguageModel.generate`.

        With a schema the chat model's own structured output is used, and shown at once; where it has none it is asked
        in words.

        Raises:
            BackendError: the chat model failed.
        """
        asked = outgoing(messages, self._max_pixels)
        chat = self._with(max_tokens=max_tokens, temperature=temperature, seed=seed)
        if schema is None:
            return self._said(self._words(chat, _incoming(asked), on_text), "text")
        try:
            structured = chat.with_structured_output(schema, include_raw=True)
        except NotImplementedError:
            return self._said(self._words(chat, _incoming(described(asked, schema)), on_text), "text")
        found = self._guarded(lambda: structured.invoke(_incoming(asked)))
        if not isinstance(found, dict) or not isinstance(found.get("raw"), AIMessage):
            raise BackendError(f"the chat model {self.name} gave no message with its structured output.")
        said = self._said(found["raw"], "structured")
        if on_text is not None and said.text:
            on_text(said.text)
        return said

    def choose(self, messages: Sequence[Message], letters: Sequence[str]) -> LetterAnswer:
        """Answer with a letter; see `VisionLanguageModel.choose` and `reported.letter_answer`.

        Raises:
            BackendError: the chat model failed.
        """
        said = self.generate(messages, max_tokens=LETTER_TOKENS)
        return letter_answer(said.text, said.tokens, letters, said.usage)

    def _with(self, **wanted: float) -> BaseChatModel:
        """The chat model with the parameters of this question, as far as it has them."""
        known = type(self._chat).model_fields
        update = {
            field: value
            for name, value in wanted.items()
            if name not in self._keep
            for field in FIELDS[name]
            if field in known
        }
        return self._chat.model_copy(update=update) if update else self._chat

    def _words(self, chat: BaseChatModel, asked: list[BaseMessage], on_text: OnText | None) -> AIMessage:
        if on_text is None:
            return self._guarded(lambda: chat.invoke(asked))
        shown, whole = Shown(on_text), AIMessageChunk(content="")
        pieces = self._guarded(lambda: chat.stream(asked))
        while (piece := self._guarded(lambda: next(pieces, None))) is not None:
            whole = whole + piece
            shown.add(str(piece.text))
        shown.finish(without_thoughts(str(whole.text)))
        return whole

    def _said(self, message: AIMessage, form: str) -> Generated:
        text, about = without_thoughts(str(message.text)), message.response_metadata
        tokens = token_scores(parse_logprobs(about.get("logprobs"), text))
        if not text and message.tool_calls:  # structured output by way of a tool: its tokens are not those of the JSON
            text, tokens = json.dumps(message.tool_calls[0]["args"]), None
        counted = message.usage_metadata
        usage: dict[str, Any] = {"form": form, **reported_k(tokens)}
        if counted is not None:
            usage |= {"prompt_tokens": counted["input_tokens"], "completion_tokens": counted["output_tokens"]}
        ends = {str(about.get(key)) for key in ("finish_reason", "stop_reason", "done_reason")}
        cut = bool(ends & {"length", "max_tokens", "MAX_TOKENS"})
        return Generated(text, tokens, "length" if cut else "stop", usage)

    def _guarded(self, ask: Callable[[], Result]) -> Result:
        """Ask; integrations raise whatever their clients raise, which is no defect of this program."""
        try:
            return ask()
        except FlawscopeError:
            raise
        except Exception as error:  # the border to foreign code: what it may raise is not known
            raise BackendError(
                f"the chat model {self.name} failed: {type(error).__name__}.",
                hint="What it said is the cause of this error; it is not shown, since some repeat keys.",
            ) from error


def _incoming(asked: Sequence[ChatMessage]) -> list[BaseMessage]:
    """Messages with content blocks in order."""
    return [ROLES[one.role](content=_content(one)) for one in asked]


def _content(one: ChatMessage) -> Any:
    wired = one.wire()["content"]
    return wired if isinstance(wired, str) else list(wired)
