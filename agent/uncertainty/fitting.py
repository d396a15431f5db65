"""Fit a calibrator to checked answers: the temperature first, then the weights, then the thresholds.

What an answer's threshold is chosen by never comes from a fit that saw its product: each product is judged by a
calibrator of all others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .calibrator import Calibrator, Task, Weighed, pattern_of
from .features import FEATURES, Signs, signs_of_doubt
from .records import AnswerRecord, products_of
from .thresholds import LEAST_ANSWERS, choose_threshold, default_threshold, target_error

Method = Literal["logistic", "isotonic"]
PENALTY = 1.0
"""Variance of the weights' prior, in spreads of the signs (ridge)."""
LEAST_OF_A_PATTERN = 10
"""Answers that must show a combination of known and unknown signs before the calibrator speaks of it."""
LEAST_PROBABILITY = 1e-12
PERCENTILES = 101


def fit_temperature(records: Sequence[AnswerRecord]) -> float | None:
    """The temperature under which the right options are likeliest (Guo et al. 2017, section 4.2), in [0.05, 20].

    Returns:
        None unless every answer has probabilities and a known right option: mixed answers have no common temperature.
    """
    from scipy.optimize import minimize_scalar

    if not records or any(r.probabilities is None or r.truth not in r.probabilities for r in records):
        return None
    shares = [r.probabilities or {} for r in records]
    logs = np.full((len(records), max(map(len, shares), default=0)), -np.inf)
    with np.errstate(divide="ignore"):
        for row, options in zip(logs, shares, strict=True):
            row[: len(options)] = np.log(list(options.values()))
    right = np.array([list(options).index(str(r.truth)) for r, options in zip(records, shares, strict=True)])
    told = np.maximum(logs[np.arange(len(records)), right], np.log(LEAST_PROBABILITY))

    def loss(log_temperature: float) -> float:
        scaled = logs / np.exp(log_temperature)
        top = scaled.max(axis=1)
        total = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
        return float((total - told / np.exp(log_temperature)).mean())

    found = minimize_scalar(loss, bounds=(float(np.log(0.05)), float(np.log(20.0))), method="bounded")
    return float(np.exp(found.x))


def fit_calibrator(
    records: Sequence[AnswerRecord],
    *,
    inputs_sha256: Sequence[str] = (),
    features: Sequence[str] = FEATURES,
    method: Method = "logistic",
) -> Calibrator:
    """Fit weights to all answers, and thresholds to what left-out products show.

    Args:
        records: checked answers of one model.
        inputs_sha256: of the files they are from.
        features: signs to weigh; one that is never known is left out.
        method: ``isotonic`` bends the linear model's probabilities by a monotone step function.

    Raises:
        ConfigError: too few answers or products, all right or all wrong, several models, or no sign is known.
    """
    _check(records)
    left_out = cross_fitted(records, features=features, method=method)
    calibrator = _fit(records, features, tuple(inputs_sha256), method)
    doubts = [None if p is None else 1.0 - p for p in left_out]
    tasks = {}
    for name, task in calibrator.tasks.items():
        rows = [(doubt, r.correct) for doubt, r in zip(doubts, records, strict=True) if r.task == name]
        chosen = choose_threshold([doubt for doubt, _ in rows], [right for _, right in rows], target_error(name))
        tasks[name] = task.model_copy(update={"threshold": chosen})
    return calibrator.model_copy(update={"tasks": tasks})


def cross_fitted(
    records: Sequence[AnswerRecord], *, features: Sequence[str] = FEATURES, method: Method = "logistic"
) -> list[float | None]:
    """P(correct) of each answer from a calibrator of all other products.

    Returns:
        In the order of the records; None where the others are too few, all right or all wrong, or of another kind.
    """
    found: dict[int, float | None] = {}
    for product in products_of(records):
        others = [r for r in records if r.product != product]
        usable = len({r.correct for r in others}) == 2 and bool(_usable(others, features))
        fitted = _fit(others, features, (), method) if usable else None
        for index, record in enumerate(records):
            if record.product == product:
                found[index] = None if fitted is None else fitted.p_correct(record)
    return [found[index] for index in range(len(records))]


def _check(records: Sequence[AnswerRecord]) -> None:
    without = "Without a calibrator doubt is the normalised entropy, and reports say that it is uncalibrated."
    if len(records) < LEAST_ANSWERS:
        raise ConfigError(
            f"{len(records)} answers are too few to calibrate by; {LEAST_ANSWERS} are needed.", hint=without
        )
    models = sorted({r.model for r in records})
    if len(models) > 1:
        raise ConfigError(
            f"the logs are of several models: {', '.join(models[:5])}.", hint="Fit one calibrator for each."
        )
    if len(products_of(records)) < 2:
        raise ConfigError("the logs hold one product only, so nothing can be checked on another.", hint=without)
    if len({r.correct for r in records}) < 2:
        raise ConfigError("the answers are all right or all wrong, so nothing tells doubt.", hint=without)


