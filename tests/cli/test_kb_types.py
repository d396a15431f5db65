"""``kb types``: centroids of defect types from labelled data."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def data(cli: Any) -> Path:
    """A data set in the MVTec layout: five holes with masks, five without, one label that is unknown."""
    root = cli.folder / "data" / "plate"
    for folder in ("train/good", "test/good", "test/hole", "test/scratch", "test/gremlins", "ground_truth/hole"):
        (root / folder).mkdir(parents=True)
    shutil.copy(cli.plant.good[0], root / "train" / "good" / "000.png")
    shutil.copy(cli.plant.new_good, root / "test" / "good" / "000.png")
    shutil.copy(cli.plant.square, root / "test" / "gremlins" / "000.png")
    mask = np.zeros((480, 480), np.uint8)
    mask[70:170, 60:160] = 255
    for number in range(5):
        shutil.copy(cli.plant.square, root / "test" / "hole" / f"{number:03d}.png")
        shutil.copy(cli.plant.scratch, root / "test" / "scratch" / f"{number:03d}.png")
        Image.fromarray(mask).save(root / "ground_truth" / "hole" / f"{number:03d}_mask.png")
    return root.parent


def test_build_and_show(cli: Any, data: Path) -> None:
    built = cli("kb", "types", "build", "--data", data)
    assert (built.code, built.err) == (0, "")
    assert "1 types, 1 of them from pictures by mask" in built.out
    assert "hole: 5 pictures" in built.out
    assert "left out plate/scratch: 5 pictures, no mask or map" in built.out
    assert "left out plate/gremlins: 1 pictures, unknown label" in built.out
    assert len(list((cli.home / "types").glob("*/centroids.npz"))) == 1
    shown = cli("kb", "types", "show")
    assert (shown.code, shown.err) == (0, "")
    assert "plate/hole is hole: 5 pictures" in shown.out
    assert built.out.splitlines()[0] == shown.out.splitlines()[0]


def test_a_map_needs_no_mask_and_replaces_what_was_there(cli: Any, data: Path) -> None:
    cli("kb", "types", "build", "--data", data)
    built = cli("kb", "types", "build", "--data", data, "--data", data, "--by", "map", "--refine")
    assert "2 types, 2 of them from pictures by map, refined" in built.out
    assert "scratch: 10 pictures" in built.out
    assert len(list((cli.home / "types").glob("*/centroids.npz"))) == 1


def test_too_few_pictures_leave_what_was_there(cli: Any, data: Path) -> None:
    cli("kb", "types", "build", "--data", data)
    for path in sorted((data / "plate" / "test" / "hole").iterdir())[:2]:
        path.unlink()
    cli("kb", "types", "build", "--data", data).refused(4, "no defect type has 5 pictures")
    assert "hole: 5 pictures" in cli("kb", "types", "show").out


def test_show_without_any(cli: Any) -> None:
    shown = cli("kb", "types", "show")
    assert (shown.code, shown.out) == (0, "")
    assert "flawscope kb types build" in shown.err


def test_bad_arguments(cli: Any, data: Path) -> None:
    cli("kb", "types", "build", "--data", cli.folder / "nowhere").refused(4, "not a folder")
    cli("kb", "types", "build", "--data", data, "--backbone", "nothing").refused(2, "unknown backbone")
