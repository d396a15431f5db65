"""How good decisions about whole images are: exact, from one score an image (for pixels see ``pixel_curve``).

A metric that needs both classes returns None when only one is present.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..agent.errors import InputError
from .pixel_curve import area_under


def image_auroc(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Probability that a defective image scores above a good one, ties counting half; None for a single class."""
    curve = _counts_at_thresholds(scores, labels)
    if curve is None:
        return None
    hits, false_alarms = (np.concatenate([[0], part]) for part in curve)
    return area_under(hits / hits[-1], false_alarms / false_alarms[-1])


def image_average_precision(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Precision at each threshold weighted by the recall it adds, no interpolation; None for a single class."""
    curve = _counts_at_thresholds(scores, labels)
    if curve is None:
        return None
    hits, false_alarms = curve
    precision = hits / (hits + false_alarms)
    return float((np.diff(hits, prepend=0) / hits[-1] * precision).sum())


def image_f1_max(scores: ArrayLike, labels: ArrayLike) -> tuple[float, float] | None:
    """Best F1 over all thresholds and the highest threshold (score >= it is NG) that gives it; None for one class."""
    curve = _counts_at_thresholds(scores, labels)
    if curve is None:
        return None
    hits, false_alarms = curve
    f1 = 2.0 * hits / (hits + false_alarms + hits[-1])
    best = int(np.argmax(f1))
    thresholds = np.unique(np.asarray(scores, dtype=np.float64))[::-1]
    return float(f1[best]), float(thresholds[best])


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, n_bins: int = 15) -> float | None:
    """Mean distance between stated probability and observed rate over bins of equal width, weighted by their size.

    Args:
        probabilities: (n,) stated probabilities in [0, 1].
        labels: (n,) non-zero where it came true.
        n_bins: bins (0, 1/n], ..., (1 - 1/n, 1]; a probability of 0 belongs to the first (Guo et al. 2017).

    Returns:
        A value in [0, 1], or None without data.
    """
    stated, true = _aligned(probabilities, labels)
    if stated.size == 0:
        return None
    bins = np.clip(np.ceil(stated * n_bins).astype(np.intp) - 1, 0, n_bins - 1)
    gap = np.bincount(bins, weights=stated - true, minlength=n_bins)
    return float(np.abs(gap).sum() / stated.size)


def brier_score(probabilities: ArrayLike, labels: ArrayLike) -> float | None:
    """Mean squared distance between stated probability and outcome (0 or 1); None without data."""
    stated, true = _aligned(probabilities, labels)
    return float(((stated - true) ** 2).mean()) if stated.size else None


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact two-sided binomial interval of a rate; (0, 1) without trials (Clopper & Pearson 1934)."""
    from scipy.special import betaincinv

    if not 0 <= successes <= trials:
        raise InputError(f"A rate needs 0 <= successes <= trials, got {successes} of {trials}.")
    tail = 0.5 * (1.0 - confidence)
    low = float(betaincinv(successes, trials - successes + 1, tail)) if successes > 0 else 0.0
    high = float(betaincinv(successes + 1, trials - successes, 1.0 - tail)) if successes < trials else 1.0
    return low, high


def risk_coverage(confidences: ArrayLike, correct: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Error rate among the i most confident decisions, for every i (Geifman & El-Yaniv 2017).

    Decisions with equal confidence count with the mean error of their group, so the order of the input is without
    influence.

    Args:
        confidences: (n,) larger is surer.
        correct: (n,) non-zero where the decision was right.

    Returns:
        Coverage i / n and risk, both (n,).
    """
    sure, right = _aligned(confidences, correct)
    n = sure.size
    if n == 0:
        return np.zeros(0), np.zeros(0)
    _, group = np.unique(-sure, return_inverse=True)
    errors = np.bincount(group, weights=1.0 - right) / np.bincount(group)
    accepted = np.arange(1, n + 1)
    return accepted / n, np.cumsum(errors[np.sort(group)]) / accepted


def aurc(confidences: ArrayLike, correct: ArrayLike) -> float | None:
    """Mean risk over all coverages, 0 is best; None without data."""
    _, risk = risk_coverage(confidences, correct)
    return float(risk.mean()) if risk.size else None


def risk_at_coverage(confidences: ArrayLike, correct: ArrayLike, coverage: float = 0.8) -> float | None:
    """Error rate when only the surest share ``coverage`` (rounded up to whole decisions) is decided."""
    _, risk = risk_coverage(confidences, correct)
    if not risk.size:
        return None
    return float(risk[max(math.ceil(coverage * risk.size - 1e-9), 1) - 1])


def _aligned(values: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    numbers = np.asarray(values, dtype=np.float64)
    true = (np.asarray(labels) != 0).astype(np.float64)
    if numbers.ndim != 1 or numbers.shape != true.shape:
        raise InputError(f"A metric got {numbers.shape} values for {true.shape} labels.")
    if bool(np.isnan(numbers).any()):
        raise InputError("A metric got NaN.", hint="Leave out the images without a score and say how many.")
    return numbers, true


def _counts_at_thresholds(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Defective and good images at or above each distinct score, from the highest down; None for a single class."""
    numbers, true = _aligned(scores, labels)
    if not 0 < true.sum() < true.size:
        return None
    _, group = np.unique(-numbers, return_inverse=True)
    hits = np.cumsum(np.bincount(group, weights=true)).astype(np.int64)
    false_alarms = np.cumsum(np.bincount(group, weights=1.0 - true)).astype(np.int64)
    return hits, false_alarms
