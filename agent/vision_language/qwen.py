"""Qwen2.5-VL in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from pydantic import BaseModel

from ..errors import BackendError
from .base import Generated, LetterAnswer, OnText
from .checkpoint import Checkpoint
from .decoding import Decoder, Prefix, letter_probabilities, prefill
from .encoding import Encoded, Encoder
from .grammar import Grammars
from .messages import Message, SlotName
from .sharing import release
from .tool_text import ToolDescription, parse_tool_calls


class QwenModel:
    """A Qwen2.5-VL checkpoint; may be shared by threads, which it serves one after the other.

    Attributes:
        name: folder of the checkpoint.
        checkpoint: model and processor.
        encoder: makes prompts.
        decoder: makes answers.

    Args:
        checkpoint: of `load_checkpoint`.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.name = checkpoint.folder.name
        self.checkpoint = checkpoint
        self.encoder = Encoder(checkpoint)
        self.decoder = Decoder(checkpoint.model, checkpoint.processor.tokenizer)
        self.lock = checkpoint.lock
        self._closed = False

    def close(self) -> None:
        """Let go of the weights; when nobody uses them any more they are freed. The model is of no use then."""
        if not self._closed:
            self._closed = True
            release(self.checkpoint)

    @cached_property
    def grammars(self) -> Grammars:
        """Compiled schemas."""
        return Grammars(self.checkpoint.processor.tokenizer, self.decoder.vocabulary)

    @property
    def width(self) -> int:
        """d, of the language model's embeddings."""
        return int(self.checkpoint.model.get_input_embeddings().weight.shape[1])

    @cached_property
    def median_row_norm(self) -> float:
        """Median Euclidean length of the token embeddings, which vectors that are no words are brought to."""
        weight = self.checkpoint.model.get_input_embeddings().weight
        return float(weight.detach().float().norm(dim=1).median())

    def warm_up(self) -> None:
        """Run one token, so that the first picture does not pay for what is set up on first use."""
        self.choose([Message("user", ("A or B?",))], ("A", "B"))

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
        """Answer in words; see `VisionLanguageModel.generate`."""
        with self.lock, out_of_memory(self.checkpoint.device):
            encoded = self.encoder.encode(messages, room=max_tokens)
            prefix = self.prefix(encoded)
            matcher = None if schema is None else self.grammars.matcher(schema)
            said = self.decoder.decode(
                prefix,
                max_tokens=max_tokens,
                matcher=matcher,
                temperature=temperature,
                seed=seed,
                on_text=on_text,
            )
            return replace(said, usage={**said.usage, **encoded.told})

    def takes_tools(self) -> bool:
        """Whether the checkpoint's chat template has places for tools, calls and results; see `CallsTools`."""
        return self.encoder.shows_tools

    def generate_with_tools(
        self, messages: Sequence[Message], tools: Sequence[ToolDescription], *, max_tokens: int = 1024
    ) -> Generated:
        """Answer in words or by calls, which stand in the text as well; see `CallsTools.generate_with_tools`."""
        with self.lock, out_of_memory(self.checkpoint.device):
            encoded = self.encoder.encode(messages, tools=tools, room=max_tokens)
            said = self.decoder.decode(self.prefix(encoded), max_tokens=max_tokens)
            usage = {**said.usage, **encoded.told}
            return replace(said, calls=parse_tool_calls(said.text), usage=usage)

    def choose(self, messages: Sequence[Message], letters: Sequence[str]) -> LetterAnswer:
        """Answer with a letter; see `VisionLanguageModel.choose`."""
        with self.lock, out_of_memory(self.checkpoint.device):
            encoded = self.encoder.encode(messages)
            prefix = self.prefix(encoded)
            probabilities, mass = letter_probabilities(prefix.logits, letters, self.letter_ids(letters))
            letter = max(letters, key=lambda one: probabilities[one])
            usage = {"prompt_tokens": prefix.length, "completion_tokens": 1, **encoded.told}
            said = self.decoder.name(int(prefix.logits.argmax()))
            return LetterAnswer(letter, probabilities, mass, said.strip(), usage)

    def prefix(self, encoded: Encoded, fills: Mapping[SlotName, torch.Tensor] | None = None) -> Prefix:
        """Prompt -> attention keys and values, and the raw logits of the first answer token."""
        embeds = self.encoder.embeddings(encoded, fills)
        return prefill(self.checkpoint.model, embeds, encoded.position_ids)

    def letter_ids(self, letters: Sequence[str]) -> list[list[int]]:
        """For each letter the single tokens that say it, with and without a blank before it.

        Raises:
            BackendError: the tokenizer has none for a letter.
        """
        found = []
        for letter in letters:
            ids = [self.encoder.token_ids(form) for form in (letter, f" {letter}")]
            single = sorted({each[0] for each in ids if len(each) == 1})
            if not single:
                raise BackendError(f"this checkpoint's tokenizer has no single token for the option {letter!r}.")
            found.append(single)
        return found


class out_of_memory:  # noqa: N801  # reads as a statement: with out_of_memory(device):
    """Turn running out of memory into the error that says what to do.

    Args:
        device: where.
    """

    def __init__(self, device: str) -> None:
        self.device = device

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, torch.OutOfMemoryError):
            raise BackendError(
                f"the vision-language model ran out of memory on {self.device}.",
                hint="Set a smaller vlm_max_pixels, fewer documents, vlm_4bit, or use a server (--profile served).",
            ) from error
