"""From scores to decisions, learnt from good references alone.

Each reference is scored against the others under every view (the whole picture, the zoomed peak, ...). That table is
the calibration: for any set of views taken of a new picture, the same combination is formed for every reference, so the
threshold of each combination is conformal in its own right, whichever views the retry loop came to use.

Threshold: the ceil((n + 1)(1 - a))-th smallest combined score of the n references; a new good part, exchangeable with
them, reaches it with probability of at most a (split conformal prediction in its leave-one-out form). Too few
references for the stated rate: a Student-t prediction bound, marked ``extrapolated``. Fewer than three: no decision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import ProductError

MIN_REFERENCES = 3
"""Below this the spread of good parts is unknown."""
PROBABILITY_SLOPE = 4.0
"""Steepness of the probability in units of the threshold; picked by hand, its calibration error is measured."""
MIN_THRESHOLD = 1.0
"""Spreads; a threshold below the typical deviation of good parts would come from a degenerate table."""
MAD_TO_SIGMA = 1.4826

Basis = Literal["conformal", "extrapolated", "uncalibrated"]


@dataclass(frozen=True)
class Decision:
    """What a set of view scores means.

    Attributes:
        score: combined deviation in spreads of good parts: 0 is a typical good part; None when uncalibrated.
        threshold: alarm at and above; None when uncalibrated.
        probability: of a defect, even odds at the threshold; None when uncalibrated.
        p_value: share of the references (and the part itself) that deviate at least as much; None when uncalibrated.
        basis: how the threshold was found.
        contradicting: views that, judged alone, fall on the other side of the threshold than all of them together.
    """

    score: float | None
    threshold: float | None
    probability: float | None
    p_value: float | None
    basis: Basis
    contradicting: tuple[str, ...] = ()


@dataclass(frozen=True)
class Calibration:
    """Leave-one-out scores of the references.

    Attributes:
        views: names of the columns; the first is the view that every inspection takes.
        scores: float64 (n, len(views)), n references.
    """

    views: tuple[str, ...]
    scores: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.scores.ndim != 2 or self.scores.shape[1] != len(self.views) or not np.isfinite(self.scores).all():
            raise ProductError("the calibration table of this product is damaged.", hint="Enrol the product again.")

    def combine(self, view_scores: Mapping[str, float]) -> tuple[float, NDArray[np.float64]]:
        """Combined deviation of a picture and of each reference under the same views.

        Args:
            view_scores: raw score per view, a non-empty subset of ``views``.

        Returns:
            The picture's deviation and the references' (n,), both in spreads around the references' median.

        Raises:
            ProductError: a view that was not calibrated.
        """
        unknown = set(view_scores) - set(self.views)
        if unknown or not view_scores:
            raise ProductError(f"no calibration for the views {sorted(unknown)}.", hint="Enrol the product again.")
        columns = [self.views.index(view) for view in view_scores]
        centre, spread = centre_and_spread(self.scores[:, columns])
        picture = float(((np.array(list(view_scores.values())) - centre) / spread).mean())
        references = ((self.scores[:, columns] - centre) / spread).mean(axis=1)
        mid, width = centre_and_spread(references[:, None])
        return (picture - float(mid[0])) / float(width[0]), (references - mid[0]) / width[0]

    def decide(self, view_scores: Mapping[str, float], false_alarm: float) -> Decision:
        """Threshold, probability and p-value for a picture.

        Args:
            view_scores: raw score per view taken.
            false_alarm: share of good parts that may reach the threshold, in (0, 1).
        """
        count = len(self.scores)
        if count < MIN_REFERENCES:
            return Decision(None, None, None, None, "uncalibrated")
        score, references = self.combine(view_scores)
        threshold, basis = conformal_threshold(references, false_alarm)
        p_value = (1 + int((references >= score).sum())) / (count + 1)
        alarming = score >= threshold
        views = view_scores if len(view_scores) > 1 else ()  # one view alone says what all views say
        contradicting = tuple(v for v in views if self._alarms_alone(v, view_scores[v], false_alarm) != alarming)
        return Decision(score, threshold, probability_of_defect(score, threshold), p_value, basis, contradicting)

    def _alarms_alone(self, view: str, score: float, false_alarm: float) -> bool:
        """Whether one view by itself would alarm at the same rate."""
        picture, references = self.combine({view: score})
        return picture >= conformal_threshold(references, false_alarm)[0]


def conformal_threshold(scores: NDArray[np.float64], false_alarm: float) -> tuple[float, Basis]:
    """The score that a new good part reaches with probability of at most ``false_alarm``.

    Args:
        scores: (n,) of good parts, n >= 2.
        false_alarm: stated rate in (0, 1).

    Returns:
        The threshold (alarm at and above) and whether it is conformal or extrapolated.
    """
    count = len(scores)
    rank = math.ceil((count + 1) * (1.0 - false_alarm) - 1e-9)  # 0.95 * 20 must be 19, not 20
    if rank <= count:
        return max(MIN_THRESHOLD, float(np.nextafter(np.sort(scores)[rank - 1], np.inf))), "conformal"
    from scipy.special import stdtrit

    bound = stdtrit(count - 1, 1.0 - false_alarm) * scores.std(ddof=1) * math.sqrt(1.0 + 1.0 / count)
    return max(MIN_THRESHOLD, float(scores.mean() + bound)), "extrapolated"


def percentile(p_value: float, count: int) -> float:
    """Share of ``count`` references that score lower than a picture of that p-value, in [0, 1]."""
    return min(1.0, max(0.0, 1.0 - (p_value * (count + 1) - 1.0) / count))


def smallest_rate(count: int) -> float:
    """The smallest false-alarm rate that ``count`` references support without extrapolation."""
    return 1.0 / (count + 1)


def probability_of_defect(score: float, threshold: float) -> float:
    """Logistic in the score relative to the threshold, 0.5 at the threshold.

    The threshold is where the stated false-alarm rate says that an alarm is worth its cost, so the odds are even there.
    """
    excess = PROBABILITY_SLOPE * (score / threshold - 1.0)
    return float(1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, excess)))))


def centre_and_spread(table: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Median and robust spread per column; the spread is never zero, however alike the references are."""
    centre = np.median(table, axis=0)
    spread = MAD_TO_SIGMA * np.median(np.abs(table - centre), axis=0)
    spread = np.maximum(spread, 0.5 * table.std(axis=0))
    return centre, np.maximum(spread, 1e-6 + 1e-3 * np.abs(centre))
