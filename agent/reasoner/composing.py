"""What a vision-language model is asked about a part: short lines for the evidence, messages for the whole.

The wording is in prompts/inspect.md; here are the order, the numbers and the fences. The evidence enters as text by
task, as SiGMA found it to help: a verdict only where the expert's evidence was admitted, the map only where places are
asked for, since raw overlays on the picture cost accuracy of detection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...prompts import render
from .base import RetrievedDocument
from .evidence import number, words

PROMPTS = "inspect"
BOXES = 3
"""Suspicious areas that a prompt names at most."""
TYPES = 5
"""Candidates that the line of types names at most."""
DOCUMENT_TOKENS = 700
"""Budget of all quoted pages of a prompt together, estimated tokens."""
PAGE_TOKENS = 24
"""A page that would get fewer is left out: its title alone says nothing."""
GRID = 8
STEPS = 9

Task = Literal["report", "detection", "localisation", "defect", "object"]
"""What is asked: a whole report, whether there is a defect, where, what defect (type, look, effect), or what part."""


@dataclass(frozen=True)
class PriorBox:
    """A suspicious area in a prompt.

    Attributes:
        box: XYXY half-open, px of the picture as the model sees it.
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
    section = "area" if prior.calibrated else "area_uncalibrated"
    return [
        render(PROMPTS, section, id=box.id, place=box.place, box=list(box.box), share=number(100 * box.area_share))
        for box in prior.boxes[:BOXES]
    ]


def _types(types: Sequence[tuple[str, float]]) -> str:
    """Candidates with their posteriors; names come from folders of examples, so they are cleaned like a page's."""
    from ...tools.knowledge.schema import plain_text

    return ", ".join(f"{plain_text(words(name))[:40]} {number(posterior)}" for name, posterior in types[:TYPES])


def document_lines(documents: Sequence[RetrievedDocument], budget: int = DOCUMENT_TOKENS) -> tuple[str, ...]:
    """Pages as quoted data: each between two marks with its id, each of its lines behind ``> ``.

    No text of a page can close its fence or open a turn, since no line of it starts at the margin; markup, links and
    speakers' turns are taken out. Each page gets an equal share of what the pages before it left.

    Args:
        documents: best first.
        budget: of all together, estimated tokens.

    Returns:
        The lines; none for no documents.
    """
    from ...tools.knowledge.schema import cut_to_budget, estimated_tokens, plain_text

    lines: list[str] = []
    left = budget
    for position, document in enumerate(documents):
        opening, closing = f"[{document.evidence_id}]", f"[end of {document.evidence_id}]"
        share = left // (len(documents) - position) - estimated_tokens(opening) - estimated_tokens(closing)
        if share < PAGE_TOKENS:
            continue
        kept = []
        for line in _quoted(document.text):
            fitting = cut_to_budget(f"> {plain_text(line)}", share - sum(estimated_tokens(other) for other in kept))
            if fitting.strip("> "):
                kept.append(fitting)
        if kept:
            page = [opening, *kept, closing]
            lines += page
            left -= sum(estimated_tokens(line) for line in page)
    return tuple(lines)


def _quoted(text: str) -> list[str]:
    """The words of a quotation, without its own marks; of other text every line."""
    inside = [line[2:] for line in text.splitlines() if line.startswith("> ")]
    return inside or [line for line in text.splitlines() if line.strip()]


def text_grid(anomaly_map: NDArray[np.float32], rows: int = GRID, columns: int = GRID) -> str:
    """A calibrated map as text: a line of digits a row, after OmniAD, which writes masks as text.

    Digits and no run lengths: all rows are equally long, so that a cell's place is its position and nothing has to be
    added up; tokenizers of the Qwen family make each digit a token, so 8 x 8 cost 72. A cell is the highest value in
    it, since a mean would lose what is small, and 0 stands for exactly as good parts.

    Args:
        anomaly_map: float (H, W) in [0, 1], calibrated.
        rows: of the text.
        columns: of the text.

    Returns:
        ``rows`` lines of ``columns`` digits: 0 where the map is 0, else 1 to 9.

    Raises:
        ValueError: the map has no pixel, or values that are not in [0, 1].
    """
    if anomaly_map.ndim != 2 or not anomaly_map.size:
        raise ValueError("a map of (H, W) is needed")
    if not (np.isfinite(anomaly_map).all() and anomaly_map.min() >= 0.0 and anomaly_map.max() <= 1.0):
        raise ValueError("the map must be calibrated to [0, 1]")
    height, width = anomaly_map.shape
    cells = [[anomaly_map[y0:y1, x0:x1].max() for x0, x1 in _cuts(width, columns)] for y0, y1 in _cuts(height, rows)]
    digits = np.ceil(np.asarray(cells, np.float64) * STEPS - 1e-6).astype(int)
    digits = np.where(np.asarray(cells) > 0.0, np.maximum(digits, 1), 0)
    return "\n".join("".join(str(digit) for digit in row) for row in digits)


def _cuts(pixels: int, cells: int) -> list[tuple[int, int]]:
    """Half-open spans that cover the pixels; they share a pixel where cells do not divide them, and none is empty."""
    return [(i * pixels // cells, -(-(i + 1) * pixels // cells)) for i in range(cells)]


def parse_grid(text: str) -> NDArray[np.float32]:
    """The map that a text grid stands for.

    Args:
        text: of `text_grid`, or of a model that was asked for one.

    Returns:
        float32 (rows, columns) in [0, 1].

    Raises:
        ValueError: it is not lines of digits of one length.
    """
    rows = text.split("\n")
    if not rows[0] or any(len(row) != len(rows[0]) or not (row.isascii() and row.isdigit()) for row in rows):
        raise ValueError("a grid is lines of digits of one length")
    return np.array([[int(digit) for digit in row] for row in rows], np.float32) / np.float32(STEPS)
