"""The random tiny checkpoint as a model that answers: no knowledge, but its answers depend on all it reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from flawscope.agent.vision_language.checkpoint import load_checkpoint
from flawscope.agent.vision_language.messages import Message, Picture, Slot
from flawscope.agent.vision_language.qwen import QwenModel
from tests.tiny_vlm import build_tiny_checkpoint

LETTERS = ("A", "B", "C")


def tiny_model(folder: Path, *, sharper: float = 1.0, says_letters: bool = False) -> QwenModel:
    """Load it.

    Args:
        folder: to write it to.
        sharper: multiplies the logits, so that answers differ by more than rounding.
        says_letters: nearly all probability goes to the letters, as if it had learnt to answer.
    """
    model = QwenModel(load_checkpoint(build_tiny_checkpoint(folder), device="cpu"))
    given = model.checkpoint.model.lm_head
    head = torch.nn.Linear(given.in_features, given.out_features).requires_grad_(False)
    head.weight.copy_(sharper * given.weight)
    head.bias.zero_()
    if says_letters:
        head.bias[[token for ids in model.letter_ids(LETTERS) for token in ids]] = 25.0
    model.checkpoint.model.lm_head = head
    return model


def picture(seed: int = 0, height: int = 140, width: int = 84) -> NDArray[np.uint8]:
    """Noise, uint8 (H, W, 3): 5 x 3 merged features."""
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def question(query: NDArray[np.uint8] | None = None, *, slot: int = 0, ending: str = "Answer.") -> list[Message]:
    """A reference, a query, a question; think tokens before the last line when there is a slot."""
    parts = ["Reference:", Picture(picture(7), "reference"), "Query:"]
    parts += [Picture(picture() if query is None else query, "query"), "Is there a defect? A. Yes B. No C. hole\n"]
    parts += [Slot("latent", slot)] if slot else []
    return [Message("system", ("You inspect.",)), Message("user", (*parts, ending))]


def spot(height: int = 140, width: int = 84) -> NDArray[np.float32]:
    """A calibrated map with one anomaly in the second row, third column of the features, float32 (H, W)."""
    found = np.zeros((height, width), np.float32)
    found[30:50, 60:80] = 0.9
    return found
