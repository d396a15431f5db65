"""A vision-language model behind an OpenAI-compatible server: vLLM, SGLang, llama.cpp, Ollama, a hosted one."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from pydantic import BaseModel

from ..errors import EndpointError
from ..language_model import Capabilities, ChatClient, ChatMessage, ChatReply, probe
from ..language_model.retrying import UNSUPPORTED
from ..language_model.structured import Form, complete_in_form
from .base import Generated, LetterAnswer, OnText
from .messages import Message
from .outgoing import outgoing
from .reported import letter_answer, reported_k, token_scores
from .tool_text import ToolDescription, called, native_description

MAX_PIXELS = 1_003_520
"""Of a picture that is sent: 1280 places of 28 x 28 px, as a model in this process sees it."""
LETTER_TOKENS = 8
"""Enough for "The correct answer is B."; a letter alone takes one."""
LETTERS_A_TOKEN = 32
"""A longer answer for each token that was asked for is cut: whoever sends it keeps to no limit, and it would be read
for as long as it is."""
COUNTS = re.compile(r"[a-z_]{1,40}_tokens")
"""What of a server's counts is taken over; ``left_out`` and others have a meaning of their own here."""


class ServedModel:
    """Asks a server; may be shared by threads, the client limits how many questions are under way.

    What the server can do is found out with the first question, by a few short ones, and once. Who asks meanwhile
    waits for the same examination, and fails with it: a server that hangs is not waited for by one after the other.

    Attributes:
        name: of the model, as it is asked for.

    Args:
        client: of the server.
        max_pixels: larger pictures are reduced before they are sent.
    """

    def __init__(self, client: ChatClient, *, max_pixels: int = MAX_PIXELS) -> None:
        self.name = client.endpoint.model
        self._client = client
        self._max_pixels = max_pixels
        self._lock = threading.Lock()
        self._examined: Future[Capabilities] | None = None
        self._forms: dict[str, Form] = {}
        self._refuses_tools = False

    @property
    def capabilities(self) -> Capabilities:
        """What the server can do.

        Raises:
            EndpointError: it cannot be reached, or refuses the key or the model.
        """
        with self._lock:
            examined, mine = self._examined, self._examined is None
            if examined is None:
                examined = self._examined = Future()
        if mine:
            try:
                examined.set_result(probe(self._client))
            except BaseException as error:
                self._examined = None  # whoever asks from now on examines it anew
                examined.set_exception(error)
                raise
        return examined.result()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def warm_up(self) -> None:
        """Find out what the server can do, so that the first picture does not wait for it."""
        _ = self.capabilities

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

        A server that refuses a schema is asked in the next weaker form, for schemas of that name from then on at
        once. Where the
        server reports what the schema left of the probabilities instead of the model's own, ``usage`` says ``scores:
        masked``: forced tokens look certain then, and the options of a value share the whole of it among them.

        Raises:
            EndpointError: the server failed, or takes no pictures.
        """
        asked, options = self._question(messages, max_tokens, temperature, seed)
        options["on_text"] = on_text
        if schema is None:
            return _generated(self._client.complete(asked, **options), {"form": "text"}, max_tokens)
        can = self.capabilities
        form = self._forms.get(schema.__name__, can.form)
        if form != "text" and can.form_scores is None:
            options["top_logprobs"] = None
        reply, form = complete_in_form(self._client, asked, schema, form, **options)
        self._forms[schema.__name__] = form
        scores = {} if form == "text" or reply.logprobs is None else {"scores": can.form_scores}
        return _generated(reply, {"form": form, **scores}, max_tokens)

    def takes_tools(self) -> bool:
        """Whether the server hands tools on and calls back in the protocol's own way; see `CallsTools`."""
        return self.capabilities.tools and not self._refuses_tools

    def generate_with_tools(
        self, messages: Sequence[Message], tools: Sequence[ToolDescription], *, max_tokens: int = 1024
    ) -> Generated:
        """Answer in words or by calls; see `CallsTools.generate_with_tools`.

        A server that refuses such a question (some do with pictures) takes no tools from then on.

        Raises:
            EndpointError: the server failed, or takes no pictures.
        """
        asked, options = self._question(messages, max_tokens, 0.0, 0)
        try:
            reply = self._client.complete(asked, tools=[native_description(tool) for tool in tools], **options)
        except EndpointError as error:
            self._refuses_tools = error.status in UNSUPPORTED
            raise
        return _generated(reply, {"form": "text"}, max_tokens)

    def choose(self, messages: Sequence[Message], letters: Sequence[str]) -> LetterAnswer:
        """Answer with a letter; see `VisionLanguageModel.choose` and `reported.letter_answer`.

        Raises:
            EndpointError: the server failed, or takes no pictures.
        """
        asked, options = self._question(messages, LETTER_TOKENS, 0.0, 0)
        reply = self._client.complete(asked, **options)
        tokens = token_scores(reply.logprobs)
        usage = {**_counts(reply.usage), **reported_k(tokens), "tries": reply.tries}
        return letter_answer(reply.text[: LETTERS_A_TOKEN * LETTER_TOKENS], tokens, letters, usage)

    def _question(
        self, messages: Sequence[Message], max_tokens: int, temperature: float, seed: int
    ) -> tuple[tuple[ChatMessage, ...], dict[str, Any]]:
        can = self.capabilities
        if not can.pictures and any(message.pictures for message in messages):
            raise EndpointError(
                f"the served model {can.model} takes no pictures.",
                hint="Set llm_model to a vision-language model, and serve it with its projector (docs/serving.md).",
            )
        options: dict[str, Any] = {"max_tokens": max_tokens, "top_logprobs": can.top_logprobs}
        if can.sampling:
            options |= {"temperature": temperature, "seed": seed}
        return outgoing(messages, self._max_pixels), options


def _generated(reply: ChatReply, how: dict[str, Any], max_tokens: int) -> Generated:
    tokens = token_scores(reply.logprobs)
    usage = {**_counts(reply.usage), **reported_k(tokens), "tries": reply.tries, **how}
    calls = tuple(called(call.name, call.arguments, call.id) for call in reply.calls)
    text = reply.text[: LETTERS_A_TOKEN * max_tokens]
    cut = reply.was_cut or len(text) < len(reply.text)
    return Generated(text, tokens, "length" if cut else "stop", usage, calls=calls)


def _counts(usage: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in usage.items() if COUNTS.fullmatch(name)}
