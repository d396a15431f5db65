"""Ask a question as an arm of the ladder: gather what the arm gives, ask, think or ask again, and log all of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from ...agent.reasoner.prior_lines import Prior, prior_lines
from ...agent.uncertainty.agreement import draw_meanings
from ...agent.vision_language import LetterAnswer, Message, Slot, VisionLanguageModel
from ...agent.vision_language.reported import named_letter
from ...agent.vision_language.served import LETTER_TOKENS
from ...tools.knowledge.categories import CategoryChoice
from ...tools.knowledge.schema import KnowledgeDocument
from ...training.questions import PRIOR_TASKS, compose_question, knowledge_lines
from .answering import Known, other_orders, record, says_yes
from .arms import Arm
from .evidence import PictureEvidence
from .questions import Item
from .refuting import refuted
from .run import picture, question_of
from .scoring import DETECTION

if TYPE_CHECKING:
    from ...agent.vision_language.latent import LatentSettings
    from ...agent.vision_language.qwen import QwenModel

DOUBT = 0.25
"""Normalised entropy from which on an answer is asked for again, while nothing calibrates it."""
ACTIONS = 3
ORDERS = 3
LOCALISATION = "Defect Localization"
MARGIN = 0.5
"""Share of an area's sides that is shown around it when it is magnified."""


NOTHING = PictureEvidence.empty()


@dataclass(frozen=True, eq=False)
class Given:
    """What a question comes with.

    Attributes:
        query: uint8 RGB (H, W, 3).
        references: uint8 RGB.
        prior: of which the lines are told; None for none.
        pages: quoted, best first; none with questions about the part, since they were searched with its true name.
        category: the kind of part as predicted; for questions about the part.
        good_pages: of that category's candidates.
        slot: prior tokens.
    """

    query: NDArray[np.uint8]
    references: tuple[NDArray[np.uint8], ...] = ()
    prior: Prior | None = None
    pages: tuple[KnowledgeDocument, ...] = ()
    category: CategoryChoice | None = None
    good_pages: tuple[KnowledgeDocument, ...] = ()
    slot: Slot | None = None


