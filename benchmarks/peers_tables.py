"""Flawscope beside anomalib's PatchCore as tables, and how it stands to what was asked for."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rich.console import Group

MEMORY_PICTURES = 4
FIGURES = ("image_auroc", "pixel_auroc", "aupro", "enrol_s", "image_s")
SPEED_TARGET, ENROL_TARGET, AUROC_TARGET_POINTS = 3.0, 5.0, 2.0


def render(result: dict[str, Any]) -> Group:
    """A table per number of references, and how Flawscope stands to each run of the peer."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table

    parts: list[Any] = []
    for n in result["shots"]:
        rows = [row for row in result["products"] if n in row["shots"]]
        title = f"{n} good reference{'s' if n > 1 else ''}: areas under the curve in %, seconds"
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for column in ("product", "method", "image", "pixel", "AUPRO", "enrol s", "s/image"):
            table.add_column(column, justify="left" if column in ("product", "method") else "right", no_wrap=True)
        for row in rows:
            for position, (name, figures) in enumerate(row["shots"][n].items()):
                percents = [_mean(figures[metric], 100) for metric in FIGURES[:3]]
                times = [_mean(figures["enrol_s"], 1, 2), _mean(figures["image_s"], 1, 4)]
                table.add_row("" if position else row["product"], name, *percents, *times)
            table.add_section()
        parts += [table, *compare(rows, n, result["methods"]), ""]
    if result["peak_mb"]:
        peaks = ", ".join(f"{name} {mb:.0f}" for name, mb in result["peak_mb"].items())
        parts.append(f"peak memory, MB, of a process that enrols and judges {MEMORY_PICTURES} pictures: {peaks}")
    if result["weights_differ"] is not None:
        parts.append(f"same weights: features differ by at most {result['weights_differ']:.1e} of the largest")
    return Group(*parts)


def compare(rows: Sequence[dict[str, Any]], shots: int, methods: Sequence[str]) -> list[str]:
    """Flawscope against each run of the peer: medians over products of the ratios, difference of the macro means."""
    counted = [row["shots"][shots] for row in rows if row["in_macro"]]
    lines = []
    for peer in methods[1:] if counted else ():
        pairs = [(row[methods[0]], row[peer]) for row in counted]

        def middle(figure: str, pairs: Sequence[tuple[Any, Any]] = pairs) -> float:
            return statistics.median(float(np.mean(b[figure])) / float(np.mean(a[figure])) for a, b in pairs)

        points = 100 * float(np.mean([np.mean(a["image_auroc"]) - np.mean(b["image_auroc"]) for a, b in pairs]))
        lines.append(
            f"against {peer}: {_against(middle('image_s'), SPEED_TARGET, 'x faster an image')}, "
            f"{_against(middle('enrol_s'), ENROL_TARGET, 'x faster to enrol')}, "
            f"macro image AUROC {_against(points, AUROC_TARGET_POINTS, ' points higher')}"
        )
    return lines


def _against(value: float, target: float, unit: str) -> str:
    return f"{value:.1f}{unit} ({'met' if value >= target else 'MISSED'}: {target:.0f})"


def _mean(values: Sequence[float], scale: float, digits: int = 1) -> str:
    return f"{scale * float(np.mean(values)):.{digits}f}" if values else "–"
