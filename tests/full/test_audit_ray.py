"""Ray's actors give the records of the local engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from fakes import enlarged, texture, with_square
from PIL import Image

from flawscope.audits.record_file import read_records

TESTS = Path(__file__).parents[1]


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
