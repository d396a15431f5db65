"""An audit's workers as processes: one that hangs, crashes or eats the memory costs a picture, and kills cost none."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fakes import enlarged, texture, with_square
from PIL import Image

from flawscope.audits.record_file import read_records
from flawscope.audits.records import AuditRecord

TESTS = Path(__file__).parents[1]
PATIENCE_S = 300
"""A test that hangs ends some time; nothing here waits so long."""


@pytest.fixture
def folder(plant: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with the product ``plate``, and parts."""
    shutil.copytree(plant.home, tmp_path / "plant")
    for key, value in {
        "FLAWSCOPE_HOME": str(tmp_path / "plant"),
        "FLAWSCOPE_BACKBONE": "patch-statistics",
        "FLAWSCOPE_FALSE_ALARM": "0.15",
        "OMP_NUM_THREADS": "1",
    }.items():
        monkeypatch.setenv(key, value)
    (tmp_path / "parts").mkdir()
    return tmp_path


def save(folder: Path, *names: str) -> None:
    for seed, name in enumerate(names, start=200):
        pixels = with_square(texture(seed)) if name.startswith("ng") else texture(seed)
        Image.fromarray(enlarged(pixels)).save(folder / "parts" / name, compress_level=1)


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(TESTS / "audit_cli.py"), "audit", "parts", "-p", "plate", *map(str, arguments)]


def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*arguments), cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def by_name(out: Path) -> dict[str, AuditRecord]:
    return {Path(record.line.image).stem: record for record in read_records(out)}


def test_no_picture_stops_the_others_and_two_workers_give_what_one_gives(folder: Path) -> None:
    save(folder, "a.png", "hang.png", "ng.png", "crash.png", "once.png", "memory.png", "defect.png", "z.png")
    (folder / "parts" / "text.png").write_text("no picture")
    (folder / "parts" / "gone.png").symlink_to("nowhere.png")
    limits = ("--timeout", 15, "--memory", 1500)
    done = run(folder, "--out", "two", "--workers", 2, *limits)
    found = by_name(folder / "two")
    kinds = {name: record.error.kind if record.error else record.verdict.value for name, record in found.items()}
    assert kinds == {
        "a": "OK",
        "ng": "NG",
        "once": "OK",
        "z": "OK",
        "hang": "timeout",
        "crash": "crashed",
        "memory": "memory",
        "defect": "internal",
        "text": "input",
        "gone": "input",
    }
    assert list(found) == sorted(found)
    assert found["defect"].error is not None
    assert found["defect"].error.message == "ZeroDivisionError: a defect of the program"
    assert found["text"].sha256 is not None  # readable, so its record holds for these bytes
    assert done.returncode == 7  # of the first failure, the crash
    once = folder / "parts" / "once.png.seen"
    once.unlink()
    run(folder, "--out", "one", "--workers", 1, *limits)
    assert [r.comparable() for r in read_records(folder / "one")] == [r.comparable() for r in found.values()]


