"""Invariants of the gate: good parts read as nothing, more deviation is never less, no pool breaks the scale."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flawscope.tools.ad_expert.evidence_gate import POOL_QUANTILE, MapScale, fit_map_scale, judge_map

VALUES = st.floats(0, 2, width=32) | st.sampled_from([0.0, 0.5])
GRIDS = hnp.arrays(np.float32, (6, 7), elements=VALUES)
POOLS = st.lists(GRIDS, min_size=1, max_size=6)


def scale_of(pool: list[np.ndarray]) -> MapScale:
    return fit_map_scale([[grid] for grid in pool], [grid.size for grid in pool])


@given(POOLS)
def test_of_good_parts_at_least_the_stated_share_is_zero(pool: list[np.ndarray]) -> None:
    scale = scale_of(pool)
    zeros = np.concatenate([scale.calibrate(grid).ravel() == 0.0 for grid in pool])
    assert zeros.mean() >= POOL_QUANTILE


@given(POOLS, GRIDS)
def test_a_calibrated_map_lies_between_zero_and_one(pool: list[np.ndarray], grid: np.ndarray) -> None:
    found = scale_of(pool).calibrate(grid)
    assert found.dtype == np.float32
    assert ((found >= 0.0) & (found <= 1.0)).all()


@given(VALUES, st.integers(1, 5), GRIDS)
def test_residuals_that_are_all_equal_stay_finite(value: float, count: int, grid: np.ndarray) -> None:
    scale = scale_of([np.full((6, 7), value, np.float32)] * count)
    assert scale.low == scale.high
    assert np.isfinite(scale.calibrate(grid)).all()


@given(POOLS, GRIDS, hnp.arrays(np.float32, (6, 7), elements=st.floats(0, 1, width=32)))
def test_more_deviation_is_never_less(pool: list[np.ndarray], grid: np.ndarray, more: np.ndarray) -> None:
    scale = scale_of(pool)
    worse = grid + more
    assert (scale.calibrate(worse) >= scale.calibrate(grid)).all()
    before, after = judge_map(grid, scale, calibrated=True), judge_map(worse, scale, calibrated=True)
    assert after.coherence >= before.coherence
    assert after.admitted or not before.admitted


@given(POOLS)
def test_few_good_parts_are_admitted(pool: list[np.ndarray]) -> None:
    scale = scale_of(pool)
    admitted = [judge_map(grid, scale, calibrated=True).admitted for grid in pool]
    assert sum(admitted) <= 1  # of up to six: the quantile lies between the two largest


@given(POOLS, GRIDS)
def test_only_calibrated_evidence_is_admitted(pool: list[np.ndarray], grid: np.ndarray) -> None:
    gate = judge_map(grid, scale_of(pool), calibrated=False)
    assert not gate.admitted
    assert gate.weight == 0.5
