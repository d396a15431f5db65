"""What a vision-language model is asked: text and pictures in order, and places for vectors that are no words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

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
        role: who speaks.
        parts: in the order in which the model reads them.
    """

    role: Literal["system", "user", "assistant"]
    parts: tuple[Part, ...]

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
        Message(message.role, tuple(part for part in message.parts if not isinstance(part, Slot)))
        for message in messages
    )
