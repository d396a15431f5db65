"""From messages to what Qwen2.5-VL reads: token ids, picture features and three-dimensional positions.

Positions are always computed from the ids and handed on: a forward pass from embeddings alone falls back to positions
in one dimension, and the grid of the picture is lost without a word.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from PIL import Image

from ..artifacts import reference_of
from ..errors import BackendError
from .checkpoint import Checkpoint
from .messages import Message, Picture, Slot, SlotName
from .tool_text import ToolCall, ToolDescription, native_description

SLOT_TOKENS = ("<|quad_start|>", "<|object_ref_start|>", "<|fim_pad|>")
"""Special tokens that chat prompts never hold; one of them keeps the places of slots."""
KEPT_PICTURES = 64
"""Pictures whose features are kept: the questions about one picture, and references, come one after the other."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """A prompt as the model reads it.

    Attributes:
        input_ids: int64 (1, n).
        position_ids: int64 (3, 1, n): time, row, column.
        pictures: their places in the prompt, in order.
        grids: rows and columns of each picture's merged features.
        slots: where the vectors of each slot go.
        filled: vectors (length, d) that came with the slots.
        features: merged features (n_i, d) of each picture.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    pictures: tuple[range, ...]
    grids: tuple[tuple[int, int], ...]
    slots: Mapping[SlotName, range]
    filled: Mapping[SlotName, torch.Tensor]
    features: tuple[torch.Tensor, ...]

    @property
    def length(self) -> int:
        """n, tokens of the prompt."""
        return int(self.input_ids.shape[1])


