"""Instruction data: questions about labelled pictures as conversations, one a line of a JSON Lines file.

Each question is asked as it is in the benchmark, answered by a letter, and, where its options are sentences of pages or
names, once more without options, answered in words. No evidence and no page is in the prompt: what is in them is to be
learnt, which is what fine-tuning stands for in ADSeeker's comparison with retrieval.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..agent.errors import InputError
from ..agent.home import write_text_atomically
from ..agent.vision_language.messages import Message, Part, Picture
from ..prompts import render
from ..tools.imaging import load_image
from ..tools.knowledge.schema import KnowledgeDocument
from .questions import Question, Task, compose_question, picture_questions
from .retriever_pairs import Source

OPEN_TASKS: frozenset[Task] = frozenset(
    {"Defect Classification", "Defect Localization", "Defect Description", "Defect Analysis", "Object Analysis"}
)
"""Subtasks that are also asked without options."""
KEPT_PICTURES = 512


@dataclass(frozen=True)
class Conversation:
    """One turn of a user and what the assistant is to say.

    Attributes:
        id: product, picture, subtask and form.
        task: subtask.
        product: what the picture shows.
        letters: options; empty when it is asked without.
        parts: text, or the path of a picture with its label.
        answer: a letter, or words.
    """

    id: str
    task: str
    product: str
    letters: tuple[str, ...]
    parts: tuple[str | tuple[Path, str], ...]
    answer: str

    def messages(self) -> list[Message]:
        """The user's turn, its pictures loaded.

        Raises:
            InputError: a picture cannot be read.
        """
        parts: list[Part] = [
            part if isinstance(part, str) else Picture(pixels(part[0]), part[1]) for part in self.parts
        ]
        return [Message("user", tuple(parts))]


@lru_cache(maxsize=KEPT_PICTURES)
def pixels(path: Path) -> NDArray[np.uint8]:
    """A picture, uint8 RGB (H, W, 3); the last ones are kept, as questions about one follow each other.

    Raises:
        InputError: it cannot be read.
    """
    return load_image(path).rgb


def question_conversations(
    sources: Sequence[Source],
    pages: Sequence[KnowledgeDocument],
    *,
    seed: int,
    shown: int = 1,
    max_pictures: int | None = None,
) -> Iterator[Conversation]:
    """Conversations about the labelled pictures of products.

    Args:
        sources: the products.
        pages: of the knowledge base; the words of answers come from them.
        seed: of wording and options.
        shown: good pictures that a prompt shows.
        max_pictures: labelled pictures a product; None for all.
    """
    for source in sources:
        tests = [picture.path for picture in source.product.tests]
        draw = np.random.default_rng([seed, *source.product.name.encode()]).permutation(len(tests))
        chosen = {tests[int(index)] for index in draw[:max_pictures]}
        for question in picture_questions(source.dataset, source.product, pages, seed=seed, references=shown):
            if question.picture in chosen:
                yield from of_question(question)


def of_question(question: Question) -> Iterator[Conversation]:
    """A question about a picture with its options, and without where that can be answered in words."""
    if question.picture is None:
        return
    path = question.picture
    named = f"{question.product}/{path.parent.name}/{path.name}/{question.task}"
    files = {"query": [path], "reference": list(question.references)}
    blank = np.zeros((1, 1, 3), np.uint8)
    asked = compose_question(question, query=blank, references=[blank] * len(question.references))
    parts: list[str | tuple[Path, str]] = []
    for part in asked[0].parts:
        if isinstance(part, Picture):
            parts.append((files[part.label].pop(0), part.label))
        elif isinstance(part, str):
            parts.append(part)
    yield Conversation(named, question.task, question.product, question.letters, tuple(parts), question.answer)
    if question.task in OPEN_TASKS:
        words = (*parts[:-1], render("question", "ask", text=question.text))
        yield Conversation(f"{named}/open", question.task, question.product, (), words, question.right)


def write_conversations(path: Path, conversations: Iterable[Conversation]) -> int:
    """Write a JSON Lines file in the form that chat templates take; how many there are.

    Raises:
        StorageError: the disk refuses.
    """
    lines = [json.dumps(_as_json(each), ensure_ascii=False) for each in conversations]
    write_text_atomically(path, "".join(f"{line}\n" for line in lines))
    return len(lines)


def read_conversations(path: Path) -> list[Conversation]:
    """Read what `write_conversations` wrote.

    Raises:
        InputError: the file cannot be read, or a line of it is no conversation.
    """
    found = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the conversations {path} cannot be read.") from error
    for number, line in enumerate(lines, start=1):
        try:
            found.append(_of_json(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"line {number} of {path} is no conversation.") from error
    return found


def _as_json(each: Conversation) -> dict[str, Any]:
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image", "image": str(part[0]), "label": part[1]}
        for part in each.parts
    ]
    said = [{"type": "text", "text": each.answer}]
    turns = [{"role": "user", "content": content}, {"role": "assistant", "content": said}]
    return {
        "id": each.id,
        "task": each.task,
        "product": each.product,
        "letters": list(each.letters),
        "messages": turns,
    }


def _of_json(line: dict[str, Any]) -> Conversation:
    user, assistant = line["messages"]
    if (user["role"], assistant["role"]) != ("user", "assistant"):
        raise ValueError("a conversation is a question and an answer")
    parts = tuple(
        str(part["text"]) if part["type"] == "text" else (Path(part["image"]), str(part["label"]))
        for part in user["content"]
    )
    answer = str(assistant["content"][0]["text"])
    letters = tuple(str(letter) for letter in line["letters"])
    return Conversation(str(line["id"]), str(line["task"]), str(line["product"]), letters, parts, answer)
