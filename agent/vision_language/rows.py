"""Prompts whose answers grow together, one token for each at a time, and a prompt alone in that form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch

if TYPE_CHECKING:
    from .decoding import Prefix


class Rows(Protocol):
    """Prompts side by side whose answers grow together.

    Attributes:
        logits: float32 (B, V), raw, of each row's next token.
        lengths: of the prompts, in tokens.
    """

    logits: torch.Tensor
    lengths: Sequence[int]

    def step(self, tokens: Sequence[int]) -> None:
        """One more token for each row."""
        ...


class OneRow:
    """A computed prompt alone; see `Rows`.

    Args:
        model: ``Qwen2_5_VLForConditionalGeneration``.
        prefix: the prompt.
    """

    def __init__(self, model: Any, prefix: Prefix) -> None:
        self.logits = prefix.logits[None]
        self.lengths: Sequence[int] = (prefix.length,)
        self._model, self._cache, self._position = model, prefix.cache(), prefix.next_position
        self._seen = prefix.length

    def step(self, tokens: Sequence[int]) -> None:
        """One more token."""
        device = self.logits.device
        self._seen += 1
        with torch.no_grad():
            out = self._model(
                inputs_embeds=self._model.get_input_embeddings()(torch.tensor([list(tokens)], device=device)),
                attention_mask=torch.ones((1, self._seen), dtype=torch.long, device=device),
                position_ids=torch.full((3, 1, 1), self._position, device=device),
                past_key_values=self._cache,
                use_cache=True,
            )
        self._cache, self._position = out.past_key_values, self._position + 1
        self.logits = out.logits[:, -1].float()
