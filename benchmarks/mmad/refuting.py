"""The ``refute`` action as a row of the ladder: argue against the area found, then ask again with what is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...agent.reasoner.refuting import refute
from ...agent.vision_language import Generated, LetterAnswer, Message, Picture
from ...graphs.refuting import moved
from .evidence import PictureEvidence
from .questions import Item
from .scoring import DETECTION

if TYPE_CHECKING:
    from .asking import Asking, Given


class _Counted:
    """A model whose calls and prompt tokens are added to those of an `Asking`."""

    def __init__(self, asking: Asking) -> None:
        self.name = asking.model.name
        self._asking = asking

    def generate(self, messages: Sequence[Message], **options: Any) -> Generated:
        said = self._asking.model.generate(messages, **options)
        self._count(said.usage)
        self._asking.positions += int(said.usage.get("completion_tokens", 0))
        return said

    def choose(self, messages: Sequence[Message], letters: Sequence[str]) -> LetterAnswer:
        found = self._asking.model.choose(messages, letters)
        self._count(found.usage)
        return found

    def _count(self, usage: Any) -> None:
        self._asking.calls += 1
        self._asking.positions += int(usage.get("prompt_tokens", 0))


def refuted(
    asking: Asking, item: Item, given: Given, evidence: PictureEvidence, first: LetterAnswer, doubt: float
) -> tuple[LetterAnswer, dict[str, Any]]:
    """Refute where an answer whether there is a defect is in doubt and an area was found; the surer answer stands.

    As in an inspection, what the model then gives to a defect moves the calibrated probability within its bounds, and
    the question is asked again with that.

    Args:
        asking: asks.
        item: the question.
        given: what it came with.
        evidence: about its picture.
        first: its answer.
        doubt: entropy from which on it is tried.

    Returns:
        The answer, and for its log what was tried.
    """
    prior, regions = given.prior, evidence.bundle.regions
    open_still = first.entropy is None or first.entropy > doubt
    if item.subtask != DETECTION or not open_still or not regions or prior is None or prior.probability is None:
        return first, {"refuted": False, "base": first.letter}
    from .asking import magnified

    pictures = [*(Picture(rgb, "reference") for rgb in given.references), Picture(given.query, "query")]
    pictures.append(Picture(magnified(given.query, regions[0].box), f"crop {regions[0].id}"))
    tried = refute(_Counted(asking), evidence.bundle, pictures)
    after = moved(prior.probability, tried.defect, tried.mass)
    found = asking.choose(item, replace(given, prior=replace(prior, probability=after)), evidence)
    better = found.entropy is not None and (first.entropy is None or found.entropy < first.entropy)
    told = {"defect": tried.defect, "mass": tried.mass, "before": prior.probability, "after": after}
    return found if better else first, {"refuted": True, "base": first.letter, "refutation": told}
