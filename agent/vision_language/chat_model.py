"""A vision-language model of this project as one of LangChain's chat models, for whoever builds with those.

Pictures come as data URLs inside the messages; an address elsewhere is refused and never fetched.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, InvalidToolCall
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import ToolCall as LangChainCall
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel, ConfigDict, Field, SkipValidation

from .base import CallsTools, Generated, VisionLanguageModel
from .langchain_messages import joined, turn
from .messages import Message
from .tool_text import ToolCall, ToolDescription, parse_tool_calls, tool_instructions, words_beside


class FlawscopeChatModel(BaseChatModel):
    """Answers through a vision-language model.

    Tools are handed to a model that takes them in its own way, greedily; to others they are described in words, and
    the JSON answer becomes a tool call. The answer's token probabilities are in ``response_metadata["logprobs"]``, in
    OpenAI's form.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: SkipValidation[VisionLanguageModel] = Field(description="who answers")
    max_tokens: int = Field(1024, ge=1, description="length of an answer at most")
    temperature: float = Field(0.0, ge=0.0, description="0 for the likeliest token at each place")
    seed: int = Field(0, description="of the sampling")

    @property
    def _llm_type(self) -> str:
        return "flawscope"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model.name, "temperature": self.temperature, "max_tokens": self.max_tokens}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Let the model call tools.

        Args:
            tools: anything that LangChain takes for tools.
            tool_choice: ``any``, ``required`` or a tool's name for a call in any case; a single pydantic class is then
                the form that the answer is held to.
            kwargs: of ``bind``.
        """
        names = {convert_to_openai_tool(tool)["function"]["name"]: tool for tool in tools}
        wanted = {tool_choice: names[tool_choice]} if tool_choice in names else names
        forced = tool_choice not in (None, "auto", "none")
        form = next(iter(wanted.values())) if forced and len(wanted) == 1 else None
        form = form if isinstance(form, type) and issubclass(form, BaseModel) else None
        described = [convert_to_openai_tool(tool) for tool in ({} if tool_choice == "none" else wanted).values()]
        return self.bind(tools=described, forced=forced, form=form, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        said = self._answer(messages, kwargs, None)
        generation = ChatGeneration(message=_reply(said, self.model.name, stop, kwargs))
        return ChatResult(generations=[generation], llm_output={"model_name": self.model.name})

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        if stop or kwargs.get("tools"):  # what is shown must be known to be words, and to stay
            yield _chunk(_reply(self._answer(messages, kwargs, None), self.model.name, stop, kwargs))
            return
        pieces = _Pieces(lambda on_text: self._answer(messages, kwargs, on_text))
        for piece in pieces:
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
            if run_manager is not None:
                run_manager.on_llm_new_token(piece, chunk=chunk)
            yield chunk
        last = _reply(pieces.result, self.model.name, None, kwargs)
        last.content = ""
        yield _chunk(last)

    def _answer(
        self, messages: list[BaseMessage], asked: dict[str, Any], on_text: Callable[[str], None] | None
    ) -> Generated:
        form = asked.get("form")
        tools = [_description(tool) for tool in asked.get("tools") or ()]
        max_tokens, forced = int(asked.get("max_tokens", self.max_tokens)), bool(asked.get("forced"))
        if tools and not forced and isinstance(self.model, CallsTools) and self.model.takes_tools():
            native = joined([turn(message, native=True) for message in messages])
            return self.model.generate_with_tools(native, tools, max_tokens=max_tokens)
        turns = [turn(message) for message in messages]
        if tools and form is None:
            told = tool_instructions(tools, forced=forced)
            turns.insert(1 if turns and turns[0].role == "system" else 0, Message("system", (told,)))
        return self.model.generate(
            joined(turns),
            max_tokens=max_tokens,
            schema=form,
            temperature=float(asked.get("temperature", self.temperature)),
            seed=int(asked.get("seed", self.seed)),
            on_text=on_text,
        )


class _Pieces:
    """The pieces of an answer as an iterator; the answer is generated in a thread of its own.

    Attributes:
        result: the answer, once all pieces were taken.

    Args:
        generate: gives the answer, and shows it as it grows to what it is given.
    """

    def __init__(self, generate: Callable[[Callable[[str], None]], Generated]) -> None:
        self.result: Generated
        self._generate = generate
        self._queue: queue.SimpleQueue[str | Generated | BaseException] = queue.SimpleQueue()
        self._left = threading.Event()

    def __iter__(self) -> Iterator[str]:
        threading.Thread(target=self._run, daemon=True).start()
        try:
            while True:
                found = self._queue.get()
                if isinstance(found, Generated):
                    self.result = found
                    return
                if isinstance(found, BaseException):
                    raise found
                yield found
        finally:
            self._left.set()

    def _run(self) -> None:
        try:
            self._queue.put(self._generate(self._show))
        except BaseException as error:  # noqa: BLE001  # raised again where the answer is waited for
            self._queue.put(error)

    def _show(self, piece: str) -> None:
        if self._left.is_set():
            raise _NobodyListensError
        self._queue.put(piece)


class _NobodyListensError(Exception):
    """Ends the generation of an answer that nobody waits for."""


def _description(tool: dict[str, Any]) -> ToolDescription:
    function = tool["function"]
    return ToolDescription(function["name"], function.get("description", ""), function.get("parameters", {}))


def _reply(said: Generated, model: str, stop: list[str] | None, asked: dict[str, Any]) -> AIMessage:
    """An answer as a message of LangChain."""
    text = said.text
    for mark in stop or ():
        text = text.split(mark, 1)[0]
    about: dict[str, Any] = {"model_name": model, "finish_reason": said.finish_reason}
    if said.tokens is not None and text == said.text:
        about["logprobs"] = {"content": [_scored(token) for token in said.tokens]}
    calls = _calls(said, text, asked)
    counts = (said.usage.get("prompt_tokens"), said.usage.get("completion_tokens"))
    usage = None
    if isinstance(counts[0], int) and isinstance(counts[1], int):
        usage = UsageMetadata(input_tokens=counts[0], output_tokens=counts[1], total_tokens=counts[0] + counts[1])
    beside = "" if asked.get("form") is not None else words_beside(text)
    return AIMessage(
        content=beside if calls else text,
        tool_calls=[call for call in calls if call["type"] == "tool_call"],
        invalid_tool_calls=[call for call in calls if call["type"] == "invalid_tool_call"],
        response_metadata=about,
        usage_metadata=usage,
    )


def _calls(said: Generated, text: str, asked: dict[str, Any]) -> list[LangChainCall | InvalidToolCall]:
    """The tool calls of an answer; one that is held to a form is its arguments."""
    if not asked.get("tools"):
        return []
    calls: Sequence[ToolCall] = said.calls or parse_tool_calls(text)
    if asked.get("form") is not None:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        calls = [ToolCall(asked["tools"][0]["function"]["name"], found)] if isinstance(found, dict) else []
    return [
        invalid_tool_call(name=one.name, id=one.id or f"call_{i}", error=one.fault)
        if one.fault
        else tool_call(name=one.name, args=dict(one.arguments), id=one.id or f"call_{i}")
        for i, one in enumerate(calls)
    ]


def _scored(token: Any) -> dict[str, Any]:
    top = [{"token": text, "logprob": logprob} for text, logprob in token.top]
    return {"token": token.text, "logprob": token.logprob, "entropy": token.entropy, "top_logprobs": top}


def _chunk(message: AIMessage) -> ChatGenerationChunk:
    """A whole message as the last piece of a stream."""
    calls = [
        tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=i)
        for i, call in enumerate([*message.tool_calls, *message.invalid_tool_calls])
    ]  # arguments that could not be read are null, which no tool takes: the call stays invalid
    return ChatGenerationChunk(
        message=AIMessageChunk(
            content=message.content,
            tool_call_chunks=calls,
            response_metadata=message.response_metadata,
            usage_metadata=message.usage_metadata,
        )
    )
