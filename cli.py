"""The command line: its commands, and how every failure becomes one line and an exit code."""

from __future__ import annotations

import atexit
import gc
import sys
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group_from_info
from typer.models import TyperInfo

from flawscope.agent.errors import ConfigError, FlawscopeError, StorageError
from flawscope.commands import audit, bench, inspection, kb, mcp, models, products, review, setup, train, watch
from flawscope.commands.shared import print_error

EXIT_INTERRUPTED = 130
UsageError: Any = typer.BadParameter.__base__
"""Typer has carried a copy of click since 0.20 and the real one before; both call wrong arguments by this class."""


class _ReaderGoneError(Exception):
    """Whoever read standard output has gone away (``| head``)."""


class _InterruptedError(Exception):
    """The user pressed Ctrl-C."""


GROUPS = {
    "outbox": watch.outbox_app,
    "products": products.app,
    "models": models.app,
    "config": setup.config_app,
    "audit": audit.app,
    "bench": bench.app,
    "train": train.app,
    "kb": kb.app,
    "review": review.app,
}


class _Commands(TyperGroup):
    """Builds a group's commands when one of them is meant, and takes what Typer would end in its own way.

    To build the parameters of a hundred commands takes longer than to import Typer. And Typer leaves with 1, our code
    for NG, when a pipe is closed early.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        for name, group in GROUPS.items():
            self.add_command(TyperGroup(name=name, help=str(group.info.help)))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in GROUPS and not self.commands[args[0]].commands:  # type: ignore[attr-defined]
            info = TyperInfo(GROUPS[args[0]], name=args[0])
            self.add_command(
                get_group_from_info(
                    info, pretty_exceptions_short=True, suggest_commands=True, rich_markup_mode=self.rich_markup_mode
                )
            )
        return super().resolve_command(ctx, args)

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
    rich_markup_mode=None,  # frames around the help would import a markdown parser, half the time of --help
)
app.command()(inspection.inspect)
app.command()(inspection.chat)
app.command()(products.enroll)
app.command()(setup.doctor)
app.command()(mcp.mcp)
app.command()(watch.watch)


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
        print_error(str(error))
        sys.exit(error.exit_code)
    except UsageError as error:
        if text := error.format_message():  # empty when the help was printed instead
            print_error(_usage(error, text, arguments))
        sys.exit(ConfigError.exit_code)
    except (_InterruptedError, KeyboardInterrupt, typer.Abort):
        print_error("interrupted; everything finished so far is kept.")
        sys.exit(EXIT_INTERRUPTED)
    except (_ReaderGoneError, BrokenPipeError):
        _drop_output()
        sys.exit(EXIT_INTERRUPTED)
    except OSError as error:
        if debug:
            raise
        _drop_output()
        what = error.filename or "the output"
        print_error(f"cannot use {what}: {error.strerror or error}. Check the path and the disk.")
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


if __name__ == "__main__":
    main()
