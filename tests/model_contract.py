"""What every vision-language model must do, whoever runs it; each check takes a model that knows nothing of tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from flawscope.agent.vision_language import Message, Picture, Slot, VisionLanguageModel

LETTERS = ("A", "B")
PICTURE = np.full((56, 84, 3), (220, 30, 30), np.uint8)
QUESTION = (
    Message("system", ("You inspect parts.",)),
    Message("user", ("The part:", Picture(PICTURE, "query"), "Is there a defect? A: yes. B: no.", "One letter.")),
)


class Light(BaseModel):
    """A form with few answers."""

    model_config = ConfigDict(extra="forbid")

    light: Literal["red", "green"]


def is_a_model(model: VisionLanguageModel) -> None:
    """It has a name and both methods."""
    assert isinstance(model, VisionLanguageModel)
    assert model.name


def answers_in_words(model: VisionLanguageModel) -> None:
    """Text, an end, counts; scores that spell the text, or None."""
    said = model.generate(QUESTION, max_tokens=12)
    assert isinstance(said.text, str)
    assert said.finish_reason in ("stop", "length")
    assert said.tokens is None or said.tokens
    for token in said.tokens or ():
        assert token.logprob <= 0.0
        assert token.entropy >= 0.0
        assert [p for _, p in token.top] == sorted((p for _, p in token.top), reverse=True)
    if said.tokens is not None:
        assert "".join(token.text for token in said.tokens).startswith(said.text)
    assert said.usage.get("completion_tokens", 0) <= 12


def repeats_itself(model: VisionLanguageModel) -> None:
    """The likeliest answer is the same each time."""
    first, second = (model.generate(QUESTION, max_tokens=8) for _ in range(2))
    assert (first.text, first.finish_reason) == (second.text, second.finish_reason)


def shows_the_answer_as_it_grows(model: VisionLanguageModel) -> None:
    """The pieces are the answer, and being watched changes nothing."""
    seen: list[str] = []
    said = model.generate(QUESTION, max_tokens=8, on_text=seen.append)
    assert "".join(seen) == said.text
    assert said.text == model.generate(QUESTION, max_tokens=8).text


def chooses_a_letter(model: VisionLanguageModel) -> None:
    """A letter of those given or None; probabilities that add up and agree with it, or None with their mass."""
    found = model.choose(QUESTION, LETTERS)
    assert found.letter in (*LETTERS, None)
    assert (found.probabilities is None) == (found.mass is None) == (found.entropy is None)
    if found.probabilities is not None:
        assert tuple(found.probabilities) == LETTERS
        assert sum(found.probabilities.values()) == pytest.approx(1.0, abs=1e-4)
        assert 0.0 <= (found.mass or 0.0) <= 1.0
        assert 0.0 <= (found.entropy or 0.0) <= 1.0
        if (found.mass or 0.0) >= 0.5:
            assert found.letter == max(LETTERS, key=lambda letter: (found.probabilities or {})[letter])


def takes_or_leaves_slots(model: VisionLanguageModel) -> None:
    """A place for vectors that nobody fills hinders no question, where there is none it is left out."""
    asked = Message("user", ("The part:", Picture(PICTURE), Slot("prior", 0), "OK or NG?"))
    assert isinstance(model.generate([asked], max_tokens=4).text, str)


def holds_a_conversation(model: VisionLanguageModel) -> None:
    """Turns of both sides."""
    turns = (*QUESTION, Message("assistant", ("B",)), Message("user", ("Sure?",)))
    assert isinstance(model.generate(turns, max_tokens=4).text, str)


def keeps_to_a_form(model: VisionLanguageModel) -> None:
    """JSON of the form; for models that can be held to it."""
    said = model.generate(QUESTION, max_tokens=40, schema=Light)
    assert Light.model_validate_json(said.text).light in ("red", "green")


def answers_something_when_a_form_is_wanted(model: VisionLanguageModel) -> None:
    """For models that cannot be held to one: text that the caller checks."""
    said = model.generate(QUESTION, max_tokens=20, schema=Light)
    assert isinstance(said.text, str)
    try:
        Light.model_validate_json(said.text)
    except ValidationError:
        return


Check = Callable[[VisionLanguageModel], None]
CHECKS: tuple[Check, ...] = (
    is_a_model,
    answers_in_words,
    repeats_itself,
    shows_the_answer_as_it_grows,
    chooses_a_letter,
    takes_or_leaves_slots,
    holds_a_conversation,
)
"""For every model; `keeps_to_a_form` is for those that can be held to one."""
