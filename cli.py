"""The command line: parse, load the settings, call the library, render. No logic and no heavy import lives here."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from flawscope.agent.errors import ConfigError, FlawscopeError, StorageError

if TYPE_CHECKING:
    from flawscope.agent.conversation import Conversation
    from flawscope.agent.schemas import InspectionReport
    from flawscope.agent.settings import LoadedSettings

EXIT_NG, EXIT_REVIEW, EXIT_INTERRUPTED = 1, 3, 130
UsageError: Any = typer.BadParameter.__base__
"""Typer has carried a copy of click since 0.20 and the real one before; both call wrong arguments by this class."""


class _ReaderGoneError(Exception):
    """Whoever read standard output has gone away (``| head``)."""


class _InterruptedError(Exception):
    """The user pressed Ctrl-C."""


class _Commands(TyperGroup):
    """Takes what Typer would end in its own way: it leaves with 1, our code for NG, when a pipe is closed early."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderGoneError from error
        except KeyboardInterrupt as error:
            raise _InterruptedError from error


app = typer.Typer(
    name="flawscope",
    cls=_Commands,
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


def _complete_product(incomplete: str) -> list[str]:
    """Names for the shell; broken settings complete to nothing, since a message would land in the command line."""
    from flawscope.agent.settings import load_settings
    from flawscope.tools.products import list_products

    try:
        folder = load_settings().home.products
    except ConfigError:
        return []
    return [name for name in list_products(folder) if name.startswith(incomplete)]


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
    paths, references = _expand(images, except_in=out), _expand(reference or [])
    talk = not (no_chat or as_json or ask) and len(paths) == 1 and sys.stdin.isatty() and sys.stdout.isatty()
    from flawscope.agent.session import inspect_all
    from flawscope.agent.terminal import STEP_NAMES, ProgressBar, print_report, print_summary

    console, errors = _console(), _console(stderr=True)
    reports: list[InspectionReport] = []
    try:
        with ProgressBar(errors) as progress, _status(errors, hidden=as_json) as say:
            on_step = lambda step: say(STEP_NAMES.get(step, step))  # noqa: E731
            for report in inspect_all(loaded, paths, product, references, out, progress, on_step, ask):
                reports.append(report)
                if as_json:
                    _print_line(report.model_dump_json())
                else:
                    print_report(console, report)
                if report.error is not None:
                    _print_error(report.error.message)
    finally:
        if not as_json and len(reports) > 1:
            print_summary(console, reports)
    if ask or talk:
        _converse_about(loaded, [report for report in reports if report.error is None], references, ask, as_json)
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
            false_alarm=false_alarm,
            replace=replace,
            max_pixels=loaded.settings.max_pixels,
            progress=progress,
        )
    _print_plain(describe(model, loaded.false_alarm_of(model.false_alarm)))


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
    _print_plain(describe(model, loaded.false_alarm_of(model.false_alarm)))


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
    if not yes and not sys.stdin.isatty():
        raise ConfigError(f"nobody can be asked whether to remove {product!r}.", hint="Add --yes.")
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
    from rich.text import Text

    from flawscope.agent.terminal import clean_line

    table = Table("setting", "value", "from", "meaning", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(clean_line(cell)) for cell in (row.name, row.value, row.origin, row.meaning)))
    _console().print(table)


@app.command()
def doctor(profile: ProfileOption = None, home: HomeOption = None) -> None:
    """Say what works on this machine and what is missing. Exit code 0 when the profile can inspect."""
    from flawscope.agent.doctor import examine
    from flawscope.agent.terminal import print_finding

    console = _console()
    findings = []
    for finding in examine(_settings(profile=profile, home=home)):
        findings.append(finding)
        print_finding(console, finding)
    broken = [finding for finding in findings if finding.state == "broken"]
    raise typer.Exit(broken[0].exit_code if broken else 0)


def _bench(module: str, *args: Any, **kwargs: Any) -> None:
    """Run a benchmark of flawscope.benchmarks and print its tables; progress goes to standard error."""
    import importlib

    bench = importlib.import_module(f"flawscope.benchmarks.{module}")
    with _status(_console(stderr=True), hidden=False) as say:
        result = getattr(bench, f"run_{module}")(*args, **kwargs, progress=say)
    _console(width=120).print(bench.render(result))


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


def _console(stderr: bool = False, width: int | None = None) -> Any:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, width=width)


