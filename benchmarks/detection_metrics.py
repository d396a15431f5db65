"""How good a detector is, without ever holding all pixels of a test set.

Pixel metrics stream: every score falls into one of a fixed set of bins that cover all floating-point numbers, so no
range has to be known and no first pass is needed. Image metrics are exact, from one score an image. A metric that
needs both classes returns None when only one is present.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..agent.errors import InputError

_CODE_BITS = 20  # sign, 8 bits of exponent, 11 of mantissa
_N_BINS = 1 << _CODE_BITS
_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def score_bins(scores: ArrayLike) -> NDArray[np.uint32]:
    """Bin number of each score; a larger score never gets a smaller number.

    The bits of a float32 read as an integer grow with its magnitude, so their leading 20 bits are bins of equal
    *relative* width: two scores that share a bin differ by at most about 2^-11 (0.05 %) of the smaller one. Scores
    of any size have a bin, infinities included.

    Args:
        scores: numbers of any shape, not NaN.

    Raises:
        InputError: a score is NaN.
    """
    with np.errstate(over="ignore"):  # beyond float32 is its infinity, which keeps the order
        narrow = np.asarray(scores).astype(np.float32) + np.float32(0.0)  # -0.0 becomes 0.0
    if bool(np.isnan(narrow).any()):
        raise InputError("An anomaly map holds NaN.", hint="Mask padding with the lowest score instead.")
    bits = narrow.view(np.uint32)
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    bins: NDArray[np.uint32] = ordered >> np.uint32(32 - _CODE_BITS)
    return bins


class PixelCurve:
    """Pixel AUROC and AUPRO of a test set, one image at a time, in constant memory.

    Binning turns near-equal scores into ties. Within a bin that holds a share f of the normal and a share p of the
    defective pixels the exact curve is monotone inside a rectangle f x p while the binned one is its diagonal, so
    the area is off by at most f * p / 2 there: :meth:`auroc_error_bound` and :meth:`aupro_error_bound` return the
    sum of these, a certain bound for the data at hand and not an estimate. It is far below 1e-3 unless all scores
    agree to three digits.
    """

    def __init__(self) -> None:
        self._normal = np.zeros(_N_BINS, dtype=np.int64)
        self._defect = np.zeros(_N_BINS, dtype=np.int64)
        self._overlap = np.zeros(_N_BINS, dtype=np.float64)  # each component contributes 1 in total
        self.n_components = 0

    def update(self, anomaly_map: NDArray[np.floating[Any]], gt_mask: NDArray[Any]) -> None:
        """Add one image.

        Args:
            anomaly_map: (H, W) scores, unbounded, larger is more anomalous.
            gt_mask: (H, W) non-zero where defective, in the same frame.

        Raises:
            InputError: shapes that differ or a map with NaN.
        """
        from scipy.ndimage import label

        mask = np.asarray(gt_mask) != 0
        if anomaly_map.ndim != 2 or anomaly_map.shape != mask.shape:
            raise InputError(f"An anomaly map of shape {anomaly_map.shape} does not fit a mask of {mask.shape}.")
        bins = score_bins(anomaly_map)
        self._add(self._normal, bins[~mask])
        if not mask.any():
            return
        components, n_components = label(mask, structure=_EIGHT_NEIGHBOURS)
        inside = bins[mask]
        share = 1.0 / np.bincount(components.ravel(), minlength=n_components + 1)[components[mask]]
        self._add(self._defect, inside)
        self._add(self._overlap, inside, share)
        self.n_components += int(n_components)

    @staticmethod
    def _add(histogram: NDArray[Any], bins: NDArray[np.uint32], weights: NDArray[np.float64] | None = None) -> None:
        if bins.size:
            low = int(bins.min())  # a map touches a small stretch of the bins
            counts = np.bincount(bins - np.uint32(low), weights=weights)
            histogram[low : low + counts.size] += counts

    def auroc(self) -> float | None:
        """Area under the ROC over all pixels seen, in [0, 1]; None when they are of one class."""
        rates = self._rates(self._defect)
        if rates is None:
            return None
        fpr, tpr = rates
        return _area_under(tpr, fpr)

    def auroc_error_bound(self) -> float | None:
        """Largest possible distance of :meth:`auroc` from the value without bins."""
        rates = self._rates(self._defect)
        if rates is None:
            return None
        fpr, tpr = rates
        return float(0.5 * (np.diff(fpr) * np.diff(tpr)).sum())

    def aupro(self, fpr_limit: float = 0.3) -> float | None:
        """Area under the per-region overlap up to a false-positive rate, divided by that rate.

        The overlap at a threshold is the mean over all defect regions (8-connected) of the share of the region that
        reaches it, whatever the size of the region (Bergmann et al., MVTec AD, 2021). Because every pixel adds one
        over the size of its region, one histogram replaces one per region. Between thresholds the curve is straight.

        Args:
            fpr_limit: upper end of the false-positive rate, in (0, 1].

        Returns:
            A value in [0, 1], or None without a defect region or without a normal pixel.
        """
        rates = self._rates(self._overlap)
        if rates is None:
            return None
        fpr, pro = rates
        inner = int(np.searchsorted(fpr, fpr_limit, side="right"))  # the first point beyond the limit
        fpr = np.append(fpr[:inner], fpr_limit)
        pro = np.append(pro[:inner], np.interp(fpr_limit, *rates) if fpr[inner - 1] < fpr_limit else pro[inner - 1])
        return _area_under(pro, fpr) / fpr_limit

    def aupro_error_bound(self, fpr_limit: float = 0.3) -> float | None:
        """Largest possible distance of :meth:`aupro` from the value without bins."""
        rates = self._rates(self._overlap)
        if rates is None:
            return None
        fpr, pro = rates
        whole = fpr[1:] <= fpr_limit
        area = 0.5 * (np.diff(fpr) * np.diff(pro))[whole].sum()
        cut = int(whole.sum())  # the step that crosses the limit is bounded by its whole rectangle up to the limit
        if cut < whole.size:
            area += (fpr_limit - fpr[cut]) * (pro[cut + 1] - pro[cut])
        return float(area / fpr_limit)

    def _rates(self, positive: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """False-positive rate and share of ``positive`` at falling thresholds, both from 0 to 1."""
        n_normal, n_positive = self._normal.sum(), positive.sum()
        if n_normal == 0 or n_positive == 0:
            return None
        used = np.flatnonzero(self._normal + self._defect)[::-1]
        fpr = np.concatenate([[0.0], np.cumsum(self._normal[used]) / n_normal])
        reached = np.concatenate([[0.0], np.cumsum(positive[used]) / n_positive])
        return fpr, reached


def image_auroc(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Probability that a defective image scores above a good one, ties counting half; None for a single class."""
    curve = _counts_at_thresholds(scores, labels)
    if curve is None:
        return None
    hits, false_alarms = (np.concatenate([[0], part]) for part in curve)
    return _area_under(hits / hits[-1], false_alarms / false_alarms[-1])


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


def _area_under(y: NDArray[Any], x: NDArray[Any]) -> float:
    return float((0.5 * (y[1:] + y[:-1]) * np.diff(x)).sum())  # np.trapezoid needs numpy 2


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
