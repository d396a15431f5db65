"""Image metrics: hand-worked numbers and parity with scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from flawscope.agent.errors import InputError
from flawscope.benchmarks import detection_metrics as dm


def test_one_class_has_no_value() -> None:
    for metric in (dm.image_auroc, dm.image_average_precision, dm.image_f1_max):
        assert metric([0.1, 0.2], [0, 0]) is None
        assert metric([0.1, 0.2], [1, 1]) is None
        assert metric([], []) is None


def test_nan_and_mismatch_are_refused() -> None:
    with pytest.raises(InputError, match="NaN"):
        dm.image_auroc([np.nan, 1.0], [0, 1])
    with pytest.raises(InputError, match="labels"):
        dm.brier_score([0.5], [0, 1])


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
