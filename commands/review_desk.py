"""What the review commands share: options, the desk, and how an item is printed."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..agent.errors import ConfigError

if TYPE_CHECKING:
    from ..agent.inspector import InspectionDeps
    from ..agent.review.desk import Outcome, ReviewDesk, Waiting
    from ..agent.review.standing import Standing
    from ..agent.review.threads import GraphThreads
    from ..agent.settings import LoadedSettings

AuditOption = Annotated[
    list[Path] | None, typer.Option("--audit", "-a", help="Folder of an audit; may be given several times.")
]
ThreadsOption = Annotated[
    str | None,
    typer.Option("--threads", help="SQLite file or postgresql:// address of threads that wait (default: the home's)."),
]
EverythingOption = Annotated[bool, typer.Option("--all", help="Also what the machine decided by itself.")]
ByOption = Annotated[str | None, typer.Option("--by", help="Who you are (default: the user's name).")]
ItemArgument = Annotated[str, typer.Argument(metavar="ITEM", help="Its id, or the beginning of it.")]


def who(given: str | None) -> str:
    """As given, else the user of this computer."""
    if given:
        return given
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        return "unknown"


@contextmanager
def open_desk(
    loaded: LoadedSettings, audits: list[Path] | None, threads: str | None, *, everything: bool = False
) -> Iterator[tuple[ReviewDesk, InspectionDeps]]:
    """The desk with its threads, and what pictures are drawn with; what a killed process left is finished first.

    Raises:
        FlawscopeError: the audits, the journal or the threads cannot be read.
    """
    from ..agent.artifacts import ArtifactStore
    from ..agent.inspector import InspectionDeps, Inspector
    from ..agent.review.desk import ReviewDesk

    def desk(asking: GraphThreads | None = None) -> ReviewDesk:
        return ReviewDesk(
            loaded.home.reviews,
            audits=audits or (),
            threads=asking,
            everything=everything,
            second_person=loaded.settings.second_person,
        )

    own = loaded.home.threads / "threads.sqlite"
    if threads is None and not own.exists():
        yield desk(), InspectionDeps(loaded, ArtifactStore(loaded.home.artifacts))
        return
    from ..agent.checkpoints import open_checkpointer
    from ..agent.review.threads import GraphThreads

    with open_checkpointer(_address(threads, own)) as saver, Inspector(loaded, checkpointer=saver) as inspector:
        ready = desk(GraphThreads(inspector.graph, saver))
        for outcome in ready.settle():
            report_outcome(outcome, late=True)
        yield ready, inspector.deps


def _address(threads: str | None, own: Path) -> str:
    """Where the checkpointer's database is.

    Raises:
        ConfigError: a file is named that is not there; it would be made, and be empty.
    """
    if threads is not None and "://" in threads:
        return threads
    path = own if threads is None else Path(threads)
    if not path.is_file():
        raise ConfigError(f"there is no database of threads {path}.", hint="Name the file of its checkpointer.")
    return f"sqlite:///{path.absolute()}"


def report_outcome(outcome: Outcome, *, late: bool = False) -> None:
    """What a thread made of a decision, where there is a thread; ``late`` for one of an earlier command's."""
    from .shared import make_console, print_error, print_plain

    if late and outcome.problem is None:
        make_console(stderr=True).print(f"{outcome.standing.id}: its thread had not been told before, and is now.")
        return

    name = outcome.standing.id
    if outcome.problem is not None:
        print_error(f"{name}: its thread could not be told yet, and will be at the next review. {outcome.problem}")
    elif outcome.asked_again is not None:
        print_plain([f"{name}: its thread asks again, as {outcome.asked_again}"])
    elif outcome.verdict is not None:
        print_plain([f"{name}: its thread went on and ended with {outcome.verdict}"])


def line_of(waiting: Waiting) -> str:
    """One item on one line."""
    from ..agent.terminal import clean_line

    item, standing = waiting.item, waiting.standing
    chance = "" if item.probability is None else f"  P(defect) {item.probability:.2f}"
    kind = "" if item.defect_type is None else f"  {item.defect_type.name}"
    parts = [item.product or "", f"serial {item.serial}" if item.serial else ""]
    of = ", ".join(part for part in (*parts, "thread" if item.source == "thread" else "") if part)
    told = clean_line(f"{item.image}{f' ({of})' if of else ''}{chance}{kind}{_said(standing)}")
    return f"{item.id}  {item.verdict.value:<6}  {told}"


def _said(standing: Standing) -> str:
    if standing.decision is None:
        return ""
    kind = f" {standing.decision.defect_type}" if standing.decision.defect_type else ""
    return f"  -> {standing.decision.verdict}{kind} by {standing.decided_by}, {standing.state}"


def lines_of(waiting: Waiting) -> list[str]:
    """Everything known of an item, for a person who decides."""
    from ..agent.review.desk import UNREAD_HINT

    item, standing = waiting.item, waiting.standing
    decision = standing.decision
    candidates = [] if item.defect_type is None else item.defect_type.candidates
    score = "" if item.image_score is None else f"{item.image_score:.2f}"
    limit = "" if item.threshold is None else f" (threshold {item.threshold:.2f})"
    overlay = item.pictures.get("overlay")
    rows = [
        ("picture", item.image),
        ("overlay", str(Path(item.audit) / overlay) if item.audit and overlay else ""),
        ("product", item.product or ""),
        ("serial", item.serial or ""),
        ("lot", item.lot or ""),
        ("station", item.station or ""),
        ("machine", item.verdict.value + ("" if item.probability is None else f", P(defect) {item.probability:.2f}")),
        ("score", score + limit if score else ""),
        ("where", ", ".join(f"{region.id} {region.place} {list(region.box)}" for region in item.regions)),
        ("type", ", ".join(f"{one.name} {one.posterior:.2f}" for one in candidates)),
        ("why", item.reason),
        ("may be", "NG, never OK: it could not be read. " + UNREAD_HINT if item.unread else ""),
        ("thread", item.question.thread_id if item.question else ""),
        ("decided", _said(standing).removeprefix("  -> ")),
        ("note", decision.note if decision else ""),
        ("confirmed", standing.confirmed_by or ""),
    ]
    return [item.id, *(f" {name}: {text}" for name, text in rows if text)]
