"""The command line: parse, load the settings, call the library, render. No logic and no heavy import lives here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flawscope.agent.errors import ConfigError, FlawscopeError

if TYPE_CHECKING:
    from flawscope.agent.conversation import Conversation
    from flawscope.agent.schemas import InspectionReport
    from flawscope.agent.settings import LoadedSettings

app = typer.Typer(
    name="flawscope",
    help="Inspect pictures of parts: OK, NG or REVIEW, where, what, why, and the evidence for each sentence.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
products_app = typer.Typer(help="The enrolled products.", no_args_is_help=True)
config_app = typer.Typer(help="The settings and where each value comes from.", no_args_is_help=True)
bench_app = typer.Typer(help="Measure Flawscope on labelled data.", no_args_is_help=True)
app.add_typer(products_app, name="products")
app.add_typer(config_app, name="config")
app.add_typer(bench_app, name="bench")

EXIT_NG, EXIT_REVIEW, EXIT_INTERRUPTED = 1, 3, 130


def _complete_product(incomplete: str) -> list[str]:
    from flawscope.agent.settings import load_settings
    from flawscope.tools.products import list_products

    return [name for name in list_products(load_settings().home.products) if name.startswith(incomplete)]


ProfileOption = Annotated[str | None, typer.Option("--profile", help="Set of defaults, or a .toml file.")]
HomeOption = Annotated[Path | None, typer.Option("--home", help="State directory (default: FLAWSCOPE_HOME).")]
FalseAlarmOption = Annotated[
    float | None, typer.Option("--false-alarm", help="Share of good parts that may alarm, such as 0.02.")
]
DataOption = Annotated[Path, typer.Option("--data", help="Folder with one MVTec-style tree per product.")]


@app.command()
def inspect(
    images: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")],
    product: Annotated[
        str | None, typer.Option("--product", "-p", help="Enrolled product.", autocompletion=_complete_product)
    ] = None,
    reference: Annotated[
        list[Path] | None, typer.Option("--reference", "-r", help="Good pictures (or a folder) to compare with.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one report a line and nothing else.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for overlay, heat map and report.")] = None,
    no_chat: Annotated[bool, typer.Option("--no-chat", help="Do not stay in conversation.")] = False,
    ask: Annotated[str, typer.Option("--ask", help="A question to answer about the picture.")] = "",
    false_alarm: FalseAlarmOption = None,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Inspect pictures. Exit code: 1 if any is NG, else 3 if any needs REVIEW, else 0; 4 and up for failures."""
    if product is not None and reference:
        raise ConfigError("give either --product or --reference, not both.")
    loaded = _settings(profile=profile, home=home, false_alarm=false_alarm)
    paths = _expand(images)
    talk = not (no_chat or as_json or ask) and len(paths) == 1 and sys.stdin.isatty() and sys.stdout.isatty()
    from flawscope.agent.session import inspect_all

    console, errors = _console(), _console(stderr=True)
    from flawscope.agent.terminal import STEP_NAMES, ProgressBar, print_report, print_summary

    reports: list[InspectionReport] = []
    try:
        with ProgressBar(errors) as progress, _status(errors, hidden=as_json) as say:
            run = inspect_all(
                loaded,
                paths,
                product,
                _expand(reference or []),
                out,
                progress,
                lambda s: say(STEP_NAMES.get(s, s)),
                ask,
            )
            for report in run:
                reports.append(report)
                if as_json:
                    _print_line(report.model_dump_json())
                else:
                    print_report(console, report)
    finally:
        if not as_json and len(reports) > 1:
            print_summary(console, reports)
    if ask or talk:
        _converse_about(loaded, reports, reference, ask, as_json)
    raise typer.Exit(_exit_code(reports))


