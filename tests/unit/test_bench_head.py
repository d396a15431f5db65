"""The figures of ``bench head``, worked by hand; its training needs torch and is tested with it."""

from __future__ import annotations

import numpy as np
import pytest

from flawscope.benchmarks.head import METRICS, false_alarms_at, render, summarise


def test_false_alarms_at_the_score_that_this_share_of_defective_pictures_reaches() -> None:
    scores, labels = [9, 7, 5, 3, 8, 4, 2, 1], [True] * 4 + [False] * 4
    assert false_alarms_at(scores, labels, 0.75) == 0.25  # threshold 5: only the good picture of 8
    assert false_alarms_at(scores, labels, 1.0) == 0.5  # threshold 3: those of 8 and 4
    assert false_alarms_at(scores, [True] * 8, 0.75) is None


def test_the_summary_weighs_products_equally_and_leaves_out_what_is_unknown() -> None:
    def row(product: str, seed: int, auroc: float, aupro: float | None) -> dict[str, object]:
        figures = dict.fromkeys(METRICS) | {"image_auroc": auroc, "aupro": aupro}
        return {"product": product, "seed": seed, "shots": 4, "method": "head", **figures}

    rows = [row("a", 0, 0.8, 0.5), row("a", 1, 0.6, 0.7), row("b", 0, 1.0, None)]
    (summary,) = summarise(rows)
    assert summary["image_auroc"] == pytest.approx(0.85)
    assert summary["aupro"] == pytest.approx(0.6)
    assert summary["support"] is None
    assert np.size(render({"rows": rows, "summary": [summary]}).renderables) == 1
