"""The audit's benchmark: its pictures, its hostile files, its table; and the line that tells an audit's progress."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flawscope.agent.errors import InputError
from flawscope.audits.folder import AuditSummary
from flawscope.audits.records import RecordError, WorklistLine
from flawscope.benchmarks.audit import AuditResult, AuditRow, make_pictures, render
from flawscope.benchmarks.datasets import LabelledPicture, ProductData
from flawscope.benchmarks.hostile_files import KINDS, hostile_files, odd_names
from flawscope.commands.audit import progress_line
from flawscope.tools.imaging import load_image


def test_pictures_are_changed_copies_and_the_same_again(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(60, 190, (48, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "good.jpg", quality=80)
    Image.fromarray(255 - pixels).save(tmp_path / "bad.png")
    tests = (LabelledPicture(tmp_path / "good.jpg", "good"), LabelledPicture(tmp_path / "bad.png", "dent"))
    product = ProductData("plate", (), tests)
    for name in ("once", "again"):
        make_pictures(product, tmp_path / name, 40)
    written = sorted((tmp_path / "once").iterdir())
    blobs = [path.read_bytes() for path in written]
    assert len(set(blobs)) == 40
    assert blobs == [path.read_bytes() for path in sorted((tmp_path / "again").iterdir())]
    original = load_image(tmp_path / "good.jpg").rgb.astype(float)
    apart = [abs(load_image(path).rgb - original).mean() for path in written]
    assert sum(distance < 6 for distance in apart) >= 34  # most are good, and all but equal
    assert sum(distance > 20 for distance in apart) >= 1  # some show the defect


def test_no_hostile_file_is_a_picture(tmp_path: Path) -> None:
    for path in (*hostile_files(tmp_path, 2 * len(KINDS)), *odd_names(tmp_path)):
        with pytest.raises(InputError):
            load_image(path)


def test_the_table_says_what_was_met(tmp_path: Path) -> None:
    row = AuditRow("plate", 100, 0.2, 1.5, audit=30.0, alone=50.0, processes=60.0, growth=0.02, peak_mb=700.0)
    told = render(AuditResult([row], {"two workers": True, "Ray": False}, (20, 200, 200, {"input": 20})))
    assert "worst rate 0.60 of the batched backbone alone (target 0.8: missed)" in told
    assert "memory growth 2.0% (target below 10%: met)" in told
    assert " 0.90 " in told  # 45 passes a second by 50
    assert "records of one worker and of two workers: equal" in told
    assert "records of one worker and of Ray: DIFFERENT" in told
    assert "20 hostile among 200 files: 200 records, errors: 20 input" in told


def test_progress_tells_rate_and_time_left() -> None:
    summary = AuditSummary(lines=10_000, verdicts=Counter(OK=90, NG=8), kept=1_000, done=100, seconds=4.0)
    summary.count(
        "REVIEW", RecordError(kind="input", message="no picture", exit_code=4), WorklistLine(number=7, image="a.png")
    )
    summary.count(
        "REVIEW",
        RecordError(kind="timeout", message="slow", exit_code=7),
        WorklistLine(number=1, image="b.png", source_line=9),
    )
    assert progress_line(summary) == "1,100 of 10,000, 25.0 a second, 5:56 left; 8 NG, 2 errors"
    assert summary.exit_code_of_errors == 4
    assert summary.examples == {"input": "line 7: no picture", "timeout": "line 9: slow"}
    assert progress_line(AuditSummary(lines=5)) == "0 of 5, 0.0 a second, ? left"
