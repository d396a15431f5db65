"""Ray's actors give the records of the local engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
from fakes import enlarged, texture, with_square
from PIL import Image

from flawscope.agent.errors import BackendError
from flawscope.audits import ray_engine
from flawscope.audits.record_file import read_records

TESTS = Path(__file__).parents[1]


@pytest.mark.timeout(1300)  # Ray's server may take minutes from a cold disk, twice
def test_ray_gives_the_same_records_and_a_crash_costs_one_picture(plant: Any, tmp_path: Path) -> None:
    shutil.copytree(plant.home, tmp_path / "plant")
    (tmp_path / "parts").mkdir()
    names = ["a.png", "b.png", "crash.png", "d.png", *(f"{number}.png" for number in range(16))]
    for seed, name in enumerate(names, start=200):
        pixels = with_square(texture(seed)) if seed % 5 == 0 else texture(seed)
        Image.fromarray(enlarged(pixels)).save(tmp_path / "parts" / name, compress_level=1)
    environment = {
        **os.environ,
        "FLAWSCOPE_HOME": str(tmp_path / "plant"),
        "FLAWSCOPE_BACKBONE": "patch-statistics",
        "FLAWSCOPE_FALSE_ALARM": "0.15",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(TESTS),
    }
    for engine in ("local", "ray"):
        script = [sys.executable, str(TESTS / "audit_ray.py"), "audit", str(tmp_path / "parts"), "-p", "plate"]
        done = subprocess.run(
            [*script, "--out", str(tmp_path / engine), "--workers", "2", "--engine", engine],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 7, done.stderr[-3000:]  # of the crash
    local, ray = ([r.comparable() for r in read_records(tmp_path / engine)] for engine in ("local", "ray"))
    assert len(local) == len(names)
    assert ray == local
    assert [record["line"]["number"] for record in ray if record["error"]] == [19]


def test_a_server_that_is_late_is_asked_again_and_then_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Exception | None] = []

    def init(**options: Any) -> None:
        if failure := answers.pop(0):
            raise failure

    monkeypatch.setattr(ray, "init", init)
    late = RuntimeError("Timed out waiting for file\n/tmp/port")
    answers[:] = [late, None]
    ray_engine._start(ray)
    assert answers == []
    answers[:] = [late, Exception("The current node timed out\nduring startup.")]
    with pytest.raises(BackendError, match=r"Ray does not start: The current node timed out during startup\.") as told:
        ray_engine._start(ray)
    assert told.value.exit_code == 7
    assert answers == []