@dataclass(frozen=True)
class _Columns:
    """The linear model's input.

    Attributes:
        names: signs that are known at least once.
        values: (n, s) standardised, 0 where unknown.
        unknown: (n, s) 1 where unknown.
        means: (s,) of the known ones.
        scales: (s,) their spread.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    unknown: NDArray[np.float64]
    means: NDArray[np.float64]
    scales: NDArray[np.float64]


def _usable(records: Sequence[AnswerRecord], features: Sequence[str]) -> tuple[str, ...]:
    """Signs that some answer shows, in their fixed order; whether one is known does not depend on a fit."""
    similarities = _similarities(records)
    rows = [signs_of_doubt(r, None, similarities) for r in records]
    return tuple(name for name in FEATURES if name in features and any(row[name] is not None for row in rows))


def _columns(rows: Sequence[Signs], names: tuple[str, ...]) -> _Columns:
    raw = np.array([[np.nan if row[name] is None else row[name] for name in names] for row in rows], np.float64)
    unknown = np.isnan(raw)
    means = np.nanmean(raw, axis=0)
    spread = np.nanstd(raw, axis=0)
    scales = np.where(spread > 1e-9, spread, 1.0)
    return _Columns(names, np.where(unknown, 0.0, (raw - means) / scales), unknown.astype(np.float64), means, scales)


def _similarities(records: Sequence[AnswerRecord]) -> tuple[float, ...]:
    """Sorted similarities of the nearest documents, thinned to percentiles."""
    found = [r.retrieval_similarity for r in records if r.retrieval_similarity is not None]
    if not found:
        return ()
    kept = (
        np.sort(np.quantile(found, np.linspace(0.0, 1.0, PERCENTILES))) if len(found) > PERCENTILES else np.sort(found)
    )
    return tuple(float(value) for value in kept)


def _fit(
    records: Sequence[AnswerRecord], features: Sequence[str], inputs_sha256: tuple[str, ...], method: Method
) -> Calibrator:
    """Temperature, weights and steps of a set of answers with two outcomes; thresholds are the defaults still."""
    from sklearn.linear_model import LogisticRegression

    temperature, similarities = fit_temperature(records), _similarities(records)
    rows = [signs_of_doubt(r, temperature, similarities) for r in records]
    names = tuple(name for name in FEATURES if name in features and any(row[name] is not None for row in rows))
    if not names:
        raise ConfigError("the logs hold none of the signs of doubt asked for.", hint=f"Known: {', '.join(FEATURES)}.")
    columns = _columns(rows, names)
    sometimes = np.flatnonzero(columns.unknown.any(axis=0))
    tasks = sorted({r.task for r in records})
    kinds = np.array([[r.task == task for task in tasks] for r in records], np.float64)
    table = np.concatenate([columns.values, columns.unknown[:, sometimes], kinds], axis=1)
    model = LogisticRegression(C=PENALTY, max_iter=1000).fit(table, [r.correct for r in records])
    weights = [float(w) for w in model.coef_[0]]
    of_unknown = dict(zip((int(i) for i in sometimes), weights[len(names) :], strict=False))
    seen = Counter((r.task, pattern_of(row, names)) for r, row in zip(records, rows, strict=True))
    fitted = Calibrator(
        inputs_sha256=tuple(sorted(inputs_sha256)),
        products=products_of(records),
        model=records[0].model,
        answers=len(records),
        temperature=temperature,
        signs=tuple(
            Weighed.model_validate(
                {
                    "name": name,
                    "mean": float(columns.means[i]),
                    "scale": float(columns.scales[i]),
                    "weight": weights[i],
                    "unknown_weight": of_unknown.get(i),
                }
            )
            for i, name in enumerate(names)
        ),
        intercept=float(model.intercept_[0]),
        tasks={
            task: Task(
                weight=weights[len(names) + len(sometimes) + i],
                patterns=tuple(sorted(p for (t, p), n in seen.items() if t == task and n >= LEAST_OF_A_PATTERN)),
                threshold=default_threshold(target_error(task)),
            )
            for i, task in enumerate(tasks)
        },
        similarities=similarities,
    )
    return fitted if method == "logistic" else _bent(fitted, records, features)


def _bent(fitted: Calibrator, records: Sequence[AnswerRecord], features: Sequence[str]) -> Calibrator:
    """Isotonic regression of the outcomes on what left-out products were given, or no bend where nothing was."""
    from sklearn.isotonic import IsotonicRegression

    left_out = cross_fitted(records, features=features, method="logistic")
    pairs = [(p, r.correct) for p, r in zip(left_out, records, strict=True) if p is not None]
    if len(pairs) < LEAST_ANSWERS:
        return fitted
    bend = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(
        [p for p, _ in pairs], [float(right) for _, right in pairs]
    )
    steps = [
        (float(x), float(min(1.0, max(0.0, y)))) for x, y in zip(bend.X_thresholds_, bend.y_thresholds_, strict=True)
    ]
    return fitted.model_copy(update={"steps": tuple(steps)})
