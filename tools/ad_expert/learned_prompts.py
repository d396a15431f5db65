"""Object-agnostic learnable text prompts after AnomalyCLIP (Zhou et al., 2024).

Two prompts, ``[V_1]...[V_12] object.`` and ``[W_1]...[W_12] damaged object.``, whose vectors V and W are learnt while
CLIP stays frozen, and four tokens that are learnt anew in front of each of the text tower's deeper layers. No prompt
names the product, so what is learnt on some products holds for others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import nn

PLACEHOLDER = "X"
"""A word of one token, whose embedding the learnt vectors replace."""
INIT_STD = 0.02

Tokenizer = Callable[[Sequence[str]], torch.Tensor]
"""Texts to token ids, int64 (T, L): the start token first, zeros or the end token to the right."""


class TextForward(Protocol):
    """The text tower: ``functools.partial(text_forward, model)`` of ``backbones.clip_tower``."""

    def __call__(
        self, token_ids: torch.Tensor, *, context: torch.Tensor | None, deep: Sequence[torch.Tensor | None] | None
    ) -> torch.Tensor:
        """Unit rows (T, D) of token ids (T, L): context (T, n, C) and deep tokens (m, C) stand behind the start."""
        ...


class LearnedPrompts(nn.Module):  # type: ignore[misc]
    """The two prompts.

    Parameters: ``normal_context`` and ``abnormal_context`` (n_ctx, C), ``deep.0`` ... (deep_tokens, C). The token ids
    are buffers, so that saved weights carry the words they were trained with.

    Args:
        tokenize: of the CLIP model that the prompts are for.
        width: C, width of the text tower's tokens (768 for ViT-L/14).
        n_ctx: learnt vectors in front of the words.
        deep_layers: layers of the text tower that see learnt tokens. The first sees the context vectors, so there are
            ``deep_layers - 1`` sets of deep tokens.
        deep_tokens: learnt tokens in each of them, in place of as many after the start token.
        normal: words of the normal prompt.
        abnormal: words of the abnormal one.
    """

    def __init__(
        self,
        tokenize: Tokenizer,
        width: int,
        *,
        n_ctx: int = 12,
        deep_layers: int = 9,
        deep_tokens: int = 4,
        normal: str = "object",
        abnormal: str = "damaged object",
    ) -> None:
        super().__init__()
        if n_ctx < 1 or deep_layers < 1 or not 0 <= deep_tokens <= n_ctx:
            raise ValueError("n_ctx and deep_layers must be at least 1 and deep_tokens at most n_ctx")
        self.normal_context = nn.Parameter(INIT_STD * torch.randn(n_ctx, width))
        self.abnormal_context = nn.Parameter(INIT_STD * torch.randn(n_ctx, width))
        self.deep = nn.ParameterList(
            nn.Parameter(INIT_STD * torch.randn(deep_tokens, width)) for _ in range(deep_layers - 1)
        )
        slots = " ".join([PLACEHOLDER] * n_ctx)
        ids = tokenize([f"{slots} {normal}.", f"{slots} {abnormal}."]).long()
        if (ids[:, 1 : 1 + n_ctx] != ids[0, 1]).any() or (ids[:, 1 + n_ctx] == ids[0, 1]).any():
            raise ValueError(f"the tokenizer does not give {PLACEHOLDER!r} a token of its own")
        self.register_buffer("normal_ids", ids[:1].clone())
        self.register_buffer("abnormal_ids", ids[1:].clone())

    def forward(
        self, text_forward: TextForward, abnormal_offset: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Text features of the prompts.

        Args:
            text_forward: the frozen text tower.
            abnormal_offset: (B, C), added to each learnt vector of the abnormal prompt, one prompt a picture
                (``hsp_clip.ClipSparsePrompts.text_offset``).

        Returns:
            Unit rows: normal (1, D), and abnormal (1, D), or (B, D) with an offset.
        """
        contexts = self.abnormal_context[None]
        if abnormal_offset is not None:
            contexts = contexts + abnormal_offset[:, None].to(contexts.dtype)
        context = torch.cat([self.normal_context[None], contexts])
        token_ids = torch.cat([self.normal_ids, self.abnormal_ids.expand(len(contexts), -1)])
        features = text_forward(token_ids, context=context, deep=[None, *self.deep])
        return features[:1], features[1:]
