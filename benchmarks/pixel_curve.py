"""Pixel metrics of a test set, one picture at a time, in constant memory.

Every score has a place among all float32 numbers; counting places instead of keeping scores needs no range in advance
and no second pass. While the scores of a set span few places each is counted by itself, and the curve is exact; when
they span more than fit, neighbouring places are joined until they do.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..agent.errors import InputError

_MAX_BINS = 1 << 18
"""6 MB a curve. Scores from 0.05 to 3 get 40,000 bins an octave, those from 0.48 to 0.52 every float32 in four."""
_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def score_codes(scores: ArrayLike) -> NDArray[np.uint32]:
    """Place of each score among the float32 numbers, in their order; equal only for scores that are equal as float32.

    The bits of a float32 read as an integer grow with its magnitude. Infinities have a place like any number.

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
    codes: NDArray[np.uint32] = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return codes


class PixelCurve:
    """Pixel AUROC, AUPRO, average precision and best F1 of a test set.

    Joining places turns near-equal scores into ties. Within a bin that holds a share f of the normal and a share p of
    the defective pixels the exact curve is monotone inside a rectangle f x p while the binned one is its diagonal, so
    the area is off by at most f * p / 2 there: :meth:`auroc_error_bound` and :meth:`aupro_error_bound` return the
    sum of these, a certain bound for the data at hand and not an estimate.

    Neither the bins nor any count depends on the order of the pictures.
    """

    def __init__(self) -> None:
        self._first, self._last = 2**32, -1  # codes seen
        self._shift = 0  # a bin joins 2**shift codes
        self._normal = np.zeros(0, dtype=np.int64)
        self._defect = np.zeros(0, dtype=np.int64)
        self._overlap = np.zeros(0, dtype=np.float64)  # each component contributes 1 in total
        self.n_components = 0

    def update(self, anomaly_map: NDArray[np.floating[Any]], gt_mask: NDArray[Any]) -> None:
        """Add one picture.

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
        codes = score_codes(anomaly_map)
        if not codes.size:
            return
        self._cover(int(codes.min()), int(codes.max()))
        bins = (codes >> np.uint32(self._shift)) - np.uint32(self._first >> self._shift)
        self._normal += np.bincount(bins[~mask], minlength=self._normal.size)
        if not mask.any():
            return
        components, n_components = label(mask, structure=_EIGHT_NEIGHBOURS)
        inside = bins[mask]
        share = 1.0 / np.bincount(components.ravel(), minlength=n_components + 1)[components[mask]]
        self._defect += np.bincount(inside, minlength=self._defect.size)
        self._overlap += np.bincount(inside, weights=share, minlength=self._overlap.size)
        self.n_components += int(n_components)

    def merge(self, other: PixelCurve) -> None:
        """Add the pictures of another curve."""
        if not other._normal.size:
            return
        self._cover(other._first, other._last)
        start = (other._first >> self._shift) - (self._first >> self._shift)
        for name in ("_normal", "_defect", "_overlap"):
            part = _join(getattr(other, name), other._first >> other._shift, self._shift - other._shift)
            getattr(self, name)[start : start + part.size] += part
        self.n_components += other.n_components

    def _cover(self, first: int, last: int) -> None:
        """Make room for codes, joining bins where they become too many."""
        first, last = min(first, self._first), max(last, self._last)
        if (first, last) == (self._first, self._last):
            return
        shift = self._shift
        while (last >> shift) - (first >> shift) >= _MAX_BINS:
            shift += 1
        size = (last >> shift) - (first >> shift) + 1
        for name in ("_normal", "_defect", "_overlap"):
            counts = getattr(self, name)
            grown = np.zeros(size, counts.dtype)
            if counts.size:
                old = _join(counts, self._first >> self._shift, shift - self._shift)
                start = (self._first >> shift) - (first >> shift)
                grown[start : start + old.size] = old
            setattr(self, name, grown)
        self._first, self._last, self._shift = first, last, shift

    def to_bytes(self) -> bytes:
        """All counts, compressed; some 10 KB for the map of one picture."""
        used = np.flatnonzero(self._normal + self._defect)
        held = {
            "head": np.array([self._first, self._last, self._shift, self.n_components], np.int64),
            "gaps": np.diff(used, prepend=0).astype(np.uint32),
            "normal": self._normal[used].astype(np.uint32),
            "defect": self._defect[used].astype(np.uint32),
            "overlap": self._overlap[used[self._defect[used] > 0]],
        }
        with io.BytesIO() as buffer:
            np.savez_compressed(buffer, **held)  # type: ignore[arg-type]
            return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> PixelCurve:
        """The curve that :meth:`to_bytes` wrote."""
        curve = cls()
        with np.load(io.BytesIO(data), allow_pickle=False) as held:
            first, last, curve._shift, curve.n_components = (int(value) for value in held["head"])
            if last >= 0:
                curve._cover(first, last)
            used, defect = np.cumsum(held["gaps"], dtype=np.int64), held["defect"].astype(np.int64)
            curve._normal[used], curve._defect[used] = held["normal"], defect
            curve._overlap[used[defect > 0]] = held["overlap"]
        return curve

    def auroc(self) -> float | None:
        """Area under the ROC over all pixels seen, in [0, 1]; None when they are of one class."""
        rates = self._rates(self._defect)
        if rates is None:
            return None
        fpr, tpr = rates
        return area_under(tpr, fpr)

    def auroc_error_bound(self) -> float | None:
        """Largest possible distance of :meth:`auroc` from the value without bins."""
        rates = self._rates(self._defect)
        if rates is None:
            return None
        fpr, tpr = rates
        return float(0.5 * (np.diff(fpr) * np.diff(tpr)).sum())

    def average_precision(self) -> float | None:
        """Precision at each threshold weighted by the recall it adds; None when the pixels are of one class."""
        counts = self._counts()
        if counts is None:
            return None
        hits, false_alarms = counts
        return float((np.diff(hits, prepend=0) / hits[-1] * (hits / (hits + false_alarms))).sum())

    def f1_max(self) -> float | None:
        """Best F1 over all thresholds: an oracle's threshold, not one to be had without labels."""
        counts = self._counts()
        if counts is None:
            return None
        hits, false_alarms = counts
        return float((2.0 * hits / (hits + false_alarms + hits[-1])).max())

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
        return area_under(pro, fpr) / fpr_limit

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

    def _counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Defective and normal pixels at or above falling thresholds."""
        if not self._defect.any() or not self._normal.any():
            return None
        used = np.flatnonzero(self._normal + self._defect)[::-1]
        return np.cumsum(self._defect[used]), np.cumsum(self._normal[used])

    def _rates(self, positive: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """False-positive rate and share of ``positive`` at falling thresholds, both from 0 to 1."""
        n_normal, n_positive = self._normal.sum(), positive.sum()
        if n_normal == 0 or n_positive == 0:
            return None
        used = np.flatnonzero(self._normal + self._defect)[::-1]
        fpr = np.concatenate([[0.0], np.cumsum(self._normal[used]) / n_normal])
        reached = np.concatenate([[0.0], np.cumsum(positive[used]) / n_positive])
        return fpr, reached


def area_under(y: NDArray[Any], x: NDArray[Any]) -> float:
    """Trapezoids under the points (x, y), x ascending."""
    return float((0.5 * (y[1:] + y[:-1]) * np.diff(x)).sum())  # np.trapezoid needs numpy 2


def _join(counts: NDArray[Any], first_bin: int, shift: int) -> NDArray[Any]:
    """Sums over groups of ``2**shift`` neighbouring bins, aligned to multiples of it."""
    if shift <= 0:
        return counts
    width = 1 << shift
    starts = np.arange(-(first_bin % width), counts.size, width)
    return np.asarray(np.add.reduceat(counts, np.maximum(starts, 0)))
