"""The command line with the cheap backbone and few documents, for tests that need a process of their own."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fakes import PatchStatistics

from flawscope.cli import main
from flawscope.tools.backbones import BACKBONES
from flawscope.tools.knowledge import builder, schema

FEW = frozenset({"general.scratch", "general.crack", "general.hole", "general.stain", "general.dent", "textile.good"})

if __name__ == "__main__":
    few = tuple(page for page in schema.load_documents() if page.doc_id in FEW)
    BACKBONES["patch-statistics"] = PatchStatistics
    builder.load_documents = lambda: few
    main()
