"""Which type of defect: a posterior over the types that have examples, and an honest ``unknown``.

Few examples (about ten a type) and a few hundred dimensions: types are Gaussians that share one covariance, shrunk
heavily towards a multiple of the identity (regularised linear discriminant analysis). Everything that needs a number,
the temperature of the posterior and the distance from which on a query is unknown, is read off the examples
themselves by leaving each out once. ``method="cosine"`` is the paper's rule, the nearest unit centroid with a softmax
of temperature 0.05, kept for comparison.

Sources: ADSeeker (arXiv 2508.03088), type-level prompts; Friedman, Regularized Discriminant Analysis (1989).
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..agent.errors import InputError, ProductError
from ..agent.home import write_atomically

UNKNOWN = "unknown"
Method = Literal["lda", "cosine"]

SHRINKAGE = 0.6  # share of the identity in the covariance
SCALE_FLOOR = 0.1  # of the mean standard deviation: a dimension that hardly varies must not be blown up
COSINE_TEMPERATURE = 0.05
KNOWN_QUANTILE = .90  # of the left-out examples are less strange than where unknown reaches one half
SINGLE_EXAMPLE_TRUST = 0.5  # share of its posterior that a type with one example keeps; the rest is unknown
MIN_SOFTNESS = 0.1  # of the step from known to unknown, in log strangeness
FORMAT_VERSION = 1
_TEMPERATURES = np.geomspace(1e-3, 10.0, 41)


@dataclass(frozen=True)
class TypeModel:
    """Fitted types; build it with :meth:`fit`.

    Attributes:
        names: the C types, sorted.
        counts: distinct examples per type, (C,).
        method: ``lda`` or ``cosine``.
        offset: (K,) subtracted from a feature.
        scale: (K,) it is divided by.
        directions: (R, K) orthonormal directions in which the types vary.
        gains: (R,) what those directions are multiplied by; all others stay as they are.
        centroids: (C, K) in the transformed space.
        temperature: of the softmax over distances.
        unknown_at: strangeness at which unknown has one half.
        softness: width of the step from known to unknown, in log strangeness.
    """

    names: tuple[str, ...]
    counts: NDArray[np.int64]
    method: Method
    offset: NDArray[np.float64]
    scale: NDArray[np.float64]
    directions: NDArray[np.float64]
    gains: NDArray[np.float64]
    centroids: NDArray[np.float64]
    temperature: float
    unknown_at: float
    softness: float

    @classmethod
    def fit(
        cls, features: NDArray[np.floating[Any]], labels: Sequence[str], *, method: Method = "lda", seed: int = 0
    ) -> TypeModel:
        """Learn the types from examples.

        Args:
            features: (M, K) with M at least 1, one :func:`~.defect_features.defect_feature` per example.
            labels: the type of each example.
            method: ``lda`` (default) or ``cosine``.
            seed: unused by the closed forms, so that every fitting function of the project takes one.

        Returns:
            A model that does not depend on the order of the examples; exact repetitions of an example count once.

        Raises:
            InputError: no example, shapes that do not match, a value that is not finite, an empty label, or a type
                that is called ``unknown``.
        """
        del seed
        x, y = _distinct(features, labels)
        base = _fit_geometry(x, y, method)
        left_out, known = _leave_one_out(x, y, method, base.names)
        temperature = COSINE_TEMPERATURE if method == "cosine" else _calibrate_temperature(left_out, known, base)
        unknown_at, softness = _calibrate_unknown(left_out, known, base)
        return cls(**{**base.__dict__, "temperature": temperature, "unknown_at": unknown_at, "softness": softness})

    def distances(self, feature: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Distance of a feature (K,) to each centroid, (C,): mean squared whitened difference, or 1 - cosine.

        Raises:
            InputError: wrong length, or a value that is not finite.
        """
        query = np.asarray(feature, dtype=np.float64).ravel()
        if query.shape != self.offset.shape:
            raise InputError(f"the feature has {query.size} values, the type model {self.offset.size}.")
        if not np.isfinite(query).all():
            raise InputError("the feature of the defect is not finite.")
        return _distances(self, query)

    def posterior(self, feature: NDArray[np.floating[Any]]) -> list[tuple[str, float]]:
        """Name a defect.

        Args:
            feature: (K,), made like those of the examples.

        Returns:
            (type, probability) of every type and ``unknown``, most probable first, summing to 1.

        Raises:
            InputError: wrong length, or a value that is not finite.
        """
        distances = self.distances(feature)
        trust = np.where(self.counts < 2, SINGLE_EXAMPLE_TRUST, 1.0)
        strange = float(_strangeness(distances[None])[0])
        known = 1.0 - _sigmoid((_log(strange) - _log(self.unknown_at)) / self.softness)
        shares = _softmax(-distances / self.temperature) * trust * known
        pairs = [*zip(self.names, shares.tolist(), strict=True), (UNKNOWN, max(0.0, 1.0 - float(shares.sum())))]
        return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))

    def save(self, path: Path) -> None:
        """Write the model as .npz without pickled objects, atomically.

        Raises:
            StorageError: the disk refuses.
        """
        arrays = {
            "version": np.int64(FORMAT_VERSION),
            "names": np.asarray(self.names, dtype=np.str_),
            "method": np.str_(self.method),
            "counts": self.counts,
            "numbers": np.array([self.temperature, self.unknown_at, self.softness]),
            **{name: getattr(self, name) for name in _ARRAYS},
        }

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez(file, **arrays)

        write_atomically(path, write)

    @classmethod
    def load(cls, path: Path) -> TypeModel:
        """Read a model back.

        Raises:
            ProductError: the file is missing, damaged, inconsistent or of another version.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                if int(stored["version"]) != FORMAT_VERSION:
                    raise ProductError(f"{path.name} is of another version.", hint="Enroll the product's types again.")
                numbers = stored["numbers"]
                model = cls(
                    names=tuple(str(name) for name in stored["names"]),
                    counts=stored["counts"],
                    method="cosine" if str(stored["method"]) == "cosine" else "lda",
                    temperature=float(numbers[0]),
                    unknown_at=float(numbers[1]),
                    softness=float(numbers[2]),
                    **{name: stored[name] for name in _ARRAYS},
                )
        except (OSError, ValueError, KeyError, EOFError, IndexError, TypeError, zipfile.BadZipFile) as error:
            raise ProductError(
                f"the defect types in {path.name} are missing or damaged.", hint="Enroll the product's types again."
            ) from error
        if not _consistent(model):
            raise ProductError(
                f"the defect types in {path.name} contradict themselves.", hint="Enroll the product's types again."
            )
        return model


_ARRAYS = ("offset", "scale", "directions", "gains", "centroids")


def _distinct(
    features: NDArray[np.floating[Any]], labels: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """Check the examples, drop repetitions and bring them into an order of their own."""
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or 0 in x.shape or len(x) != len(labels):
        raise InputError(f"expected features (M, K) with a label each, got {x.shape} and {len(labels)} labels.")
    if not np.isfinite(x).all():
        raise InputError("the feature of an example is not finite.")
    if not all(labels) or UNKNOWN in labels:
        raise InputError(f"a defect type needs a name, and {UNKNOWN!r} is taken.")
    distinct = sorted({(label, *row) for label, row in zip(labels, x.tolist(), strict=True)})
    return np.array([row[1:] for row in distinct], dtype=np.float64), np.array([row[0] for row in distinct])


def _fit_geometry(x: NDArray[np.float64], y: NDArray[np.str_], method: Method) -> TypeModel:
    """The transform and the centroids; its calibrated numbers are still zero."""
    names = sorted(set(y.tolist()))
    counts = np.array([(y == name).sum() for name in names], dtype=np.int64)
    weights = np.concatenate([np.full(n, 1 / (n * len(names))) for n in counts])  # each type counts alike
    offset = weights @ x
    empty = np.zeros((0, x.shape[1]))
    if method == "cosine":
        unit = _unit(x - offset) if len(names) > 1 else _unit(x)
        centroids = _unit(np.stack([unit[y == name].mean(axis=0) for name in names]))
        offset = offset if len(names) > 1 else np.zeros_like(offset)
        return TypeModel(
            tuple(names), counts, method, offset, np.ones(x.shape[1]), empty, np.zeros(0), centroids, 0.0, 0.0, 0.0
        )
    spread = np.sqrt(weights @ (x - offset) ** 2)
    if not spread.any():  # one example: there is no spread yet, so a quarter of its size stands in
        spread = np.full(x.shape[1], 0.25 * float(np.sqrt((offset**2).mean())) or 1.0)
    scale = spread + SCALE_FLOOR * spread.mean()
    z = (x - offset) / scale
    centroids = np.stack([z[y == name].mean(axis=0) for name in names])
    residuals = (z - np.repeat(centroids, counts, axis=0)) * np.sqrt(weights)[:, None]
    directions, gains = _shrunk_whitening(residuals)
    base = TypeModel(tuple(names), counts, method, offset, scale, directions, gains, centroids, 0.0, 0.0, 0.0)
    return TypeModel(**{**base.__dict__, "centroids": _whiten(base, centroids)})


def _shrunk_whitening(residuals: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Directions (R, K) and gains (R,) of C^(-1/2), up to a factor, for C = (1 - a) S + a tr(S)/K I."""
    _, singular, directions = np.linalg.svd(residuals, full_matrices=False)
    kept = singular > 1e-9 * max(float(singular.max(initial=0.0)), 1e-12)
    variances = singular[kept] ** 2
    ridge = SHRINKAGE * variances.sum() / residuals.shape[1]
    gains = np.sqrt(ridge / ((1 - SHRINKAGE) * variances + ridge)) if kept.any() else np.zeros(0)
    return directions[kept], gains


