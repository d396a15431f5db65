"""How far the AD Expert agrees with each option, in [-1, 1]: the part of the reward that is not the model's own."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]


def detection_evidence(yes: str, no: str, calibrated_score: float) -> dict[str, float]:
    """Agreement of the two answers to whether there is a defect.

    Args:
        yes: letter of the option that says so.
        no: letter of the other one.
        calibrated_score: of the picture, in [0, 1]: 0 as good parts, 1 as far from them as can be told.

    Raises:
        ValueError: the score is not calibrated.
    """
    if not 0.0 <= calibrated_score <= 1.0:
        raise ValueError("a calibrated score lies in [0, 1]")
    return {yes: 2.0 * calibrated_score - 1.0, no: 1.0 - 2.0 * calibrated_score}


def localisation_evidence(anomaly_map: NDArray[np.float32], boxes: Mapping[str, Box]) -> dict[str, float]:
    """Agreement of places with the map: twice the soft intersection over union, minus 1.

    Args:
        anomaly_map: float (H, W), calibrated to [0, 1].
        boxes: letter -> the place that its option names, XYXY half-open, px of the map.

    Returns:
        -1 where an option names a place without any anomaly, 1 where the map fills exactly its box. Empty for a map
        that is 0 everywhere: it prefers no place.
    """
    if not float(anomaly_map.max(initial=0.0)) > 0.0:
        return {}
    found = {}
    for letter, (x0, y0, x1, y1) in boxes.items():
        region = np.zeros(anomaly_map.shape, np.float64)
        region[y0:y1, x0:x1] = 1.0
        union = float(np.maximum(region, anomaly_map).sum())
        found[letter] = 2.0 * float(np.minimum(region, anomaly_map).sum()) / union - 1.0
    return found


def place_box(words: str, height: int, width: int) -> Box | None:
    """The box of a place that is named by one of nine fields; None for words that name none.

    Args:
        words: such as ``upper left``, ``Right``, ``lower centre`` or ``whole picture``.
        height: of the map, px.
        width: of the map, px.

    Returns:
        XYXY half-open, px.
    """
    said = set(words.lower().replace(",", " ").replace(".", " ").replace("-", " ").split())
    if "whole" in said or "entire" in said:
        return 0, 0, width, height
    row = 0 if said & {"upper", "top"} else 2 if said & {"lower", "bottom"} else 1
    column = 0 if "left" in said else 2 if "right" in said else 1
    if row == column == 1 and not said & {"centre", "center", "middle", "central"}:
        return None
    xs, ys = ([round(i * side / 3) for i in range(4)] for side in (width, height))
    return xs[column], ys[row], xs[column + 1], ys[row + 1]
