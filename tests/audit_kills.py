"""Kill an audit at random moments, in a process of its own: ``audit_kills.py FOLDER``.

Each child goes on with the same audit and dies by SIGKILL while it does: every other one after some records that it
counts itself, the others at random moments and when their records are seen to grow. How long the records were then is
printed as JSON. The pictures are few and small and named by many lines, so that what is killed is mostly the writing.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from fakes import PatchStatistics, enlarged, texture, with_square
from inline_engine import InlineEngine
from PIL import Image

from flawscope.agent.settings import load_settings
from flawscope.audits import runner
from flawscope.audits.record_file import RECORDS_NAME
from flawscope.audits.worker import InspectWorker
from flawscope.tools.backbones import BACKBONES
from flawscope.tools.knowledge import builder, schema
from flawscope.tools.products import enroll_product

KILLS = 30
LINES = 200
LONGEST_S = 0.5
MOST_WRITTEN = 12
FEW = frozenset({"general.scratch", "general.crack", "general.hole", "general.stain", "general.dent", "textile.good"})


class Engine(InlineEngine):
    """Keeps what it has loaded, for all forks."""

    def close(self) -> None:
        """Nothing is closed."""


def prepare(folder: Path) -> runner.AuditPlan:
    """A product and a manifest."""
    for seed in range(8):
        pixels = texture(seed) if seed < 6 else with_square(texture(seed))
        Image.fromarray(enlarged(pixels, 2)).save(folder / f"{seed}.png")
    good = [folder / f"{seed}.png" for seed in range(6)]
    enroll_product(folder / "home" / "products", "plate", good, PatchStatistics())
    rows = ["image,serial", *(f"{number % 8}.png,S{number}" for number in range(LINES))]
    (folder / "list.csv").write_text("\n".join(rows))
    return runner.AuditPlan([str(folder / "list.csv")], folder / "out", "plate", pictures="none")


def dying_after(further: int) -> Callable[[Any], None]:
    """Ends this process by SIGKILL when it has written so many records more, however fast the machine is."""
    left = iter(range(further - 1))

    def told(summary: Any) -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    return told


def main(folder: Path) -> None:
    """Thirty kills; the sizes of the whole records after each, by audit."""
    random.seed(6)
    BACKBONES["patch-statistics"] = PatchStatistics
    few = tuple(page for page in schema.load_documents() if page.doc_id in FEW)
    builder.load_documents = lambda: few
    runner.LocalEngine = Engine  # type: ignore[misc,assignment]
    plan = prepare(folder)
    loaded = load_settings({"home": folder / "home", "backbone": "patch-statistics"}, environ={})
    inspector = InspectWorker(loaded, str(folder), "none").inspector
    InspectWorker.inspector = property(lambda self: inspector)  # type: ignore[assignment]
    warm = runner.AuditPlan([str(folder / "0.png")], folder / "warm", "plate")
    runner.run_audit(loaded, warm)  # whatever is loaded late is loaded before the forks
    seen: dict[str, list[int]] = {"out": []}
    kills = tries = 0
    while kills < KILLS:
        way, tries = tries % 4, tries + 1
        plan = replace(plan, out=folder / list(seen)[-1])
        records, sizes = plan.out / RECORDS_NAME, seen[plan.out.name]
        further, wait_s = random.randint(1, MOST_WRITTEN), random.uniform(0.0, LONGEST_S)
        pid = os.fork()
        if pid == 0:
            runner.run_audit(loaded, plan, dying_after(further) if way in (0, 2) else None)
            os._exit(0)
        if way == 1:
            time.sleep(wait_s)
        elif way == 3:  # as soon as it has written something more
            while not (records.exists() and records.stat().st_size > (sizes[-1] if sizes else 0)):
                if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                    break
                time.sleep(0.001)
        if way in (1, 3):
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        if status not in (signal.SIGKILL, 0):
            raise RuntimeError(f"an audit failed before it was killed: {os.waitstatus_to_exitcode(status)}")
        kills += status == signal.SIGKILL
        sizes.append(records.read_bytes().rfind(b"\n") + 1 if records.exists() else 0)
        if status == 0:  # it was quicker: kill another one
            seen[f"out{len(seen)}"] = []
    for out in seen:
        runner.run_audit(loaded, replace(plan, out=folder / out))
    runner.run_audit(loaded, replace(plan, out=folder / "whole"))
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