@dataclass
class Encoder:
    """Encodes prompts for one checkpoint.

    Args:
        checkpoint: whose.
    """

    checkpoint: Checkpoint
    _features: OrderedDict[str, tuple[torch.Tensor, tuple[int, int, int]]] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        tokenizer = self.checkpoint.processor.tokenizer
        known = tokenizer.get_vocab()
        self.slot_token = next((token for token in SLOT_TOKENS if token in known), None)
        self.slot_id = None if self.slot_token is None else int(known[self.slot_token])
        config = self.checkpoint.model.config
        self.image_id = int(config.image_token_id)
        self.image_token = str(self.checkpoint.processor.image_token)
        self.merge = int(config.vision_config.spatial_merge_size)

    @cached_property
    def shows_tools(self) -> bool:
        """Whether the chat template writes tools, calls and results where it is given them; many leave them out."""
        from jinja2 import TemplateError

        names = ("tool_one", "call_two", "result_three")
        asked = (
            Message("user", ("?",)),
            Message("assistant", (), (ToolCall(names[1], {}, "call00001"),)),
            Message("tool", (names[2],), call_id="call00001"),
        )
        try:
            text = self._rendered(asked, (ToolDescription(names[0], "", {}),))
        except (TemplateError, TypeError, KeyError, ValueError):  # what templates that know no such turns raise
            return False
        return all(name in text for name in names)

    def encode(
        self, messages: Sequence[Message], *, answer: str | None = None, tools: Sequence[ToolDescription] = ()
    ) -> Encoded:
        """Encode a conversation up to the place where the model begins to answer.

        Args:
            messages: the conversation.
            answer: teacher text that follows the prompt, as in training; None for none.
            tools: that the model is told of by its chat template.

        Raises:
            BackendError: a slot cannot be placed, or the prompt is longer than the model's context.
        """
        looked = [self._look(picture) for message in messages for picture in message.pictures]
        slots = [part for message in messages for part in message.parts if isinstance(part, Slot) and part.length]
        text = self._expanded(self._rendered(messages, tools), [grid for _, grid in looked]) + (answer or "")
        tokenizer = self.checkpoint.processor.tokenizer
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids.to(self.checkpoint.device)
        limit = int(self.checkpoint.model.config.get_text_config().max_position_embeddings)
        if ids.shape[1] >= limit:
            raise BackendError(
                f"the prompt has {ids.shape[1]} tokens, the model reads {limit}.",
                hint="Set fewer documents or a smaller vlm_max_pixels.",
            )
        places = self._slot_places(ids, slots)
        pictures = self._picture_places(ids, [features for features, _ in looked])
        grids = tuple((grid[1] // self.merge, grid[2] // self.merge) for _, grid in looked)
        filled = {
            slot.name: torch.from_numpy(slot.vectors).to(self.checkpoint.device)
            for slot in slots
            if slot.vectors is not None
        }
        positions = self._positions(ids, [grid for _, grid in looked])
        return Encoded(ids, positions, pictures, grids, places, filled, tuple(features for features, _ in looked))

    def embeddings(self, encoded: Encoded, fills: Mapping[SlotName, torch.Tensor] | None = None) -> torch.Tensor:
        """Input embeddings (1, n, d) with picture features and slot vectors in their places.

        Args:
            encoded: of `encode`.
            fills: vectors (length, d) for slots, in place of those that came with them; gradients flow into them.

        Raises:
            ValueError: a slot has no vectors, or vectors of another shape.
        """
        embeds = self.checkpoint.model.get_input_embeddings()(encoded.input_ids).clone()
        for place, features in zip(encoded.pictures, encoded.features, strict=True):
            embeds[0, place.start : place.stop] = features.to(embeds.dtype)
        given = {**encoded.filled, **(fills or {})}
        for name, place in encoded.slots.items():
            vectors = given.get(name)
            if vectors is None or tuple(vectors.shape) != (len(place), embeds.shape[2]):
                shape = None if vectors is None else tuple(vectors.shape)
                raise ValueError(f"slot {name!r} takes vectors ({len(place)}, {embeds.shape[2]}), got {shape}")
            embeds = torch.cat(
                [embeds[:, : place.start], vectors[None].to(embeds.dtype), embeds[:, place.stop :]], dim=1
            )
        return embeds

    def token_ids(self, text: str) -> list[int]:
        """Ids of a text that stands in no prompt."""
        return list(self.checkpoint.processor.tokenizer(text, add_special_tokens=False).input_ids)

    def _rendered(self, messages: Sequence[Message], tools: Sequence[ToolDescription] = ()) -> str:
        """The conversation in the checkpoint's own chat form."""
        turns: list[dict[str, Any]] = []
        for message in messages:
            content: list[dict[str, Any]] = []
            for part in message.parts:
                if isinstance(part, Picture):
                    content.append({"type": "image"})
                elif isinstance(part, Slot):
                    content.append({"type": "text", "text": self._slot_text(part)})
                else:
                    content.append({"type": "text", "text": plain(part)})
            turn: dict[str, Any] = {"role": message.role, "content": content}
            if message.calls:
                turn["tool_calls"] = [_native_call(call) for call in message.calls]
            if message.call_id:
                turn["tool_call_id"] = message.call_id
            turns.append(turn)
        processor = self.checkpoint.processor
        given = {"tools": [native_description(tool) for tool in tools]} if tools else {}
        return str(processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **given))

    def _slot_text(self, slot: Slot) -> str:
        if self.slot_token is None:
            raise BackendError(
                "this checkpoint's tokenizer has no spare token to keep the place of prior or latent tokens.",
                hint="Turn prior_tokens and latent off.",
            )
        return self.slot_token * slot.length

    def _expanded(self, text: str, grids: Sequence[tuple[int, int, int]]) -> str:
        """One placeholder for each merged feature of each picture."""
        pieces = text.split(self.image_token)
        if len(pieces) != len(grids) + 1:
            raise BackendError("the chat template of this checkpoint does not place the pictures.")
        counts = [t * h * w // self.merge**2 for t, h, w in grids]
        return pieces[0] + "".join(self.image_token * n + piece for n, piece in zip(counts, pieces[1:], strict=True))

    def _slot_places(self, ids: torch.Tensor, slots: Sequence[Slot]) -> dict[SlotName, range]:
        """Places by the order in which the slots were inserted; no other text can hold their token."""
        if not slots:
            return {}
        where = (ids[0] == self.slot_id).nonzero()[:, 0].tolist()
        if len(where) != sum(slot.length for slot in slots):
            raise BackendError("the places of prior or latent tokens were lost in the prompt.")
        places: dict[SlotName, range] = {}
        for slot in slots:
            mine, where = where[: slot.length], where[slot.length :]
            places[slot.name] = range(mine[0], mine[-1] + 1)
        return places

    def _picture_places(self, ids: torch.Tensor, features: Sequence[torch.Tensor]) -> tuple[range, ...]:
        where = (ids[0] == self.image_id).nonzero()[:, 0].tolist()
        if len(where) != sum(len(each) for each in features):
            raise BackendError("a picture's features do not fit its places in the prompt.")
        places, begin = [], 0
        for each in features:
            places.append(range(where[begin], where[begin] + len(each)))
            begin += len(each)
        return tuple(places)

    def _positions(self, ids: torch.Tensor, grids: Sequence[tuple[int, int, int]]) -> torch.Tensor:
        positions, _ = self.checkpoint.model.model.get_rope_index(
            input_ids=ids,
            mm_token_type_ids=(ids == self.image_id).int(),
            image_grid_thw=torch.tensor(grids, device=ids.device) if grids else None,
            attention_mask=torch.ones_like(ids),
        )
        return positions

    def _look(self, picture: Picture) -> tuple[torch.Tensor, tuple[int, int, int]]:
        """Merged features (n, d) of a picture and its patch grid (t, h, w); a picture is looked at once."""
        key = reference_of(picture.rgb)
        if key in self._features:
            self._features.move_to_end(key)
            return self._features[key]
        model, processor = self.checkpoint.model, self.checkpoint.processor
        seen = processor.image_processor(images=[Image.fromarray(picture.rgb)], return_tensors="pt")
        grid = tuple(int(side) for side in seen["image_grid_thw"][0])
        with torch.inference_mode(mode=False), torch.no_grad():  # no inference tensors: latents need gradients
            pixels = seen["pixel_values"].to(self.checkpoint.device, model.model.visual.dtype)
            found = model.get_image_features(pixels, seen["image_grid_thw"].to(self.checkpoint.device))
        features = getattr(found, "pooler_output", found)
        merged = torch.cat(list(features)) if isinstance(features, list | tuple) else features
        while len(self._features) >= KEPT_PICTURES:
            self._features.popitem(last=False)
        self._features[key] = (merged, (grid[0], grid[1], grid[2]))
        return self._features[key]


MARKS = re.compile(r"<(?=\||/?tool_)")
"""Begins of special tokens, and of the fences that templates put around calls of tools and their results."""


def plain(text: str) -> str:
    """Text that cannot pretend to be a turn, a picture, a slot, a tool's call or its result."""
    return MARKS.sub("< ", text)


def _native_call(call: ToolCall) -> dict[str, Any]:
    arguments = json.loads(plain(json.dumps(dict(call.arguments), default=str)))
    return {"id": call.id, "type": "function", "function": {"name": plain(call.name), "arguments": arguments}}
