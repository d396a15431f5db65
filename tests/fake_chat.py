"""A chat model of LangChain's that says what it is told to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import ConfigDict, Field


class ScriptedChat(BaseChatModel):
    """Says one thing.

    Attributes:
        text: it.
        top: the likeliest tokens of an answer of one token, with their log-probabilities.
        arguments: of the tool call that it makes in place of words; it cannot call tools without.
        error: raised in place of an answer.
        asked: messages of each question.
        given: temperature and length of each.
    """

    text: str = "fine"
    top: tuple[tuple[str, float], ...] = ()
    arguments: dict[str, Any] | None = None
    error: Exception | None = None
    temperature: float | None = None
    num_predict: int | None = None
    model: str = "scripted-chat"
    asked: list[list[BaseMessage]] = Field(default_factory=list)
    given: list[tuple[float | None, int | None]] = Field(default_factory=list)

    model_config = ConfigDict(arbitrary_types_allowed=True)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any) -> Any:
        if self.arguments is None:
            raise NotImplementedError
        return self.bind(call=getattr(tools[0], "__name__", "tool"))

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self.asked.append(messages)
        self.given.append((self.temperature, self.num_predict))
        if self.error is not None:
            raise self.error
        about: dict[str, Any] = {"done_reason": "stop"}
        if self.top:
            tops = [{"token": token, "logprob": logprob} for token, logprob in self.top]
            about["logprobs"] = {"content": [{**tops[0], "top_logprobs": tops}]}
        calls = []
        if "call" in kwargs and self.arguments is not None:
            calls = [{"name": kwargs["call"], "args": self.arguments, "id": "1", "type": "tool_call"}]
        usage = {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}
        message = AIMessage(self.text, tool_calls=calls, response_metadata=about, usage_metadata=usage)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        whole = self._generate(messages).generations[0].message
        for letter in self.text:
            yield ChatGenerationChunk(message=AIMessageChunk(content=letter))
        yield ChatGenerationChunk(message=AIMessageChunk(content="", response_metadata=whole.response_metadata))
