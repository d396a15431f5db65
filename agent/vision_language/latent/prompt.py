"""A prompt cut at the think tokens: what is before them is computed once, what comes from them on at every step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ....prompts import render
from ...errors import BackendError
from ..decoding import Prefix, extend, prefill
from ..encoding import Encoded
from ..messages import Message, Picture, Slot
from ..qwen import QwenModel

PROMPTS = "latent"
VIEWS = frozenset({"query", "overlay", "crop", "zoom"})
"""Labels of pictures that show the part itself; a crop's goes on with its area."""


def with_latent_slot(messages: Sequence[Message], length: int) -> tuple[Message, ...]:
    """The conversation with one place for think tokens.

    Args:
        messages: with a latent slot, whose length is set, or without, to whose last turn one is appended: behind the
            question, before whatever the model says.
        length: L.

    Raises:
        ValueError: there is more than one, or nobody has asked anything.
    """
    there = sum(isinstance(part, Slot) and part.name == "latent" for message in messages for part in message.parts)
    slot = Slot("latent", length)
    if there > 1 or not messages:
        raise ValueError("think tokens go to one place of a conversation")
    if there:
        return tuple(
            Message(m.role, tuple(slot if isinstance(p, Slot) and p.name == "latent" else p for p in m.parts))
            for m in messages
        )
    last = messages[-1]
    return (*messages[:-1], Message(last.role, (*last.parts, slot)))


