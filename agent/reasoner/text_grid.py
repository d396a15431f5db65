"""A calibrated map as text, for models that see poorly (after OmniAD's text-as-mask encoding)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GRID = 8
STEPS = 9


def text_grid(anomaly_map: NDArray[np.float32], rows: int = GRID, columns: int = GRID) -> str:
    """A calibrated map as text: a line of digits a row, after OmniAD, which writes masks as text.

    Digits and no run lengths: all rows are equally long, so that a cell's place is its position and nothing has to be
    added up; tokenizers of the Qwen family make each digit a token, so 8 x 8 cost 72. A cell is the highest value in
    it, since a mean would lose what is small, and 0 stands for exactly as good parts.

    Args:
        anomaly_map: float (H, W) in [0, 1], calibrated.
        rows: of the text.
        columns: of the text.

    Returns:
        ``rows`` lines of ``columns`` digits: 0 where the map is 0, else 1 to 9.

    Raises:
        ValueError: the map has no pixel, or values that are not in [0, 1].
    """
    if anomaly_map.ndim != 2 or not anomaly_map.size:
        raise ValueError("a map of (H, W) is needed")
    if not (np.isfinite(anomaly_map).all() and anomaly_map.min() >= 0.0 and anomaly_map.max() <= 1.0):
        raise ValueError("the map must be calibrated to [0, 1]")
    height, width = anomaly_map.shape
    cells = [[anomaly_map[y0:y1, x0:x1].max() for x0, x1 in _cuts(width, columns)] for y0, y1 in _cuts(height, rows)]
    digits = np.ceil(np.asarray(cells, np.float64) * STEPS - 1e-6).astype(int)
    digits = np.where(np.asarray(cells) > 0.0, np.maximum(digits, 1), 0)
    return "\n".join("".join(str(digit) for digit in row) for row in digits)


def _cuts(pixels: int, cells: int) -> list[tuple[int, int]]:
    """Half-open spans that cover the pixels; they share a pixel where cells do not divide them, and none is empty."""
    return [(i * pixels // cells, -(-(i + 1) * pixels // cells)) for i in range(cells)]


def parse_grid(text: str) -> NDArray[np.float32]:
    """The map that a text grid stands for.

    Args:
        text: of `text_grid`, or of a model that was asked for one.

    Returns:
        float32 (rows, columns) in [0, 1].

    Raises:
        ValueError: it is not lines of digits of one length.
    """
    rows = text.split("\n")
    if not rows[0] or any(len(row) != len(rows[0]) or not (row.isascii() and row.isdigit()) for row in rows):
        raise ValueError("a grid is lines of digits of one length")
    return np.array([[int(digit) for digit in row] for row in rows], np.float32) / np.float32(STEPS)
