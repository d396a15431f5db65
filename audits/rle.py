"""Run-length encoded masks as COCO spells them: column by column, the first run is background.

The runs are differences to the run two places before, cut into groups of five bits, lowest first, with a sixth bit
that says whether more follow, each written as the character 48 places up (the format's published C sources).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..agent.errors import InputError

FIRST_CHARACTER = 48


def encode_mask(
    mask: NDArray[np.bool_], corner_px: tuple[int, int] = (0, 0), size_px: tuple[int, int] | None = None
) -> str:
    """The ``counts`` of COCO's compressed run-length encoding.

    Args:
        mask: bool (h, w), the whole mask or a window of it; outside of the window is background.
        corner_px: x and y of the window's first pixel.
        size_px: width and height of the whole mask, the window's own when not given.
    """
    (x0, y0), (width, height) = corner_px, size_px or (mask.shape[1], mask.shape[0])
    beside = np.zeros((1, mask.shape[1]), dtype=np.int8)
    edges = np.diff(np.vstack([beside, mask.astype(np.int8), beside]), axis=0).T  # (w, h + 1): column by column
    starts, ends = (((columns + x0) * height + rows + y0) for columns, rows in map(np.nonzero, (edges > 0, edges < 0)))
    apart = ends[:-1] != starts[1:]  # a run that fills its column goes on in the next one
    edge_list = np.stack([starts[np.r_[True, apart][: len(starts)]], ends[np.r_[apart, True][: len(ends)]]], axis=1)
    runs = np.diff(np.concatenate([[0], edge_list.ravel(), [width * height]]))
    return _spell(runs if runs[-1] else runs[:-1])


def decode_mask(counts: str, height_px: int, width_px: int) -> NDArray[np.bool_]:
    """The bool (H, W) mask behind ``counts``.

    Raises:
        InputError: the text is no such encoding, or of another size.
    """
    runs = _read(counts)
    if (runs < 0).any() or int(runs.sum()) != height_px * width_px:
        raise InputError(f"a mask is damaged: its runs do not fill {width_px} x {height_px} px.")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape((height_px, width_px), order="F")


def mask_area(counts: str) -> int:
    """Pixels of a mask, without unfolding it."""
    return int(_read(counts)[1::2].sum())


def mask_box(counts: str, height_px: int) -> tuple[int, int, int, int]:
    """The mask's box: x0, y0, x1, y1, half-open.

    Raises:
        InputError: the mask is empty.
    """
    runs = _read(counts)
    ends = np.cumsum(runs)
    first, last = (ends - runs)[1::2], ends[1::2] - 1
    if not len(last):
        raise InputError("a mask is empty.")
    crosses = first // height_px != last // height_px  # such a run touches a column's end and the next one's begin
    top = 0 if crosses.any() else int((first % height_px).min())
    bottom = height_px - 1 if crosses.any() else int((last % height_px).max())
    return int(first[0] // height_px), top, int(last[-1] // height_px) + 1, bottom + 1


def _spell(runs: NDArray[np.int64]) -> str:
    deltas = runs.astype(np.int64).copy()
    deltas[3:] -= runs[1:-2]  # the first background run and the run after it are written as they are
    out = bytearray()
    for delta in deltas.tolist():
        more = True
        while more:
            group = delta & 0x1F
            delta >>= 5
            more = delta != (-1 if group & 0x10 else 0)
            out.append((group | 0x20 if more else group) + FIRST_CHARACTER)
    return out.decode("ascii")


def _read(counts: str) -> NDArray[np.int64]:
    runs: list[int] = []
    value = shift = 0
    for character in counts.encode("utf-8"):
        group = character - FIRST_CHARACTER
        if not 0 <= group < 64 or shift > 55:
            raise InputError("a mask is damaged: it is not a run-length encoding.")
        value |= (group & 0x1F) << shift
        shift += 5
        if group & 0x20:
            continue
        if group & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise InputError("a mask is damaged: it ends in the middle of a number.")
    return np.asarray(runs, np.int64)
