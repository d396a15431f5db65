"""What a vision-language model is asked: text and pictures in order, and places for vectors that are no words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .tool_text import ToolCall

SlotName = Literal["prior", "latent"]


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture inside a message.

    Attributes:
        rgb: uint8 (H, W, 3).
        label: what it is, such as ``query``, ``reference`` or ``crop``; not shown to the model.
    """

    rgb: NDArray[np.uint8]
    label: str = ""


@dataclass(frozen=True, eq=False)
class Slot:
    """A place for vectors in the embedding sequence; models behind a server leave it out.

    Attributes:
        name: ``prior`` for what the AD Expert found (E_c of ADSeeker), ``latent`` for think tokens (Reason-IAD).
        length: how many vectors.
        vectors: float32 (length, d) that fill it; None when whoever runs the model fills it.
    """

    name: SlotName
    length: int
    vectors: NDArray[np.float32] | None = None


Part = str | Picture | Slot


@dataclass(frozen=True)
class Message:
    """One turn.

    Attributes:
        role: who speaks; ``tool`` for a tool's result, which only models that are handed tools are shown.
        parts: in the order in which the model reads them.
        calls: of tools, that an assistant asked for.
        call_id: which of them a tool's result answers.
    """

    role: Literal["system", "user", "assistant", "tool"]
    parts: tuple[Part, ...]
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""

    @property
    def text(self) -> str:
        """The text alone, parts joined by line breaks."""
        return "\n".join(part for part in self.parts if isinstance(part, str))

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures alone, in order."""
        return tuple(part for part in self.parts if isinstance(part, Picture))


def without_slots(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The same conversation for a model that takes words and pictures only."""
    return tuple(
        replace(message, parts=tuple(part for part in message.parts if not isinstance(part, Slot)))
        for message in messages
    )
