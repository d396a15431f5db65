"""Zero-shot detection: how well defects are found in products that were never shown, beside what others published.

Every test picture is scored once; its score and the counts behind the pixel metrics are kept at once, so that a run may
be killed at any moment and goes on where it stopped. The tables are made from what is kept and from nothing else.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..agent.errors import BackendError, ConfigError, InputError
from ..agent.home import write_json_atomically
from ..tools.imaging import load_image
from .datasets import DATASETS, IMAGE, PIXEL, Dataset, LabelledPicture, ProductData, load_mask, open_dataset
from .detection_metrics import image_auroc, image_average_precision, image_f1_max
from .pixel_curve import PixelCurve
from .published import METRICS
from .run_folder import RunFolder, open_run
from .zsad_setup import ZeroShotScorer, ZeroShotSetup, checked_training, configured_setup
from .zsad_tables import render

__all__ = ["ZeroShotScorer", "ZeroShotSetup", "configured_setup", "render", "run_zsad", "select"]

FPR_LIMIT = 0.3
Progress = Callable[[str, int, int], None]


def select(tests: Sequence[LabelledPicture], limit: int | None) -> list[LabelledPicture]:
    """At most ``limit`` pictures, good and defective in their proportion, evenly over each; one of both at least."""
    if limit is None or limit >= len(tests):
        return list(tests)
    good = [picture for picture in tests if not picture.is_defective]
    bad = [picture for picture in tests if picture.is_defective]
    n_bad = round(limit * len(bad) / len(tests))
    if good and bad and limit > 1:
        n_bad = min(max(n_bad, 1), limit - 1)
    chosen = []
    for group, count in ((good, limit - n_bad), (bad, n_bad)):
        chosen += [group[i] for i in np.linspace(0, len(group) - 1, count).round().astype(int)] if count else []
    return chosen


def run_zsad(
    data: Path,
    setup: ZeroShotSetup,
    dataset: str | None = None,
    train_on: Sequence[str] = (),
    limit: int | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score the test pictures of a data set.

    Args:
        data: its folder, in any known layout.
        setup: the scorer.
        dataset: its name or layout, where the folder does not tell.
        train_on: data sets that the scorer was trained on, where its model card does not tell.
        limit: pictures per class at most; figures from a part are marked as such.
        out: folder for the scores; a run there is taken up again. None keeps nothing.
        progress: told what, how many are done, of how many.

    Returns:
        Plain data: ``protocol`` (``dataset``, ``layout``, ``classes``, ``trained_on``, ``limit``, ``scorer``, ...),
        ``products`` (per class ``product``, ``good``, ``defective``, ``unmasked`` and the metrics, in [0, 1] or None),
        ``mean`` over classes and ``seconds`` an image.

    Raises:
        ConfigError: the scorer was trained on this set, statements about its training contradict each other, or ``out``
            holds another run.
        InputError: the data cannot be used, or a picture cannot be read.
        BackendError: the scorer returned something that is no score.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"a limit of {limit} pictures per class leaves nothing.")
    found = open_dataset(data, dataset)
    if not found.metrics:
        raise InputError(f"{data} has nothing to measure: neither good and defective test pictures nor masks.")
    training = checked_training(setup.trained_on, train_on, found)
    selected = [(product, select(product.tests, limit)) for product in found.products if product.tests]
    identity = {
        "data": str(found.root.resolve()),
        "dataset": found.name,
        "layout": found.layout,
        "trained_on": training,
        "scorer": dict(setup.identity),
    }
    with _folder(out) as folder, open_run(folder, identity) as run:
        _score_all(found, selected, run, setup, progress)
        rows = [_product_row(found, product, tests, run) for product, tests in selected]
        seconds = [run.records[_key(found, p)]["seconds"] for _, tests in selected for p in tests]
        result = {
            "protocol": _protocol(found, rows, limit, identity),
            "products": rows,
            "mean": {metric: _mean([row[metric] for row in rows]) for metric in METRICS},
            "seconds": float(np.median(seconds)),
        }
        write_json_atomically(run.root / "result.json", result)
    return result


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="flawscope-zsad-") as folder:
        yield Path(folder)


def _score_all(
    dataset: Dataset,
    selected: Sequence[tuple[ProductData, Sequence[LabelledPicture]]],
    run: RunFolder,
    setup: ZeroShotSetup,
    progress: Progress | None,
) -> None:
    tell = progress or (lambda what, done, total: None)
    pictures = [(product.name, picture) for product, tests in selected for picture in tests]
    for number, (product, picture) in enumerate(pictures):
        pixels = PIXEL in dataset.metrics and picture.has_mask
        if not run.has(_key(dataset, picture), pixels):
            scorer = setup.scorer_of(product) if setup.scorer_of else setup.scorer
            _score_one(dataset, picture, pixels, run, scorer)
        tell("pictures", number + 1, len(pictures))


def _score_one(
    dataset: Dataset, picture: LabelledPicture, pixels: bool, run: RunFolder, scorer: ZeroShotScorer
) -> None:
    loaded = load_image(picture.path)
    began = time.perf_counter()
    image_score, anomaly_map = scorer.score(loaded.rgb)
    seconds = time.perf_counter() - began
    height, width = loaded.rgb.shape[:2]
    if anomaly_map.shape != (height, width) or not np.isfinite(anomaly_map).all() or not np.isfinite(image_score):
        raise BackendError(f"the scorer returned no finite score and map of {height} x {width} for {picture.path}.")
    curve = None
    if pixels and (mask := load_mask(picture, height, width)) is not None:
        curve = PixelCurve()
        curve.update(anomaly_map, mask)
    record = {
        "picture": _key(dataset, picture),
        "sha256": loaded.sha256,
        "defect_type": picture.defect_type,
        "image_score": float(image_score),
        "map_max": float(anomaly_map.max()),
        "seconds": seconds,
    }
    run.add(record, curve)


def _key(dataset: Dataset, picture: LabelledPicture) -> str:
    return picture.path.relative_to(dataset.root).as_posix()


def _product_row(
    dataset: Dataset, product: ProductData, tests: Sequence[LabelledPicture], run: RunFolder
) -> dict[str, Any]:
    labels = np.array([picture.is_defective for picture in tests])
    row: dict[str, Any] = {
        "product": product.name,
        "good": int((~labels).sum()),
        "defective": int(labels.sum()),
        "unmasked": sum(not picture.has_mask for picture in tests) if PIXEL in dataset.metrics else 0,
        **dict.fromkeys(METRICS),
    }
    if IMAGE in dataset.metrics:
        scores = [run.records[_key(dataset, picture)]["image_score"] for picture in tests]
        best = image_f1_max(scores, labels)
        row["image_auroc"] = image_auroc(scores, labels)
        row["image_ap"] = image_average_precision(scores, labels)
        row["image_f1_max"] = best[0] if best else None
    if PIXEL in dataset.metrics:
        curve = PixelCurve()
        for picture in tests:
            if picture.has_mask:
                curve.merge(run.curve(_key(dataset, picture)))
        row["pixel_auroc"], row["aupro"] = curve.auroc(), curve.aupro(FPR_LIMIT)
        row["pixel_ap"], row["pixel_f1_max"] = curve.average_precision(), curve.f1_max()
    return row


def _protocol(
    dataset: Dataset, rows: Sequence[Mapping[str, Any]], limit: int | None, identity: Mapping[str, Any]
) -> dict[str, Any]:
    known = DATASETS[dataset.name] if dataset.name else None
    return {
        **identity,
        "title": known.title if known else dataset.root.resolve().name,
        "metrics": sorted(dataset.metrics),
        "classes": len(rows),
        "classes_of_set": len(known.products) if known and len(known.products) > 2 else None,
        "limit": limit,
        "fpr_limit": FPR_LIMIT,
        "mean": "unweighted over classes",
    }


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
