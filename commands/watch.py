"""``watch`` and ``outbox``."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..agent.errors import ConfigError
from .shared import FalseAlarmOption, HomeOption, ProfileOption, complete_product, print_error, print_line, settings

if TYPE_CHECKING:
    from ..audits.records import AuditRecord
    from ..edges.outbox import Outbox

OutArgument = Annotated[Path, typer.Argument(help="The folder that was given to watch as --out.")]
LISTED = 1000


def watch(
    folder: Annotated[Path, typer.Argument(help="The folder that pictures come into; subfolders too.")],
    product: Annotated[str, typer.Option("--product", "-p", help="Enrolled product.", autocompletion=complete_product)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the records, pictures and the outbox.")],
    publish: Annotated[
        list[str] | None,
        typer.Option("--publish", help="mqtt://HOST/TOPIC, mqtts://… or https://…; may be given several times."),
    ] = None,
    settle: Annotated[
        float, typer.Option("--settle", min=0.05, max=3600, help="Seconds that a file must stay as it is.")
    ] = 1.0,
    poll: Annotated[
        float | None,
        typer.Option("--poll", min=0.05, max=3600, help="Look through the folder every so many seconds (shares)."),
    ] = None,
    name_pattern: Annotated[
        str | None,
        typer.Option("--name-pattern", help="Regular expression with groups serial, lot, station for the path."),
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=1, max=86_400, help="Seconds a picture may take.")] = 60.0,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", min=0, max=65_535, help="Prometheus metrics on 127.0.0.1.")
    ] = None,
    traces: Annotated[bool, typer.Option("--traces", help="OpenTelemetry spans, by OTEL_EXPORTER_OTLP_*.")] = False,
    false_alarm: FalseAlarmOption = None,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Inspect every picture that comes into a folder and tell others; Ctrl-C or SIGTERM ends it with code 0."""
    from ..audits.local import Limits
    from ..edges import watch as edge
    from ..edges.destination import parse_address

    loaded = settings(profile=profile, home=home, false_alarm=false_alarm)
    addresses = [parse_address(text) for text in publish or []]
    plan = edge.WatchPlan(
        folder,
        out,
        product,
        publish=tuple(address.text for address in addresses),
        settle_s=settle,
        look_s=poll,
        name_pattern=None if name_pattern is None else edge.name_pattern(name_pattern),
        limits=Limits(timeout_s=timeout),
        metrics_port=metrics_port,
        traces=traces,
    )
    for address in addresses:
        if address.plain:
            print_error(f"{address.text} is not encrypted: what is sent there can be read and changed on its way.")
    counts: Counter[str] = Counter()

    def recorded(record: AuditRecord) -> None:
        from ..agent.terminal import clean_line

        counts[record.verdict.value] += 1
        why = f"  ({clean_line(record.error.message)})" if record.error is not None else ""
        print_line(f"{record.verdict.value:<6}  {clean_line(record.line.image)}{why}")

    with _stop_signals() as stopped:
        watching = edge.Watch(loaded, plan, recorded)
        watching.run(stopped, print_error)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("OK", "NG", "REVIEW"))
    gone = f"; {watching.vanished} vanished before they could be read" if watching.vanished else ""
    print_error(f"stopped: {counts.total()} pictures: {told}{gone}. The next watch goes on from here.")
    if watching.waiting or watching.refused:
        left = f"{watching.waiting} verdicts wait and {watching.refused} were refused"
        print_error(f"{left}: flawscope outbox list {out}")


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C or SIGTERM end things in order, and a second one at once."""
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


outbox_app = typer.Typer(no_args_is_help=True, help="Verdicts of `watch` that wait or were refused.")


@outbox_app.command("list")
def list_messages(
    out: OutArgument, dead: Annotated[bool, typer.Option("--dead", help="Refused ones alone.")] = False
) -> None:
    """Messages that wait or were refused: id, state, attempts, age, part, address and why."""
    with _outbox(out) as outbox:
        found = outbox.messages("dead" if dead else None, LISTED)
    from ..agent.terminal import clean_line

    for message in found:
        age_s = max(0.0, time.time() - message.created)
        told = f"{message.id}\t{message.state}\t{message.attempts}\t{age_s:.0f} s\t{clean_line(message.part)}"
        print_line(f"{told}\t{clean_line(message.destination)}\t{clean_line(message.problem)}")
    if len(found) == LISTED:
        print_error(f"only the first {LISTED} are listed.")


@outbox_app.command("retry")
def retry_messages(
    out: OutArgument,
    ids: Annotated[list[int] | None, typer.Argument(help="Ids of `outbox list`.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All refused ones.")] = False,
) -> None:
    """Send refused messages again; a running watch takes them up, else the next one."""
    if bool(ids) == everything:
        raise ConfigError("name the ids to send again, or --all.", hint="flawscope outbox list shows them.")
    with _outbox(out) as outbox:
        print_line(f"{outbox.retry(ids or None, time.time())} to be sent again")


@outbox_app.command("drop")
def drop_messages(out: OutArgument, ids: Annotated[list[int], typer.Argument(help="Ids of `outbox list`.")]) -> None:
    """Give messages up; their records stay."""
    with _outbox(out) as outbox:
        print_line(f"{outbox.drop(ids)} dropped")


def _outbox(out: Path) -> Outbox:
    from ..edges.outbox import OUTBOX_NAME, Outbox

    if not (out / OUTBOX_NAME).is_file():
        raise ConfigError(f"{out} holds no outbox.", hint="Name the folder that was given to watch as --out.")
    return Outbox(out)
