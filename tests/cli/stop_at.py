"""The cheap command line, which sends itself a signal when it reaches a named stage: ``stop_at.py SIGINT STAGE …``."""

from __future__ import annotations

import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

from flawscope.agent import home, terminal

KIND, WHERE = signal.Signals[sys.argv[1]], sys.argv[2]
SECOND = 2
_seen = 0


def _reached(stage: str) -> None:
    global _seen
    _seen += stage == WHERE
    if stage == WHERE and _seen == (SECOND if stage not in {"writing", "swapping"} else 1):
        os.kill(os.getpid(), KIND)


def _tell(self: Any, what: str, done: int, total: int) -> None:
    _reached(what)


terminal.ProgressBar.__call__ = _tell  # type: ignore[method-assign]

_write_text = home.write_text_atomically
_replace = Path.replace


def _write(path: Path, text: str) -> None:
    if path.name in {"product.json", "manifest.json"}:
        _reached("writing")  # everything but the manifest is there
    _write_text(path, text)


def _swap(self: Path, target: Path) -> Path:
    if ".new-" in self.name:
        _reached("swapping")  # the old folder is aside, the new one not in place
    return _replace(self, target)


class _Steps(dict[str, str]):
    def get(self, key: str, default: Any = None) -> Any:
        _reached(str(super().get(key, default)))
        return super().get(key, default)


home.write_text_atomically = _write
Path.replace = _swap  # type: ignore[method-assign, assignment]
terminal.STEP_NAMES = _Steps(terminal.STEP_NAMES)

sys.argv = ["flawscope", *sys.argv[3:]]
runpy.run_path(str(Path(__file__).with_name("cheap_cli.py")), run_name="__main__")
