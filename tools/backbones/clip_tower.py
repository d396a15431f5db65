"""The two towers of CLIP as functions on an open_clip model: patch tokens that speak the language of text, and prompts.

CLIP was trained to match its class token with text; its patch tokens drift from that space. AnomalyCLIP (Zhou et al.,
ICLR 2024, section 3.2, "DPAM") lets a second path run beside the original one: from a quarter of the depth on it adds
each block's attention output computed with values in place of queries and keys, softmax(V V^T / sqrt(d)) V, always from
the original path's tokens, and skips the feed-forward layers. The original path is not touched, so the global feature
stays CLIP's own.

Everything here is differentiable; who needs no gradients says so. Both functions take the modules of
``open_clip.model.CLIP`` with plain transformer blocks (``clip_checkpoint.require_plain_towers`` checks that).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 (its customary name)

STAGES = 4
StagePrompts = Callable[[int, torch.Tensor], "torch.Tensor | None"]
"""(stage index 0..3, patch tokens (B, N, C)) -> prompt tokens (B, m, C), or None for a stage without."""


class VisionOutput(NamedTuple):
    """What the vision tower sees, in the space that it shares with text.

    Attributes:
        patch_tokens: per layer (B, N, D), unit length, from the V-V path.
        global_features: (B, D), unit length, CLIP's own image feature.
    """

    patch_tokens: tuple[torch.Tensor, ...]
    global_features: torch.Tensor


def default_layers(depth: int) -> tuple[int, ...]:
    """The blocks after which the four stages of a tower end, counted from 1: 6, 12, 18, 24 for 24 blocks."""
    return tuple(depth * stage // STAGES for stage in range(1, STAGES + 1))


def interpolate_positions(positions: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Position embeddings for another grid than the one they were trained on.

    Bilinear, as in AnomalyCLIP's published runs at 518 px, so that maps can be compared with them.

    Args:
        positions: (1 + n * n, C), the class token's first, then the square grid's in raster order.
        grid: wanted (h, w).

    Returns:
        (1 + h * w, C); the same tensor when the grid is its own.
    """
    side = round((positions.shape[0] - 1) ** 0.5)
    if (side, side) == grid:
        return positions
    square = positions[1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(square, size=grid, mode="bilinear", align_corners=False)
    return torch.cat([positions[:1], resized.permute(0, 2, 3, 1).reshape(grid[0] * grid[1], -1)])


def vision_forward(
    visual: Any,
    pixels: torch.Tensor,
    *,
    layers: Sequence[int],
    valid: torch.Tensor | None = None,
    stage_prompts: StagePrompts | None = None,
) -> VisionOutput:
    """Run the vision tower with its second, V-V path.

    Args:
        visual: ``model.visual``.
        pixels: float (B, 3, H, W), normalised; H and W multiples of the patch size.
        layers: blocks whose patch tokens are wanted, counted from 1. Up to a quarter of the depth they are the original
            path's tokens, from there on the V-V path's.
        valid: bool, which patches show the picture (raster order). (N,) for a whole batch: the others are never
            computed and are absent from the result. (B, N) for pictures of different shapes: the others are hidden
            from every attention, and zero in the result.
        stage_prompts: gives tokens that stand behind the class token from the start of a stage (a quarter of the
            blocks) to its end; it is shown the original path's patch tokens at the start.

    Returns:
        The patch tokens of ``layers`` and the global feature.
    """
    x = _embed(visual, pixels)
    if valid is not None and valid.ndim == 1:
        x = x[:, F.pad(valid, (1, 0), value=True)]
    hidden = valid if valid is not None and valid.ndim == 2 else None
    blocks = visual.transformer.resblocks
    depth = len(blocks)
    ends = default_layers(depth)
    starts = {0: 0, **{end: stage for stage, end in enumerate(ends[:-1], 1)}}
    first_dense, last_dense = max(1, ends[0]), max(layers)
    mask = _key_mask(hidden, 0)
    prompts, dense, found = 0, x[:, 1:], {}
    for index, block in enumerate(blocks, 1):
        if stage_prompts is not None and index - 1 in starts:
            x, prompts = _prepend(x, stage_prompts(starts[index - 1], x[:, 1:]))
            mask = _key_mask(hidden, prompts)
        if index == first_dense:
            dense = x[:, 1 + prompts :]
        attention = _Attention(block, x)
        if first_dense <= index <= last_dense:
            dense = dense + attention.value_value(1 + prompts, mask)
        # Of the last block's original path only the class token is read; its patches come from the V-V path.
        asking = 1 if index == depth else x.shape[1]
        x = x[:, :asking] + attention.query_key_value(mask, asking)
        x = x + block.ls_2(block.mlp(block.ln_2(x)))
        if prompts and index in ends:
            x, prompts = torch.cat([x[:, :1], x[:, 1 + prompts :]], dim=1), 0
            mask = _key_mask(hidden, 0)
        if index in layers:
            found[index] = dense if index >= first_dense else x[:, 1 + prompts :]
    tokens = tuple(F.normalize(visual.ln_post(found[layer]) @ visual.proj, dim=-1) for layer in layers)
    if hidden is not None:
        tokens = tuple(layer * hidden[..., None] for layer in tokens)
    return VisionOutput(tokens, F.normalize(visual.ln_post(x[:, 0]) @ visual.proj, dim=-1))


def text_forward(
    model: Any,
    token_ids: torch.Tensor,
    *,
    context: torch.Tensor | None = None,
    deep: Sequence[torch.Tensor | None] | None = None,
) -> torch.Tensor:
    """Run the text tower, with learnable tokens where they are given.

    Args:
        model: the open_clip model.
        token_ids: int64 (T, L): start of text, ``n_ctx`` placeholders when a context is given, the words, end of text.
        context: (T, n_ctx, C), stands in the placeholders' place before the positions are added.
        deep: one entry per block from the first on. Entry i, (m, C), overwrites the m tokens behind the start of text
            before block i; None leaves them alone. The placeholders must leave room for m. AnomalyCLIP's scheme, where
            the first block sees the context itself, is ``[None, tokens_1, ..., tokens_8]``.

    Returns:
        (T, D), unit length.
    """
    ends = token_ids.argmax(dim=-1)  # the end of text has the highest id
    # A token sees only what stands before it, so the padding behind the last end of text changes nothing.
    length = int(ends.max()) + 1
    x = model.token_embedding(token_ids[:, :length])
    if context is not None:
        x = _overwrite(x, context)
    x = x + model.positional_embedding[:length]
    causal = model.attn_mask[:length, :length] == 0  # additive; as a bool it survives mixed precision
    for index, block in enumerate(model.transformer.resblocks):
        tokens = deep[index] if deep is not None and index < len(deep) else None
        if tokens is not None:
            x = _overwrite(x, tokens.expand(len(x), -1, -1))
        x = x + _Attention(block, x).query_key_value(causal)
        x = x + block.ls_2(block.mlp(block.ln_2(x)))
    pooled = model.ln_final(x[torch.arange(len(x), device=x.device), ends])
    return F.normalize(pooled @ model.text_projection, dim=-1)


class _Attention:
    """The self-attention of a residual block on given tokens (B, N, C), queries, keys and values at hand."""

    def __init__(self, block: Any, x: torch.Tensor) -> None:
        self._block = block
        attn = block.attn
        projected = F.linear(block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias)
        batch, count, width = x.shape
        split = projected.reshape(batch, count, 3, attn.num_heads, width // attn.num_heads)
        self._q, self._k, self._v = split.permute(2, 0, 3, 1, 4).unbind(0)

    def query_key_value(self, mask: torch.Tensor | None, count: int | None = None) -> torch.Tensor:
        """What the block adds to each of the first ``count`` tokens (all by default), (B, count, C)."""
        return self._project(F.scaled_dot_product_attention(self._q[:, :, :count], self._k, self._v, attn_mask=mask))

    def value_value(self, first: int, mask: torch.Tensor | None) -> torch.Tensor:
        """softmax(V V^T / sqrt(d)) V through the block's own output projection, for the tokens from ``first`` on."""
        v = self._v
        return self._project(F.scaled_dot_product_attention(v[:, :, first:], v, v, attn_mask=mask))

    def _project(self, heads: torch.Tensor) -> torch.Tensor:
        merged = heads.transpose(1, 2).flatten(2)
        out: torch.Tensor = self._block.ls_1(self._block.attn.out_proj(merged))
        return out


def _embed(visual: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Class token and patch embeddings with their positions, (B, 1 + h * w, C)."""
    patches = visual.conv1(pixels)
    grid = (patches.shape[2], patches.shape[3])
    patches = patches.flatten(2).transpose(1, 2)
    first = visual.class_embedding.expand(len(patches), 1, -1)
    x: torch.Tensor = visual.ln_pre(
        torch.cat([first, patches], dim=1) + interpolate_positions(visual.positional_embedding, grid)
    )
    return x


def _key_mask(valid: torch.Tensor | None, prompts: int) -> torch.Tensor | None:
    """(B, N) -> (B, 1, 1, 1 + prompts + N): the class token and the prompts are always seen."""
    return None if valid is None else F.pad(valid, (1 + prompts, 0), value=True)[:, None, None, :]


def _prepend(x: torch.Tensor, prompts: torch.Tensor | None) -> tuple[torch.Tensor, int]:
    if prompts is None:
        return x, 0
    return torch.cat([x[:, :1], prompts.to(x.dtype), x[:, 1:]], dim=1), prompts.shape[1]


def _overwrite(x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Put tokens (T, m, C) behind the start of text."""
    return torch.cat([x[:, :1], tokens.to(x.dtype), x[:, 1 + tokens.shape[1] :]], dim=1)
