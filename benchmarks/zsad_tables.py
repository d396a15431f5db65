"""The zero-shot tables: every class, and the mean beside what others published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .datasets import DATASETS
from .published import METRICS, published_figures

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

_HEADINGS = ("image AUROC", "AP", "F1-max", "pixel AUROC", "AP", "F1-max", "AUPRO")


def render(result: Mapping[str, Any]) -> Group:
    """A result of ``run_zsad`` as two tables in percent; the second only for a data set that others report on."""
    from rich.console import Group

    protocol = result["protocol"]
    per_class = _table("class")
    for row in result["products"]:
        per_class.add_row(row["product"], *_cells({metric: _percent(row[metric]) for metric in METRICS}))
    mean = {metric: _percent(result["mean"][metric]) for metric in METRICS}
    if len(result["products"]) > 1:
        per_class.add_section()
        per_class.add_row("mean", *_cells(mean), style="bold")
    parts: list[Any] = [heading(protocol), per_class]  # a title of the table's own would be broken at its width
    published = published_figures(protocol["dataset"]) if protocol["dataset"] else []
    if published:
        sources = list(dict.fromkeys(row.source for row in published))
        beside = _table("method")
        for row in published:
            cells = {metric: f"{value:.1f}" for metric, value in row.figures.items()}
            beside.add_row(f"{row.method} [{sources.index(row.source) + 1}]".replace("[", r"\["), *_cells(cells))
        beside.add_section()
        beside.add_row(f"this run{words_of(protocol)}", *_cells(mean), style="bold")
        trained = {row.method: row.trained_on for row in published if row.trained_on}
        parts += [
            f"{protocol['title']}, zero-shot, beside published figures, %",
            beside,
            *(f"[{number}] {source}".replace("[", r"\[") for number, source in enumerate(sources, 1)),
        ]
        parts.append("Trained on before: " + "; ".join(f"{method}: {words}" for method, words in trained.items()) + ".")
    return Group(*parts, *_notes(result))


def heading(protocol: Mapping[str, Any]) -> str:
    """What was tested how: data set, classes, training data, part or whole."""
    classes = f"{protocol['classes']} class{'es' if protocol['classes'] != 1 else ''}"
    if protocol["classes_of_set"] and protocol["classes"] < protocol["classes_of_set"]:
        classes = f"{protocol['classes']} of {protocol['classes_of_set']} classes"
    training = ", ".join(DATASETS[n].title if n in DATASETS else n for n in protocol["trained_on"]) or "nothing named"
    part = f", {protocol['limit']} pictures a class" if protocol["limit"] else ""
    return f"{protocol['title']}, zero-shot, trained on {training}: {classes}{part}{words_of(protocol)}, %"


def words_of(protocol: Mapping[str, Any]) -> str:
    """What the prompts named, as it stands behind a heading; nothing for a scorer that does not say."""
    scorer = protocol["scorer"]
    trained = f"trained {scorer.get('prompt', '')}".rstrip() + " " if scorer.get("trained_prompts") else ""
    return f", {trained}prompts {scorer['types']}" if scorer.get("types") else ""


def _notes(result: Mapping[str, Any]) -> list[str]:
    protocol, notes = result["protocol"], []
    in_part = protocol["limit"] or (protocol["classes_of_set"] or 0) > protocol["classes"]
    if in_part and protocol["dataset"]:
        notes.append("This run saw a part of the set: its figures are not comparable with published ones.")
    unmasked = sum(row["unmasked"] for row in result["products"])
    if unmasked:
        notes.append(f"{unmasked} defective pictures without a mask are left out of the pixel metrics.")
    if protocol["dataset"] is None and protocol["trained_on"]:
        notes.append("Which data set this is was not recognised, so nothing checks that it was not trained on.")
    notes.append("F1-max takes the best threshold after the fact: not a figure to be had in use.")
    return notes


def _table(first: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for name in _HEADINGS:
        table.add_column(name, justify="right")
    return table


def _cells(figures: Mapping[str, str]) -> list[str]:
    return [figures.get(metric, "") for metric in METRICS]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
