"""However a benchmark is started, what is knowledge is left out of its tests."""

from __future__ import annotations

import argparse
import dataclasses
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import texture

import flawscope.benchmarks
from flawscope.benchmarks.datasets import left_out
from flawscope.tools.knowledge.attachments import FOLDER, Attached, keep

FOLDER_OF_BENCHMARKS = Path(flawscope.benchmarks.__path__[0])
MODULES = [
    path.stem
    for path in sorted(FOLDER_OF_BENCHMARKS.glob("*.py"))
    if re.search(r"^if __name__ == ", path.read_text(encoding="utf-8"), re.MULTILINE)
]


class Asked(Exception):  # noqa: N818 - it ends main, it is no error
    """The command line is read."""


@pytest.mark.parametrize("module", MODULES)
def test_a_benchmark_run_as_a_module_leaves_knowledge_out(
    home: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    empty: dict[str, Any] = {field.name: "" for field in dataclasses.fields(Attached)}
    known = {"doc_id": "leather.cut", "key": "0" * 16, "picture_hash": "0" * 16, "source_sha256": "1" * 64}
    record = Attached(**{**empty, **known, "source_bytes": 1, "is_test": True})
    keep(home / "knowledge" / FOLDER, record, texture(1), np.ones((96, 96), bool))
    seen: list[Any] = []

    def parse(*args: Any, **kwargs: Any) -> None:
        seen.append(left_out._current.get())
        raise Asked

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    monkeypatch.delitem(sys.modules, f"flawscope.benchmarks.{module}", raising=False)
    with pytest.raises(Asked):
        runpy.run_module(f"flawscope.benchmarks.{module}", run_name="__main__")
    (current,) = seen
    assert [attachment.record.source_sha256 for attachment in current.attached] == ["1" * 64]