def without_latent_slot(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The conversation as it is asked without think tokens; other slots stay."""
    return tuple(
        Message(m.role, tuple(p for p in m.parts if not (isinstance(p, Slot) and p.name == "latent"))) for m in messages
    )


def query_index(messages: Sequence[Message]) -> int | None:
    """Which picture is asked about: the last one labelled ``query``, else the last; None without pictures."""
    pictures = [picture for message in messages for picture in message.pictures]
    queries = [i for i, picture in enumerate(pictures) if picture.label == "query"]
    return queries[-1] if queries else len(pictures) - 1 if pictures else None


def query_shown(messages: Sequence[Message], encoded: Encoded) -> int | None:
    """Which of the pictures that a prompt holds is asked about; None where it was left out, or there is none.

    Args:
        messages: the conversation as it was asked, from which pictures may have been left out for want of room.
        encoded: the prompt made of it.
    """
    query = query_index(messages)
    if query is None:
        return None
    asked = [picture for message in messages for picture in message.pictures][query]
    shown = [picture for message in encoded.messages for picture in message.pictures]
    return next((i for i, picture in enumerate(shown) if picture is asked), None)


def with_blank_query(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The conversation with the query picture replaced by its mean colour, and so each further view of the part.

    An enlarged area or the expert's map beside a blank part would still show what the part looks like. Good parts stay:
    they are what it is compared with.
    """
    wanted, seen, turns = query_index(messages), 0, []
    for message in messages:
        parts = []
        for part in message.parts:
            if isinstance(part, Picture):
                if seen == wanted or part.label.partition(" ")[0] in VIEWS:
                    mean = part.rgb.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
                    part = dataclasses.replace(part, rgb=np.broadcast_to(mean, part.rgb.shape).copy())
                seen += 1
            parts.append(part)
        turns.append(Message(message.role, tuple(parts)))
    return tuple(turns)


def option_ids(model: QwenModel, options: Sequence[str]) -> list[list[int]]:
    """For each option the tokens that it alone can begin with, with and without a blank before it.

    Raises:
        BackendError: an option begins as another does.
    """
    if all(len(option) == 1 for option in options):
        return model.letter_ids(options)
    first = [{model.encoder.token_ids(form)[0] for form in (option, f" {option}")} for option in options]
    own = [ids - set[int]().union(*(other for other in first if other is not ids)) for ids in first]
    if not all(own):
        raise BackendError(f"the options {', '.join(options)} cannot be told by their first token.")
    return [sorted(ids) for ids in own]


def opening_of(encoded: Encoded, prefix: Prefix, begin: int) -> Prefix:
    """The first ``begin`` tokens of a computed prompt.

    Attention looks back only, so their keys and values are the same. The scores that followed them were not kept: NaN.
    """
    layers = tuple((keys[:, :, :begin], values[:, :, :begin]) for keys, values in prefix.layers)
    place = int(encoded.position_ids[:, 0, begin].max())
    return Prefix(layers, begin, place, torch.full_like(prefix.logits, float("nan")))


@dataclass(frozen=True, eq=False)
class Pass:
    """Scores of one forward pass.

    Attributes:
        answer: float32 (V,), raw logits of the first answer token.
        think: float32 (L, V), raw logits at the think positions; None when not asked for.
    """

    answer: torch.Tensor
    think: torch.Tensor | None


class LatentPrompt:
    """A prompt with a place for think tokens, ready for many passes.

    Attributes:
        opening: everything before the think tokens, computed once.
        features: float (n, d), merged features of the query picture; of no picture when there is none, or it was left
            out.
        grid: their rows and columns; None without a picture.
        length: L.
        positions: token positions computed so far, passes with gradients counted three times.

    Args:
        model: the checkpoint.
        messages: with one latent slot.
        answer: text that follows the prompt, such as the opening of a JSON object; its next token is the answer.
        computed: the same prompt without the slot, and its prefix: what is the same is not computed again.
        patch_positions: see `LatentSettings`.
        room: tokens of the answer that is to follow.
    """

    def __init__(
        self,
        model: QwenModel,
        messages: Sequence[Message],
        *,
        answer: str = "",
        computed: tuple[Encoded, Prefix] | None = None,
        patch_positions: str = "text",
        room: int = 0,
    ) -> None:
        self.model, self.messages, self.patch_positions, self.room = model, tuple(messages), patch_positions, room
        encoded = model.encoder.encode(messages, answer=answer or None, room=room)
        place = encoded.slots["latent"]
        self.encoded, self.length, self.begin = encoded, len(place), place.start
        blank = torch.zeros(self.length, model.width, device=encoded.input_ids.device)
        embeds = model.encoder.embeddings(encoded, {"latent": blank}).detach()
        self.prompt_embeds = embeds
        self.suffix = embeds[:, place.stop :]
        self.positions = 0
        self.opening = self._opening(embeds, computed)
        query = query_shown(messages, encoded)
        self.picture = None if query is None else encoded.pictures[query]
        self.grid = None if query is None else encoded.grids[query]
        self.features = encoded.features[query] if query is not None else embeds.new_zeros((0, model.width))

    def _opening(self, embeds: torch.Tensor, computed: tuple[Encoded, Prefix] | None) -> Prefix:
        begin = self.begin
        if computed is not None:
            encoded, prefix = computed
            same = encoded.length > begin and torch.equal(
                encoded.input_ids[:, :begin], self.encoded.input_ids[:, :begin]
            )
            if same:
                return opening_of(self.encoded, prefix, begin)
        self.positions += begin
        return prefill(self.model.checkpoint.model, embeds[:, :begin], self.encoded.position_ids[:, :, :begin])

    @property
    def lost_its_query(self) -> bool:
        """Whether a picture is asked about that was left out."""
        return self.picture is None and query_index(self.messages) is not None

    @property
    def query_positions(self) -> torch.Tensor:
        """int64 (3, 1, n), where the query picture's features are read."""
        if self.picture is None:
            raise BackendError("a prompt without a picture has no patches to inject.")
        return self.encoded.position_ids[:, :, self.picture.start : self.picture.stop]

    def tail(self, tokens: torch.Tensor, patches: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Everything from the think tokens on: [tokens | patches | suffix] and where each is read.

        Args:
            tokens: float (L, d).
            patches: indices into ``features``.

        Returns:
            Embeddings (1, m, d) and positions (3, 1, m).
        """
        chosen = self.features[list(patches)]
        kind = self.suffix.dtype
        embeds = torch.cat([tokens.to(kind)[None], chosen.to(kind)[None], self.suffix], dim=1)
        first = self.opening.next_position
        if self.patch_positions == "source" and patches:
            text = torch.arange(first, first + embeds.shape[1] - len(patches), device=embeds.device).expand(3, 1, -1)
            own = self.query_positions[:, :, list(patches)]
            return embeds, torch.cat([text[:, :, : self.length], own, text[:, :, self.length :]], dim=2)
        return embeds, torch.arange(first, first + embeds.shape[1], device=embeds.device).expand(3, 1, -1)

    def run(self, tokens: torch.Tensor, patches: Sequence[int], *, think: bool = False) -> Pass:
        """One pass from the think tokens on; gradients flow into them where they are wanted.

        Args:
            tokens: float (L, d).
            patches: indices into ``features``.
            think: whether the scores at the think positions are wanted.
        """
        embeds, places = self.tail(tokens, patches)
        self.positions += embeds.shape[1] * (3 if torch.is_grad_enabled() and tokens.requires_grad else 1)
        keep = 0 if think else 1
        out = extend(self.model.checkpoint.model, self.opening, embeds, places, logits_to_keep=keep)
        return Pass(out.logits[0, -1].float(), out.logits[0, : self.length].float() if think else None)

    def prefix(self, tokens: torch.Tensor, patches: Sequence[int]) -> Prefix:
        """The whole prompt with these think tokens and patches, to decode an answer behind it."""
        embeds, places = self.tail(tokens, patches)
        self.positions += embeds.shape[1]
        with torch.no_grad():
            out = extend(self.model.checkpoint.model, self.opening, embeds, places, logits_to_keep=1)
        layers = tuple((layer.keys.detach(), layer.values.detach()) for layer in out.past_key_values.layers)
        following = self.opening.next_position + embeds.shape[1]
        if self.patch_positions == "source":
            following -= len(patches)
        return Prefix(layers, self.begin + embeds.shape[1], following, out.logits[0, -1].float())

    def attention(self, tokens: torch.Tensor, patches: Sequence[int]) -> torch.Tensor:
        """How much the think tokens look at each feature of the query picture.

        Args:
            tokens: float (L, d).
            patches: indices of those injected already.

        Returns:
            float32 (n,), mean over think tokens, heads and the layers of the third quarter.
        """
        embeds, places = self.tail(tokens.detach(), patches)
        return self._attention(embeds, places, self.length)

    def usual_attention(self) -> torch.Tensor:
        """The same for words that ask for a description: what is looked at whatever the question is."""
        ids = torch.tensor([self.model.encoder.token_ids(render(PROMPTS, "usual"))], device=self.suffix.device)
        embeds = self.model.checkpoint.model.get_input_embeddings()(ids)
        first = self.opening.next_position
        places = torch.arange(first, first + ids.shape[1], device=ids.device).expand(3, 1, -1)
        return self._attention(embeds, places, ids.shape[1])

    def _attention(self, embeds: torch.Tensor, places: torch.Tensor, rows: int) -> torch.Tensor:
        if self.picture is None:
            raise BackendError("a prompt without a picture has no patches to look at.")
        self.positions += embeds.shape[1]
        with torch.no_grad(), eager_attention(self.model.checkpoint.model):
            out = extend(
                self.model.checkpoint.model, self.opening, embeds, places, output_attentions=True, logits_to_keep=1
            )
        count = len(out.attentions)
        middle = out.attentions[count // 2 : max(count // 2 + 1, 3 * count // 4)]
        looks = torch.stack([layer[0, :, :rows, self.picture.start : self.picture.stop].float() for layer in middle])
        return looks.mean(dim=(0, 1, 2))


@contextmanager
def eager_attention(model: Any) -> Iterator[None]:
    """Let the language model compute attention in the way that can tell its weights, and put the fast way back."""
    language_model = model.model.language_model
    usual = language_model.config._attn_implementation
    language_model.set_attn_implementation("eager")
    try:
        yield
    finally:
        language_model.set_attn_implementation(usual)
