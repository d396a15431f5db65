"""Counts, shares and places of parts, by hand; and measurement in millimetres."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from flawscope.agent.errors import InputError, ProductError
from flawscope.tools.logic.checks import count_deviation, fit_logic, share_deviation
from flawscope.tools.logic.parts import count_components, fit_kinds, parts_of, spatial_histogram
from flawscope.tools.measurement import measure_box

GRID = (20, 20)


def scene(squares: list[tuple[int, int]], seed: int, kind: int = 1) -> NDArray[np.float32]:
    """Tokens of a ground (axis 0) with squares of 4 x 4 patches of a kind (axis 1 or 2), with a little noise."""
    field = np.zeros((*GRID, 6), np.float32)
    field[..., 0] = 1.0
    for number, (row, column) in enumerate(squares):
        field[row : row + 4, column : column + 4] = 0.0
        field[row : row + 4, column : column + 4, kind if number == 0 else 1] = 1.0
    field += np.random.default_rng(seed).normal(0, 0.02, field.shape).astype(np.float32)
    rows = field.reshape(-1, 6)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


GOOD = [(2, 2), (2, 12), (12, 12)]


def test_components_are_counted_with_their_corners_and_without_fringes() -> None:
    mask = np.zeros((6, 6), bool)
    mask[0:2, 0:2] = mask[2:4, 2:4] = True  # touch at a corner: one component of 8
    mask[5, 5] = True  # fringe
    assert count_components(mask) == 1
    assert count_components(mask, min_patches=1) == 2


def test_a_spatial_histogram_by_hand() -> None:
    labels = np.array([[0, 0, 1, 1], [0, 1, 1, 1]])
    assert spatial_histogram(labels, 2, 2).tolist() == [[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.0, 1.0]]]


def test_deviations_by_hand() -> None:
    counts = np.array([[3, 1], [3, 1], [3, 1]])
    assert count_deviation(np.array([4, 1]), counts).tolist() == [1.0, 0.0]
    shares = np.array([[0.5, 0.5], [0.5, 0.5]])
    assert share_deviation(np.array([0.51, 0.49]), shares).tolist() == pytest.approx([5.0, 5.0])


def test_kinds_are_told_apart() -> None:
    tokens = scene(GOOD, 0)
    parts = parts_of(tokens, GRID, fit_kinds([tokens], kinds=2))
    assert sorted(parts.counts.tolist()) == [1, 3]
    assert sorted(parts.shares.tolist()) == pytest.approx([48 / 400, 352 / 400])


@pytest.mark.parametrize(
    ("squares", "kind", "check"),
    [
        (GOOD[:2], 1, "count"),
        ([*GOOD, (12, 2)], 1, "count"),
        (GOOD[:2], 1, "presence"),
        ([(2, 2), (2, 12), (12, 2)], 1, "arrangement"),
        (GOOD, 2, "arrangement"),
    ],
)
def test_what_is_wrong_is_beyond_every_good_part(squares: list[tuple[int, int]], kind: int, check: str) -> None:
    model = fit_logic([scene(GOOD, seed) for seed in range(6)], [GRID] * 6)
    found = {f.check: f for f in model.check(scene(squares, 77, kind), GRID)}
    assert found[check].score > 1.0  # type: ignore[index]
    good = model.check(scene(GOOD, 99), GRID)
    assert all(f.score <= 1.6 for f in good)
    assert found[check].score > 2.0 * {f.check: f.score for f in good}[check]  # type: ignore[index]


def test_the_place_of_a_moved_part_is_told() -> None:
    model = fit_logic([scene(GOOD, seed) for seed in range(6)], [GRID] * 6)
    (found,) = model.check(scene([(2, 2), (2, 12)], 5), GRID, ["arrangement"])
    assert found.box_grid is not None
    x0, y0, x1, y1 = found.box_grid
    assert min(x0, y0) >= 12
    assert max(x1, y1) <= 16


def test_two_references_say_nothing() -> None:
    with pytest.raises(ProductError, match="2 references"):
        fit_logic([scene(GOOD, 0), scene(GOOD, 1)], [GRID] * 2)


def test_millimetres_by_hand() -> None:
    found = measure_box((10, 10, 40, 50), 10.0, scale_uncertainty=0.01, area_px=600)
    assert (found.width.mm, found.height.mm, found.diagonal.mm) == (3.0, 4.0, 5.0)
    assert found.area_mm2 == 6.0
    grid = math.sqrt(2 / 12) / 10
    assert found.width.expanded_mm == pytest.approx(2 * math.hypot(grid, 0.03))
    assert str(found.width) == "3 ± 0.1 mm"


def test_an_unknown_uncertainty_is_none() -> None:
    found = measure_box((0, 0, 5, 5), 2.0)
    assert found.width.expanded_mm is None
    assert "not known" in str(found.width)
    assert found.area_mm2 is None
    with pytest.raises(InputError):
        measure_box((5, 0, 5, 5), 2.0)
    with pytest.raises(InputError):
        measure_box((0, 0, 5, 5), 0.0)
