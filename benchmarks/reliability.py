"""Reliability diagrams: how often what was stated with some probability came true, drawn without a plotting library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PANEL_PX, MARGIN_PX, COUNTS_PX, TITLE_PX = 300, 46, 60, 34
BINS = 15
INK, PAPER, FAINT = (40, 40, 44), (255, 255, 255), (206, 208, 214)
TRUE, MISSED = (54, 106, 170), (226, 160, 120)

Series = tuple[Sequence[float | None], Sequence[bool]]
"""Stated probabilities, None where unknown, and what came true."""


@dataclass(frozen=True)
class Bin:
    """Answers whose stated probability lies in ((i)/15, (i+1)/15].

    Attributes:
        count: of them.
        stated: their mean probability.
        observed: how many of them came true, as a share.
    """

    count: int
    stated: float
    observed: float


def reliability_bins(stated: Sequence[float | None], true: Sequence[bool], bins: int = BINS) -> tuple[Bin | None, ...]:
    """The bins of the expected calibration error; None for an empty one.

    Args:
        stated: (n,) probabilities in [0, 1]; what is unknown is in no bin.
        true: (n,) whether it came true.
        bins: of equal width; 0 belongs to the first.
    """
    known = [(p, right) for p, right in zip(stated, true, strict=True) if p is not None]
    place = np.clip(np.ceil(np.array([p for p, _ in known]) * bins).astype(np.intp) - 1, 0, bins - 1)
    found: list[Bin | None] = []
    for index in range(bins):
        mine = [known[i] for i in np.flatnonzero(place == index)]
        stated_mean, observed = (float(np.mean(column)) for column in zip(*mine, strict=True)) if mine else (0.0, 0.0)
        found.append(Bin(len(mine), stated_mean, observed) if mine else None)
    return tuple(found)


def draw_reliability(series: Mapping[str, Series]) -> Image.Image:
    """One panel for each series: bars of the observed rate, the stated mean as a line in each, counts below.

    Args:
        series: by title.

    Returns:
        An RGB picture.
    """
    wide, high = PANEL_PX + 2 * MARGIN_PX, TITLE_PX + PANEL_PX + COUNTS_PX + 2 * MARGIN_PX
    canvas = Image.new("RGB", (wide * len(series), high), PAPER)
    draw = ImageDraw.Draw(canvas)
    for index, (title, (stated, true)) in enumerate(series.items()):
        _panel(draw, index * wide + MARGIN_PX, TITLE_PX + 8, title, reliability_bins(stated, true))
    return canvas


def _panel(draw: ImageDraw.ImageDraw, left: int, top: int, title: str, bins: Sequence[Bin | None]) -> None:
    plain, bold = ImageFont.load_default(size=12), ImageFont.load_default(size=16)
    bottom, right = top + PANEL_PX, left + PANEL_PX
    known = [b for b in bins if b is not None]
    total = sum(b.count for b in known)
    gap = sum(b.count * abs(b.stated - b.observed) for b in known) / total if total else None
    said = f"{title}: {total} answers" + ("" if gap is None else f", ECE {gap:.3f}")
    draw.text((left, top - TITLE_PX), said, fill=INK, font=bold)
    for step in range(0, 11, 2):
        y = bottom - round(PANEL_PX * step / 10)
        draw.line([left, y, right, y], fill=FAINT)
        draw.text((left - 28, y - 7), f"{step / 10:.1f}", fill=INK, font=plain)
        draw.text((left + round(PANEL_PX * step / 10) - 8, bottom + 4), f"{step / 10:.1f}", fill=INK, font=plain)
    width, most = PANEL_PX / len(bins), max((b.count for b in known), default=1)
    for place, one in enumerate(bins):
        if one is None:
            continue
        x0, x1 = left + place * width + 1, left + (place + 1) * width - 1
        observed, stated = bottom - PANEL_PX * one.observed, bottom - PANEL_PX * one.stated
        draw.rectangle([x0, min(observed, stated), x1, max(observed, stated)], fill=MISSED)
        draw.rectangle([x0, observed, x1, bottom], fill=TRUE)
        draw.line([x0, stated, x1, stated], fill=INK, width=2)
        counts = bottom + 26 + COUNTS_PX
        draw.rectangle([x0, counts - COUNTS_PX * one.count / most, x1, counts], fill=FAINT)
    draw.line([left, bottom, right, top], fill=INK)
    draw.rectangle([left, top, right, bottom], outline=INK)
    draw.text((left, bottom + 30 + COUNTS_PX), "stated probability; answers in each bin below", fill=INK, font=plain)
