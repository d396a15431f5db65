"""The bench of a plant's pages: rows for each product, measure and cut, and figures that can be told beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import save
from fakes import PatchStatistics, texture, with_scratch, with_square

from flawscope.agent.errors import InputError
from flawscope.benchmarks.plant_pages import CUTS, MEASURES, PER_TYPE, Parts, _cut_rows, render, run_plant_pages
from flawscope.tools.knowledge.features import LockSpace

BLUE = (40, 60, 235)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    plate, dark = tmp_path / "data" / "plate", tmp_path / "data" / "dark"
    for seed in range(5):
        save(plate / "train" / "good", f"{seed}.png", texture(seed))
        save(dark / "train" / "good", f"{seed}.png", texture(seed) // 4)
    for seed in range(4):
        for root, dim in ((plate, 1), (dark, 4)):
            part = texture(20 + seed) // dim
            save(root / "test" / "good", f"{seed}.png", part)
            save(root / "test" / "burr", f"{seed}.png", with_square(part, 30 + 4 * seed, 40, colour=BLUE))
            save(root / "test" / "line", f"{seed}.png", with_scratch(part, 20 + 15 * seed))
    return tmp_path / "data"


def test_every_product_measure_and_cut_has_a_row(data: Path) -> None:
    result = run_plant_pages(data, repeats=6, backbone=PatchStatistics())
    assert len(result.cuts) == 2 * len(PER_TYPE) * len(MEASURES) * len(CUTS)
    for row in result.cuts:
        assert (row.precision is None) == (row.named == 0.0)
        assert row.cut or row.named in (0.0, 1.0)
    kinds = {(row.product, row.held_out): row for row in result.categories}
    assert all(kinds[name, False].right > 0.0 == kinds[name, False].wrong for name in ("plate", "dark"))
    assert kinds["plate", True].right == kinds["dark", True].right == 0.0
    assert all(row.queries == 4 for row in result.categories)
    lines = render(result).splitlines()
    assert sum(line.startswith(("plate", "dark")) for line in lines) == 2 * len(PER_TYPE) * len(MEASURES) + 4


def test_precision_counts_types_that_have_no_page() -> None:
    # Two types whose parts deviate at right angles: the nearest page is right whenever its type has one.
    eye = np.repeat(np.eye(2, dtype=np.float32), 3, axis=0)
    types = np.array(["a"] * 3 + ["b"] * 3)
    parts = Parts("p", types, np.ones(6, bool), eye, eye)
    rows = {row.cut: row for row in _cut_rows(parts, "deviation", 1, 200, LockSpace.fit(eye))}
    # One type of two has pages in half of the plants: 2 of its own parts and 3 of the other ask; with both, 4 ask.
    assert rows[0.0].precision == pytest.approx((0.5 * 2 + 0.5 * 4) / (0.5 * 5 + 0.5 * 4), abs=0.05)
    assert rows[CUTS[-1]].precision == 1.0


def test_data_without_what_is_needed_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        run_plant_pages(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no product"):
        run_plant_pages(tmp_path / "empty", backbone=PatchStatistics())
