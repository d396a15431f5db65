"""Answers by rule from the same evidence, without any model: what reading it word by word is worth."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...agent.reasoner.evidence import words
from ...agent.vision_language import LetterAnswer
from ...tools.knowledge.schema import KnowledgeDocument
from ...training.questions import coarse_place
from .answering import says_yes
from .evidence import PictureEvidence
from .questions import Item
from .scoring import DETECTION

NAME = "evidence (rules, no model)"
EVEN = 0.5


@dataclass(frozen=True)
class ByRule:
    """Takes the option that says what the evidence says; the first one where it says nothing."""

    name: str = NAME

    def answer(self, item: Item, evidence: PictureEvidence) -> LetterAnswer:
        """Answer one question."""
        letter = _letter(item, evidence) or next(iter(item.options))
        return LetterAnswer(letter, None, None, letter)


def _letter(item: Item, evidence: PictureEvidence) -> str | None:
    pages = (*evidence.type_pages, *evidence.pages["default"])
    if item.subtask == DETECTION:
        if evidence.s_cal is None:
            return None
        return next((a for a, text in item.options.items() if says_yes(text) == (evidence.s_cal >= EVEN)), None)
    if item.subtask == "Defect Localization":
        boxes = evidence.prior.boxes if evidence.prior else ()
        return next((found for box in boxes if (found := _named(item, coarse_place(box.place)))), None)
    if item.subtask == "Defect Classification":
        types = [name for name, _ in (evidence.prior.types if evidence.prior else ())]
        names = [*types, *(page.defect_type for page in pages)]
        return next((found for name in names if (found := _named(item, words(name)))), None)
    if item.subtask == "Object Classification":
        names = [name for name, _ in evidence.category.candidates]
        return next((found for name in names if (found := _named(item, words(name)))), None)
    if item.subtask == "Object Analysis":
        return _nearest(item, tuple(page.normal_traits for page in evidence.good_pages))
    return _nearest(item, tuple(_told(page) for page in pages))


def _named(item: Item, name: str) -> str | None:
    wanted = _content(name)
    return next((letter for letter, text in item.options.items() if _content(text) == wanted), None)


def _nearest(item: Item, texts: tuple[str, ...]) -> str | None:
    """The option that the first text holds whole; else the one that shares most words with any."""
    best: tuple[float, str] | None = None
    for text in texts:
        told = set(_content(text))
        for letter, option in item.options.items():
            said = set(_content(option))
            share = len(said & told) / len(said) if said else 0.0
            if share == 1.0:
                return letter
            if best is None or share > best[0]:
                best = (share, letter)
    return best[1] if best else None


def _told(page: KnowledgeDocument) -> str:
    return " ".join((page.description, *page.likely_causes, *page.consequences, page.instruction))


def _content(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[a-z0-9]+", text.lower()))
