"""Pixel metrics: hand-worked numbers, parity with scikit-learn and with an exact per-region overlap without bins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label, zoom
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from flawscope.agent.errors import InputError
from flawscope.benchmarks import pixel_curve
from flawscope.benchmarks.pixel_curve import PixelCurve, score_codes

Pairs = list[tuple[NDArray[np.floating], NDArray[np.bool_]]]
RECORDED = Path(__file__).parents[1] / "data" / "aupro.npz"
"""Maps, masks and what anomalib 2.7.0 and thresholding region by region with scikit-image 0.26.0 say of them."""


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


def patch_maps(seed: int, low: float, high: float, side: int = 96) -> Pairs:
    """Maps as experts make them: a patch grid, enlarged and smoothed, squeezed between two values."""
    rng = np.random.default_rng(seed)
    made: Pairs = []
    for number in range(6):
        field = gaussian_filter(rng.normal(size=(side, side)), 4)
        mask = field > np.quantile(field, 0.94) if number % 3 else np.zeros((side, side), bool)
        grid = zoom(gaussian_filter(mask.astype(float), 3), 1 / 8, order=1) + 0.15 * rng.random((side // 8, side // 8))
        scores = gaussian_filter(zoom(grid, 8, order=1), 2)
        made.append(((low + (high - low) * scores).astype(np.float32), mask))
    return made


def curve_of(pairs: Pairs) -> PixelCurve:
    curve = PixelCurve()
    for scores, mask in pairs:
        curve.update(scores, mask)
    return curve


def flat(pairs: Pairs) -> tuple[NDArray[np.bool_], NDArray[np.floating]]:
    return np.concatenate([m.ravel() for _, m in pairs]), np.concatenate([s.ravel() for s, _ in pairs])


def exact_aupro(pairs: Pairs, limit: float = 0.3) -> float:
    """Every distinct score is a threshold and every region has its own curve; nothing is binned or weighted."""
    labels, scores = flat(pairs)
    thresholds = np.unique(scores)[::-1]

    def reached(values: NDArray[np.floating]) -> NDArray[np.float64]:
        ordered = np.sort(values)
        return 1.0 - np.searchsorted(ordered, thresholds, side="left") / ordered.size

    overlaps = []
    for values, mask in pairs:
        found, n = label(mask, structure=np.ones((3, 3)))
        overlaps += [reached(values[found == region]) for region in range(1, n + 1)]
    fpr = np.concatenate([[0.0], reached(scores[~labels])])
    pro = np.concatenate([[0.0], np.mean(overlaps, axis=0)])
    end = int(np.argmax(fpr > limit)) if fpr[-1] > limit else fpr.size
    if end < fpr.size:
        share = (limit - fpr[end - 1]) / (fpr[end] - fpr[end - 1])
        last = pro[end - 1] + share * (pro[end] - pro[end - 1])
        fpr, pro = np.append(fpr[:end], limit), np.append(pro[:end], last)
    return float(np.sum(np.diff(fpr) * (pro[1:] + pro[:-1]) / 2) / limit)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (0.02, 3.0), (0.49, 0.51), (0.4999, 0.5001), (-1.0, 1.0), (1e-9, 1e9)]
)
def test_aupro_agrees_with_the_exact_one_on_maps_of_any_spread(seed: int, low: float, high: float) -> None:
    pairs = patch_maps(seed, low, high)
    assert curve_of(pairs).aupro() == pytest.approx(exact_aupro(pairs), abs=1e-3)


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_aupro_agrees_with_the_exact_one_on_random_maps(seed: int, limit: float) -> None:
    pairs = images(seed)
    assert curve_of(pairs).aupro(limit) == pytest.approx(exact_aupro(pairs, limit), abs=1e-3)


def test_aupro_agrees_with_other_implementations() -> None:
    with np.load(RECORDED) as held:
        for name in held["names"]:
            pairs = list(zip(held[f"{name}_maps"], held[f"{name}_masks"] != 0, strict=True))
            ours = curve_of(pairs).aupro()
            assert ours == pytest.approx(float(held[f"{name}_anomalib"]), abs=1e-3), name
            assert ours == pytest.approx(float(held[f"{name}_skimage"]), abs=1e-3), name
            assert exact_aupro(pairs) == pytest.approx(float(held[f"{name}_skimage"]), abs=1e-9), name


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e6, 0.0), (1e-6, 0.0), (1.0, -3.0), (1.0, 500.0)])
def test_pixel_auroc_is_within_its_error_bound(scale: float, offset: float) -> None:
    pairs = images(0, scale, offset)
    curve = curve_of(pairs)
    found, bound = curve.auroc(), curve.auroc_error_bound()
    assert found is not None
    assert bound is not None
    assert abs(found - roc_auc_score(*flat(pairs))) <= bound + 1e-12
    assert bound < 1e-3


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_the_error_bounds_hold_when_bins_are_scarce(
    monkeypatch: pytest.MonkeyPatch, limit: float, offset: float
) -> None:
    monkeypatch.setattr(pixel_curve, "_MAX_BINS", 64)
    pairs = images(1, offset=offset)
    curve = curve_of(pairs)
    assert curve.n_components == 8  # 8-connected: the corner pixel belongs to its region
    aupro, aupro_bound = curve.aupro(limit), curve.aupro_error_bound(limit)
    auroc, auroc_bound = curve.auroc(), curve.auroc_error_bound()
    assert aupro is not None
    assert aupro_bound is not None
    assert auroc is not None
    assert auroc_bound is not None
    assert 1e-4 < aupro_bound < 0.2  # so scarce that the bound says something
    assert abs(aupro - exact_aupro(pairs, limit)) <= aupro_bound + 1e-12
    assert abs(auroc - roc_auc_score(*flat(pairs))) <= auroc_bound + 1e-12


def test_ties_are_exact() -> None:
    pairs = [(np.floor(scores * 2), mask) for scores, mask in images(2)]
    curve = curve_of(pairs)
    assert curve.auroc() == pytest.approx(roc_auc_score(*flat(pairs)), abs=1e-12)
    assert curve.aupro(0.3) == pytest.approx(exact_aupro(pairs, 0.3), abs=1e-12)


def test_average_precision_and_best_f1_agree_with_scikit_learn() -> None:
    pairs = [(np.floor(scores * 8), mask) for scores, mask in images(4)]
    curve = curve_of(pairs)
    precision, recall, _ = precision_recall_curve(*flat(pairs))
    assert curve.average_precision() == pytest.approx(average_precision_score(*flat(pairs)), abs=1e-12)
    assert curve.f1_max() == pytest.approx((2 * precision * recall / np.maximum(precision + recall, 1e-12)).max())


def test_pixel_curve_by_hand() -> None:
    # Region 1 (one pixel) scores 4; region 2 (two pixels) 3 and 1; normal pixels 2 and five times 0.
    scores = np.array([[4.0, 0, 3.0], [0, 0, 1.0], [2.0, 0, 0]])
    mask = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 0]])
    curve = curve_of([(scores, mask)])
    assert curve.auroc() == pytest.approx(1 - 1 / 18)  # one wrong pair (1 below 2) of 3 x 6
    # Overlap 3/4 until the normal pixel at 1/6, then 1: up to 0.3 that is 3/4 * 1/6 + 1 * (0.3 - 1/6).
    assert curve.aupro(0.3) == pytest.approx((0.75 / 6 + 0.3 - 1 / 6) / 0.3)
    assert curve.average_precision() == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert curve.f1_max() == pytest.approx(6 / 7)  # all three defective pixels at the price of one normal


def test_a_small_region_counts_as_much_as_a_large_one() -> None:
    mask = np.zeros((10, 10), dtype=bool)
    mask[0, 0], mask[3:9, 3:9] = True, True
    scores = np.where(mask, 1.0, 0.5)
    scores[0, 0] = 0.1  # missed until every normal pixel is marked
    assert curve_of([(scores, mask)]).aupro(0.3) == pytest.approx(0.5)


@settings(max_examples=30)
@given(st.permutations(range(5)), st.integers(1, 4), st.sampled_from([16, 1 << 18]))
def test_neither_order_nor_parts_nor_storage_matter(order: list[int], cut: int, bins: int) -> None:
    pairs = [(scores * 10.0**-number, mask) for number, (scores, mask) in enumerate(images(3))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixel_curve, "_MAX_BINS", bins)
        whole = curve_of(pairs)
        merged = PixelCurve()
        for part in (order[:cut], order[cut:]):
            merged.merge(PixelCurve.from_bytes(curve_of([pairs[i] for i in part]).to_bytes()))
    for metric in ("auroc", "aupro", "average_precision", "f1_max", "auroc_error_bound", "aupro_error_bound"):
        assert getattr(merged, metric)() == pytest.approx(getattr(whole, metric)(), abs=1e-12)
    assert merged.auroc() == whole.auroc()
    assert merged.n_components == whole.n_components


def test_one_class_has_no_value() -> None:
    good = curve_of([(np.ones((3, 3)), np.zeros((3, 3), dtype=bool))])
    bad = curve_of([(np.ones((3, 3)), np.ones((3, 3), dtype=bool))])
    empty = PixelCurve.from_bytes(PixelCurve().to_bytes())
    for curve in (good, bad, empty):
        assert curve.auroc() is None
        assert curve.aupro() is None
        assert curve.average_precision() is None
        assert curve.f1_max() is None
        assert curve.auroc_error_bound() is None
        assert curve.aupro_error_bound() is None
    good.merge(empty)
    good.merge(bad)
    assert good.auroc() == 0.5


def test_nan_and_mismatch_are_refused() -> None:
    with pytest.raises(InputError, match="NaN"):
        PixelCurve().update(np.array([[np.nan, 1.0]]), np.array([[0, 1]]))
    with pytest.raises(InputError, match="does not fit"):
        PixelCurve().update(np.ones((2, 3)), np.ones((3, 2)))


@given(hnp.arrays(np.float32, st.integers(2, 40), elements=st.floats(allow_nan=False, width=32)))
def test_codes_keep_the_order_and_tell_every_two_numbers_apart(scores: NDArray[np.float32]) -> None:
    ordered = np.sort(scores)
    codes = score_codes(ordered).astype(np.int64)
    assert (np.diff(codes) >= 0).all()
    assert ((np.diff(codes) == 0) == (ordered[1:] == ordered[:-1])).all()


def test_extreme_scores_have_codes() -> None:
    codes = score_codes([-np.inf, -1e300, -1.0, -0.0, 0.0, 1e-3, 1.0, 1e300, np.inf]).astype(np.int64)
    assert (np.diff(codes) > 0).tolist() == [False, True, True, False, True, True, True, False]
