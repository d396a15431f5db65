"""What others published for the same data sets, from ``published.yaml``: a source for every figure, no gaps filled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

METRICS = ("image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro")
"""In the order of every table."""


@dataclass(frozen=True)
class Published:
    """A method's figures on one data set.

    Attributes:
        method: its name.
        source: where the figures are printed.
        trained_on: what it was trained on before, in words; None where the source does not say.
        figures: metric -> percent, for the metrics that the source gives.
    """

    method: str
    source: str
    trained_on: str | None
    figures: dict[str, float]


def published_figures(dataset: str) -> list[Published]:
    """Everything known for a data set, by its short name, in the order of the file."""
    content = _content()
    return [
        Published(
            row["method"],
            content["sources"][row["source"]],
            content["trained_on"].get(row["method"]),
            {metric: float(value) for metric, value in row["figures"][dataset].items()},
        )
        for row in content["methods"]
        if dataset in row["figures"]
    ]


@cache
def _content() -> dict[str, Any]:
    import yaml

    content: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))
    return content
