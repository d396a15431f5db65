"""What a vision-language model is asked about a part: evidence, pictures and quoted pages as one conversation.

The wording is in prompts/inspect.md; here are the order and the fences. Whatever others wrote (pages, the operator's
question, names) stands behind ``> `` or is cleaned to plain words of one line, so that it can neither give orders nor
pose as evidence.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...prompts import render
from ..schemas import Evidence
from ..vision_language.messages import Message, Part, Picture, Slot
from .answer import NO_REGION, NO_TYPE
from .base import EvidenceBundle, RetrievedDocument
from .evidence import UNKNOWN, number, words
from .prior_lines import BOXES, NAME_LETTERS, PROMPTS, Prior, PriorBox, Task, prior_lines
from .text_grid import parse_grid, text_grid

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "BOXES",
    "Prior",
    "PriorBox",
    "Task",
    "compose",
    "document_lines",
    "parse_grid",
    "prior_lines",
    "prior_of",
    "said_type",
    "text_grid",
]

DOCUMENT_TOKENS = 700
"""Budget of all quoted pages of a prompt together, estimated tokens."""
PAGE_TOKENS = 24
"""A page that would get fewer is left out: its title alone says nothing."""
ITEM_TOKENS = 80
ASKED_TOKENS = 200
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
TOLD_ELSEWHERE = frozenset({"measurement", "region", "type", "document"})
"""Kinds of evidence that the prior or the pages already tell."""


def compose(
    bundle: EvidenceBundle,
    pictures: Sequence[Picture],
    *,
    task: Task = "report",
    question: str = "",
    latent_slot: Slot | None = None,
    documents: int = DOCUMENT_TOKENS,
) -> list[Message]:
    """The conversation that asks about a part: who the model is, then one turn.

    The turn's order: good references, what is normal for the kind of part, the defects that it may have, the inspection
    prior, the query, the expert's map over it, enlarged areas, the question, quoted pages, the form of the answer.
    Prior tokens stand behind the prior. Each text part ends its line, since chat templates join parts without anything
    between them.

    Args:
        bundle: the evidence.
        pictures: labelled ``query``, ``reference``, ``overlay``, ``zoom``, or ``crop`` and the region's id.
        task: what is asked.
        question: in the operator's words, quoted; the bundle's instruction when empty. A report adds it to its own.
        latent_slot: a place for think tokens, before the form of the answer; None leaves it out.
        documents: budget of the quoted pages, estimated tokens.
    """
    turn = _Turn()
    turn.show("references", _labelled(pictures, "reference"))
    if bundle.category is not None:
        turn.say(bundle.category.text)
    if task in ("report", "defect") and bundle.shortlist:
        turn.say(render(PROMPTS, "candidates", listed=_lettered(bundle.shortlist, bundle.seed)))
    lines = [*prior_lines(prior_of(bundle), task), *_further_lines(bundle, task)]
    if lines:
        turn.say(render(PROMPTS, "prior"), *lines)
    if bundle.prior_slot is not None and task != "object":
        turn.place(bundle.prior_slot)
    turn.show("query", _labelled(pictures, "query"))
    if task != "object" and (task != "detection" or bundle.admitted):  # as for the lines of the prior
        turn.show("overlay", _labelled(pictures, "overlay"))
        for region in bundle.regions:
            turn.show("crop", _labelled(pictures, f"crop {region.id}"), id=region.id)
        turn.show("zoom", _labelled(pictures, "zoom"))
    if task == "report":
        turn.say(render(PROMPTS, "question_report"))
    if asked := question or bundle.instruction:
        turn.say(render(PROMPTS, "asked"), _quoted_line(asked, ASKED_TOKENS))
    if pages := document_lines(bundle.documents, documents):
        turn.say(render(PROMPTS, "documents"), *_alike_lines(bundle.documents, pages), *pages)
    if latent_slot is not None:
        turn.place(latent_slot)
    turn.say(_form(bundle, task))
    return [Message("system", (render(PROMPTS, "role"),)), turn.message()]


class _Turn:
    """The user's turn while it grows: lines that follow each other become one text part."""

    def __init__(self) -> None:
        self.parts: list[Part] = []

    def say(self, *lines: str) -> None:
        text = "".join(f"{line}\n" for line in lines)
        if self.parts and isinstance(self.parts[-1], str):
            text = f"{self.parts.pop()}{text}"
        self.parts.append(text)

    def show(self, section: str, pictures: Iterable[Picture], **variables: object) -> None:
        shown = list(pictures)
        if shown:
            self.say(render(PROMPTS, section, **variables))
            self.parts += [*shown, "\n"]

    def place(self, slot: Slot) -> None:
        self.parts += [slot, "\n"]

    def message(self) -> Message:
        return Message("user", tuple(self.parts))


def _labelled(pictures: Sequence[Picture], label: str) -> list[Picture]:
    return [picture for picture in pictures if picture.label == label]