def _whiten(model: TypeModel, z: NDArray[np.float64]) -> NDArray[np.float64]:
    return z + ((z @ model.directions.T) * (model.gains - 1.0)) @ model.directions


def _distances(model: TypeModel, query: NDArray[np.float64]) -> NDArray[np.float64]:
    if model.method == "cosine":
        cosines: NDArray[np.float64] = model.centroids @ _unit(query - model.offset)
        return np.maximum(1.0 - cosines, 0.0)
    z = _whiten(model, (query - model.offset) / model.scale)
    squared: NDArray[np.float64] = ((model.centroids - z) ** 2).mean(axis=1)
    return squared


def _strangeness(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """How badly queries fit all types: (L, C) distances to (L,).

    The nearest distance, discounted when the second nearest is much farther: a query between two types is stranger
    than one that is as far from its type but clearly of it.
    """
    if distances.shape[1] == 1:
        return distances[:, 0]
    ordered = np.sort(distances, axis=1)
    return ordered[:, 0] ** 2 / np.maximum(ordered[:, 1], 1e-12)


def _leave_one_out(
    x: NDArray[np.float64], y: NDArray[np.str_], method: Method, names: tuple[str, ...]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distances (L, C) of each example to the centroids fitted without it, and its type's index (L,).

    An example that is alone in its type is left in: without it its type would not exist.
    """
    kept = [i for i in range(len(y)) if (y == y[i]).sum() > 1]
    rows = []
    for i in kept:
        others = np.arange(len(y)) != i
        rows.append(_distances(_fit_geometry(x[others], y[others], method), x[i]))
    known = np.array([names.index(str(y[i])) for i in kept], dtype=np.int64)
    return np.array(rows).reshape(len(kept), len(names)), known


def _calibrate_temperature(left_out: NDArray[np.float64], known: NDArray[np.int64], base: TypeModel) -> float:
    """The temperature under which the left-out examples' own types are most likely, each type counting alike."""
    if len(known) == 0 or len(base.names) < 2:
        return 1.0
    weights = 1.0 / base.counts[known]
    losses = []
    for temperature in _TEMPERATURES:
        logits = -left_out / temperature
        top = logits.max(axis=1)
        log_sum = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        losses.append(float(weights @ (log_sum - logits[np.arange(len(known)), known])))
    return float(_TEMPERATURES[int(np.argmin(losses))])


def _calibrate_unknown(left_out: NDArray[np.float64], known: NDArray[np.int64], base: TypeModel) -> tuple[float, float]:
    """Where unknown reaches one half, and how soft the step is, from the left-out examples."""
    if len(known) == 0:
        gaps = ((base.centroids[:, None] - base.centroids[None]) ** 2).mean(axis=2)[
            ~np.eye(len(base.names), dtype=bool)
        ]
        return (float(gaps.min()) / 4 if gaps.size else 1.0) or 1e-12, 1.0  # half way: a quarter when squared
    strange = _strangeness(left_out)
    order = np.argsort(strange, kind="stable")
    weights = (1.0 / base.counts[known])[order]
    reached = np.cumsum(weights) / weights.sum()
    at = float(strange[order][min(int(np.searchsorted(reached, KNOWN_QUANTILE)), len(order) - 1)])
    middle = float(strange[order][min(int(np.searchsorted(reached, 0.5)), len(order) - 1)])
    softness = (_log(at) - _log(middle)) / 3  # at the median example unknown keeps 5%: sigmoid(-3)
    return max(at, 1e-12), max(softness, MIN_SOFTNESS)


def _consistent(model: TypeModel) -> bool:
    """Whether the stored shapes and numbers belong together."""
    c, k, r = len(model.names), model.offset.size, model.gains.size
    shapes = (
        model.counts.shape == (c,)
        and model.scale.shape == model.offset.shape == (k,)
        and model.directions.shape == (r, k)
        and model.centroids.shape == (c, k)
    )
    numbers = (model.temperature, model.unknown_at, model.softness)
    finite = all(np.isfinite(getattr(model, name)).all() for name in _ARRAYS)
    return bool(c and k and shapes and finite and all(0 < n < np.inf for n in numbers) and (model.scale > 0).all())


def _unit(x: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.asarray(x / np.maximum(norms, 1e-12))


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shares = np.exp(logits - logits.max())
    return np.asarray(shares / shares.sum())


def _log(value: float) -> float:
    return float(np.log(max(float(value), 1e-12)))


def _sigmoid(value: float) -> float:
    return float(0.5 * (1.0 + np.tanh(0.5 * value)))
