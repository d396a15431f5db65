"""docs/cli.md from the command line itself; ``REGENERATE=1 pytest tests/golden`` writes it anew."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HEAD = """# The command line

Made from the program by `REGENERATE=1 pytest tests/golden`; a test keeps this page and the program equal. Exit codes
and messages are in [errors.md](errors.md). `python cli.py` and `flawscope` are the same.

`--reference` takes everything up to the next option (`--reference good/*.jpg`), so the pictures to inspect come before
it. `--debug`, anywhere, shows the traceback behind a one-line message.
"""


def commands(group: Any, prefix: str = "") -> Iterator[str]:
    """Every command of a group in the order of its help, each group before what is in it."""
    context = group.make_context(None, [], resilient_parsing=True)
    for name in list(group.commands):
        _, command, _ = group.resolve_command(context, [name])  # which builds what is in it
        yield f"{prefix}{name}"
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")


def help_of(command: str) -> str:
    """What ``flawscope COMMAND --help`` prints, 100 columns wide and without colours."""
    environment = {**os.environ, "COLUMNS": "100", "TERMINAL_WIDTH": "100", "TERM": "dumb", "NO_COLOR": "1"}
    shown = subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), *command.split(), "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return "\n".join(line.rstrip() for line in shown.stdout.strip("\n").splitlines()).strip("\n")


def page() -> str:
    """The whole page."""
    import typer

    from flawscope.cli import app

    every = ["", *commands(typer.main.get_command(app))]
    parts = [f"\n## `flawscope {command}`\n\n```text\n{help_of(command)}\n```\n" for command in every]
    return (HEAD + "".join(parts)).replace("## `flawscope `", "## `flawscope`")
