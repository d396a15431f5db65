"""The inspection prior: what the AD Expert tells a model, in short lines by task.

After SiGMA: a verdict only where the expert's evidence was admitted, the map only where places are asked for, since
raw overlays on the picture cost accuracy of detection. The wording is in prompts/inspect.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ...prompts import render
from .evidence import WHOLE_PICTURE, number, words

PROMPTS = "inspect"
BOXES = 3
"""Suspicious areas that a prompt names at most."""
TYPES = 5
"""Candidates that the line of types names at most."""
NAME_LETTERS = 40

Task = Literal["report", "detection", "localisation", "defect", "object"]
"""What is asked: a whole report, whether there is a defect, where, what defect (type, look, effect), or what part."""


@dataclass(frozen=True)
class PriorBox:
    """A suspicious area in a prompt.

    Attributes:
        box: XYXY half-open, px of the original picture.
        place: where, in words.
        area_share: of the picture, in [0, 1].
        id: of its evidence.
    """

    box: tuple[int, int, int, int]
    place: str
    area_share: float
    id: str = "R1"


@dataclass(frozen=True)
class Prior:
    """What the AD Expert tells a model, as plain values.

    Attributes:
        score: of the picture; None when nothing was scored.
        threshold: alarm at and above, in the same unit; None when uncalibrated.
        percentile: share of the good references that score lower, in [0, 1]; None when uncalibrated.
        probability: of a defect; None when uncalibrated.
        admitted: whether the map passed the gate for detection.
        calibrated: whether references say how much good parts differ.
        boxes: suspicious areas, strongest first.
        types: (name, posterior) of likely defect types, likeliest first.
        grid: of `text_grid`, None when there is no calibrated map.
    """

    score: float | None
    threshold: float | None
    percentile: float | None
    probability: float | None
    admitted: bool
    calibrated: bool
    boxes: tuple[PriorBox, ...] = ()
    types: tuple[tuple[str, float], ...] = ()
    grid: str | None = None


def prior_lines(prior: Prior, task: Task = "report") -> tuple[str, ...]:
    """The inspection prior as short lines, each a sentence or two or a row of the map.

    By task (SiGMA): detection hears of areas only when the evidence was admitted; the map is for places (and for a
    report, which names them); a question about the defect takes its existence as given, so it gets areas and types;
    one about the part gets nothing.

    Args:
        prior: what is known.
        task: what will be asked.
    """
    if task == "object":
        return ()
    lines: list[str] = []
    if task in ("report", "detection"):
        lines += _score_lines(prior)
    if task != "detection" or prior.admitted:
        lines += _area_lines(prior)
    if task in ("report", "defect") and prior.types:
        lines.append(render(PROMPTS, "types", types=_types(prior.types)))
    if task in ("report", "localisation") and prior.grid is not None:
        rows = prior.grid.splitlines()
        lines += [render(PROMPTS, "grid", rows=len(rows), columns=len(rows[0])), *rows]
    return tuple(lines)


def _score_lines(prior: Prior) -> list[str]:
    """The score, and the verdict as far as the gate lets it through."""
    if prior.score is None:
        return []
    if not prior.calibrated or prior.threshold is None or prior.percentile is None or prior.probability is None:
        return [render(PROMPTS, "score_uncalibrated", score=number(prior.score))]
    score = render(
        PROMPTS,
        "score",
        score=number(prior.score),
        threshold=number(prior.threshold),
        percentile=number(100 * prior.percentile),
        probability=number(prior.probability),
    )
    if not prior.admitted:
        return [score, render(PROMPTS, "verdict_none")]
    return [score, render(PROMPTS, "verdict_defect" if prior.probability >= 0.5 else "verdict_no_alarm")]


def _area_lines(prior: Prior) -> list[str]:
    if not prior.boxes:
        return [render(PROMPTS, "no_area")] if prior.calibrated else []
    return [_area_line(box, prior.calibrated) for box in prior.boxes[:BOXES]]


def _area_line(box: PriorBox, calibrated: bool) -> str:
    if box.place == WHOLE_PICTURE:
        return render(PROMPTS, "area_whole", id=box.id)
    section = "area" if calibrated else "area_uncalibrated"
    share = number(100 * box.area_share)
    return render(PROMPTS, section, id=box.id, place=box.place, box=list(box.box), share=share)


def _types(types: Sequence[tuple[str, float]]) -> str:
    """Candidates with their posteriors; names come from folders of examples, so they are cleaned like a page's."""
    from ...tools.knowledge.schema import plain_text

    return ", ".join(
        f"{plain_text(words(name))[:NAME_LETTERS]} {number(posterior)}" for name, posterior in types[:TYPES]
    )
