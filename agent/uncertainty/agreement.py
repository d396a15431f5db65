"""Whether a model agrees with itself: over draws of the answer, and over the order of the options."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from pydantic import BaseModel

from ..schemas import Verdict
from ..vision_language.base import LetterAnswer, VisionLanguageModel
from ..vision_language.messages import Message

SAMPLES = 5
SAMPLE_TEMPERATURE = 0.7
HEAD_TOKENS = 64
"""Of a drawn answer: its verdict, type and area come first, and its sentences are not read."""
VERDICTS = frozenset(verdict.value for verdict in Verdict)
_HEAD = re.compile(r'"(verdict|defect_type|region)"\s*:\s*"([^"]*)"')

Answer = TypeVar("Answer", bound=Hashable)


# --- draws ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Meaning:
    """What an inspection's answer comes down to; two answers mean the same if these are equal.

    Attributes:
        verdict: OK, NG or REVIEW.
        defect_type: its name, empty without one.
        place: of the area it speaks of, in the nine words of the picture's thirds; empty without one.
    """

    verdict: str
    defect_type: str = ""
    place: str = ""

    def __str__(self) -> str:
        """As a log keeps it."""
        return " | ".join((self.verdict, self.defect_type, self.place))


def meaning_of(text: str, places: Mapping[str, str]) -> Meaning | None:
    """Verdict, type and coarse place of an answer in the reasoner's form, of which the beginning is enough.

    Args:
        text: JSON, whole or cut behind the three; None comes back where it names no verdict.
        places: region id -> its place.
    """
    said = dict(_HEAD.findall(text))
    verdict = said.get("verdict")
    if verdict not in VERDICTS:
        return None
    kind = "" if verdict == Verdict.OK else said.get("defect_type", "").lower()
    return Meaning(verdict, kind, places.get(said.get("region", ""), ""))


def semantic_entropy(meanings: Sequence[Hashable | None]) -> float | None:
    """Entropy of the clusters of equal meaning, divided by log n (Kuhn et al. 2023), in [0, 1].

    Args:
        meanings: of n draws; None is a reply without meaning, which agrees with none, not even with another such.

    Returns:
        0 when all mean the same, 1 when no two do; None for fewer than two draws.
    """
    n = len(meanings)
    if n < 2:
        return None
    sizes = [*Counter(m for m in meanings if m is not None).values(), *(1 for m in meanings if m is None)]
    entropy = -sum(size / n * math.log(size / n) for size in sizes)
    return min(1.0, max(0.0, entropy / math.log(n)))


def draw_meanings(
    model: VisionLanguageModel,
    messages: Sequence[Message],
    meaning: Callable[[str], Answer | None],
    *,
    schema: type[BaseModel] | None = None,
    n: int = SAMPLES,
    temperature: float = SAMPLE_TEMPERATURE,
    max_tokens: int = HEAD_TOKENS,
) -> tuple[Answer | None, ...]:
    """Draw answers and keep what each means.

    Args:
        model: that is asked.
        messages: the conversation.
        meaning: of a reply; None when it has none.
        schema: form of the replies.
        n: draws, with the seeds 0, 1 and on.
        temperature: of the draws, above 0.
        max_tokens: of each answer.

    Raises:
        BackendError: the model failed.
        ValueError: the temperature draws nothing.
    """
    if not temperature > 0.0:
        raise ValueError("draws need a temperature above 0")
    drawn = (
        model.generate(messages, max_tokens=max_tokens, schema=schema, temperature=temperature, seed=seed)
        for seed in range(n)
    )
    return tuple(meaning(reply.text) for reply in drawn)


# --- the order of the options -----------------------------------------------------------------------------------------


def option_orders(letters: Sequence[str], n: int, seed: int = 0) -> tuple[tuple[str, ...], ...]:
    """Orders of the options, none of them the given one, no two alike, as many as there are up to n.

    Args:
        letters: the options' letters, in the order asked first.
        n: orders wanted.
        seed: of the choice.

    Returns:
        Each order names, place by place, the letter whose option now stands there.
    """
    given = tuple(letters)
    possible = math.factorial(len(given)) - 1
    rng, found = np.random.default_rng(seed), dict[tuple[str, ...], None]()
    while len(found) < min(n, possible):
        order = tuple(given[i] for i in rng.permutation(len(given)))
        if order != given:
            found[order] = None
    return tuple(found)


def reordered(options: Mapping[str, str], order: Sequence[str]) -> dict[str, str]:
    """The same options under the same letters in another order: letter i gets the option of ``order[i]``."""
    return {letter: options[source] for letter, source in zip(options, order, strict=True)}


def mapped_back(letter: str | None, letters: Sequence[str], order: Sequence[str]) -> str | None:
    """Which of the original options a letter of the reordered ones means; None for a reply without one."""
    return None if letter is None else dict(zip(letters, order, strict=True))[letter]


def consistency(answer: str | None, permuted: Sequence[str | None]) -> float | None:
    """Share of the answers under other orders that name the same option; None when none was asked for.

    A reply that names no option disagrees.
    """
    if not permuted:
        return None
    return sum(other is not None and other == answer for other in permuted) / len(permuted)


def ask_reordered(
    model: VisionLanguageModel,
    compose: Callable[[Mapping[str, str]], Sequence[Message]],
    options: Mapping[str, str],
    *,
    n: int = 3,
    seed: int = 0,
) -> tuple[LetterAnswer, ...]:
    """Ask the same question with its options in other orders; letters and probabilities are mapped back.

    Args:
        model: that is asked.
        compose: messages for options, letter -> text.
        options: as asked first.
        n: further orders at most.
        seed: of their choice.

    Raises:
        BackendError: the model failed.
    """
    letters, answers = tuple(options), []
    for order in option_orders(letters, n, seed):
        reply = model.choose(compose(reordered(options, order)), letters)
        shares = reply.probabilities
        answers.append(
            LetterAnswer(
                letter=mapped_back(reply.letter, letters, order),
                probabilities=None
                if shares is None
                else {source: shares[letter] for letter, source in zip(letters, order, strict=True)},
                mass=reply.mass,
                reply=reply.reply,
                usage=reply.usage,
            )
        )
    return tuple(answers)
