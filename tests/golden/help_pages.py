"""docs/cli.md from the command line itself; ``REGENERATE=1 pytest tests/golden`` writes it anew."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMANDS = (
    "",
    "inspect",
    "chat",
    "enroll",
    "products",
    "products list",
    "products show",
    "products remove",
    "config",
    "config show",
    "doctor",
    "bench",
    "bench fewshot",
    "bench decisions",
    "bench types",
    "bench retrieval",
    "bench speed",
    "bench expert",
    "bench robustness",
    "bench zsad",
    "bench head",
    "models",
    "models list",
    "models pull",
    "models verify",
    "train",
    "train expert",
    "kb",
    "kb list",
    "kb show",
    "kb export",
    "kb add",
    "kb remove",
    "kb history",
    "kb rollback",
    "kb verify",
    "kb types",
    "kb types build",
    "kb types show",
)
HEAD = """# The command line

Made from the program by `REGENERATE=1 pytest tests/golden`; a test keeps this page and the program equal. Exit codes
and messages are in [errors.md](errors.md). `python cli.py` and `flawscope` are the same.

`--reference` takes everything up to the next option (`--reference good/*.jpg`), so the pictures to inspect come before
it. `--debug`, anywhere, shows the traceback behind a one-line message.
"""


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
    parts = [f"\n## `flawscope {command}`\n\n```text\n{help_of(command)}\n```\n" for command in COMMANDS]
    return (HEAD + "".join(parts)).replace("## `flawscope `", "## `flawscope`")
