"""``audit``: thousands of pictures by a script, with records that no interruption loses or doubles."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ..agent.errors import ConfigError
from . import audit_outputs, audit_page
from .shared import (
    FalseAlarmOption,
    HomeOption,
    MilvusTokenOption,
    MilvusUriOption,
    ProfileOption,
    complete_product,
    make_console,
    print_line,
    print_plain,
    settings,
)

if TYPE_CHECKING:
    from ..audits.folder import AuditSummary

EXIT_NG, EXIT_REVIEW = 1, 3
SAY_EVERY_S = 30.0
"""How often progress is told where no terminal shows it."""


class _RunByDefault(TyperGroup):
    """``audit PATHS`` is ``audit run PATHS``; a folder that has a command's name is given as ``./NAME``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in {"--help", "--install-completion"}:
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RunByDefault,
    no_args_is_help=True,
    help="Inspect thousands of pictures from a script: audit PATHS --product P --out DIR.",
)


class Engine(StrEnum):
    """Where workers run."""

    LOCAL = "local"
    RAY = "ray"


class PicturesOf(StrEnum):
    """Which records get pictures."""

    FLAGGED = "flagged"
    ALL = "all"
    NONE = "none"


class FailOn(StrEnum):
    """What makes the exit code other than 0."""

    NG = "ng"
    REVIEW = "review"
    ERROR = "error"
    NEVER = "never"


FailOnOption = Annotated[
    list[FailOn] | None,
    typer.Option("--fail-on", help="What makes the exit code other than 0; may be repeated (default: error)."),
]


