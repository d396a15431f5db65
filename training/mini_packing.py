"""Several questions behind one prompt in one forward pass, so that what they share is computed once.

A pack is a context (instruction, pages, prior, pictures) and some endings (a question with its options, or a report).
Each ending sees the context and itself, at the positions it has when it stands alone; what a model learns is therefore
exactly what it is asked later, one question to a prompt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional

ATTENTION = "flawscope_packed"


@dataclass(frozen=True)
class Ending:
    """What follows a context.

    Attributes:
        ids: tokens.
        targets: (place in ``ids``, token that must be predicted there).
        options: (place of an option's last token, whether it is the right one).
    """

    ids: tuple[int, ...]
    targets: tuple[tuple[int, int], ...]
    options: tuple[tuple[int, bool], ...] = ()


@dataclass(frozen=True, eq=False)
class Pack:
    """A context and its endings.

    Attributes:
        ids: tokens of the context.
        endings: of one kind, about the same length.
        pictures: keys of the pictures in the context, in order; looked up by who embeds them.
        grids: merged rows and columns of each.
        group: what the pack is about; packs of a group are batched together, since they are about as long.
    """

    ids: tuple[int, ...]
    endings: tuple[Ending, ...]
    pictures: tuple[str, ...] = ()
    grids: tuple[tuple[int, int], ...] = ()
    group: str = ""


@dataclass(frozen=True, eq=False)
class Layout:
    """Where contexts and endings lie in a batch: ``context`` places, then ``endings`` times ``length``.

    Attributes:
        context: places of each context, padded on its left, so that endings follow it without a gap.
        endings: of each pack.
        length: places of each ending, padded on its right.
        hidden: bool (packs, context), True at padding.
    """

    context: int
    endings: int
    length: int
    hidden: torch.Tensor


@dataclass(eq=False)
class Batch:
    """Tensors of some packs.

    Attributes:
        ids: int64 (packs, context + endings * length).
        positions: int64 (3, packs, …).
        layout: see there.
        pictures: (pack, places in its row, key) of each picture.
        targets: (pack, place, token) rows, int64 (n, 3).
        options: (pack, place) rows, int64 (m, 2).
        right: float32 (m,), 1 for right options.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    layout: Layout
    pictures: list[tuple[int, range, str]]
    targets: torch.Tensor
    options: torch.Tensor
    right: torch.Tensor
    groups: list[str] = field(default_factory=list)


def collate(packs: Sequence[Pack], pad: int, image: int) -> Batch:
    """Lay packs out.

    Args:
        packs: with equally many endings.
        pad: token of places that hold nothing.
        image: token that keeps the place of a merged picture feature.

    Raises:
        ValueError: packs with different numbers of endings, or pictures that do not fit the context's places.
    """
    count = len(packs[0].endings)
    if any(len(pack.endings) != count for pack in packs):
        raise ValueError("packs of a batch have equally many endings")
    context = max(len(pack.ids) for pack in packs)
    length = max(len(ending.ids) for pack in packs for ending in pack.endings)
    ids = torch.full((len(packs), context + count * length), pad)
    positions = torch.zeros((3, *ids.shape), dtype=torch.long)
    hidden = torch.zeros((len(packs), context), dtype=torch.bool)
    pictures: list[tuple[int, range, str]] = []
    targets: list[tuple[int, int, int]] = []
    options: list[tuple[int, int]] = []
    right: list[float] = []
    for row, pack in enumerate(packs):
        begin = context - len(pack.ids)
        hidden[row, :begin] = True
        ids[row, begin:context] = torch.tensor(pack.ids)
        places, following = rope_positions(pack.ids, pack.grids, image)
        positions[:, row, begin:context] = places
        where = [begin + i for i, token in enumerate(pack.ids) if token == image]
        if len(where) != sum(h * w for h, w in pack.grids):
            raise ValueError("the context's places do not fit its pictures")
        for key, (h, w) in zip(pack.pictures, pack.grids, strict=True):
            pictures.append((row, range(where[0], where[0] + h * w), key))
            where = where[h * w :]
        for number, ending in enumerate(pack.endings):
            start = context + number * length
            n = len(ending.ids)
            ids[row, start : start + n] = torch.tensor(ending.ids)
            positions[:, row, start : start + length] = following + torch.arange(length)
            targets += [(row, start + place, token) for place, token in ending.targets]
            options += [(row, start + place) for place, _ in ending.options]
            right += [float(is_right) for _, is_right in ending.options]
    layout = Layout(context, count, length, hidden)
    return Batch(
        ids,
        positions,
        layout,
        pictures,
        torch.tensor(targets).reshape(-1, 3),
        torch.tensor(options, dtype=torch.long).reshape(-1, 2),
        torch.tensor(right),
        [pack.group for pack in packs for _ in pack.endings],
    )


def rope_positions(ids: Sequence[int], grids: Sequence[tuple[int, int]], image: int) -> tuple[torch.Tensor, int]:
    """Positions of a prompt in time, row and column, as Qwen2.5-VL counts them.

    Words advance all three; a picture stands still in time while rows and columns count, and what follows it begins
    behind the larger of both.

    Args:
        ids: tokens.
        grids: merged rows and columns of each picture.
        image: token that keeps the place of a merged feature.

    Returns:
        int64 (3, n), and the position of the token that follows.
    """
    places = torch.zeros((3, len(ids)), dtype=torch.long)
    following, index, left = 0, 0, list(grids)
    while index < len(ids):
        if ids[index] == image and left:
            h, w = left.pop(0)
            cells = torch.arange(h * w)
            places[:, index : index + h * w] = following + torch.stack([0 * cells, cells // w, cells % w])
            following, index = following + max(h, w), index + h * w
        else:
            places[:, index] = following
            following, index = following + 1, index + 1
    return places, following


def packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Layout,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention in which contexts see themselves and endings see their context and themselves.

    Args:
        module: the layer; not needed.
        query: (packs, heads, n, d).
        key: the same shape: this is for models without shared key heads.
        value: the same shape.
        attention_mask: where everything lies.
        scaling: of the scores; one over the root of d by default.
        dropout: must be 0.
        _: what transformers hands to attention functions of any kind.

    Returns:
        (packs, n, heads, d), and None for the weights.
    """
    del module, dropout
    at = attention_mask
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    packs, heads, _n, d = query.shape
    c, k, m = at.context, at.endings, at.length
    shut = torch.finfo(query.dtype).min / 2
    absent = torch.zeros(at.hidden.shape, dtype=query.dtype).masked_fill(at.hidden, shut)[:, None, None]
    ahead = torch.full((max(c, m), max(c, m)), shut, dtype=query.dtype).triu(1)
    with torch.autocast(query.device.type, enabled=False):  # which would take the softmax to fp32 and back
        asked, of_ending = (query * scale).split([c, k * m], dim=2)
        keys, own_keys = key.to(query.dtype).split([c, k * m], dim=2)
        values, own_values = value.to(query.dtype).split([c, k * m], dim=2)
        shares = functional.softmax((asked @ keys.transpose(-1, -2)).add_(absent + ahead[:c, :c]), dim=-1)
        seen = [shares @ values]
        if k:
            apart = (packs, heads, k, m, d)
            to_own = of_ending.reshape(apart) @ own_keys.reshape(apart).transpose(-1, -2)
            to_context = (of_ending @ keys.transpose(-1, -2)).add_(absent).reshape(packs, heads, k, m, c)
            scores = torch.cat([to_context, to_own.add_(ahead[:m, :m])], dim=-1)
            of_context, of_own = functional.softmax(scores, dim=-1).split([c, m], dim=-1)
            found = of_context.reshape(packs, heads, k * m, c) @ values
            seen.append(found + (of_own @ own_values.reshape(apart)).reshape(packs, heads, k * m, d))
        return torch.cat(seen, dim=2).transpose(1, 2), None


def use_packed_attention(model: Any) -> None:
    """Make a model's language part read batches of `collate`; its files are not touched by that."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, packed_attention)
    for layer in model.model.language_model.layers:
        layer.self_attn.config._attn_implementation = ATTENTION


def letters_among(wanted: torch.Tensor, letters: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Which targets are letters of options, bool (n,), and the number of each that is, int64 (m,)."""
    same = wanted[:, None] == torch.tensor(letters)[None]
    is_letter = same.any(dim=1)
    return is_letter, same[is_letter].long().argmax(dim=1)


def read_batch(
    model: Any, batch: Batch, features: dict[str, torch.Tensor], layers: Sequence[int]
) -> list[torch.Tensor]:
    """Hidden states of a batch.

    Args:
        model: after `use_packed_attention`.
        batch: of `collate`.
        features: merged features (h * w, width) by picture.
        layers: whose outputs to return beside the last one's, 1 is the first layer.

    Returns:
        (packs, n, width) of each layer asked for, then of the end.
    """
    language = model.model.language_model
    embeds = language.embed_tokens(batch.ids)
    if batch.pictures:
        embeds = embeds.clone()
        for row, places, key in batch.pictures:
            embeds[row, places.start : places.stop] = features[key].to(embeds.dtype)
    out = language(
        inputs_embeds=embeds,
        position_ids=batch.positions,
        attention_mask={"full_attention": batch.layout},
        use_cache=False,
        output_hidden_states=bool(layers),
    )
    return [*(out.hidden_states[layer] for layer in layers), out.last_hidden_state]


def cosine_rate(share: float, warm_up: float, floor: float = 0.02) -> float:
    """Part of the peak learning rate after a share of the run: a straight warm-up, then half a cosine to a floor."""
    if share < warm_up:
        return max(share / warm_up, 0.02)
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * (share - warm_up) / (1.0 - warm_up)))
