"""``review``: what the machine left open is decided by a person, confirmed by another, and given back."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..agent.errors import ConfigError, FlawscopeError, ReviewConflictError
from . import review_apply
from .review_desk import (
    AuditOption,
    ByOption,
    EverythingOption,
    ItemArgument,
    ThreadsOption,
    line_of,
    lines_of,
    open_desk,
    report_outcome,
    who,
)
from .shared import HomeOption, ProfileOption, make_console, print_error, print_line, print_plain, settings

if TYPE_CHECKING:
    from ..agent.review.desk import ReviewDesk, Waiting

app = typer.Typer(
    help="What the machine left open: list, decide, confirm, apply. Without a command it walks through the queue.",
    invoke_without_command=True,
    rich_markup_mode=None,
)
State = Literal["open", "decided", "confirmed", "applied", "all"]
KEYS = "O ok   N ng   S skip   U undo   Q quit"
KEYS_OF_UNREAD = "N ng   S skip   U undo   Q quit"


@app.callback()
def walk(
    context: typer.Context,
    audit: AuditOption = None,
    threads: ThreadsOption = None,
    everything: EverythingOption = False,
    by: ByOption = None,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """What the machine left open: list, decide, confirm, apply. Without a command it walks through the queue."""
    if context.invoked_subcommand is not None:
        if audit or threads or everything or by:
            raise ConfigError("options stand behind the command.", hint="Such as: flawscope review list --audit FOLDER")
        return
    if not sys.stdin.isatty():
        raise ConfigError("nobody is there to press keys.", hint="Use: flawscope review list, flawscope review decide")
    with open_desk(settings(profile=profile, home=home), audit, threads, everything=everything) as (desk, _):
        _walk(desk, who(by))


@app.command("list")
def review_list(
    audit: AuditOption = None,
    threads: ThreadsOption = None,
    state: Annotated[State, typer.Option("--state", help="Which: open, decided, confirmed, applied, all.")] = "open",
    everything: EverythingOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one item a line as JSON.")] = False,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """List what waits for a person: REVIEW records of audits, and threads that ask."""
    with open_desk(settings(profile=profile, home=home), audit, threads, everything=everything) as (desk, _):
        found = [waiting for waiting in desk.queue() if state in ("all", waiting.standing.state)]
    for waiting in found:
        if as_json:
            print_line(json.dumps(_plain(waiting)))
        else:
            print_line(line_of(waiting))
    if not found and not as_json:
        make_console(stderr=True).print("Nothing." if audit else "Nothing. Name audits with --audit FOLDER.")


@app.command("show")
def review_show(
    item: ItemArgument,
    audit: AuditOption = None,
    threads: ThreadsOption = None,
    everything: EverythingOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Show what is known of an item."""
    with open_desk(settings(profile=profile, home=home), audit, threads, everything=everything) as (desk, _):
        found = desk.find(item)
    if as_json:
        print_line(json.dumps(_plain(found)))
    else:
        print_plain(lines_of(found))


