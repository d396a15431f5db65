"""MMAD's tables as Markdown: accuracy by subtask and set in both ways of scoring, and how sure the answers were."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...training.questions import TASKS
from ..detection_metrics import aurc, expected_calibration_error
from .answering import official_row, strict_row
from .scoring import Scores, mean_of, official_scores, strict_scores
from .statistics import Interval, bootstrap_average, error_auroc

if TYPE_CHECKING:
    from .run import Protocol

SHORT = dict(zip(TASKS, ("AD", "DefCls", "DefLoc", "DefDesc", "DefAna", "ObjCls", "ObjAna"), strict=True))


@dataclass(frozen=True)
class Summary:
    """A row of the table.

    Attributes:
        name: whose answers.
        official: as the published script scores them.
        strict: an answer without a letter is wrong.
        interval: of the strict average.
        entropy_auroc: how well entropy tells wrong answers from right ones; None without entropies.
        ece: expected calibration error of the likeliest option's probability; None without probabilities.
        aurc: area under the risk-coverage curve by that probability.
        seconds: median and 95th percentile of an answer's time.
        lines: the answers.
    """

    name: str
    official: Scores
    strict: Scores
    interval: Interval
    entropy_auroc: Interval | None
    ece: float | None
    aurc: float | None
    seconds: tuple[float, float]
    lines: Sequence[Mapping[str, Any]]


def summarise(name: str, lines: Sequence[Mapping[str, Any]]) -> Summary:
    """Work out a row from logged answers."""
    sure = [(max(line["probabilities"].values()), line["correct"]) for line in lines if line["probabilities"]]
    confidences, correct = [p for p, _ in sure], [bool(right) for _, right in sure]
    times = sorted(float(line["seconds"]) for line in lines)
    return Summary(
        name=name,
        official=official_scores([official_row(line) for line in lines]),
        strict=strict_scores([strict_row(line) for line in lines]),
        interval=bootstrap_average(lines),
        entropy_auroc=error_auroc(lines),
        ece=expected_calibration_error(confidences, correct) if sure else None,
        aurc=aurc(confidences, correct) if sure else None,
        seconds=(statistics.median(times), times[min(len(times) - 1, int(0.95 * len(times)))]),
        lines=lines,
    )


def render(result: Mapping[str, Any]) -> str:
    """A result of ``run_mmad`` as Markdown."""
    protocol, rows = result["protocol"], result["rows"]
    part = "" if result["whole"] else ", a part of the set"
    parts = [
        f"{result['title']}: {result['questions']} questions about {result['images']} pictures{part}; "
        f"{words(protocol)}. mmad.json SHA-256 {result['sha256'][:16]}.",
    ]
    if result["first_release"]:
        parts.append(
            "This is the first release of mmad.json: 22 of its pictures under DS-MVTec/pill/image/good show metal nuts."
        )
    for kind in ("official", "strict"):
        parts.append(f"Accuracy, {TITLES[kind]}, %:\n\n{accuracy_table(rows, kind)}")
    parts.append(f"How sure the answers were:\n\n{certainty_table(rows)}")
    return "\n\n".join(parts)


TITLES = {
    "official": "as MMAD's script scores it (answers without a letter are removed, and the answer after each is lost)",
    "strict": "strict (an answer without a letter is wrong), with a 95% bootstrap interval over pictures",
}


def words(protocol: Protocol) -> str:
    """The protocol in a few words."""
    shots = f"{protocol.shots}-shot" + (f", {protocol.templates} templates" if protocol.shots else "")
    form = {"official": "words of the published script", "own": "our own words"}[protocol.form]
    if protocol.form == "official":
        form += " with" if protocol.numbered else " without"
        form += " question numbers"
    told = "; ORACLE KNOWLEDGE of the true product and its defects" if protocol.oracle_knowledge else ""
    how = "letter read from a reply of at most 128 tokens" if protocol.free else "likeliest letter"
    return f"{shots}, {form}, {how}{told}"


def accuracy_table(rows: Sequence[Summary], kind: str) -> str:
    """A row for each set and, where there are several, the mean of the sets."""
    body = []
    tasks = [t for t in TASKS if any(t in getattr(row, kind).by_task for row in rows)]
    tasks += sorted({t for row in rows for t in getattr(row, kind).by_task} - set(tasks))
    for row in rows:
        scores: Scores = getattr(row, kind)
        for name in scores.accuracy if len(scores.accuracy) > 1 else ():
            cells = [number(scores.accuracy[name].get(task)) for task in tasks]
            rates = [number(scores.overkill[name]), number(scores.miss[name])]
            body.append([row.name, name, *cells, number(scores.mean[name]), *rates, ""])
        lost = f"{scores.unreadable}" + (f" + {scores.passed_over}" if kind == "official" else "")
        average = number(scores.average)
        if kind == "strict":
            average += f" [{row.interval.low:.1f}, {row.interval.high:.1f}]"
        rates = [number(mean_of(scores.overkill.values())), number(mean_of(scores.miss.values()))]
        body.append([row.name, "all", *(number(scores.by_task[t]) for t in tasks), average, *rates, lost])
    lost = "removed + passed over" if kind == "official" else "unreadable"
    return markdown(["", "set", *(SHORT.get(t, t) for t in tasks), "mean", "overkill", "miss", lost], body)


def certainty_table(rows: Sequence[Summary]) -> str:
    """Whether entropy predicts errors, calibration, times."""
    body = [
        [row.name, interval(row.entropy_auroc), number(row.ece, 3), number(row.aurc, 3), *seconds(row.seconds)]
        for row in rows
    ]
    return markdown(["", "AUROC of entropy for errors", "ECE", "AURC", "p50 ms", "p95 ms"], body)


def seconds(pair: tuple[float, float]) -> list[str]:
    """Median and 95th percentile in ms."""
    return [f"{1e3 * value:.0f}" for value in pair]


def interval(found: Interval | None, digits: int = 2) -> str:
    """An estimate with its interval, or a dash."""
    return "-" if found is None else f"{found.value:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def number(value: float | None, digits: int = 1) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column to the left, the others to the right."""
    lines = [list(head), ["---", *("---:" for _ in head[1:])], *map(list, body)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
