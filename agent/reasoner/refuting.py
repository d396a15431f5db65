"""Arguing against a suspicion: can what was found be the normal variation of good parts?

AnomalyClaw found that a model which first tries to refute a finding with tools judges it better. Here the attempt is
one more piece of evidence; how far it may move the probability is bounded where it enters (``graphs.refuting``).
"""

from __future__ import annotations

from collections.abc import Sequence

from ...prompts import render
from ..vision_language import LetterAnswer, Message, Part, Picture, VisionLanguageModel
from .base import EvidenceBundle, Refutation

EXPLANATION_TOKENS = 120
SHOWN_LETTERS = 400


def refute(model: VisionLanguageModel, evidence: EvidenceBundle, pictures: Sequence[Picture]) -> Refutation:
    """Ask for an explanation as normal variation, then which of the two is likelier, in both orders of the options.

    Args:
        model: whom to ask.
        evidence: with one region at least; the strongest is argued about.
        pictures: the query first, then references and crops.

    Raises:
        BackendError: the model failed.
    """
    from ...tools.knowledge.schema import plain_text

    region = evidence.regions[0]
    question = render("answer", "refute", id=region.id, place=region.place, box=list(region.box))
    opening = Message("user", (*_shown(pictures, region.id), question))
    said = plain_text(model.generate([opening], max_tokens=EXPLANATION_TOKENS).text)[:SHOWN_LETTERS]
    so_far = (opening, Message("assistant", (said or "Nothing explains it.",)))
    first = _choose(model, so_far, normal="A", defect="B")
    second = _choose(model, so_far, normal="B", defect="A")
    if first.probabilities is None or second.probabilities is None or first.mass is None or second.mass is None:
        return Refutation(region.id, said, None, None)
    defect = 0.5 * (first.probabilities["B"] + second.probabilities["A"])
    return Refutation(region.id, said, defect, 0.5 * (first.mass + second.mass))


def _shown(pictures: Sequence[Picture], region_id: str) -> list[Part]:
    """Good parts, the part, and the area enlarged, each after a line that says so."""
    parts: list[Part] = []
    for label, section in (("reference", "references"), ("query", "query"), (f"crop {region_id}", "crop")):
        shown = [picture for picture in pictures if picture.label == label]
        if shown:
            named = {"id": region_id} if section == "crop" else {}
            parts += [f"{render('inspect', section, **named)}\n", *shown, "\n"]
    return parts


def _choose(model: VisionLanguageModel, so_far: Sequence[Message], *, normal: str, defect: str) -> LetterAnswer:
    """One of the two orders: a model that always takes the first option must not tip the balance."""
    options = {normal: render("answer", "option_normal"), defect: render("answer", "option_defect")}
    listed = "\n".join(f"{letter}: {options[letter]}" for letter in sorted(options))
    question = render("answer", "refute_choice", options=listed)
    return model.choose([*so_far, Message("user", (question,))], ("A", "B"))
