"""A multiple-choice question about a picture, and the one way in which it is asked, in training and in benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ...agent.reasoner.composing import Task as PriorTask
from ...agent.vision_language.messages import Message, Part, Picture, Slot
from ...prompts import render
from ...tools.knowledge.categories import CategoryChoice
from ...tools.knowledge.schema import GOOD, KnowledgeDocument, cut_to_budget, plain_text

PROMPTS = "question"
LETTERS = "ABCDE"
LINE_TOKENS = 120
"""Budget of one quoted line, estimated tokens."""

Task = Literal[
    "Anomaly Detection",
    "Defect Classification",
    "Defect Localization",
    "Defect Description",
    "Defect Analysis",
    "Object Classification",
    "Object Analysis",
]
TASKS: tuple[Task, ...] = get_args(Task)
"""The seven subtasks of MMAD (arXiv 2410.09453), by its names."""
PRIOR_TASKS: dict[Task, PriorTask] = {
    "Anomaly Detection": "detection",
    "Defect Classification": "defect",
    "Defect Localization": "localisation",
    "Defect Description": "defect",
    "Defect Analysis": "defect",
    "Object Classification": "object",
    "Object Analysis": "object",
}
"""What of the inspection prior a subtask is told."""


@dataclass(frozen=True)
class Question:
    """A question with its options and the right one.

    Attributes:
        task: subtask.
        text: the question alone.
        options: what may be answered; the first is A.
        answer: the right option's letter.
        product: what the picture shows.
        defect_type: its label there, ``good`` for a good part.
        dataset: where the picture is from; empty for none.
        picture: the query; None for a question about evidence alone.
        references: good pictures of the same product.
    """

    task: Task
    text: str
    options: tuple[str, ...]
    answer: str
    product: str
    defect_type: str = GOOD
    dataset: str = ""
    picture: Path | None = None
    references: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if not 2 <= len(self.options) <= len(LETTERS) or len(set(self.options)) != len(self.options):
            raise ValueError("a question has two to five different options")
        if self.answer not in self.letters:
            raise ValueError(f"no option has the letter {self.answer!r}")

    @property
    def letters(self) -> tuple[str, ...]:
        """The letters of the options."""
        return tuple(LETTERS[: len(self.options)])

    @property
    def right(self) -> str:
        """The right option's text."""
        return self.options[LETTERS.index(self.answer)]


def compose_question(
    question: Question,
    *,
    query: NDArray[np.uint8] | None = None,
    references: Sequence[NDArray[np.uint8]] = (),
    knowledge_lines: Sequence[str] = (),
    prior_lines: Sequence[str] = (),
    prior_slot: Slot | None = None,
    latent_slot: Slot | None = None,
) -> list[Message]:
    """What a model is asked: one user turn in the order of MMAD's protocol (arXiv 2410.09453).

    Instruction, quoted pages, references, inspection prior, query picture, question with options. Each text part ends
    its line, since chat templates join parts without anything between them.

    Args:
        question: what to ask.
        query: uint8 RGB (H, W, 3); None to ask without a picture.
        references: uint8 RGB pictures of good parts.
        knowledge_lines: of `knowledge_lines`.
        prior_lines: of `flawscope.agent.reasoner.composing.prior_lines` for the task in ``PRIOR_TASKS``.
        prior_slot: a place for prior tokens, after the prior's lines.
        latent_slot: a place for think tokens, after the question.
    """
    context = _lines([render(PROMPTS, "instruction")])
    if knowledge_lines:
        context += _lines([render(PROMPTS, "knowledge"), *knowledge_lines])
    parts: list[Part] = [context]
    if references:
        parts.append(_lines([render(PROMPTS, "references")]))
        parts += [Picture(reference, "reference") for reference in references]
        parts.append("\n")
    if prior_lines:
        parts.append(_lines([render(PROMPTS, "prior"), *prior_lines]))
    if prior_slot is not None:
        parts += [prior_slot, "\n"]
    if query is not None:
        parts += [render(PROMPTS, "query"), Picture(query, "query"), "\n"]
    parts.append(question_text(question))
    if latent_slot is not None:
        parts.append(latent_slot)
    return [Message("user", tuple(parts))]


def question_text(question: Question) -> str:
    """The question and its options, a line each; the last part of a prompt."""
    options = [
        render(PROMPTS, "option", letter=letter, text=text)
        for letter, text in zip(question.letters, question.options, strict=True)
    ]
    return "\n".join([render(PROMPTS, "ask", text=question.text), *options])


def knowledge_lines(
    task: Task,
    pages: Sequence[KnowledgeDocument],
    category: CategoryChoice | None = None,
    good_pages: Sequence[KnowledgeDocument] = (),
) -> tuple[str, ...]:
    """What the pages say to a subtask, one quoted line a page, so that a small context holds several.

    Args:
        task: subtask; where a defect lies no page can say.
        pages: retrieved, best first; cited as ``D1`` and on.
        category: the kind of part as predicted; for questions about the part.
        good_pages: pages of good parts of that category's candidates, in its order.

    Returns:
        The lines; text of pages stands behind ``> `` and is cleaned as in every prompt.
    """
    if task == "Defect Localization":
        return ()
    lines = []
    if PRIOR_TASKS[task] == "object":
        if category is not None and category.candidates:
            for name, share in category.candidates:
                given = {} if category.source in ("given", "oracle") else {"posterior": f"{share:.2f}"}
                first = render("category", category.source, name=plain_text(name.replace("_", " ")), **given)
                lines.append(first.partition(". ")[0].partition("; ")[0] + ".")
        pages = (*good_pages, *pages)
    seen: set[str] = set()
    for position, page in enumerate(pages, start=1):
        said = _said(task, page.established)
        if said and said not in seen:
            seen.add(said)
            lines.append(f"[D{position}] " + cut_to_budget(f"> {said}", LINE_TOKENS))
    return tuple(lines)


def _said(task: Task, page: KnowledgeDocument) -> str:
    """The part of a page that answers a subtask, after the name of what it is about; empty for nothing."""
    product, name = (plain_text(slug.replace("_", " ")) for slug in (page.product, page.defect_type))
    if PRIOR_TASKS[task] == "object":
        if page.scope != "product":
            return ""
        if page.defect_type == GOOD:
            return f"{product}: {plain_text(page.normal_traits)}" if page.normal_traits else ""
        return f"{product}: {name}" if task == "Object Classification" else ""
    if page.defect_type == GOOD:
        return ""
    if task == "Defect Analysis":
        causes = f"Causes: {plain_text('; '.join(page.likely_causes[:2]))}." if page.likely_causes else ""
        effects = f"Effects: {plain_text('; '.join(page.consequences[:2]))}." if page.consequences else ""
        action = f"Action: {plain_text(page.instruction)}" if page.instruction else ""
        words = " ".join(filter(None, (causes, effects, action)))
    else:
        words = plain_text(page.description)
    return f"{name}: {words}" if words else ""


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
