"""What the commands share: options, settings, printing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..agent.errors import ConfigError

if TYPE_CHECKING:
    from ..agent.settings import LoadedSettings


def complete_product(incomplete: str) -> list[str]:
    """Names for the shell; broken settings complete to nothing, since a message would land in the command line."""
    from ..agent.settings import load_settings
    from ..tools.product_files import list_products

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

MilvusUriOption = Annotated[
    str | None,
    typer.Option("--milvus-uri", help="Milvus server, such as http://127.0.0.1:19530 (default: MILVUS_URI)."),
]
MilvusTokenOption = Annotated[
    str | None,
    typer.Option("--milvus-token", help="Its token (default: MILVUS_TOKEN, which no list of processes shows)."),
]


def settings(**flags: Any) -> LoadedSettings:
    """The layered settings with these flags on top; None means not given."""
    from ..agent.settings import load_settings

    return load_settings(flags)


def make_console(stderr: bool = False, width: int | None = None) -> Any:
    """A rich console without guessed highlighting."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, width=width)


def print_line(text: str) -> None:
    """One line on standard output, at once: whoever reads a pipe sees it when it is written."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_plain(lines: list[str]) -> None:
    """Lines that quote names of files and folders: no markup, no control characters, not broken at the width."""
    from ..agent.terminal import clean_line

    for line in lines:
        print_line(clean_line(line) if line == line.lstrip() else f"  {clean_line(line)}")


def expand(paths: list[Path], except_in: Path | None = None) -> list[Path]:
    """The pictures that files and folders stand for."""
    from ..agent.session import expand_pictures

    return expand_pictures(paths, except_in=except_in)


def numbers(text: str, option: str = "--shots") -> list[int]:
    """Numbers such as 1,4,16.

    Raises:
        ConfigError: it is something else.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(f"{option} takes numbers such as 1,4,16, not {text!r}.")
    return [int(part) for part in parts]


def print_error(text: str) -> None:
    """One line on standard error."""
    from ..agent.terminal import clean_line

    sys.stderr.write(f"flawscope: {clean_line(text)}\n")
    sys.stderr.flush()


@contextmanager
def status(console: Any, *, hidden: bool) -> Iterator[Any]:
    """A line that says what is being done, on terminals only."""
    if hidden or not console.is_terminal:
        yield lambda text: None
        return
    try:
        yield lambda text: console.print(f"[dim]· {text:<40}[/]", end="\r")
    finally:  # an error's line must not begin in the middle of this one
        console.print(" " * 42, end="\r")
