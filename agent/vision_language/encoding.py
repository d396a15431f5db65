"""From messages to what Qwen2.5-VL reads: token ids, picture features and three-dimensional positions.

Positions are always computed from the ids and handed on: a forward pass from embeddings alone falls back to positions
in one dimension, and the grid of the picture is lost without a word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from PIL import Image

from ..artifacts import reference_of
from ..errors import BackendError
from .chat_template import rendered, template_shows_tools
from .checkpoint import Checkpoint
from .fitting import one_picture_less
from .messages import Message, Picture, Slot, SlotName
from .tool_text import ToolDescription

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
        left_out: labels of pictures that did not fit.
        messages: the conversation without those.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    pictures: tuple[range, ...]
    grids: tuple[tuple[int, int], ...]
    slots: Mapping[SlotName, range]
    filled: Mapping[SlotName, torch.Tensor]
    features: tuple[torch.Tensor, ...]
    left_out: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()

    @property
    def told(self) -> dict[str, list[str]]:
        """For ``usage``: what was left out; nothing when nothing was."""
        return {"left_out": list(self.left_out)} if self.left_out else {}

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
        """Whether the chat template has places for tools; see `template_shows_tools`."""
        return template_shows_tools(self.checkpoint.processor)

    def encode(
        self,
        messages: Sequence[Message],
        *,
        answer: str | None = None,
        tools: Sequence[ToolDescription] = (),
        room: int = 0,
        at_once: int = 1,
    ) -> Encoded:
        """Encode a conversation up to the place where the model begins to answer.

        Args:
            messages: the conversation.
            answer: teacher text that follows the prompt, as in training; None for none.
            tools: that the model is told of by its chat template.
            room: tokens of the answer that is to follow.
            at_once: prompts that are read side by side.

        Raises:
            BackendError: a slot cannot be placed, or the prompt is longer than the model's context, the memory or the
                settings allow, also without the pictures that can be spared.
        """
        limit, whose = self._limit(room, at_once)
        kept, left_out = tuple(messages), list[str]()
        ids = self._ids(kept, answer or "", tools)
        while len(pictures := [p for m in kept for p in m.pictures]) > self.checkpoint.bounds.pictures or (
            ids.shape[1] > limit
        ):
            fewer = one_picture_less(kept)
            if fewer is None:
                raise _too_long(len(pictures), self.checkpoint.bounds.pictures, ids.shape[1], limit, whose)
            kept, label = fewer
            left_out.append(label)
            ids = self._ids(kept, answer or "", tools)
        looked = [self._look(picture) for picture in pictures]
        slots = [part for message in kept for part in message.parts if isinstance(part, Slot) and part.length]
        places = self._slot_places(ids, slots)
        where = self._picture_places(ids, [features for features, _ in looked])
        grids = tuple((grid[1] // self.merge, grid[2] // self.merge) for _, grid in looked)
        filled = {
            slot.name: torch.from_numpy(slot.vectors).to(self.checkpoint.device)
            for slot in slots
            if slot.vectors is not None
        }
        positions = self._positions(ids, [grid for _, grid in looked])
        features = tuple(features for features, _ in looked)
        return Encoded(ids, positions, where, grids, places, filled, features, tuple(left_out), kept)

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

    def _slot_text(self, slot: Slot) -> str:
        if self.slot_token is None:
            raise BackendError(
                "this checkpoint's tokenizer has no spare token to keep the place of prior or latent tokens.",
                hint="Turn prior_tokens and latent off.",
            )
        return self.slot_token * slot.length

    def _limit(self, room: int, at_once: int) -> tuple[int, str]:
        """Tokens that a prompt may have, and who says so."""
        bounds = self.checkpoint.bounds
        context = int(self.checkpoint.model.config.get_text_config().max_position_embeddings)
        limits = [
            (context - 1, f"the model reads {context}"),
            (bounds.prompt, f"vlm_max_prompt allows {bounds.prompt}"),
        ]
        fitting = bounds.fitting_tokens(room, at_once)
        if fitting is not None:
            limits.append((fitting, f"{fitting} fit into the memory"))
        return min(limits, key=lambda one: one[0])

    def _ids(self, messages: Sequence[Message], answer: str, tools: Sequence[ToolDescription]) -> torch.Tensor:
        """Token ids (1, n) of a prompt, each picture as many places as it takes."""
        shapes = [picture.rgb.shape for message in messages for picture in message.pictures]
        patches = self.checkpoint.processor.image_processor.get_number_of_image_patches
        counts = [int(patches(shape[0], shape[1], {})) // self.merge**2 for shape in shapes]
        text = self._expanded(rendered(self.checkpoint.processor, messages, tools, self._slot_text), counts) + answer
        tokenizer = self.checkpoint.processor.tokenizer
        ids: torch.Tensor = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
        return ids.to(self.checkpoint.device)

    def _expanded(self, text: str, counts: Sequence[int]) -> str:
        """One placeholder for each merged feature of each picture."""
        pieces = text.split(self.image_token)
        if len(pieces) != len(counts) + 1:
            raise BackendError("the chat template of this checkpoint does not place the pictures.")
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
        kept = self.checkpoint.features
        if key in kept:
            kept.move_to_end(key)
            return kept[key]  # type: ignore[no-any-return]
        model, processor = self.checkpoint.model, self.checkpoint.processor
        seen = processor.image_processor(images=[Image.fromarray(picture.rgb)], return_tensors="pt")
        grid = tuple(int(side) for side in seen["image_grid_thw"][0])
        with torch.inference_mode(mode=False), torch.no_grad():  # no inference tensors: latents need gradients
            pixels = seen["pixel_values"].to(self.checkpoint.device, model.model.visual.dtype)
            found = model.get_image_features(pixels, seen["image_grid_thw"].to(self.checkpoint.device))
        features = getattr(found, "pooler_output", found)
        merged = torch.cat(list(features)) if isinstance(features, list | tuple) else features
        kept[key] = (merged, (grid[0], grid[1], grid[2]))
        limit = self.checkpoint.bounds.kept_bytes
        while len(kept) > 1 and (len(kept) > KEPT_PICTURES or 0 < limit < sum(_bytes(one) for one, _ in kept.values())):
            kept.popitem(last=False)
        return kept[key]  # type: ignore[no-any-return]


def _too_long(pictures: int, most: int, tokens: int, limit: int, whose: str) -> BackendError:
    """Which bound was met when nothing more can be spared."""
    if tokens > limit:
        return BackendError(
            f"the prompt has {tokens} tokens, {whose}.",
            hint="Set fewer documents, a smaller vlm_max_pixels, or raise vlm_memory or vlm_max_prompt.",
        )
    return BackendError(
        f"the question has {pictures} pictures, vlm_max_pictures allows {most}.", hint="Raise vlm_max_pictures."
    )


def _bytes(features: torch.Tensor) -> int:
    return int(features.numel() * features.element_size())