@dataclass
class Asking:
    """Asks a model.

    Attributes:
        model: whom.
        root: of the set.
        latent: settings of latent reasoning; the defaults when None.
        calls: of the model so far.
        positions: tokens that its forward passes computed; those with gradients count three times.
    """

    model: VisionLanguageModel
    root: Path
    latent: LatentSettings | None = None
    calls: int = field(default=0)
    positions: int = field(default=0)

    def line(self, item: Item, arm: Arm, evidence: PictureEvidence | None) -> dict[str, Any]:
        """Answer a question as an arm; the line for its log.

        Args:
            item: the question.
            arm: the row.
            evidence: about its picture; None for an arm that uses none of it.
        """
        evidence = NOTHING if evidence is None else evidence
        others: tuple[str | None, ...] = ()
        begun, calls, positions = time.perf_counter(), self.calls, self.positions
        given = self.given(item, arm, evidence)
        extra: dict[str, Any] = {"arm": arm.name}
        if arm.think is not None:
            found, thought = self._think(item, given, evidence, arm.think)
            extra |= thought
        else:
            found = self.choose(item, given, evidence)
            if arm.retries:
                found, tried = self._retry(item, given, evidence, found)
                extra |= tried
            elif arm.signs:
                drawn, others = self._signs(item, given, evidence)
                extra["samples"] = list(drawn)
            elif arm.refutes:
                found, tried = refuted(self, item, given, evidence, found, DOUBT)
                extra |= tried
        seconds = time.perf_counter() - begun
        extra |= {"calls": self.calls - calls, "positions": extra.get("positions", self.positions - positions)}
        similarity = evidence.similarity if arm.pages is not None else None
        known = Known(evidence.s_cal if arm.told == "calibrated" else None, similarity, others, extra)
        return record(item, self.model.name, found, seconds, known)

    def given(self, item: Item, arm: Arm, evidence: PictureEvidence) -> Given:
        """What an arm gives with a question."""
        paths = item.templates("random", 1) if arm.references else ()
        prior = {"raw": evidence.raw, "calibrated": evidence.prior, None: None}[arm.told]
        pages = () if arm.pages is None else evidence.pages[arm.pages]
        if arm.told is not None and arm.pages is not None:
            pages = _once((*evidence.type_pages, *pages))
        about_the_part = PRIOR_TASKS[question_of(item).task] == "object"  # to which the map says nothing
        vectors = evidence.prior_vectors if arm.tokens and not about_the_part else None
        predicted = about_the_part and arm.pages is not None  # what the part is: never by the name that is asked for
        return Given(
            query=picture(self.root / item.image),
            references=tuple(picture(self.root / path) for path in paths),
            prior=prior,
            pages=() if about_the_part else pages,
            category=evidence.category if predicted else None,
            good_pages=evidence.good_pages if predicted else (),
            slot=None if vectors is None else Slot("prior", len(vectors), vectors),
        )

    def messages(self, item: Item, given: Given, evidence: PictureEvidence) -> list[Message]:
        """The conversation."""
        question = question_of(item)
        task = PRIOR_TASKS[question.task]
        lines = () if given.prior is None else prior_lines(given.prior, task)
        if given.prior is not None and not given.prior.calibrated and task == "detection":
            lines = raw_lines(given.prior)
        return compose_question(
            question,
            query=given.query,
            references=given.references,
            knowledge_lines=knowledge_lines(question.task, given.pages, given.category, given.good_pages),
            prior_lines=lines,
            prior_slot=given.slot,
        )

    def choose(self, item: Item, given: Given, evidence: PictureEvidence) -> LetterAnswer:
        """One call."""
        self.calls += 1
        found = self.model.choose(self.messages(item, given, evidence), tuple(item.options))
        self.positions += int(found.usage.get("prompt_tokens", 0))
        return found

    def reordered(self, item: Item, given: Given, evidence: PictureEvidence, count: int) -> list[LetterAnswer]:
        """Answers under other orders of the options, as far as there are so many, in the letters asked first."""
        found = []
        for moved, back in other_orders(item, count):
            found.append(mapped_back(self.choose(moved, given, evidence), back))
        return found

    def _signs(
        self, item: Item, given: Given, evidence: PictureEvidence
    ) -> tuple[tuple[str | None, ...], tuple[str | None, ...]]:
        """Letters of drawn answers, and of answers under other orders; a drawn reply that names none is None."""
        letters = tuple(item.options)

        def letter(reply: str) -> str | None:
            named = named_letter(reply, letters)
            return None if named is None else named[0]

        drawn = draw_meanings(self.model, self.messages(item, given, evidence), letter, max_tokens=LETTER_TOKENS)
        self.calls += len(drawn)
        others = self.reordered(item, given, evidence, ORDERS)
        return drawn, tuple(other.letter for other in others)

    def _think(
        self, item: Item, given: Given, evidence: PictureEvidence, control: str
    ) -> tuple[LetterAnswer, dict[str, Any]]:
        """Latent reasoning or one of its controls."""
        from ...agent.vision_language.latent import LatentSettings
        from ...agent.vision_language.latent.thinking import think

        settings = replace(self.latent or LatentSettings(), arm=cast("Any", control))
        outcome = think(
            cast("QwenModel", self.model),
            self.messages(item, given, evidence),
            tuple(item.options),
            evidence=agreement(item, evidence),
            anomaly_map=evidence.anomaly_map,
            settings=settings,
            reordered=lambda count: self.reordered(item, given, evidence, count),
        )
        self.calls += 1
        told = {
            "accepted": outcome.accepted,
            "why": outcome.why,
            "cut": outcome.cut,
            "base": outcome.base.letter,
            "proposal": None if outcome.proposal is None else outcome.proposal.letter,
            "uncertainty": outcome.uncertainty,
            "positions": outcome.prompt_positions + outcome.positions,
            "steps": len(outcome.steps),
            "guards": dict(outcome.guards),
        }
        return outcome.final, told

    def _retry(
        self, item: Item, given: Given, evidence: PictureEvidence, first: LetterAnswer
    ) -> tuple[LetterAnswer, dict[str, Any]]:
        """Ask again with new evidence while the answer is in doubt; the surest answer stands, not the last one."""
        best, taken = first, list[str]()
        for name, more in further(item, given, evidence)[:ACTIONS]:
            if best.entropy is None or best.entropy <= DOUBT:
                break
            found = self.choose(item, more, evidence)
            taken.append(name)
            if found.entropy is not None and found.entropy < best.entropy:
                best = found
        return best, {"retries": taken, "base": first.letter}