def _print_line(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _print_plain(lines: list[str]) -> None:
    """Lines that quote names of files and folders: no markup, no control characters, not broken at the width."""
    from flawscope.agent.terminal import clean_line

    for line in lines:
        _print_line(clean_line(line) if line == line.lstrip() else f"  {clean_line(line)}")


def _expand(paths: list[Path], except_in: Path | None = None) -> list[Path]:
    from flawscope.agent.session import expand_pictures

    return expand_pictures(paths, except_in=except_in)


def _numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(f"--shots takes numbers such as 1,4,16, not {text!r}.")
    return [int(part) for part in parts]


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
    try:
        yield lambda text: console.print(f"[dim]· {text:<40}[/]", end="\r")
    finally:  # an error's line must not begin in the middle of this one
        console.print(" " * 42, end="\r")


def _converse_about(
    loaded: LoadedSettings, reports: list[InspectionReport], references: list[Path], ask: str, as_json: bool
) -> None:
    from flawscope.agent.session import begin_conversation

    for report in reports:
        with begin_conversation(loaded, report, references) as conversation:
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
        except EOFError:
            console.print()
            return
        if question.lower() in {"quit", "exit", "q", "bye"}:
            return
        if question:
            _print_answer(console, conversation, question)


def _print_answer(console: Any, conversation: Conversation, question: str) -> None:
    from rich.text import Text

    from flawscope.agent.terminal import clean, clean_line

    answer = conversation.ask(question)
    cites = f" [{', '.join(answer.cites)}]" if answer.cites else ""
    console.print(Text(clean(answer.text) + cites))
    if answer.picture:
        console.print(Text(f"picture: {clean_line(answer.picture)}", style="dim"), soft_wrap=True)


def _spread_references(arguments: list[str]) -> list[str]:
    """Let --reference take several values, as a shell's ``good/*.jpg`` expands to.

    Everything up to the next option belongs to it; pictures to inspect come before. What follows ``--`` is left alone.

    Raises:
        ConfigError: --reference without a value.
    """
    spread: list[str] = []
    collecting = waiting = False
    for position, argument in enumerate([*arguments, "--"]):
        if argument.startswith("-") and argument != "-":
            if waiting:
                raise ConfigError("--reference needs a good picture, or a folder of them.")
            if argument == "--":
                return spread + arguments[position:]
            waiting = collecting = argument in {"--reference", "-r"}
            if not collecting:
                spread.append(argument)
        elif collecting:
            spread += ["--reference", argument]
            waiting = False
        else:
            spread.append(argument)
    return spread


def main() -> None:
    """The console script: every failure is one line and its exit code; --debug shows the traceback."""
    # A cold start is mostly imports: millions of objects that live to the end. Collecting among them, and once more
    # when the interpreter ends, was a third of its time.
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        _prepare_streams()
        code = app(args=_spread_references(arguments), prog_name="flawscope", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code or 0)
    except FlawscopeError as error:
        if debug:
            raise
        _print_error(str(error))
        sys.exit(error.exit_code)
    except UsageError as error:
        if text := error.format_message():  # empty when the help was printed instead
            _print_error(_usage(error, text, arguments))
        sys.exit(ConfigError.exit_code)
    except (_InterruptedError, KeyboardInterrupt, typer.Abort):
        _print_error("interrupted; everything finished so far is kept.")
        sys.exit(EXIT_INTERRUPTED)
    except (_ReaderGoneError, BrokenPipeError):
        _drop_output()
        sys.exit(EXIT_INTERRUPTED)
    except OSError as error:
        if debug:
            raise
        _drop_output()
        what = error.filename or "the output"
        _print_error(f"cannot use {what}: {error.strerror or error}. Check the path and the disk.")
        sys.exit(StorageError.exit_code)


def _prepare_streams() -> None:
    """Standard streams that are there and take every character.

    Raises:
        StorageError: standard output is closed; the next file opened would take its place and be printed into.
    """
    import os

    for name, mode in (("stdin", "r"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115  # for as long as the process lives
    if sys.stdout is None:
        hint = "Redirect it to a file, or to /dev/null when only the exit code and --out matter."
        raise StorageError("standard output is closed, so no result could be shown.", hint=hint)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names of files hold what the terminal's encoding has not


def _drop_output() -> None:
    """Let what is still buffered go nowhere, or the interpreter complains about it while it ends."""
    import os

    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # no descriptor behind it: nothing to complain about either
        return


def _usage(error: Any, text: str, arguments: list[str]) -> str:
    """Wrong arguments in one line."""
    command = error.ctx.command_path if error.ctx is not None else "flawscope"
    parameter = getattr(getattr(error, "param", None), "name", None)
    if parameter == "images" and {"--reference", "-r"} & set(arguments):
        text = "no pictures to inspect: name them before --reference, which takes everything up to the next option."
    return f"{text} Try '{command} --help'."


def _print_error(text: str) -> None:
    from flawscope.agent.terminal import clean_line

    sys.stderr.write(f"flawscope: {clean_line(text)}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
