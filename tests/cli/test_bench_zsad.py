"""What the zero-shot benchmark refuses from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scripted_scorer import build


def test_a_backbone_without_words_cannot_judge_without_references(cli: Any, tmp_path: Path) -> None:
    result = cli("bench", "zsad", "--data", build(tmp_path / "visa"))
    assert (result.code, result.out) == (7, "")
    assert "has no text tower" in result.err
    assert "--profile paper" in result.err


def test_weights_that_are_absent_are_told_in_one_line(cli: Any, tmp_path: Path) -> None:
    given = ("--backbone", "clip", "--weights", tmp_path / "none.safetensors")
    result = cli("bench", "zsad", "--data", build(tmp_path / "visa"), *given)
    assert (result.code, len(result.err.splitlines())) == (9, 1)
    assert "none.safetensors" in result.err