@app.command("decide")
def review_decide(
    item: ItemArgument,
    verdict: Annotated[str, typer.Argument(metavar="OK|NG", help="What it is.")],
    defect_type: Annotated[str | None, typer.Option("--type", help="Defect type of an NG.")] = None,
    note: Annotated[str, typer.Option("--note", help="What you see, in words.")] = "",
    box: Annotated[str | None, typer.Option("--box", metavar="X0,Y0,X1,Y1", help="Where, in pixels.")] = None,
    audit: AuditOption = None,
    threads: ThreadsOption = None,
    everything: EverythingOption = False,
    by: ByOption = None,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Decide one item; a thread that waits for it goes on at once."""
    from ..agent.review.decisions import make_decision
    from .kb_shared import parse_box

    decision = make_decision(verdict, defect_type, note, None if box is None else parse_box(box))
    with open_desk(settings(profile=profile, home=home), audit, threads, everything=everything) as (desk, _):
        outcome = desk.decide(item, decision, who(by))
    print_plain([f"{outcome.standing.id}: {decision.verdict}, decided by {outcome.standing.decided_by}"])
    report_outcome(outcome)
    if outcome.problem is not None:
        raise typer.Exit(outcome.problem.exit_code)


@app.command("confirm")
def review_confirm(
    items: Annotated[list[str] | None, typer.Argument(metavar="ITEM…", help="Their ids.")] = None,
    every: Annotated[bool, typer.Option("--all-decided", help="All that are decided.")] = False,
    by: ByOption = None,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Confirm decisions, so that products and the knowledge base may learn from them (see apply)."""
    from ..agent.review.desk import ReviewDesk

    loaded = settings(profile=profile, home=home)
    desk = ReviewDesk(loaded.home.reviews, second_person=loaded.settings.second_person)
    if bool(items) == every:
        raise ConfigError("name the items, or give --all-decided.")
    names = items or [w.item.id for w in desk.queue() if w.standing.state == "decided"]
    failed: FlawscopeError | None = None
    for name in names:
        try:
            outcome = desk.confirm(name, who(by))
        except ConfigError as error:  # the others are confirmed all the same
            print_error(str(error))
            failed = failed or error
        else:
            print_plain([f"{outcome.standing.id}: confirmed by {outcome.standing.confirmed_by}"])
    if failed is not None:
        raise typer.Exit(failed.exit_code)


@app.command("undo")
def review_undo(
    item: Annotated[str, typer.Argument(metavar="ITEM|product:NAME", help="What to take back the last step of.")],
    audit: AuditOption = None,
    threads: ThreadsOption = None,
    by: ByOption = None,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Take back the last step: what a product learnt, a confirmation, or a decision (its thread asks again)."""
    loaded = settings(profile=profile, home=home)
    if item.startswith("product:"):
        review_apply.take_back(loaded, item.removeprefix("product:"), who(by))
        return
    with open_desk(loaded, audit, threads) as (desk, _):
        outcome = desk.undo(item, who(by))
    left = "decided, no longer confirmed" if outcome.standing.decision is not None else "open again"
    print_plain([f"{outcome.standing.id}: {left}"])
    report_outcome(outcome)
    if outcome.problem is not None:
        raise typer.Exit(outcome.problem.exit_code)


@app.command("history")
def review_history(
    item: Annotated[str | None, typer.Argument(metavar="ITEM|product:NAME", help="Of one only.")] = None,
    home: HomeOption = None,
) -> None:
    """Everything that was done, oldest first; nothing is ever taken out of it."""
    from ..agent.review.desk import ReviewDesk
    from ..agent.review.journal import Journal
    from ..agent.terminal import clean_line

    folder = settings(home=home).home.reviews
    journal = Journal(folder)
    known = {entry.subject for entry in journal.entries()}
    subject = item
    if item is not None and item not in known:
        near = [name for name in known if name.startswith(item)]
        subject = near[0] if len(near) == 1 else ReviewDesk(folder).find(item).item.id
    for entry in journal.entries(subject):
        decision = entry.data.get("decision") or {}
        told = [decision.get("verdict"), decision.get("defect_type"), decision.get("note"), entry.data.get("verdict")]
        told += [f"change {entry.data['number']}"] if "number" in entry.data else []
        said = clean_line(" ".join(str(part) for part in (entry.by, *told) if part))
        print_line(f"{entry.seq:>5}  {entry.at}  {clean_line(entry.subject):<16}  {entry.kind:<11}  {said}")


@app.command("summary")
def review_summary(
    audit: Annotated[list[Path], typer.Option("--audit", "-a", help="Folder of an audit.")],
    home: HomeOption = None,
) -> None:
    """Verdicts of audits by machine and by person: how many were left open, and what became of them."""
    from collections import Counter

    from ..agent.review.journal import Journal
    from ..agent.review.standing import decided
    from ..audits.record_file import read_records

    journal = Journal(settings(home=home).home.reviews)
    counts: Counter[tuple[str, str]] = Counter()
    by_person = 0
    for folder in audit:
        for found in decided(read_records(folder), journal):
            counts[found.record.verdict.value, found.verdict.value] += 1
            by_person += found.standing is not None
    verdicts = ("OK", "NG", "REVIEW")
    print_line(f"{'machine':<10}{'pictures':>10}" + "".join(f"{'now ' + verdict:>13}" for verdict in verdicts))
    for machine in verdicts:
        row = [counts[machine, now] for now in verdicts]
        print_line(f"{machine:<10}{sum(row):>10}" + "".join(f"{count:>13}" for count in row))
    print_line(f"{by_person} of {counts.total()} decided by a person")


app.command("apply")(review_apply.review_apply)
app.command("serve")(review_apply.review_serve)


def _plain(waiting: Waiting) -> dict[str, object]:
    standing = waiting.standing
    decision = standing.decision
    return {
        **waiting.item.model_dump(mode="json"),
        "state": standing.state,
        "version": standing.version,
        "decision": None if decision is None else decision.model_dump(mode="json"),
        "decided_by": standing.decided_by or None,
        "confirmed_by": standing.confirmed_by,
    }


# --- the walk ---------------------------------------------------------------------------------------------------------


def read_key() -> str:
    """One key, without waiting for the return key."""
    return typer.getchar()


def _walk(desk: ReviewDesk, by: str) -> None:
    """Show one item after the other and do what the keys say."""
    skipped: set[str] = set()
    decided: list[str] = []
    while True:
        queue = [waiting for waiting in desk.queue() if waiting.standing.decision is None]
        left = [waiting for waiting in queue if waiting.item.id not in skipped]
        if not left:
            print_line(f"{len(decided)} decided, {len(queue)} left open.")
            return
        print_line("")
        print_plain(lines_of(left[0]))
        print_line(f"[{len(left)} left]  {KEYS_OF_UNREAD if left[0].item.unread else KEYS}")
        key = read_key().lower()
        if key in ("q", "\x03", "\x04", "\x1b"):
            print_line(f"{len(decided)} decided, {len(queue)} left open.")
            return
        try:
            _step(desk, key, left[0], by, skipped, decided)
        except ReviewConflictError as error:  # somebody else was quicker: go on with what is there now
            print_error(str(error))
        except FlawscopeError as error:
            print_error(str(error))
            if key != "u":  # what could not be taken back is another item than the one that is shown
                skipped.add(left[0].item.id)


def _step(desk: ReviewDesk, key: str, waiting: Waiting, by: str, skipped: set[str], decided: list[str]) -> None:
    from ..agent.review.decisions import make_decision
    from ..agent.review.desk import UNREAD_HINT

    if key == "o" and waiting.item.unread:  # it is shown again, and the question stays
        print_error(f"It could not be read, so it cannot be OK. {UNREAD_HINT}")
    elif key == "s":
        skipped.add(waiting.item.id)
    elif key == "u":
        if decided:
            report_outcome(desk.undo(decided.pop(), by))
        else:
            print_line("Nothing to take back.")
    elif key in ("o", "n"):
        kind, note = None, ""
        if key == "n":
            candidates = waiting.item.defect_type.candidates if waiting.item.defect_type else ()
            likely = next((one.name for one in candidates if one.name != "unknown"), "")
            kind = typer.prompt("type", default=likely) or None
            note = typer.prompt("note", default="", show_default=False)
        decision = make_decision("OK" if key == "o" else "NG", kind, note)
        outcome = desk.decide(waiting.item.id, decision, by, version=waiting.standing.version)
        decided.append(outcome.standing.id)
        print_plain([f"{outcome.standing.id}: {decision.verdict}"])
        report_outcome(outcome)
