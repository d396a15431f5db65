"""``bench reports`` on the random tiny checkpoint: every answer is counted once; absent weights are said at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from report_plates import write_plates

from flawscope.agent.errors import WeightsError


@pytest.fixture
def arguments(tmp_path: Path, _cheap_parts: None) -> list[object]:
    profile = tmp_path / "tiny.toml"
    profile.write_text('backbone = "patch-statistics"\nreasoner = "qwen_vl"\nmax_actions = 0\nvlm_max_tokens = 96\n')
    data = write_plates(tmp_path / "data", good=1, holes=2)
    return ["bench", "reports", "--data", data, "--profile", profile, "--out", tmp_path / "run"]


def test_every_answer_is_counted_once(
    arguments: list[object],
    checkpoint: Path,
    tmp_path: Path,
    run_command: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_command(*arguments, "--weights", checkpoint) == 0
    told = capsys.readouterr().out
    assert "data, qwen_vl (model): 2 pictures, 1 good and 1 defective" in told
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    found = result["figures"]["products"]["all"]["model"]
    assert sum(found[key]["hits"] for key in ("usable_at_once", "usable_repaired", "unusable")) == 2
    assert found["ok_of_defective"]["hits"] == 0
    assert found["p50_s"] > 0
    for record in result["records"]:
        assert (record["model"]["said_verdict"] is None) is (not record["model"]["usable"])
        assert record["evidence"]["usable"] is None
    assert run_command(*arguments, "--weights", checkpoint) == 0
    assert capsys.readouterr().out == told  # all was kept


def test_absent_weights_are_said_before_anything_is_learnt(
    arguments: list[object], tmp_path: Path, run_command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(*arguments, "--weights", tmp_path / "nothing") == WeightsError.exit_code
    assert "no Qwen2.5-VL checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