@app.command()
def chat(
    thread: Annotated[str, typer.Argument(help="The id that was printed when the conversation began.")],
    ask: Annotated[str, typer.Option("--ask", help="One question; without it the conversation goes on.")] = "",
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Take up a conversation about an inspected picture again."""
    from flawscope.agent.session import open_conversation
    from flawscope.agent.terminal import print_report

    with open_conversation(_settings(profile=profile, home=home), thread) as conversation:
        console = _console()
        if ask:
            _print_answer(console, conversation, ask)
        else:
            print_report(console, conversation.report)
            _talk(console, conversation)


@app.command()
def enroll(
    product: Annotated[str, typer.Argument(help="Name of the product.")],
    images: Annotated[list[Path], typer.Argument(help="Good pictures, or folders of them.")],
    defects: Annotated[
        Path | None, typer.Option("--defects", help="Folder with one subfolder of examples per defect type.")
    ] = None,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="The part lies at any angle: rotate the references too.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a product of that name.")] = False,
    false_alarm: FalseAlarmOption = None,
    profile: ProfileOption = None,
    home: HomeOption = None,
) -> None:
    """Learn a product from good pictures: memory bank, threshold, and types where examples are given."""
    loaded = _settings(profile=profile, home=home, false_alarm=false_alarm)
    from flawscope.agent.terminal import ProgressBar
    from flawscope.tools.backbones import load_backbone
    from flawscope.tools.products import check_enrolment, describe, enroll_product

    paths = _expand(images)
    check_enrolment(loaded.home.products, product, len(paths), loaded.settings.false_alarm, replace=replace)
    with ProgressBar(_console(stderr=True)) as progress:
        model = enroll_product(
            loaded.home.products,
            product,
            paths,
            load_backbone(loaded.settings.backbone),
            defects=defects,
            rotate=rotate,
            replace=replace,
            max_pixels=loaded.settings.max_pixels,
            progress=progress,
        )
    console = _console()
    for line in describe(model, loaded.settings.false_alarm):
        console.print(line)


@products_app.command("list")
def products_list(home: HomeOption = None) -> None:
    """List the enrolled products."""
    from flawscope.tools.products import list_products

    names = list_products(_settings(home=home).home.products)
    if not names:
        _console(stderr=True).print("No products yet. Enrol one: flawscope enroll PRODUCT good/*.jpg")
    for name in names:
        _print_line(name)


@products_app.command("show")
def products_show(
    product: Annotated[str, typer.Argument(autocompletion=_complete_product)], home: HomeOption = None
) -> None:
    """Show a product: references, calibration, types; its files are verified."""
    loaded = _settings(home=home)
    from flawscope.tools.backbones import load_backbone
    from flawscope.tools.products import describe, load_product

    model = load_product(loaded.home.products, product, load_backbone(loaded.settings.backbone))
    for line in describe(model, loaded.settings.false_alarm):
        _console().print(line)


@products_app.command("remove")
def products_remove(
    product: Annotated[str, typer.Argument(autocompletion=_complete_product)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    home: HomeOption = None,
) -> None:
    """Remove a product with its references and calibration."""
    from flawscope.tools.products import remove_product, require_product

    products = _settings(home=home).home.products
    require_product(products, product)
    if not yes and not typer.confirm(f"Remove {product} with its references and calibration?"):
        raise typer.Exit(0)
    remove_product(products, product)


@config_app.command("show")
def config_show(
    profile: ProfileOption = None,
    home: HomeOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show every setting, its value, where the value comes from and what it means."""
    from flawscope.agent.settings import describe_settings

    rows = describe_settings(_settings(profile=profile, home=home))
    if as_json:
        import json

        _print_line(json.dumps({row.name: {"value": row.value, "origin": row.origin} for row in rows}))
        return
    from rich.table import Table

    table = Table("setting", "value", "from", "meaning", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row.name, row.value, row.origin, row.meaning)
    _console().print(table)


@app.command()
def doctor(profile: ProfileOption = None, home: HomeOption = None) -> None:
    """Say what works on this machine and what is missing. Exit code 0 when the profile can inspect."""
    from flawscope.agent.doctor import examine

    console = _console()
    findings = list(examine(_settings(profile=profile, home=home)))
    for finding in findings:
        mark = {"ok": "[green]ok[/]     ", "optional": "[yellow]absent[/] ", "broken": "[red]broken[/] "}[finding.state]
        console.print(f"{mark}{finding.what}: {finding.detail}", highlight=False)
    broken = [finding for finding in findings if finding.state == "broken"]
    raise typer.Exit(broken[0].exit_code if broken else 0)


def _bench(module: str, *args: Any, **kwargs: Any) -> None:
    """Run a benchmark of flawscope.benchmarks and print its tables."""
    import importlib

    from flawscope.agent.terminal import ProgressBar

    bench = importlib.import_module(f"flawscope.benchmarks.{module}")
    with ProgressBar(_console(stderr=True)) as progress:
        result = bench.run(*args, **kwargs, progress=progress)
    _print_line(bench.render(result))


@bench_app.command("fewshot")
def bench_fewshot(
    data: DataOption,
    shots: Annotated[str, typer.Option("--shots", help="Numbers of references, comma-separated.")] = "1,4,16",
    draws: Annotated[int, typer.Option("--draws", min=1, help="Random draws of references.")] = 3,
) -> None:
    """Detection and localisation from few good references, beside a plain nearest-neighbour baseline."""
    _bench("fewshot", data, _numbers(shots), draws=draws)


@bench_app.command("decisions")
def bench_decisions(data: DataOption) -> None:
    """False alarms against the stated rate, detection, calibration error, REVIEW and what the retry loop brings."""
    _bench("decisions", data)


@bench_app.command("types")
def bench_types(
    data: DataOption, examples: Annotated[int, typer.Option("--examples", min=1, help="Examples per type.")] = 10
) -> None:
    """Naming defect types from a few examples each."""
    _bench("types", data, examples=examples)


@bench_app.command("retrieval")
def bench_retrieval(data: DataOption) -> None:
    """Q2K retrieval against top-k and MMR on left-out pictures."""
    _bench("retrieval", data)


@bench_app.command("speed")
def bench_speed(data: DataOption) -> None:
    """What an inspection costs beside the backbone's own forward pass."""
    _bench("speed", data)


# --- what the commands share ------------------------------------------------------------------------------------------


def _settings(**flags: Any) -> LoadedSettings:
    from flawscope.agent.settings import load_settings

    return load_settings(flags)


def _console(stderr: bool = False) -> Any:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def _print_line(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _expand(paths: list[Path]) -> list[Path]:
    from flawscope.agent.session import expand_pictures

    return expand_pictures(paths)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--shots takes numbers such as 1,4,16, not {text!r}.") from None


def _exit_code(reports: list[InspectionReport]) -> int:
    failures = [report.error.exit_code for report in reports if report.error is not None]
    if failures:
        return failures[0]
    verdicts = {report.verdict.value for report in reports}
    return EXIT_NG if "NG" in verdicts else EXIT_REVIEW if "REVIEW" in verdicts else 0


@contextmanager
def _status(console: Any, *, hidden: bool) -> Iterator[Any]:
    """A line that says what is being done, on terminals only."""
    if hidden or not console.is_terminal:
        yield lambda text: None
        return
    yield lambda text: console.print(f"[dim]· {text}[/]", end="\r")
    console.print(" " * 40, end="\r")


def _converse_about(
    loaded: LoadedSettings, reports: list[InspectionReport], reference: list[Path] | None, ask: str, as_json: bool
) -> None:
    from flawscope.agent.session import begin_conversation

    for report in reports:
        with begin_conversation(loaded, report, _expand(reference or [])) as conversation:
            console = _console(stderr=as_json)
            if ask:
                _print_answer(console, conversation, ask)
            else:
                _talk(console, conversation)


def _talk(console: Any, conversation: Conversation) -> None:
    from flawscope.agent.conversation import HELP

    console.print(
        f"\n[dim]{HELP}[/]\n[dim]Conversation {conversation.thread_id}: take it up again with"
        f" flawscope chat {conversation.thread_id}[/]"
    )
    while True:
        try:
            question = console.input("[bold]? [/]").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if question.lower() in {"quit", "exit", "q", "bye"}:
            return
        if question:
            _print_answer(console, conversation, question)


def _print_answer(console: Any, conversation: Conversation, question: str) -> None:
    from rich.text import Text

    from flawscope.agent.terminal import clean

    answer = conversation.ask(question)
    cites = f" [{', '.join(answer.cites)}]" if answer.cites else ""
    console.print(Text(clean(answer.text) + cites))
    if answer.picture:
        console.print(f"[dim]picture: {answer.picture}[/]")


def _spread_references(arguments: list[str]) -> list[str]:
    """Let --reference take several values, as a shell's ``good/*.jpg`` expands to.

    Everything up to the next option belongs to it; pictures to inspect come before.
    """
    spread: list[str] = []
    collecting = False
    for argument in arguments:
        if argument.startswith("-") and argument != "-":
            collecting = argument in {"--reference", "-r"}
            if not collecting:
                spread.append(argument)
        elif collecting:
            spread += ["--reference", argument]
        else:
            spread.append(argument)
    return spread


def main() -> None:
    """The console script: every failure is one line and its exit code; --debug shows the traceback."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    arguments = _spread_references([argument for argument in arguments if argument != "--debug"])
    try:
        app(args=arguments, standalone_mode=True)
    except FlawscopeError as error:
        if debug:
            raise
        _print_error(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _print_error("interrupted; everything finished so far is kept.")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader went away (| head); the interpreter must not complain about it while closing standard output.
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_INTERRUPTED)


def _print_error(text: str) -> None:
    from flawscope.agent.terminal import clean

    sys.stderr.write(f"flawscope: {clean(text)}\n")


if __name__ == "__main__":
    main()
