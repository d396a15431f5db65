"""``bench reports`` from the command line: its tables, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report_plates import write_plates

from flawscope.agent.vision_language import loading
from flawscope.agent.vision_language.fakes import ScriptedModel


def test_a_run_is_told_as_markdown_and_kept(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loading.MODELS, "openai_api", lambda loaded: ScriptedModel(["no"] * 6))
    data, out = write_plates(tmp_path / "data"), tmp_path / "run"
    given = ("bench", "reports", "--data", data, "--model", "openai_api", "--limit", "2", "--examples", "0")
    done = cli(*given, "--products", "plate", "--out", out, FLAWSCOPE_MAX_ACTIONS="0")
    assert (done.code, done.err) == (0, "")
    assert "data, openai_api (scripted): 2 pictures, 1 good and 1 defective, seed 0. plate: 20 references." in done.out
    assert (
        "| all | 2 | 0/2 = 0.0% [0.0, 84.2] | 0/2 = 0.0% [0.0, 84.2] | 2/2 = 100.0% [15.8, 100.0] | – | – |" in done.out
    )
    assert (out / "results.md").read_text() == done.out
    assert json.loads((out / "result.json").read_text())["examples"] == 0


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ((), 2, "needs a vision-language model as the reasoner"),
        (("--profile", "mini"), 4, "nowhere"),  # the data are read before any weights
        (("--limit", "1"), 2, "--limit"),
        (("--examples", "-1"), 2, "--examples"),
        (("--model", "nobody"), 4, "nowhere"),
    ],
)
def test_what_it_refuses(cli: Any, given: tuple[str, ...], code: int, said: str) -> None:
    cli("bench", "reports", "--data", "nowhere", *given).refused(code, said)
