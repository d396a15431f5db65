"""The command line whose `watch` has a worker without a model, for tests that need a process of their own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from edges_plant import ToyWorker

from flawscope.cli import main
from flawscope.edges import delivery, watch

if __name__ == "__main__":
    watch.InspectWorker = lambda loaded, out: ToyWorker()  # type: ignore[assignment, misc, return-value]
    delivery.LONGEST_WAIT_S = delivery.LONGEST_AWAY_S = 0.5
    try:
        main()
    finally:
        if told := os.environ.get("EDGES_MODULES"):
            Path(told).write_text("\n".join(sys.modules))
