"""How results look in a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # one-line messages come from here too, and they must not wait for numpy
    from rich.console import Console

    from .doctor import Finding
    from .schemas import InspectionReport

STYLES = {"OK": "bold white on green4", "NG": "bold white on red3", "REVIEW": "bold black on gold3"}
STEP_NAMES = {
    "see": "looking",
    "localise": "locating",
    "retrieve": "consulting the knowledge base",
    "classify": "naming the defect",
    "reason": "composing",
    "verify": "verifying",
    "zoom": "zooming in",
    "reference": "comparing with references",
    "self_consistency": "checking consistency",
    "more_docs": "reading further documents",
    "refute": "trying to refute it",
    "latent": "searching for a better answer",
}


def clean(text: str) -> str:
    """Text from files and documents without control characters, so that it cannot steer the terminal."""
    return "".join(char if char.isprintable() or char == "\n" else "�" for char in text)


def clean_line(text: str) -> str:
    """``clean`` on one line, for names and messages: a line break could pretend to be a line of ours."""
    return clean(" ".join(text.split()))


def print_report(console: Console, report: InspectionReport) -> None:
    """One report, readable at a glance: verdict first, then where, what, why, what to do, and the evidence."""
    from rich.table import Table
    from rich.text import Text

    head = Text.assemble(
        (f" {report.verdict.value} ", STYLES[report.verdict.value]), "  ", (clean_line(report.image), "bold")
    )
    if report.product:
        head.append(f"  ({report.product})", style="dim")
    console.print()
    console.print(head)
    if report.error is not None:
        return  # the caller says it on standard error
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in _rows(report):
        table.add_row(label, Text(clean(text)))
    console.print(table)


def _rows(report: InspectionReport) -> list[tuple[str, str]]:
    from .reasoner.evidence import number, words

    rows = [("why", _cited(report, "verdict") or report.verdict_reason)]
    if report.probability is not None and report.uncertainty.entropy is not None:
        basis = "" if report.uncertainty.calibrated else ", extrapolated from few references"
        sure = f"P(defect) {report.probability:.2f}, entropy {report.uncertainty.entropy:.2f}{basis}"
        rows.append(("certainty", ", ".join(filter(None, (sure, certainty_in_words(report))))))
    rows.append(("where", _cited(report, "location")))
    if report.defect_type is not None:
        kind = report.defect_type
        share = "" if kind.posterior is None else f" ({number(kind.posterior)})"
        rows.append(("type", words(kind.name) + share + _ids_of(report, "defect_type")))
    rows += [
        ("looks like", _cited(report, "description")),
        ("cause", _cited(report, "root_cause")),
        ("consequence", _cited(report, "consequence")),
        ("action", _cited(report, "action")),
    ]
    checks = [f"{s.action.replace('_', ' ')}: {s.note}" for s in report.trace if s.action in _CHECKS]
    rows += [("checked", check) for check in checks]
    documents = [
        f"{item.id} {item.source}{' (unreviewed draft)' if item.values.get('draft') else ''}"
        for item in report.evidence
        if item.kind == "document"
    ]
    rows.append(("documents", " · ".join(documents)))
    rows += [("knowledge", f"{item.text} [{item.id}]") for item in report.evidence if item.kind == "knowledge"]
    problems = [str(problem) for problem in report.provenance.get("problems", [])]
    rows += [("left out", problem) for problem in problems if problem not in report.verdict_reason]
    rows += [(name, path) for name, path in report.artifacts.items()]
    return [(label, text) for label, text in rows if text]


def certainty_in_words(report: InspectionReport) -> str:
    """What a calibrator makes of the verdict, or that none does; empty where no model decided."""
    if report.uncertainty.p_correct is not None:
        return f"such answers are right with a probability of {report.uncertainty.p_correct:.2f}"
    return "uncalibrated" if report.uncertainty.parts else ""


class StatusLine:
    """What is being done, on one line of a terminal that is written over; a model's answer runs through it as it grows.

    Args:
        console: of standard error.
        hidden: say nothing.
    """

    def __init__(self, console: Console, *, hidden: bool) -> None:
        self._console = console
        self._silent = hidden or not console.is_terminal
        self._width = max(20, min(100, console.width - 4))
        self._step, self._answer = "", ""

    def __enter__(self) -> StatusLine:
        return self

    def step(self, name: str) -> None:
        """A step ended; its name as the graph calls it."""
        self._step, self._answer = STEP_NAMES.get(name, name), ""
        self._show(self._step)

    def text(self, piece: str) -> None:
        """A further piece of a model's answer: its end is shown, without anything that could steer the terminal."""
        self._answer = (self._answer + piece)[-4 * self._width :]
        self._show(clean_line(self._answer)[-self._width :])

    def _show(self, text: str) -> None:
        if not self._silent:
            from rich.text import Text

            self._console.print(Text(f"· {text[: self._width]:<{self._width}}", style="dim"), end="\r")

    def __exit__(self, *exc: object) -> None:
        if not self._silent:  # an error's line must not begin in the middle of this one
            self._console.print(" " * (self._width + 2), end="\r")


_CHECKS = frozenset({"zoom", "reference", "self_consistency", "more_docs", "refute", "latent"})


def _cited(report: InspectionReport, field: str) -> str:
    return " ".join(
        f"{claim.text} [{', '.join(claim.evidence_ids)}]" for claim in report.claims if claim.field == field
    )


def _ids_of(report: InspectionReport, field: str) -> str:
    ids = [cite for claim in report.claims if claim.field == field for cite in claim.evidence_ids]
    return f" [{', '.join(ids)}]" if ids else ""


def print_summary(console: Console, reports: list[InspectionReport]) -> None:
    """A line that counts the verdicts of several pictures."""
    counts = {verdict: sum(report.verdict.value == verdict for report in reports) for verdict in STYLES}
    failed = sum(report.error is not None for report in reports)
    text = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    console.print(f"\n{len(reports)} pictures: {text}" + (f" ({failed} could not be inspected)" if failed else ""))


def print_finding(console: Console, finding: Finding) -> None:
    """One line of the doctor."""
    from rich.text import Text

    label, style = {"ok": ("ok", "green"), "optional": ("absent", "yellow"), "broken": ("broken", "red")}[finding.state]
    detail = f"  {finding.what}: {clean_line(finding.detail)}"
    console.print(Text.assemble((f"{label:<6}", style), detail), soft_wrap=True)


class ProgressBar:
    """A progress bar on standard error that appears with the first call and leaves nothing behind.

    Use it as a context manager; the object itself is the callback ``(what, done, total)``.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Any = None
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Callable[[str, int, int], None]:
        return self

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` pieces of ``what`` are done."""
        if not self._console.is_terminal:
            return
        if self._progress is None:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._progress = Progress(*columns, console=self._console, transient=True)
            self._progress.start()
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=done, total=total)
        if done >= total:
            self._progress.remove_task(self._tasks.pop(what))

    def __exit__(self, *exc: object) -> None:
        if self._progress is not None:
            self._progress.stop()
