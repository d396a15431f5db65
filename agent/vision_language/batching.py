"""Several conversations in one forward pass: shorter prompts are padded on the left and never attended to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from pydantic import BaseModel

from .base import Generated, LetterAnswer
from .decoding import letter_probabilities
from .encoding import Encoded
from .messages import Message
from .qwen import QwenModel, out_of_memory


def choose_many(
    model: QwenModel, conversations: Sequence[Sequence[Message]], letters: Sequence[Sequence[str]]
) -> list[LetterAnswer]:
    """`QwenModel.choose` for several questions at once.

    Args:
        model: whom to ask.
        conversations: the questions.
        letters: the options of each.
    """
    with model.lock, out_of_memory(model.checkpoint.device):
        encoded = [model.encoder.encode(messages, at_once=len(conversations)) for messages in conversations]
        logits = _Batch(model, encoded).logits
        answers = []
        for row, one, options in zip(logits, encoded, letters, strict=True):
            probabilities, mass = letter_probabilities(row, options, model.letter_ids(options))
            letter = max(options, key=lambda option: probabilities[option])
            usage = {"prompt_tokens": one.length, "completion_tokens": 1, **one.told}
            said = model.decoder.name(int(row.argmax())).strip()
            answers.append(LetterAnswer(letter, probabilities, mass, said, usage))
        return answers


def generate_many(
    model: QwenModel,
    conversations: Sequence[Sequence[Message]],
    *,
    max_tokens: int = 1024,
    schema: type[BaseModel] | None = None,
) -> list[Generated]:
    """`QwenModel.generate` for several conversations at once, each with the likeliest tokens.

    Args:
        model: whom to ask.
        conversations: what is asked.
        max_tokens: of each answer, at most.
        schema: the form of the answers, enforced.
    """
    with model.lock, out_of_memory(model.checkpoint.device):
        many = len(conversations)
        encoded = [model.encoder.encode(messages, room=max_tokens, at_once=many) for messages in conversations]
        matchers = [None if schema is None else model.grammars.matcher(schema) for _ in encoded]
        said = model.decoder.decode_rows(_Batch(model, encoded), max_tokens=max_tokens, matchers=matchers)
        return [replace(one, usage={**one.usage, **prompt.told}) for one, prompt in zip(said, encoded, strict=True)]


class _Batch:
    """Prompts side by side, and the cache that grows behind them.

    Attributes:
        logits: float32 (B, V), raw, of each row's next token.
        lengths: of the prompts, in tokens, without what pads them.
    """

    def __init__(self, model: QwenModel, encoded: Sequence[Encoded]) -> None:
        self.lengths: Sequence[int] = tuple(one.length for one in encoded)
        self._model = model.checkpoint.model
        embeds = [model.encoder.embeddings(one) for one in encoded]
        longest = max(one.length for one in encoded)
        width = embeds[0].shape[2]
        whole = embeds[0].new_zeros((len(encoded), longest, width))
        self._mask = torch.zeros((len(encoded), longest), dtype=torch.long, device=whole.device)
        positions = torch.ones((3, len(encoded), longest), dtype=torch.long, device=whole.device)
        for row, (one, each) in enumerate(zip(encoded, embeds, strict=True)):
            begin = longest - one.length
            whole[row, begin:] = each[0]
            self._mask[row, begin:] = 1
            positions[:, row, begin:] = one.position_ids[:, 0]
        self._next = positions.amax(dim=(0, 2)) + 1
        self._cache = None
        self._forward(whole, positions)

    def step(self, tokens: Sequence[int]) -> None:
        """One more token for each row."""
        ids = torch.tensor(tokens, device=self._mask.device)[:, None]
        self._mask = torch.cat([self._mask, self._mask.new_ones((len(tokens), 1))], dim=1)
        positions = self._next[None, :, None].expand(3, -1, 1)
        self._next = self._next + 1
        self._forward(self._model.get_input_embeddings()(ids), positions)

    def _forward(self, embeds: torch.Tensor, positions: torch.Tensor) -> None:
        with torch.no_grad():
            out = self._model(
                inputs_embeds=embeds,
                attention_mask=self._mask,
                position_ids=positions,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        self._cache = out.past_key_values
        self.logits = out.logits[:, -1].float()
