"""How much memory a local model may take, and how much of a question fits into what its weights leave.

What a token costs is computed from the model's sizes: its keys and values in every layer, kept while an answer grows,
and what passes through one layer while the prompt is read. That is an upper estimate, not a measurement.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_PICTURES = 12
MAX_PROMPT = 16_384
FEATURES_SHARE = 8
"""One part in so many of what a question may take is for features of pictures that were looked at before."""
HIDDEN_COPIES, INNER_COPIES = 6, 3
"""Vectors of the two widths that live at once in a layer: the residual, its norm, queries, keys, values, output; and
the gate, the lift and their product."""


@dataclass(frozen=True)
class TokenCost:
    """Memory of one token of a prompt.

    Attributes:
        kept: bytes of its keys and values, in all layers.
        passing: bytes while the prompt is read.
    """

    kept: int
    passing: int


@dataclass(frozen=True)
class Bounds:
    """What one question may take.

    Attributes:
        pictures: at most.
        prompt: tokens at most, those of pictures included.
        question_bytes: memory beside the weights; None when it cannot be told.
        cost: of a token; None with ``question_bytes``.
    """

    pictures: int = MAX_PICTURES
    prompt: int = MAX_PROMPT
    question_bytes: int | None = None
    cost: TokenCost | None = None

    def fitting_tokens(self, answer: int, at_once: int = 1) -> int | None:
        """Tokens of a prompt that fit into the memory; None when it does not limit them.

        Args:
            answer: tokens that are to follow.
            at_once: prompts side by side.
        """
        if self.question_bytes is None or self.cost is None:
            return None
        left = (self.question_bytes - self.kept_bytes) // at_once - answer * self.cost.kept
        return max(0, left // (self.cost.kept + self.cost.passing))

    @property
    def kept_bytes(self) -> int:
        """Memory for features of pictures that were looked at before; 0 when nothing limits it."""
        return 0 if self.question_bytes is None else self.question_bytes // FEATURES_SHARE


def token_cost(config: Any, bytes_each: int) -> TokenCost:
    """What a token costs.

    Args:
        config: of the language model: layers, heads, widths.
        bytes_each: of a number.
    """
    heads = int(config.num_attention_heads)
    head = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    kept = 2 * int(config.num_hidden_layers) * int(config.num_key_value_heads) * head * bytes_each
    passing = (HIDDEN_COPIES * int(config.hidden_size) + INNER_COPIES * int(config.intermediate_size)) * bytes_each
    return TokenCost(kept, passing)


def allowed_bytes(asked: float | None, where: str) -> int | None:
    """Memory that weights and questions may take together; None when nobody can tell.

    Args:
        asked: a share of the device's memory up to 1, bytes above; None for what is free now.
        where: ``cuda`` or ``cpu``.
    """
    free, total = memory_of(where)
    wanted = None if asked is None else int(asked) if asked > 1.0 else None if total is None else int(asked * total)
    known = [value for value in (free, wanted) if value is not None]
    return min(known, default=None)


def memory_of(where: str) -> tuple[int | None, int | None]:
    """Bytes that are free, and bytes that there are; each None where it cannot be told.

    Args:
        where: ``cuda`` or ``cpu``.
    """
    if where == "cuda":
        import torch

        free, total = torch.cuda.mem_get_info()
        return int(free), int(total)
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines if line.endswith(" kB")}
    except (OSError, ValueError, IndexError):
        return None, None
    return found.get("MemAvailable"), found.get("MemTotal")