def prior_of(bundle: EvidenceBundle) -> Prior:
    """The inspection prior of a bundle."""
    width, height = bundle.size_px or (0, 0)
    boxes = tuple(
        PriorBox(region.box, region.place, region.area_px / max(width * height, region.area_px), region.id)
        for region in bundle.regions
    )
    candidates = bundle.defect_type.candidates if bundle.defect_type else ()
    return Prior(
        score=bundle.image_score,
        threshold=bundle.threshold,
        percentile=bundle.percentile,
        probability=bundle.probability,
        admitted=bundle.admitted,
        calibrated=bundle.probability is not None,
        boxes=boxes,
        types=tuple((candidate.name, candidate.posterior) for candidate in candidates),
        grid=bundle.grid,
    )


def _further_lines(bundle: EvidenceBundle, task: Task) -> list[str]:
    """What further looks, the decoder and the knowledge base said; nothing for a question about the part's kind."""
    if task == "object":
        return []
    lines = [_item_line(item) for item in bundle.items if item.kind not in TOLD_ELSEWHERE]
    if bundle.contradicting and task in ("report", "detection"):
        views = " or ".join(f"the {view}" for view in bundle.contradicting)
        lines.insert(0, render(PROMPTS, "contradicting", views=views))
    return lines


def _item_line(item: Evidence) -> str:
    from ...tools.knowledge.schema import cut_to_budget, plain_text

    return cut_to_budget(f"[{item.id}] {plain_text(item.text)}", ITEM_TOKENS)


def _lettered(names: Sequence[str], seed: str) -> str:
    """Types with letters, in an order that the picture decides: models favour what comes first."""
    shuffled = sorted(names)
    random.Random(seed).shuffle(shuffled)  # noqa: S311  # an order without favour, not a secret
    return ", ".join(f"({letter}) {said_type(name)}" for letter, name in zip(LETTERS, shuffled, strict=False))


def said_type(slug: str) -> str:
    """A type's name as prompts say it and answers repeat it."""
    from ...tools.knowledge.schema import plain_text

    return plain_text(words(slug))[:NAME_LETTERS]


def _form(bundle: EvidenceBundle, task: Task) -> str:
    """The form of the answer."""
    if task != "report":
        return render(PROMPTS, "format_words")
    types = [*(said_type(name) for name in sorted(bundle.shortlist)), UNKNOWN, f"{NO_TYPE} for a good part"]
    regions = [*(region.id for region in bundle.regions), NO_REGION]
    return render(PROMPTS, "format_report", types=_either(types), regions=_either(regions))


def _either(options: Sequence[str]) -> str:
    return options[0] if len(options) == 1 else f"{', '.join(options[:-1])} or {options[-1]}"


def _quoted_line(text: str, budget: int) -> str:
    from ...tools.knowledge.schema import cut_to_budget, plain_text

    return cut_to_budget(f"> {plain_text(text)}", budget)


def _alike_lines(documents: Sequence[RetrievedDocument], pages: Sequence[str]) -> list[str]:
    """Which of the pages that are shown is of a part that deviates alike."""
    return [
        render(PROMPTS, "alike", id=document.evidence_id, similarity=number(document.resemblance))
        for document in documents
        if document.resemblance is not None and f"[{document.evidence_id}]" in pages
    ]


def document_lines(documents: Sequence[RetrievedDocument], budget: int = DOCUMENT_TOKENS) -> tuple[str, ...]:
    """Pages as quoted data: each between two marks with its id, each of its lines behind ``> ``.

    No text of a page can close its fence or open a turn, since no line of it starts at the margin; markup, links and
    speakers' turns are taken out. Each page gets an equal share of what the pages before it left.

    Args:
        documents: best first.
        budget: of all together, estimated tokens.

    Returns:
        The lines; none for no documents.
    """
    from ...tools.knowledge.schema import cut_to_budget, estimated_tokens, plain_text

    lines: list[str] = []
    left = budget
    for position, document in enumerate(documents):
        opening, closing = f"[{document.evidence_id}]", f"[end of {document.evidence_id}]"
        share = left // (len(documents) - position) - estimated_tokens(opening) - estimated_tokens(closing)
        if share < PAGE_TOKENS:
            continue
        kept: list[str] = []
        for line in _quoted(document.text):
            fitting = cut_to_budget(f"> {plain_text(line)}", share - sum(estimated_tokens(other) for other in kept))
            if fitting.strip("> "):
                kept.append(fitting)
        if kept:
            page = [opening, *kept, closing]
            lines += page
            left -= sum(estimated_tokens(line) for line in page)
    return tuple(lines)


def _quoted(text: str) -> list[str]:
    """The words of a quotation, without its own marks; of other text every line."""
    inside = [line[2:] for line in text.splitlines() if line.startswith("> ")]
    return inside or [line for line in text.splitlines() if line.strip()]
