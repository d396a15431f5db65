from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flawscope.agent.errors import BackendError, InputError
from flawscope.agent.schemas import InspectionReport, TraceStep, Uncertainty, Verdict
from flawscope.benchmarks import speed
from flawscope.benchmarks.speed import STAGES, ColdResult, SpeedResult, WarmRow, render, run_speed


def report(*steps: tuple[str, float]) -> InspectionReport:
    return InspectionReport(
        image="part.png",
        sha256=None,
        product="plate",
        verdict=Verdict.REVIEW,
        uncertainty=Uncertainty(entropy=None, source="test", calibrated=False),
        trace=tuple(TraceStep(action=action, seconds=seconds) for action, seconds in steps),
    )


def row(ratio: float, rest: float, looks: bool = True) -> WarmRow:
    return WarmRow("plate", looks, 30.0, 12.0, ratio, rest, 0.25, dict.fromkeys(STAGES, 1.0))


def test_what_no_step_accounts_for_is_the_graph() -> None:
    trace = report(("load", 0.002), ("encode", 0.020), ("localise", 0.008), ("retrieve", 0.006), ("classify", 0.001))
    split = speed._split(trace, whole=0.035, resize=0.004, forward=0.015)
    # localise and retrieve run side by side: 35 - (2 + 20 + 8 + 1) ms are left
    assert split["graph+report"] == pytest.approx(4.0)
    assert split["forward"] == pytest.approx(16.0)  # the encode step without the resizing
    assert split["bare"] == pytest.approx(15.0)
    assert split["rest"] == pytest.approx(6.0 + 1.0 + 4.0)  # retrieve counts in full
    assert split["acted"] == 0.0


def test_further_looks_count_as_actions() -> None:
    trace = report(("load", 0.002), ("classify", 0.001), ("zoom", 0.030), ("classify", 0.001))
    split = speed._split(trace, whole=0.040, resize=0.0, forward=0.010)
    assert split["actions"] == pytest.approx(30.0)
    assert split["classify"] == pytest.approx(2.0)
    assert split["acted"] == 1.0


def test_ratios_are_formed_per_picture() -> None:
    samples = [
        {**dict.fromkeys(STAGES, 1.0), "whole": whole, "bare": bare, "rest": 10.0, "acted": acted}
        for whole, bare, acted in ((20.0, 10.0, 0.0), (300.0, 100.0, 0.0), (40.0, 10.0, 1.0))
    ]
    found = speed._row("plate", True, samples)
    assert found.ratio == 3.0  # of 2, 3 and 4; the ratio of the medians would be 4
    assert found.rest_ratio == 1.0
    assert found.acted == pytest.approx(1 / 3)


def test_the_table_says_what_met_its_target() -> None:
    cold = ColdResult(3.0, 2.5, 900, 0.3, 0.2, (), 400.0)
    text = render(SpeedResult([row(2.0, 1.2), row(1.9, 0.8, looks=False)], cold))
    assert "worst 2.00 (met: at most 2.5), rest 1.20 (MISSED: at most 1.0)" in text
    assert "worst 1.90 (met: at most 2.5), rest 0.80 (met: at most 1.0)" in text
    assert "1.20 (met: at most 1.5)" in text
    assert "none" in text
    assert "25%" in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_heavy_imports_and_memory_are_named() -> None:
    text = render(SpeedResult([], ColdResult(3.0, 1.0, 900, 0.5, 0.2, ("pymilvus",), 1200.0)))
    assert "pymilvus" in text.splitlines()[-2]
    assert text.count("MISSED") == 3


@pytest.mark.usefixtures("_cheap_parts")
def test_one_small_product_is_measured(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for folder, count in (("train/good", 4), ("test/good", 1), ("test/dark", 1)):
        (tmp_path / "plate" / folder).mkdir(parents=True)
        for number in range(count):
            picture = rng.integers(100, 140, (64, 64, 3), dtype=np.uint8)
            picture[:32] //= 2 if folder.endswith("dark") else 1
            Image.fromarray(picture).save(tmp_path / "plate" / folder / f"{number:03d}.png")
    result = run_speed(tmp_path, products=["plate"], cold=False, rounds=1)
    assert [found.further_looks for found in result.warm] == [False, True]
    for found in result.warm:
        assert set(found.stages) == set(STAGES)
        assert found.whole > 0
        assert found.forward > 0
    assert result.warm[0].acted == 0.0  # no action was allowed
    assert result.cold is None


def test_a_folder_without_the_products_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of"):
        run_speed(tmp_path)


def test_a_process_is_timed_with_its_memory_and_a_failed_one_is_named() -> None:
    assert speed._timed(["-c", "import sys; sys.exit(3)"]) > 0
    assert 60 < speed.peak_mb(["-c", "b = bytes([1]) * 60_000_000"]) < 200  # of that process, not of this larger one
    with pytest.raises(BackendError, match="exit code 5"):
        speed._timed(["-c", "import sys; sys.exit(5)"])
    with pytest.raises(BackendError, match="KeyError"):
        speed.peak_mb(["-c", "{}['nothing']"])


def test_imports_of_a_command_are_listed() -> None:
    assert "flawscope" not in {name.partition(".")[0] for name in speed._imported(["--help"])}
    assert not set(speed.HEAVY) & {name.partition(".")[0] for name in speed._imported(["--help"])}
