"""Vision-language models behind one contract. Nothing here imports torch or transformers before a model is loaded."""

from __future__ import annotations

from .base import Generated, LetterAnswer, OnText, TokenScore, VisionLanguageModel, normalised_entropy
from .messages import Message, Part, Picture, Slot, without_slots

__all__ = [
    "Generated",
    "LetterAnswer",
    "Message",
    "OnText",
    "Part",
    "Picture",
    "Slot",
    "TokenScore",
    "VisionLanguageModel",
    "normalised_entropy",
    "without_slots",
]
