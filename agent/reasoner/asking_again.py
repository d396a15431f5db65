"""Whether a model says the same of a part when it is asked again: drawn answers, and the question in two orders.

Semantic entropy (Kuhn et al. 2023) is over what five drawn answers mean; only their beginnings are drawn, which hold
the verdict, the type and the area. The order of options must not matter either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel

from ...prompts import render
from ..schemas import Verdict
from ..uncertainty.agreement import ask_reordered, draw_meanings, meaning_of
from ..vision_language import LetterAnswer, Message, Picture, VisionLanguageModel
from .base import AskedAgain, EvidenceBundle
from .composing import compose

QUESTIONS = "question"
MEANS = {"A": Verdict.NG.value, "B": Verdict.OK.value}


def ask_again(
    model: VisionLanguageModel,
    messages: Sequence[Message],
    evidence: EvidenceBundle,
    pictures: Sequence[Picture],
    form: type[BaseModel],
) -> AskedAgain:
    """Ask for the report a few times at a temperature, then whether there is a defect, in both orders of the options.

    Args:
        model: whom to ask.
        messages: that asked for the report.
        evidence: of which they tell.
        pictures: shown with them.
        form: of the report.

    Raises:
        BackendError: the model failed.
    """
    places = {region.id: region.place.split(",")[0] for region in evidence.regions}
    drawn = draw_meanings(model, messages, lambda text: meaning_of(text, places), schema=form)
    options = {"A": render(QUESTIONS, "yes"), "B": render(QUESTIONS, "no")}

    def asked(listed: Mapping[str, str]) -> list[Message]:
        return _question(evidence, pictures, listed)

    answers = (model.choose(asked(options), tuple(options)), *ask_reordered(model, asked, options, n=1))
    return AskedAgain(
        samples=tuple(None if meaning is None else str(meaning) for meaning in drawn),
        permuted=tuple(_verdict(answer) for answer in answers),
    )


def _question(evidence: EvidenceBundle, pictures: Sequence[Picture], options: Mapping[str, str]) -> list[Message]:
    """Everything that tells of a defect, then whether there is one."""
    system, turn = compose(evidence, pictures, task="detection")
    listed = [render(QUESTIONS, "option", letter=letter, text=text) for letter, text in options.items()]
    asked = [render(QUESTIONS, "ask", text=render(QUESTIONS, "anomaly_1")), *listed]
    return [system, Message("user", (*turn.parts, "".join(f"{line}\n" for line in asked)))]


def _verdict(answer: LetterAnswer) -> str | None:
    return None if answer.letter is None else MEANS.get(answer.letter)
