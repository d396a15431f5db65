"""Kill commands that change a plant's pages at random moments, in a process of its own: ``kills.py WHAT FOLDER``.

Each child runs one command after the other, as a person would, and dies by SIGKILL while it does. What the commands
printed before that is what they acknowledged; it is written to standard output as JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from fakes import PatchStatistics, enlarged
from PIL import Image

from flawscope.cli import main
from flawscope.tools.backbones import BACKBONES
from flawscope.tools.knowledge import builder, schema

KILLS = 20
LONGEST_S = 0.4
FEW = frozenset({"general.scratch", "general.crack", "general.hole", "general.stain", "general.dent", "textile.good"})
FEW_PAGES = tuple(page for page in schema.load_documents() if page.doc_id in FEW)


def photo(path: Path, seed: int) -> Path:
    """A picture like no other."""
    cells = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), np.uint8)
    Image.fromarray(enlarged(cells, 12)).save(path, compress_level=1)
    return path


def adding(folder: Path, run: int) -> Iterator[list[str]]:
    """``kb add``, one picture after the other."""
    for step in itertools.count():
        picture = photo(folder / f"{run}-{step}.png", 10_000 * run + step)
        name = f"plate.burr.{run}-{step}"
        yield ["kb", "add", str(picture), "--note", "burr, rework", "--product", "plate", "--id", name]


def importing(folder: Path, run: int) -> Iterator[list[str]]:
    """``kb import``, one table of three rows after the other."""
    for step in itertools.count():
        photo(folder / f"{run}-{step}.png", 10_000 * run + step)
        table = folder / f"{run}-{step}.csv"
        rows = [f"plate.{run}-{step}.{row},plate,burr,{f'{run}-{step}.png' if row == 0 else ''}" for row in range(3)]
        table.write_text("\n".join(["id,product,type,picture", *rows]))
        yield ["kb", "import", str(table)]


def editing(folder: Path, run: int) -> Iterator[list[str]]:
    """``kb edit`` of the run's own page, one change after the other."""
    for step in itertools.count():
        yield ["kb", "edit", f"plate.page.{run}", "--action", f"Step {step}.", "--author", "Bob"]


def snapping(folder: Path, run: int) -> Iterator[list[str]]:
    """``kb snapshot``, one archive after the other."""
    for step in itertools.count():
        yield ["kb", "snapshot", str(folder / f"{run}-{step}.tar")]


def restoring(folder: Path, run: int) -> Iterator[list[str]]:
    """``kb restore`` of one state and another, in turn."""
    for step in itertools.count():
        yield ["kb", "restore", str(folder / ("old.tar" if step % 2 else "new.tar")), "--discard"]


OPERATIONS: dict[str, Callable[[Path, int], Iterator[list[str]]]] = {
    "add": adding,
    "import": importing,
    "edit": editing,
    "snapshot": snapping,
    "restore": restoring,
}


def prepare(what: str, folder: Path) -> None:
    """A base of few pages, and those that are edited or snapped."""
    builder.open_knowledge_base(folder / "home" / "knowledge", PatchStatistics(), documents=FEW_PAGES).close()
    if what in ("edit", "snapshot", "restore"):
        rows = [f"plate.page.{run},plate,burr" for run in range(KILLS)]
        (folder / "pages.csv").write_text("\n".join(["id,product,type", *rows]))
        command(["kb", "import", str(folder / "pages.csv")])
    if what == "restore":
        command(["kb", "snapshot", str(folder / "old.tar")])
        (folder / "pages.csv").write_text("\n".join(["id,product,type,note", *(f"{row},changed" for row in rows)]))
        command(["kb", "import", str(folder / "pages.csv")])
        command(["kb", "snapshot", str(folder / "new.tar")])


def command(arguments: list[str]) -> int:
    """One command in this process; its exit code."""
    sys.argv = ["flawscope", *arguments]
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def child(commands: Iterator[list[str]], channel: int) -> None:
    """Run commands until killed; what they print goes to the channel."""
    os.dup2(channel, 1)
    for arguments in commands:
        if code := command(arguments):
            os._exit(code)


def run(what: str, folder: Path) -> list[str]:
    """Twenty kills; what was acknowledged before them."""
    random.seed(what)
    acknowledged: list[str] = []
    for number in range(KILLS):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            child(OPERATIONS[what](folder, number), writer)
        os.close(writer)
        with os.fdopen(reader) as told:
            said = told.readline() if number % 2 else ""  # half die at their first change, half after one
            time.sleep(random.uniform(0.0, LONGEST_S))
            os.kill(pid, signal.SIGKILL)
            status = os.waitpid(pid, 0)[1]
            said += told.read()
        if status != signal.SIGKILL:
            raise RuntimeError(f"a {what} failed before it was killed: {os.waitstatus_to_exitcode(status)}")
        acknowledged += said.splitlines()
    return acknowledged


if __name__ == "__main__":
    import milvus_lite.server_manager  # noqa: F401
    import pymilvus  # noqa: F401 - once, before the forks

    BACKBONES["patch-statistics"] = PatchStatistics
    builder.load_documents = lambda: FEW_PAGES
    where = Path(sys.argv[2])
    operation = sys.argv[1]
    os.environ["FLAWSCOPE_HOME"] = str(where / "home")
    os.environ["FLAWSCOPE_BACKBONE"] = "patch-statistics"
    kept = os.dup(1)
    os.dup2(2, 1)  # what the preparation prints is nothing that is acknowledged
    prepare(operation, where)
    found = run(operation, where)
    os.write(kept, json.dumps(found).encode())
