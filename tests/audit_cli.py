"""The command line with the cheap backbone, few documents and pictures that misbehave by their names.

Everything is set up at the top level: the audit's workers are new processes, which import this file again.

    hang*.png     never ends             crash*.png    kills the process that looks at it
    once*.png     ... but only once      memory*.png   needs 3 GB         defect*.png   meets a defect of the program
    *hold.png     never ends until there is a file *hold.png.free; *hold.png.held says which process it is in
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from fakes import PatchStatistics

from flawscope.audits.worker import InspectWorker
from flawscope.cli import main
from flawscope.graphs import nodes
from flawscope.tools.backbones import BACKBONES
from flawscope.tools.imaging import load_image
from flawscope.tools.knowledge import builder, schema

FEW = frozenset({"general.scratch", "general.crack", "general.hole", "general.stain", "general.dent", "textile.good"})
FEW_PAGES = tuple(page for page in schema.load_documents() if page.doc_id in FEW)
BACKBONES["patch-statistics"] = PatchStatistics
builder.load_documents = lambda: FEW_PAGES


def misbehaving(source: Any, **given: Any) -> Any:
    """``load_image``, with what a picture's name asks for."""
    name = Path(str(source)).name
    if name.startswith("hang"):
        while True:
            time.sleep(3600)
    if name.endswith("hold.png") and not Path(f"{source}.free").exists():
        Path(f"{source}.held").write_text(f"{os.getpid()}\n")
        while True:
            time.sleep(3600)
    if name.startswith("crash"):
        os.kill(os.getpid(), signal.SIGKILL)
    if name.startswith("once") and not Path(f"{source}.seen").exists():
        Path(f"{source}.seen").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if name.startswith("memory"):
        np.ones(3 << 30, np.uint8)
    if name.startswith("defect"):
        raise ZeroDivisionError("a defect\nof the program")
    return load_image(source, **given)


nodes.load_image = misbehaving


class PatchedWorker(InspectWorker):
    """Brings this module along to processes that were not started with it, such as Ray's."""


if __name__ == "__main__":
    main()
