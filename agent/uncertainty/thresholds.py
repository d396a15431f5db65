"""How much doubt an answer may carry and still stand: the largest coverage whose error is bounded (Clopper-Pearson)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from .records import DETECTION

TARGET_ERROR = {DETECTION: 0.05}
OTHER_TARGET_ERROR = 0.15
CONFIDENCE = 0.95
LEAST_ANSWERS = 60
"""With fewer answers of a task no error rate is bounded closely enough to rely on: without a single error, 59 show less
than 5% with 95% confidence."""
DEFAULT_LOW, DEFAULT_HIGH = 0.25, 0.60

Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]


class Threshold(BaseModel):
    """Which answers of a task stand, which are looked at again, and which go to a person.

    Attributes:
        on: what is compared: ``p_correct`` for 1 - P(correct), ``entropy`` for the normalised entropy.
        low: doubt up to which an answer stands; None when no share of the answers keeps the error bounded.
        high: doubt from which a person decides, once there is nothing more to look at; None with ``low``.
        target: error rate that is aimed at.
        answers: that it was chosen from.
        decided: of them at or below ``low``.
        errors: among those decided.
        bound: upper end of the one-sided interval of their error rate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    on: Literal["p_correct", "entropy"]
    low: Share | None
    high: Share | None
    target: Share
    answers: Annotated[int, Field(ge=0)]
    decided: Annotated[int, Field(ge=0)] = 0
    errors: Annotated[int, Field(ge=0)] = 0
    bound: Share | None = None

    @property
    def calibrated(self) -> bool:
        """Whether it rests on answers, and not on defaults."""
        return self.on == "p_correct"


def target_error(task: str) -> float:
    """The error rate that is aimed at among the answers that stand."""
    return TARGET_ERROR.get(task, OTHER_TARGET_ERROR)


def error_bounds(
    errors: NDArray[np.int64], decided: NDArray[np.int64], confidence: float = CONFIDENCE
) -> NDArray[np.float64]:
    """Upper end of the exact one-sided interval of error rates (Clopper & Pearson 1934).

    Args:
        errors: (m,) wrong ones.
        decided: (m,) all, at least as many; without any the bound is 1.
        confidence: that the true rate lies at or below it.
    """
    from scipy.special import betaincinv

    wrong, right = np.asarray(errors, np.float64), np.asarray(decided, np.float64) - np.asarray(errors, np.float64)
    bounds = betaincinv(wrong + 1.0, np.maximum(right, 1e-9), confidence)
    return np.asarray(np.where(right <= 0, 1.0, bounds), np.float64)


def choose_threshold(
    doubts: Sequence[float | None], correct: Sequence[bool], target: float, confidence: float = CONFIDENCE
) -> Threshold:
    """The threshold of the largest coverage at which the error rate's upper bound keeps to a target.

    The bound holds for each threshold taken alone; the largest of many that keep to it is a little too hopeful, which
    is why the outcome is checked on other products.

    Args:
        doubts: 1 - P(correct) of each answer from a calibrator that has not seen its product; None, where that is not
            known, never stands.
        correct: whether it was right.
        target: error rate.
        confidence: of the bound.

    Returns:
        On fewer than ``LEAST_ANSWERS`` answers the defaults on the entropy, which are not calibrated.
    """
    if len(doubts) < LEAST_ANSWERS:
        return default_threshold(target, len(doubts))
    known = [(doubt, bool(right)) for doubt, right in zip(doubts, correct, strict=True) if doubt is not None]
    nothing = Threshold(on="p_correct", low=None, high=None, target=target, answers=len(doubts))
    if not known:
        return nothing
    values, group = np.unique([doubt for doubt, _ in known], return_inverse=True)
    wrong = np.bincount(group, weights=[not right for _, right in known]).astype(np.int64)
    errors, decided = np.cumsum(wrong), np.cumsum(np.bincount(group)).astype(np.int64)
    bounds = error_bounds(errors, decided, confidence)
    kept = np.flatnonzero(bounds <= target)
    if kept.size == 0:
        return nothing
    last = int(kept[-1])
    low = float(values[last])
    return nothing.model_copy(
        update={
            "low": low,
            "high": low,
            "decided": int(decided[last]),
            "errors": int(errors[last]),
            "bound": float(bounds[last]),
        }
    )


def default_threshold(target: float, answers: int = 0) -> Threshold:
    """What holds without a calibration: bounds on the normalised entropy that promise nothing."""
    return Threshold(on="entropy", low=DEFAULT_LOW, high=DEFAULT_HIGH, target=target, answers=answers)
