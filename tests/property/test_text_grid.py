"""A map as text: what is read back is the map, cell by cell, for any map."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flawscope.agent.reasoner.composing import parse_grid, text_grid

MAPS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    elements=st.floats(0, 1, width=32) | st.just(0.0),
)


@given(MAPS, st.integers(1, 12), st.integers(1, 12))
def test_each_cell_is_the_highest_value_in_it_up_to_a_step(anomaly_map: np.ndarray, rows: int, columns: int) -> None:
    grid = parse_grid(text_grid(anomaly_map, rows, columns))
    assert grid.shape == (rows, columns)
    height, width = anomaly_map.shape
    for row in range(rows):
        for column in range(columns):
            y0, y1 = int(np.floor(row * height / rows)), int(np.ceil((row + 1) * height / rows))
            x0, x1 = int(np.floor(column * width / columns)), int(np.ceil((column + 1) * width / columns))
            highest = anomaly_map[y0:y1, x0:x1].max()
            assert (grid[row, column] == 0) == (highest == 0)
            assert -1e-5 <= grid[row, column] - highest <= 1 / 9 + 1e-5


@given(MAPS, st.integers(1, 12), st.integers(1, 12))
def test_writing_what_was_read_changes_nothing(anomaly_map: np.ndarray, rows: int, columns: int) -> None:
    text = text_grid(anomaly_map, rows, columns)
    assert text_grid(parse_grid(text), rows, columns) == text


@given(MAPS)
def test_more_deviation_never_lowers_a_digit(anomaly_map: np.ndarray) -> None:
    before, after = parse_grid(text_grid(anomaly_map)), parse_grid(text_grid(np.sqrt(anomaly_map)))
    assert (after >= before).all()