@app.command("run")
def run(
    inputs: Annotated[
        list[str], typer.Argument(metavar="PATHS", help="Pictures, folders, patterns or manifests (.csv, .tsv).")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the audit; an unfinished one there goes on.")],
    product: Annotated[
        str | None,
        typer.Option("--product", "-p", help="Of lines that name none.", autocompletion=complete_product),
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes (default: one a core).")] = None,
    engine: Annotated[Engine, typer.Option("--engine", help="Processes here, or Ray's actors.")] = Engine.LOCAL,
    shard: Annotated[str, typer.Option("--shard", help="Only part i of n, such as 2/5; see audit merge.")] = "1/1",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only so many lines.")] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds that a picture may take.")] = 60.0,
    memory: Annotated[
        int, typer.Option("--memory", min=0, help="MB that a picture may take in a worker; 0 for any.")
    ] = 4000,
    pictures: Annotated[
        PicturesOf, typer.Option("--pictures", help="Which records get pictures; flagged: NG and REVIEW.")
    ] = PicturesOf.FLAGGED,
    retry: Annotated[bool, typer.Option("--retry", help="Try lines again that failed in an earlier run.")] = False,
    fail_on: FailOnOption = None,
    false_alarm: FalseAlarmOption = None,
    milvus_uri: MilvusUriOption = None,
    milvus_token: MilvusTokenOption = None,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Inspect pictures into DIR/records.jsonl, one record a line. Exit code by --fail-on: 1 NG, 3 REVIEW, 4 and up."""
    from ..audits.local import Limits
    from ..audits.runner import AuditPlan, run_audit
    from ..audits.worklist import parse_shard

    wanted = _wanted(fail_on)
    loaded = settings(
        profile=profile, home=home, false_alarm=false_alarm, milvus_uri=milvus_uri, milvus_token=milvus_token
    )
    plan = AuditPlan(
        inputs=inputs,
        out=out,
        product=product,
        workers=workers,
        engine=engine.value,
        shard=parse_shard(shard),
        limit=limit,
        limits=Limits(timeout, memory or None),
        pictures=pictures.value,
        retry=retry,
    )
    with _Progress() as progress:
        summary = run_audit(loaded, plan, progress)
    _print_summary(summary, out)
    raise typer.Exit(_exit_code(summary, wanted))


@app.command("merge")
def merge(
    shards: Annotated[list[Path], typer.Argument(metavar="DIRS", help="Folders of all shards of one worklist.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the merged audit.")],
    fail_on: FailOnOption = None,
) -> None:
    """Make one audit of finished shards, as if a single run had written it. Exit code by --fail-on, as of audit."""
    from ..audits.merging import merge_audits

    wanted = _wanted(fail_on)
    summary = merge_audits(shards, out)
    _print_summary(summary, out)
    raise typer.Exit(_exit_code(summary, wanted))


audit_outputs.register(app)
audit_page.register(app)


class _Progress:
    """How far, how fast and how much longer: a line that is written over on terminals, else one now and then."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._console = make_console(stderr=True)
        self._shown = time.monotonic()

    def __enter__(self) -> _Progress:
        return self

    def __call__(self, summary: AuditSummary) -> None:
        every = 0.2 if self._terminal else SAY_EVERY_S
        finished = summary.kept + summary.done >= summary.lines
        if time.monotonic() - self._shown < every and not finished:
            return
        self._shown = time.monotonic()
        text = progress_line(summary)
        if self._terminal:
            self._console.print(f"[dim]· {text:<72}[/]", end="\r")
        elif not finished:
            self._console.print(text)

    def __exit__(self, *exc: object) -> None:
        if self._terminal:
            self._console.print(" " * 76, end="\r")


def progress_line(summary: AuditSummary) -> str:
    """Such as ``1,234 of 10,000, 31.2 a second, 4:41 left; 12 NG, 3 REVIEW, 1 error``."""
    behind = summary.kept + summary.done
    rate = summary.done / summary.seconds if summary.seconds > 0 else 0.0
    left = _clock((summary.lines - behind) / rate) if rate > 0 else "?"
    found = [f"{summary.verdicts[name]} {name}" for name in ("NG", "REVIEW") if summary.verdicts[name]]
    if failures := sum(summary.errors.values()):
        found.append(f"{failures} error{'s' if failures > 1 else ''}")
    end = f"; {', '.join(found)}" if found else ""
    return f"{behind:,} of {summary.lines:,}, {rate:.1f} a second, {left} left{end}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _print_summary(summary: AuditSummary, out: Path) -> None:
    told = ", ".join(f"{summary.verdicts[name]:,} {name}" for name in ("OK", "NG", "REVIEW"))
    failures = sum(summary.errors.values())
    lines = f"{summary.lines:,} line{'' if summary.lines == 1 else 's'}"
    print_line(f"{lines}: {told}, {failures:,} {'error' if failures == 1 else 'errors'}")
    for kind, count in sorted(summary.errors.items(), key=lambda item: (-item[1], item[0])):
        print_plain([f"  {count:,} {kind}, such as {summary.examples[kind]}"])
    if summary.done and summary.seconds > 0:
        print_line(
            f"{summary.done:,} inspected in {_clock(summary.seconds)}, {summary.done / summary.seconds:.1f} a second"
        )
    if summary.kept:
        print_line(f"{summary.kept:,} kept from an earlier run")
    if summary.superseded:
        print_line(f"{summary.superseded:,} earlier records no longer hold: {out / 'superseded.jsonl'}")
    print_line(f"records: {out / 'records.jsonl'}")


def _wanted(fail_on: list[FailOn] | None) -> set[FailOn]:
    wanted = set(fail_on or [FailOn.ERROR])
    if FailOn.NEVER in wanted and len(wanted) > 1:
        raise ConfigError("--fail-on never stands alone.")
    return wanted


def _exit_code(summary: AuditSummary, wanted: set[FailOn]) -> int:
    if FailOn.ERROR in wanted and summary.exit_code_of_errors is not None:
        return summary.exit_code_of_errors
    if FailOn.NG in wanted and summary.verdicts["NG"]:
        return EXIT_NG
    if FailOn.REVIEW in wanted and (summary.verdicts["REVIEW"] or summary.errors):
        return EXIT_REVIEW
    return 0
