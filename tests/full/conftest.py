"""What several files of the full install's tests stand on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import PatchStatistics

from flawscope.agent.vision_language import sharing
from flawscope.cli import main
from flawscope.tools.backbones import BACKBONES
from tests.tiny_vlm import build_tiny_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2.5-VL checkpoint in a folder called ``model``; read it, do not write to it."""
    return build_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(autouse=True)
def nothing_loaded_yet() -> None:
    """No weights that an earlier test left with this process; what a fixture of a module holds goes on working."""
    sharing._LOADED.clear()


@pytest.fixture
def run_command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command line in this process with the cheap backbone in the embedded one's place; gives the exit code."""
    monkeypatch.setitem(BACKBONES, "efficientnet-lite2", PatchStatistics)

    def call(*arguments: object) -> int:
        monkeypatch.setattr("sys.argv", ["flawscope", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    return call
