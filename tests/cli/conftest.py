"""The command line run in this process (fast) or in one of its own (signals, streams, limits)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CHEAP_CLI = Path(__file__).with_name("cheap_cli.py")
CHEAP = {
    "FLAWSCOPE_BACKBONE": "patch-statistics",
    "FLAWSCOPE_STORE": "memory",
    "FLAWSCOPE_FALSE_ALARM": "0.15",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    def refused(self, code: int, *words: str) -> None:
        """One clear line on standard error, the exit code, and no judgement of anything."""
        assert "Traceback" not in self.err
        assert self.code == code, self.err or self.out
        assert self.err.startswith("flawscope: "), self.err
        assert self.err.count("\n") == 1, self.err
        assert self.err.endswith("\n")
        assert all(char.isprintable() for char in self.err[:-1]), self.err
        for word in words:
            assert word in self.err, (word, self.err)
        assert '"verdict":"OK"' not in self.out
        assert not self.out.lstrip().startswith("OK ")


@dataclass
class Cli:
    """Runs ``flawscope`` on a home of the test's own.

    Attributes:
        home: holds the product ``plate`` and a built knowledge base.
        plant: the pictures behind it.
        folder: for the test's files; commands run in it.
    """

    home: Path
    plant: Any
    folder: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: object, **env: str) -> Result:
        """Run ``main`` in this process."""
        from flawscope.cli import main

        with self.monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["flawscope", *map(str, arguments)])
            patch.chdir(self.folder)
            for key, value in {**CHEAP, "FLAWSCOPE_HOME": str(self.home), **env}.items():
                patch.setenv(key, value)
            self.capsys.readouterr()
            with pytest.raises(SystemExit) as ended:
                main()
            seen = self.capsys.readouterr()
        return Result(int(ended.value.code or 0), seen.out, seen.err)

    def command(self, *arguments: object, real: bool = False) -> list[str]:
        """The command line of a process; ``real`` for the embedded backbone and all documents."""
        return [sys.executable, str(ROOT / "cli.py" if real else CHEAP_CLI), *map(str, arguments)]

    def environment(self, **env: str) -> dict[str, str]:
        """Its environment."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("FLAWSCOPE_", "MILVUS_"))}
        return {**kept, **CHEAP, "FLAWSCOPE_HOME": str(self.home), "COLUMNS": "120", **env}

    def process(
        self, *arguments: object, real: bool = False, env: dict[str, str] | None = None, **options: Any
    ) -> Result:
        """Run it in a process of its own."""
        done = subprocess.run(
            self.command(*arguments, real=real),
            **{"capture_output": True, "stdin": subprocess.DEVNULL, **options},
            env=self.environment(**(env or {})),
            cwd=self.folder,
            timeout=120,
            check=False,
        )
        return Result(done.returncode, (done.stdout or b"").decode(), (done.stderr or b"").decode())


@pytest.fixture(scope="session")
def template(plant: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the product ``plate`` and its knowledge base, to be copied."""
    from flawscope.tools.backbones import load_backbone
    from flawscope.tools.knowledge.builder import open_knowledge_base

    home = tmp_path_factory.mktemp("template") / "home"
    shutil.copytree(plant.home / "products", home / "products")
    open_knowledge_base(home / "knowledge", load_backbone("patch-statistics"), store="memory").close()
    return home


@pytest.fixture
def cli(
    template: Path,
    plant: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Cli]:
    """The command line on a copy of the template."""
    shutil.copytree(template, tmp_path / "home")
    folder = tmp_path / "work"
    folder.mkdir()
    return Cli(tmp_path / "home", plant, folder, monkeypatch, capsys)


@pytest.fixture(scope="session")
def snapshot() -> Callable[[Path], dict[str, bytes]]:
    """Every file below a folder with its bytes, to show that nothing was lost."""

    def take(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    return take