def test_a_limit_of_the_service_below_that_of_a_picture_holds(folder: Path) -> None:
    save(folder, "a.png")
    audit = command("--out", "out", "--workers", 1, "--memory", 64_000)
    limited = ["bash", "-c", 'ulimit -v 16000000; exec "$0" "$@"', *audit]  # kB: much for a worker, less than --memory
    done = subprocess.run(limited, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    assert [record.verdict.value for record in read_records(folder / "out")] == ["OK"]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_an_audit_that_is_ended_leaves_no_process_and_no_loss(folder: Path, end: signal.Signals) -> None:
    save(folder, *(f"{number:02d}.png" for number in range(12)), "hang.png", "z.png")
    limits = ("--out", "out", "--workers", 2, "--timeout")
    records = folder / "out" / "records.jsonl"
    audit = subprocess.Popen(command(*limits, 200), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not (records.exists() and records.read_bytes().count(b"\n") == 12):  # the rest waits behind one that hangs
        assert audit.poll() is None
        time.sleep(0.02)
    workers = children(audit.pid)
    audit.send_signal(end)
    _, told = audit.communicate(timeout=PATIENCE_S)
    if end == signal.SIGINT:
        assert audit.returncode == 130
        assert told.decode() == "flawscope: interrupted; everything finished so far is kept.\n"
    while any(alive(pid) for pid in workers):  # they die with their parent, the hanging one too
        time.sleep(0.02)
    assert run(folder, *limits, 15, "--fail-on", "never").returncode == 0
    found = by_name(folder / "out")
    assert list(found) == [*(f"{number:02d}" for number in range(12)), "hang", "z"]
    assert found["hang"].error is not None
    assert found["hang"].error.kind == "timeout"
    assert found["z"].error is None


MOMENTS = {
    "00-hold": "audit",
    "03-hold": "worker",
    "04-hold": "worker",
    "05-hold": "audit",
    "07-hold": "worker",
    "09-hold": "audit",
}
"""What is killed while a worker looks at this picture and all before it are recorded; the others wait behind it."""


def test_six_kills_of_audits_and_workers_lose_and_double_nothing(folder: Path) -> None:
    names = sorted([*MOMENTS, "01", "02", "06", "08"])
    save(folder, *(f"{name}.png" for name in names))
    records, options = folder / "out" / "records.jsonl", ("--out", "out", "--workers", 2, "--timeout", 36_000)
    seen, before, audit = set[int](), b"", None
    for name, victim in MOMENTS.items():
        audit = audit or subprocess.Popen(command(*options), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        holder = held(folder / "parts" / f"{name}.png.held", audit, records, names.index(name))
        seen |= children(audit.pid)
        now = records.read_bytes() if records.exists() else b""
        assert now.startswith(before)  # what was recorded stays
        before = now
        (folder / "parts" / f"{name}.png.free").touch()
        os.kill(holder if victim == "worker" else audit.pid, signal.SIGKILL)
        if victim == "audit":
            audit.communicate(timeout=PATIENCE_S)
            audit = None
            while any(alive(pid) for pid in seen):
                time.sleep(0.02)
    assert run(folder, *options).returncode == 0
    assert records.read_bytes().startswith(before)
    run(folder, "--out", "whole", "--workers", 1)
    found = list(read_records(folder / "out"))
    assert [record.comparable() for record in found] == [
        record.comparable() for record in read_records(folder / "whole")
    ]
    assert [Path(record.line.image).stem for record in found] == names
    assert {record.verdict.value for record in found} == {"OK"}
    assert not (folder / "out" / "superseded.jsonl").exists()
    assert len(seen) > len(MOMENTS)


def held(told: Path, audit: subprocess.Popen[bytes], records: Path, count: int) -> int:
    """The worker of this audit that a picture holds, once so many records are written."""
    while True:
        assert audit.poll() is None
        said = told.read_text() if told.exists() else ""
        done = records.read_bytes().count(b"\n") if records.exists() else 0
        assert done <= count  # nothing passes a picture that is not done
        if said.endswith("\n") and int(said) in children(audit.pid) and done == count:
            return int(said)
        time.sleep(0.02)


def children(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_thirty_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(TESTS / "audit_kills.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    sizes = json.loads(done.stdout)
    whole = [record.comparable() for record in read_records(tmp_path / "whole")]
    assert [record["line"]["serial"] for record in whole] == [f"S{number}" for number in range(len(whole))]
    assert sum(len(after) for after in sizes.values()) >= 30
    assert len({size for after in sizes.values() for size in after}) > 10  # they hit it at different places
    for out, after in sizes.items():
        assert after == sorted(after)  # what was whole stays
        data = (tmp_path / out / "records.jsonl").read_bytes()
        assert all(data[:size].endswith(b"\n") for size in after if size)
        assert [record.comparable() for record in read_records(tmp_path / out)] == whole
        assert not (tmp_path / out / "superseded.jsonl").exists()