def further(item: Item, given: Given, evidence: PictureEvidence) -> list[tuple[str, Given]]:
    """What can be added to a question, in the order in which it is tried; each adds to the one before."""
    found: list[tuple[str, Given]] = []
    latest = given
    if item.subtask in (DETECTION, LOCALISATION):
        for one in evidence.rounds if given.prior is not None else ():
            if item.subtask == LOCALISATION and one.name != "reference":
                continue
            latest = replace(latest, prior=one.prior)
            found.append((one.name, latest))
    else:
        box = given.prior.boxes[0].box if given.prior is not None and given.prior.boxes else None
        if box is not None and item.subtask.startswith("Defect"):
            found.append(("zoom", replace(latest, query=magnified(given.query, box))))
        if evidence.further and given.pages:
            latest = replace(latest, pages=_once((*latest.pages, *evidence.further)))
            found.append(("more_docs", latest))
    return found


def magnified(rgb: NDArray[np.uint8], box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """An area with its surroundings; uint8 (h, w, 3)."""
    height, width = rgb.shape[:2]
    x0, y0, x1, y1 = box
    dx, dy = round(MARGIN * (x1 - x0)), round(MARGIN * (y1 - y0))
    crop = rgb[max(0, y0 - dy) : min(height, y1 + dy), max(0, x0 - dx) : min(width, x1 + dx)]
    return np.ascontiguousarray(crop)


def raw_lines(prior: Prior) -> tuple[str, ...]:
    """A raw look told as a detector without a gate tells it: score and areas, whether they mean something or not."""
    return prior_lines(replace(prior, admitted=True), "detection")


def mapped_back(found: LetterAnswer, back: Mapping[str, str]) -> LetterAnswer:
    """An answer to moved options in the letters of the question as it was."""
    shares = found.probabilities
    return replace(
        found,
        letter=None if found.letter is None else back.get(found.letter),
        probabilities=None if shares is None else {old: shares[new] for new, old in sorted(back.items(), key=_second)},
    )


def agreement(item: Item, evidence: PictureEvidence) -> dict[str, float] | None:
    """How far the expert agrees with each option, in [-1, 1]; None where it has no say."""
    from ...agent.vision_language.latent import detection_evidence, localisation_evidence, place_box

    if item.subtask == DETECTION and evidence.s_cal is not None and len(item.options) == 2:
        yes = [letter for letter, text in item.options.items() if says_yes(text)]
        no = [letter for letter in item.options if letter not in yes]
        return detection_evidence(yes[0], no[0], evidence.s_cal) if len(yes) == 1 else None
    if item.subtask == LOCALISATION and evidence.anomaly_map is not None:
        height, width = evidence.anomaly_map.shape
        named = {letter: place_box(text, height, width) for letter, text in item.options.items()}
        boxes = {letter: box for letter, box in named.items() if box is not None}
        return localisation_evidence(evidence.anomaly_map, boxes) or None
    return None


def _second(pair: tuple[str, str]) -> str:
    return pair[1]


def _once(pages: Sequence[KnowledgeDocument]) -> tuple[KnowledgeDocument, ...]:
    return tuple({page.doc_id: page for page in pages}.values())
