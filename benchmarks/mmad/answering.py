"""Answers to questions: from a model by letters or in words, and the line that is logged of each."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ...agent.vision_language import LetterAnswer, Message, VisionLanguageModel
from .protocol import MAX_NEW_TOKENS
from .questions import Item
from .replies import official_letter, strict_letter
from .scoring import DETECTION

YES = "yes"


class Answerer(Protocol):
    """Whoever answers questions."""

    @property
    def name(self) -> str:
        """Whose answers these are."""
        ...

    def answer(self, item: Item, messages: Sequence[Message]) -> LetterAnswer:
        """Answer one question.

        Args:
            item: the question; a model looks at the messages alone.
            messages: what a model is asked.
        """
        ...


@dataclass(frozen=True)
class ByLetter:
    """A model held to the options' letters.

    Attributes:
        model: whom to ask.
    """

    model: VisionLanguageModel

    @property
    def name(self) -> str:
        """The model's."""
        return self.model.name

    def answer(self, item: Item, messages: Sequence[Message]) -> LetterAnswer:
        """See `Answerer.answer`."""
        return self.model.choose(messages, tuple(item.options))


@dataclass(frozen=True)
class InWords:
    """A model that answers as it likes, as MMAD's scripts let it; the letter is read from its reply.

    Attributes:
        model: whom to ask.
    """

    model: VisionLanguageModel

    @property
    def name(self) -> str:
        """The model's."""
        return self.model.name

    def answer(self, item: Item, messages: Sequence[Message]) -> LetterAnswer:
        """See `Answerer.answer`; no probabilities, since a letter may stand anywhere in the reply."""
        said = self.model.generate(messages, max_tokens=MAX_NEW_TOKENS)
        return LetterAnswer(strict_letter(said.text, item.options), None, None, said.text, said.usage)


@dataclass(frozen=True)
class MostFrequent:
    """The letter that is right most often in each subtask of the test itself: what knowing nothing else can reach.

    Attributes:
        letters: subtask -> letter.
        name: of the row.
    """

    letters: Mapping[str, str]
    name: str = "most frequent letter (knows the key)"

    @classmethod
    def of(cls, items: Sequence[Item]) -> MostFrequent:
        """Count the key."""
        counts: dict[str, Counter[str]] = {}
        for item in items:
            counts.setdefault(item.subtask, Counter())[item.answer] += 1
        return cls({task: min(count, key=lambda a: (-count[a], a)) for task, count in counts.items()})

    def answer(self, item: Item, messages: Sequence[Message]) -> LetterAnswer:
        """See `Answerer.answer`."""
        letter = self.letters[item.subtask]
        return LetterAnswer(letter if letter in item.options else next(iter(item.options)), None, None, letter)


@dataclass(frozen=True)
class Known:
    """What is logged beside an answer, as far as it is known; None is unknown.

    Attributes:
        s_cal: the expert's calibrated probability of a defect.
        retrieval_similarity: cosine of the nearest document.
        permuted: answers with the options in other orders, mapped back.
        extra: further fields, JSON values.
    """

    s_cal: float | None = None
    retrieval_similarity: float | None = None
    permuted: tuple[str | None, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


def permuted(item: Item, turn: int) -> tuple[Item, dict[str, str]]:
    """The same question with its options moved on by ``turn`` places, and new letter -> old letter."""
    letters = list(item.options)
    moved = letters[turn % len(letters) :] + letters[: turn % len(letters)]
    back = dict(zip(letters, moved, strict=True))
    options = {new: item.options[old] for new, old in back.items()}
    answer = next(new for new, old in back.items() if old == item.answer)
    return replace(item, options=options, answer=answer), back


def other_orders(item: Item, count: int) -> Iterator[tuple[Item, dict[str, str]]]:
    """The question under other orders of its options, so many or as many as there are; see ``permuted``."""
    for turn in range(1, min(count, len(item.options) - 1) + 1):  # then the first order comes again
        yield permuted(item, turn)


def answered(item: Item, answerer: Answerer, messages: Sequence[Message], known: Known | None = None) -> dict[str, Any]:
    """Ask, and give the line for the log; `flawscope.agent.uncertainty.records.AnswerRecord` reads it."""
    begun = time.perf_counter()
    found = answerer.answer(item, messages)
    return record(item, answerer.name, found, time.perf_counter() - begun, known)


def record(item: Item, model: str, found: LetterAnswer, seconds: float, known: Known | None = None) -> dict[str, Any]:
    """The line of one answer.

    Args:
        item: the question.
        model: who answered.
        found: the answer.
        seconds: that it took.
        known: what else is known.
    """
    known = known or Known()
    letter = found.letter if found.letter in item.options else None
    shares = None if found.probabilities is None else {k: float(v) for k, v in found.probabilities.items()}
    return {
        "id": item.key,
        "image": item.image,
        "dataset": item.dataset,
        "product": item.product,
        "task": item.subtask,
        "question_type": item.task,
        "normal": item.normal,
        "model": model,
        "answer": letter,
        "official": letter if shares is not None and letter else official_letter(found.reply, item.options),
        "truth": item.answer,
        "correct": letter == item.answer,
        "reply": found.reply,
        "probabilities": shares,
        "mass": found.mass,
        "entropy": found.entropy,
        "p_defect": _p_defect(item, shares),
        "s_cal": known.s_cal,
        "retrieval_similarity": known.retrieval_similarity,
        "permuted": list(known.permuted),
        "seconds": seconds,
        "usage": dict(found.usage),
        **known.extra,
    }


def says_yes(text: str) -> bool:
    """Whether an option of a yes/no question says that there is a defect."""
    return text.strip().lower().startswith(YES)


def official_row(line: Mapping[str, Any]) -> dict[str, Any]:
    """A logged answer in the form that MMAD's scripts store and score."""
    return {
        "image": line["image"],
        "question": line["id"],
        "question_type": line["question_type"],
        "correct_answer": line["truth"],
        "gpt_answer": line["official"],
    }


def strict_row(line: Mapping[str, Any]) -> dict[str, Any]:
    """The same with the letter as it is read strictly; empty when there is none."""
    return {**official_row(line), "gpt_answer": line["answer"] or ""}


def _p_defect(item: Item, shares: Mapping[str, float] | None) -> float | None:
    """Probability of the option that says yes, of a question whether there is a defect."""
    if shares is None or item.subtask != DETECTION:
        return None
    yes = [letter for letter, text in item.options.items() if says_yes(text)]
    return shares[yes[0]] if len(yes) == 1 else None
