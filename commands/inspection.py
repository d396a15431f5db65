"""``inspect`` and ``chat``."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..agent.errors import ConfigError
from .shared import (
    FalseAlarmOption,
    HomeOption,
    MilvusTokenOption,
    MilvusUriOption,
    ProfileOption,
    complete_product,
    expand,
    make_console,
    print_error,
    print_line,
    settings,
)

if TYPE_CHECKING:
    from ..agent.conversation import Conversation
    from ..agent.schemas import InspectionReport
    from ..agent.settings import LoadedSettings

EXIT_NG, EXIT_REVIEW = 1, 3


def inspect(
    images: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")],
    product: Annotated[
        str | None, typer.Option("--product", "-p", help="Enrolled product.", autocompletion=complete_product)
    ] = None,
    reference: Annotated[
        list[Path] | None, typer.Option("--reference", "-r", help="Good pictures (or a folder) to compare with.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one report a line and nothing else.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for overlay, heat map and report.")] = None,
    no_chat: Annotated[bool, typer.Option("--no-chat", help="Do not stay in conversation.")] = False,
    ask: Annotated[str, typer.Option("--ask", help="A question to answer about the picture.")] = "",
    false_alarm: FalseAlarmOption = None,
    milvus_uri: MilvusUriOption = None,
    milvus_token: MilvusTokenOption = None,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Inspect pictures. Exit code: 1 if any is NG, else 3 if any needs REVIEW, else 0; 4 and up for failures."""
    if product is not None and reference:
        raise ConfigError("give either --product or --reference, not both.")
    loaded = settings(
        profile=profile, home=home, false_alarm=false_alarm, milvus_uri=milvus_uri, milvus_token=milvus_token
    )
    paths, references = expand(images, except_in=out), expand(reference or [])
    talk = not (no_chat or as_json or ask) and len(paths) == 1 and sys.stdin.isatty() and sys.stdout.isatty()
    from ..agent.session import inspect_all
    from ..agent.terminal import ProgressBar, StatusLine, print_report, print_summary

    console, errors = make_console(), make_console(stderr=True)
    reports: list[InspectionReport] = []
    with _weights_kept(bool(ask or talk)):
        try:
            with ProgressBar(errors) as progress, StatusLine(errors, hidden=as_json) as line:
                given = (loaded, paths, product, references, out, progress, line.step, ask)
                for report in inspect_all(*given, on_text=line.text):
                    reports.append(report)
                    if as_json:
                        print_line(report.model_dump_json())
                    else:
                        print_report(console, report)
                    if report.error is not None:
                        print_error(report.error.message)
        finally:
            if not as_json and len(reports) > 1:
                print_summary(console, reports)
        if ask or talk:
            _converse_about(loaded, [report for report in reports if report.error is None], references, ask, as_json)
    raise typer.Exit(_exit_code(reports))


def _weights_kept(wanted: bool) -> AbstractContextManager[None]:
    """What inspects also answers questions: its weights are read once."""
    if not wanted:
        return nullcontext()
    from ..agent.vision_language.sharing import kept_loaded

    return kept_loaded()


def chat(
    thread: Annotated[str, typer.Argument(help="The id that was printed when the conversation began.")],
    ask: Annotated[str, typer.Option("--ask", help="One question; without it the conversation goes on.")] = "",
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Take up a conversation about an inspected picture again."""
    from ..agent.session import open_conversation
    from ..agent.terminal import print_report

    with open_conversation(settings(profile=profile, home=home), thread) as conversation:
        console = make_console()
        if ask:
            _print_answer(console, conversation, ask)
        else:
            print_report(console, conversation.report)
            _talk(console, conversation)


def _exit_code(reports: list[InspectionReport]) -> int:
    failures = [report.error.exit_code for report in reports if report.error is not None]
    if failures:
        return failures[0]
    verdicts = {report.verdict.value for report in reports}
    return EXIT_NG if "NG" in verdicts else EXIT_REVIEW if "REVIEW" in verdicts else 0


def _converse_about(
    loaded: LoadedSettings, reports: list[InspectionReport], references: list[Path], ask: str, as_json: bool
) -> None:
    from ..agent.session import begin_conversation

    for report in reports:
        with begin_conversation(loaded, report, references) as conversation:
            console = make_console(stderr=as_json)
            if ask:
                _print_answer(console, conversation, ask)
            else:
                _talk(console, conversation)


def _talk(console: Any, conversation: Conversation) -> None:
    from ..agent.conversation import HELP

    console.print(
        f"\n[dim]{HELP}[/]\n[dim]Conversation {conversation.thread_id}: take it up again with"
        f" flawscope chat {conversation.thread_id}[/]"
    )
    while True:
        try:
            question = console.input("[bold]? [/]").strip()
        except EOFError:
            console.print()
            return
        if question.lower() in {"quit", "exit", "q", "bye"}:
            return
        if question:
            _print_answer(console, conversation, question)


def _print_answer(console: Any, conversation: Conversation, question: str) -> None:
    from rich.text import Text

    from ..agent.terminal import clean, clean_line

    answer = conversation.ask(question)
    cites = f" [{', '.join(answer.cites)}]" if answer.cites else ""
    console.print(Text(clean(answer.text) + cites))
    if answer.picture:
        console.print(Text(f"picture: {clean_line(answer.picture)}", style="dim"), soft_wrap=True)
    for call in answer.calls:
        failed = " (failed)" if call["failed"] else ""
        console.print(Text(f"tool: {clean_line(call['tool'])}{failed}", style="dim"), soft_wrap=True)
    for problem in answer.problems:
        console.print(Text(f"left out: {clean_line(problem)}", style="dim"), soft_wrap=True)
