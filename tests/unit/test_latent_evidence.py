"""What latent reasoning is told, on numbers worked by hand; none of it needs torch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flawscope.agent.errors import ConfigError
from flawscope.agent.vision_language.latent import (
    LatentSettings,
    NormalImages,
    detection_evidence,
    localisation_evidence,
    place_box,
)


def test_the_package_is_described_without_torch() -> None:
    probe = "import sys, flawscope.agent.vision_language.latent; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(("score", "yes"), [(0.0, -1.0), (0.5, 0.0), (0.9, 0.8), (1.0, 1.0)])
def test_detection_evidence_is_the_calibrated_score_stretched(score: float, yes: float) -> None:
    assert detection_evidence("A", "B", score) == pytest.approx({"A": yes, "B": -yes})


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan")])
def test_an_uncalibrated_score_is_no_evidence(score: float) -> None:
    with pytest.raises(ValueError, match="calibrated"):
        detection_evidence("A", "B", score)


def test_places_are_worth_their_soft_overlap_with_the_map() -> None:
    anomaly_map = np.zeros((4, 4), np.float32)
    anomaly_map[:2, :2] = 0.5
    found = localisation_evidence(anomaly_map, {"A": (0, 0, 2, 2), "B": (2, 2, 4, 4), "C": (0, 0, 4, 4)})
    # A: 4 x .5 shared of 4 covered; B: none; C: 2 shared of 16.
    assert found == pytest.approx({"A": 0.0, "B": -1.0, "C": -0.75})
    assert localisation_evidence(np.zeros((4, 4), np.float32), {"A": (0, 0, 2, 2)}) == {}


@given(st.integers(3, 40), st.integers(3, 40))
def test_nine_fields_cover_the_picture_once(height: int, width: int) -> None:
    seen = np.zeros((height, width), int)
    for row in ("upper", "", "lower"):
        for column in ("left", "centre", "right"):
            box = place_box(f"{row} {column}.", height, width)
            assert box is not None
            x0, y0, x1, y1 = box
            seen[y0:y1, x0:x1] += 1
    assert (seen == 1).all()


def test_places_in_words() -> None:
    assert place_box("Whole picture.", 9, 6) == (0, 0, 6, 9)
    assert place_box("Top left", 9, 6) == place_box("upper left", 9, 6) == (0, 0, 2, 3)
    assert place_box("left", 9, 6) == (0, 3, 2, 6)
    assert place_box("Lower centre.", 9, 6) == (2, 6, 4, 9)
    assert place_box("No defect.", 9, 6) is None


def test_good_pictures_may_be_called_defective_one_point_oftener() -> None:
    assert NormalImages(200, 10, 12).hold
    assert not NormalImages(200, 10, 13).hold
    assert NormalImages(200, 10, 3).hold
    assert not NormalImages(0, 0, 0).hold


@pytest.mark.parametrize(
    "wrong",
    [
        {"arm": "magic"},
        {"length": 0},
        {"steps": -1},
        {"learning_rate": -0.1},
        {"sigma": 0.0},
        {"evidence_weight": float("nan")},
        {"min_mass": 0.0},
        {"entropy_floor": 1.0},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        LatentSettings(**wrong)  # type: ignore[arg-type]
