"""MMAD's commands: sets made, questions asked, and what is refused in a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mmad_set import RuleModel, write_set

LOADER = "flawscope.agent.vision_language.loading.load_model"


def test_a_set_is_asked_and_told_as_markdown(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOADER, lambda loaded: RuleModel())
    data = write_set(tmp_path / "set")
    given = ("bench", "mmad", "--data", str(data), "--shots", "0", "--out", str(tmp_path / "run"))
    first = cli(*given)
    assert first.code == 0
    assert "24 questions about 6 pictures; 0-shot" in first.out
    assert "| rule | GoodsAD |" not in first.out
    assert first.out.count("| rule | VisA |") == 2  # as the script scores it, and strictly
    assert cli(*given).out == first.out  # all answers were kept, their times too
    told = cli(*given[:4], "--oracle", "--limit", "1", "--numbered")
    assert "ORACLE KNOWLEDGE" in told.out
    assert "with question numbers" in told.out


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (("mmad", "--data", "nowhere"), 2, "no vision-language model is called 'evidence'"),
        (("mmad", "--data", "nowhere", "--oracle", "--form", "own"), 2, "--oracle is of the official form"),
        (("mmad-make", "--data", "nowhere", "--out", "set", "--products", "x"), 4, "is not a folder"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_line(cli: Any, given: tuple[str, ...], code: int, said: str) -> None:
    cli("bench", *given).refused(code, said)


def test_a_set_without_questions_has_no_ladder(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOADER, lambda loaded: RuleModel())
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mmad.json").write_text(json.dumps({"a/b/c.png": {"conversation": []}}))
    given = ("--data", str(tmp_path / "set"), "--workshop", str(tmp_path / "workshop"))
    cli("bench", "ablation", *given, "--arms", "A0,A10").refused(4, "holds no question")  # the set is read first
