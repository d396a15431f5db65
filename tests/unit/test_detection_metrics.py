"""Detection metrics: hand-worked numbers, parity with scikit-learn and a brute-force per-region overlap."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.ndimage import label
from scipy.stats import beta
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from flawscope.agent.errors import InputError
from flawscope.benchmarks import detection_metrics as dm

Pairs = list[tuple[NDArray[np.float64], NDArray[np.bool_]]]


def images(seed: int, scale: float = 1.0, offset: float = 0.0, decimals: int | None = None) -> Pairs:
    rng = np.random.default_rng(seed)
    made: Pairs = []
    for _ in range(4):
        mask = np.zeros((24, 31), dtype=bool)
        mask[2:5, 3:9] = mask[12:20, 20:23] = mask[20, 23] = True  # the last pixel touches a region at its corner
        scores = rng.gamma(2.0, 1.0, mask.shape) + 1.5 * mask * rng.random()
        scores = scores if decimals is None else scores.round(decimals)
        made.append((scores * scale + offset, mask))
    return [*made, (rng.gamma(2.0, 1.0, (24, 31)) * scale + offset, np.zeros((24, 31), dtype=bool))]


def curve_of(pairs: Pairs) -> dm.PixelCurve:
    curve = dm.PixelCurve()
    for scores, mask in pairs:
        curve.update(scores, mask)
    return curve


def brute_force_aupro(pairs: Pairs, limit: float) -> float:
    """Every distinct score as a threshold, every region by itself."""
    normal = np.concatenate([scores[~mask] for scores, mask in pairs])
    regions = []
    for scores, mask in pairs:
        found, n = label(mask, structure=np.ones((3, 3)))
        regions += [scores[found == i] for i in range(1, n + 1)]
    thresholds = np.unique(np.concatenate([scores.ravel() for scores, _ in pairs]))[::-1]
    points = [(0.0, 0.0)]
    points += [((normal >= t).mean(), np.mean([(region >= t).mean() for region in regions])) for t in thresholds]
    area = 0.0
    for (f0, p0), (f1, p1) in pairwise(points):
        if f0 >= limit:
            break
        if f1 > limit:
            f1, p1 = limit, p0 + (p1 - p0) * (limit - f0) / (f1 - f0)
        area += (f1 - f0) * (p0 + p1) / 2
    return area / limit


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e6, 0.0), (1e-6, 0.0), (1.0, -3.0), (1.0, 500.0)])
def test_pixel_auroc_is_within_its_error_bound(scale: float, offset: float) -> None:
    pairs = images(0, scale, offset)
    curve = curve_of(pairs)
    exact = roc_auc_score(np.concatenate([m.ravel() for _, m in pairs]), np.concatenate([s.ravel() for s, _ in pairs]))
    found, bound = curve.auroc(), curve.auroc_error_bound()
    assert found is not None
    assert bound is not None
    assert abs(found - exact) <= bound + 1e-12
    assert bound < (1e-3 if offset <= 0.0 else 0.05)  # an offset of 500 leaves a dozen bins, and the bound says so


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_aupro_is_within_its_error_bound(limit: float, offset: float) -> None:
    pairs = images(1, offset=offset)
    curve = curve_of(pairs)
    found, bound = curve.aupro(limit), curve.aupro_error_bound(limit)
    assert curve.n_components == 8  # 8-connected: the corner pixel belongs to its region
    assert found is not None
    assert bound is not None
    assert abs(found - brute_force_aupro(pairs, limit)) <= bound + 1e-12
    assert bound < (2e-3 if offset == 0.0 else 0.1)


def test_ties_are_exact_when_every_score_has_its_own_bin() -> None:
    pairs = [(np.floor(scores * 2), mask) for scores, mask in images(2)]
    curve = curve_of(pairs)
    labels, scores = np.concatenate([m.ravel() for _, m in pairs]), np.concatenate([s.ravel() for s, _ in pairs])
    assert curve.auroc() == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert curve.aupro(0.3) == pytest.approx(brute_force_aupro(pairs, 0.3), abs=1e-12)


def test_pixel_curve_by_hand() -> None:
    # Region 1 (one pixel) scores 4; region 2 (two pixels) 3 and 1; normal pixels 2 and five times 0.
    scores = np.array([[4.0, 0, 3.0], [0, 0, 1.0], [2.0, 0, 0]])
    mask = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 0]])
    curve = curve_of([(scores, mask)])
    assert curve.auroc() == pytest.approx(1 - 1 / 18)  # one wrong pair (1 below 2) of 3 x 6
    # Overlap 3/4 until the normal pixel at 1/6, then 1: up to 0.3 that is 3/4 * 1/6 + 1 * (0.3 - 1/6).
    assert curve.aupro(0.3) == pytest.approx((0.75 / 6 + 0.3 - 1 / 6) / 0.3)


def test_a_small_region_counts_as_much_as_a_large_one() -> None:
    mask = np.zeros((10, 10), dtype=bool)
    mask[0, 0], mask[3:9, 3:9] = True, True
    scores = np.where(mask, 1.0, 0.5)
    scores[0, 0] = 0.1  # missed until every normal pixel is marked
    assert curve_of([(scores, mask)]).aupro(0.3) == pytest.approx(0.5)


def test_order_of_images_does_not_matter() -> None:
    pairs = images(3)
    assert curve_of(pairs).aupro() == pytest.approx(curve_of(pairs[::-1]).aupro(), abs=1e-12)
    assert curve_of(pairs).auroc() == curve_of(pairs[::-1]).auroc()


def test_one_class_has_no_value() -> None:
    good = curve_of([(np.ones((3, 3)), np.zeros((3, 3), dtype=bool))])
    bad = curve_of([(np.ones((3, 3)), np.ones((3, 3), dtype=bool))])
    for curve in (good, bad, dm.PixelCurve()):
        assert curve.auroc() is None
        assert curve.aupro() is None
        assert curve.auroc_error_bound() is None
        assert curve.aupro_error_bound() is None
    for metric in (dm.image_auroc, dm.image_average_precision, dm.image_f1_max):
        assert metric([0.1, 0.2], [0, 0]) is None
        assert metric([0.1, 0.2], [1, 1]) is None
        assert metric([], []) is None


def test_nan_and_mismatch_are_refused() -> None:
    with pytest.raises(InputError, match="NaN"):
        dm.PixelCurve().update(np.array([[np.nan, 1.0]]), np.array([[0, 1]]))
    with pytest.raises(InputError, match="does not fit"):
        dm.PixelCurve().update(np.ones((2, 3)), np.ones((3, 2)))
    with pytest.raises(InputError, match="NaN"):
        dm.image_auroc([np.nan, 1.0], [0, 1])
    with pytest.raises(InputError, match="labels"):
        dm.brier_score([0.5], [0, 1])


@given(
    hnp.arrays(np.float64, st.integers(2, 40), elements=st.floats(-1e30, 1e30)),
)
def test_bins_keep_the_order_and_the_relative_width(scores: NDArray[np.float64]) -> None:
    ordered = np.sort(scores)
    bins = dm.score_bins(ordered)
    assert (np.diff(bins.astype(np.int64)) >= 0).all()
    normal = np.abs(ordered) > 1e-30
    low, high, same = ordered[:-1], ordered[1:], bins[:-1] == bins[1:]
    shared = same & normal[:-1] & normal[1:]
    assert (high - low <= 1.001 * 2.0**-11 * np.minimum(np.abs(low), np.abs(high)))[shared].all()


def test_extreme_scores_have_bins() -> None:
    bins = dm.score_bins([-np.inf, -1e300, -1.0, -0.0, 0.0, 1e-3, 1.0, 1e300, np.inf])
    assert bins[3] == bins[4]
    assert (np.diff(bins.astype(np.int64))[[1, 2, 4, 5, 6]] > 0).all()
    assert bins[0] == bins[1]
    assert bins[-1] == bins[-2]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40))
def test_image_metrics_agree_with_scikit_learn(items: list[tuple[int, bool]]) -> None:
    scores, labels = np.array([s for s, _ in items]) / 6, np.array([int(bad) for _, bad in items])
    if labels.min() == labels.max():
        assert dm.image_auroc(scores, labels) is None
        return
    assert dm.image_auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))
    assert dm.image_average_precision(scores, labels) == pytest.approx(average_precision_score(labels, scores))
    best = dm.image_f1_max(scores, labels)
    assert best is not None
    flagged = scores >= best[1]
    assert best[0] == pytest.approx(2 * (flagged & (labels == 1)).sum() / (flagged.sum() + labels.sum()))
    assert all(
        best[0] >= 2 * ((scores >= t) & (labels == 1)).sum() / ((scores >= t).sum() + labels.sum()) - 1e-12
        for t in scores
    )


def test_image_metrics_by_hand() -> None:
    scores, labels = [0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0]
    assert dm.image_auroc(scores, labels) == 0.75
    assert dm.image_average_precision(scores, labels) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert dm.image_f1_max(scores, labels) == pytest.approx((0.8, 0.7))


def test_calibration_by_hand() -> None:
    # Bin (0.2, 0.267]: states 0.25 twice, one comes true: gap 2 * |0.25 - 0.5|. Bin (0.933, 1]: 1.0, false: gap 1.
    stated, true = [0.25, 0.25, 1.0, 0.0], [1, 0, 0, 0]
    assert dm.expected_calibration_error(stated, true) == pytest.approx((0.5 + 1.0 + 0.0) / 4)
    assert dm.brier_score(stated, true) == pytest.approx((0.5625 + 0.0625 + 1.0) / 4)
    assert dm.brier_score(stated, true) == pytest.approx(brier_score_loss(true, stated))
    assert dm.expected_calibration_error([], []) is None
    assert dm.brier_score([], []) is None


def test_calibration_bins_include_their_upper_edge() -> None:
    # 0.2 = 3/15 belongs to (2/15, 3/15] with 0.15, so their gaps cancel; split apart they would not.
    assert dm.expected_calibration_error([0.2, 0.15], [0, 1], n_bins=15) == pytest.approx(abs(0.35 - 1) / 2)


@pytest.mark.parametrize(("successes", "trials"), [(0, 20), (3, 40), (20, 20), (7, 9)])
def test_clopper_pearson_is_the_beta_quantile(successes: int, trials: int) -> None:
    low, high = dm.clopper_pearson(successes, trials)
    expected_low = beta.ppf(0.025, successes, trials - successes + 1) if successes else 0.0
    expected_high = beta.ppf(0.975, successes + 1, trials - successes) if successes < trials else 1.0
    assert (low, high) == pytest.approx((expected_low, expected_high))


def test_clopper_pearson_edges() -> None:
    assert dm.clopper_pearson(0, 0) == (0.0, 1.0)
    assert dm.clopper_pearson(0, 10)[1] == pytest.approx(1 - 0.025 ** (1 / 10))  # closed form for no success
    with pytest.raises(InputError, match="successes"):
        dm.clopper_pearson(3, 2)


def test_risk_coverage_by_hand() -> None:
    coverage, risk = dm.risk_coverage([0.9, 0.5, 0.7, 0.6], [1, 0, 0, 1])
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert risk == pytest.approx([0.0, 1 / 2, 1 / 3, 1 / 2])
    assert dm.aurc([0.9, 0.5, 0.7, 0.6], [1, 0, 0, 1]) == pytest.approx((0.0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert dm.risk_at_coverage([0.9, 0.5, 0.7, 0.6], [1, 0, 0, 1], 0.7) == pytest.approx(1 / 3)
    assert dm.risk_at_coverage([0.9, 0.5, 0.7, 0.6], [1, 0, 0, 1], 0.5) == pytest.approx(1 / 2)


def test_equal_confidence_makes_risk_flat_in_any_order() -> None:
    for correct in ([1, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 0]):
        assert dm.risk_coverage([0.5] * 4, correct)[1] == pytest.approx([0.25] * 4)
    assert dm.aurc([], []) is None
    assert dm.risk_at_coverage([], []) is None
