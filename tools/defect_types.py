"""Which type of defect: a posterior over the types that have examples, and an honest ``unknown``.

Few examples (about ten a type) and a few hundred dimensions: types are Gaussians that share one covariance, shrunk
heavily towards a multiple of the identity (regularised linear discriminant analysis). Everything that needs a number,
the temperature of the posterior and the distance from which on a query is unknown, is read off the examples
themselves by leaving each out once. ``method="cosine"`` is the paper's rule, the nearest unit centroid with a softmax
of temperature 0.05, kept for comparison.

Sources: ADSeeker (arXiv 2508.03088), type-level prompts; Friedman, Regularized Discriminant Analysis (1989).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..agent.errors import InputError, ProductError
from ..agent.home import write_atomically
from .array_files import ARRAY_DAMAGE
from .type_statistics import calibrate_temperature, calibrate_unknown, shrunk_whitening, unit, unknown_share, whiten

UNKNOWN = "unknown"
Method = Literal["lda", "cosine"]

SCALE_FLOOR = 0.1  # of the mean standard deviation: a dimension that hardly varies must not be blown up
COSINE_TEMPERATURE = 0.05
SINGLE_EXAMPLE_TRUST = 0.5  # share of its posterior that a type with one example keeps; the rest is unknown
DRAWING_TRUST = 0.05  # the same for all types when the examples are drawings, as measured: docs/defect_types.md
FORMAT_VERSION = 1


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
        trust: share of the posterior that the types may have at most.
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
    trust: float

    @classmethod
    def fit(
        cls,
        features: NDArray[np.floating[Any]],
        labels: Sequence[str],
        *,
        method: Method = "lda",
        trust: float = 1.0,
        seed: int = 0,
    ) -> TypeModel:
        """Learn the types from examples.

        Args:
            features: (M, K) with M at least 1, one :func:`~.defect_features.defect_feature` per example.
            labels: the type of each example.
            method: ``lda`` (default) or ``cosine``.
            trust: share of the posterior that the types may have at most: 1 for examples of the product itself,
                ``DRAWING_TRUST`` for drawings, whose left-out distances say nothing about real pictures.
            seed: unused by the closed forms, so that every fitting function of the project takes one.

        Returns:
            A model that does not depend on the order of the examples; exact repetitions of an example count once.

        Raises:
            InputError: no example, shapes that do not match, a value that is not finite, an empty label, a type
                that is called ``unknown``, or a trust outside 0 to 1.
        """
        del seed
        if not 0.0 <= trust <= 1.0:
            raise InputError(f"the trust in a type model is a share of 1, not {trust}.")
        x, y = _distinct(features, labels)
        base = _fit_geometry(x, y, method)
        left_out, own_type = _leave_one_out(x, y, base)
        between = ((base.centroids[:, None] - base.centroids[None]) ** 2).mean(axis=2)[
            np.triu_indices(len(base.names), 1)
        ]
        unknown_at, softness = calibrate_unknown(left_out, own_type, base.counts, between)
        return replace(
            base,
            temperature=calibrate_temperature(left_out, own_type, base.counts)
            if method == "lda"
            else COSINE_TEMPERATURE,
            unknown_at=unknown_at,
            softness=softness,
            trust=trust,
        )

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
        alone = np.where(self.counts < 2, SINGLE_EXAMPLE_TRUST, 1.0)
        known = self.trust * (1.0 - unknown_share(distances, self.unknown_at, self.softness))
        likelihoods = np.exp((distances.min() - distances) / self.temperature)
        shares = likelihoods / likelihoods.sum() * alone * known
        # by distance first: far from everything all shares may be zero, and the nearest type shall still come first
        pairs = [(self.names[i], float(shares[i])) for i in np.argsort(distances, kind="stable")]
        pairs.append((UNKNOWN, max(0.0, 1.0 - float(shares.sum()))))
        return sorted(pairs, key=lambda pair: -pair[1])

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
            "numbers": np.array([self.temperature, self.unknown_at, self.softness, self.trust]),
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
            # opened here: np.load leaves the file open when a damaged archive stops it
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                if int(stored["version"]) != FORMAT_VERSION:
                    raise ProductError(f"{path.name} is of another version.", hint="Enroll the product's types again.")
                numbers = stored["numbers"]
                model = cls(
                    names=tuple(str(name) for name in stored["names"]),
                    counts=stored["counts"],
                    method=str(stored["method"]),  # type: ignore[arg-type]  # checked below
                    temperature=float(numbers[0]),
                    unknown_at=float(numbers[1]),
                    softness=float(numbers[2]),
                    trust=float(numbers[3]),
                    **{name: stored[name] for name in _ARRAYS},
                )
        except ARRAY_DAMAGE as error:
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


def _fit_geometry(
    x: NDArray[np.float64], y: NDArray[np.str_], method: Method, scale: NDArray[np.float64] | None = None
) -> TypeModel:
    """The transform and the centroids; its calibrated numbers are still zero. ``scale`` None estimates it."""
    names = sorted(set(y.tolist()))
    counts = np.array([(y == name).sum() for name in names], dtype=np.int64)
    weights = np.concatenate([np.full(n, 1 / (n * len(names))) for n in counts])  # each type counts alike
    offset = weights @ x
    empty = np.zeros((0, x.shape[1]))
    if method == "cosine":
        rows = unit(x - offset) if len(names) > 1 else unit(x)
        centroids = unit(np.stack([rows[y == name].mean(axis=0) for name in names]))
        offset = offset if len(names) > 1 else np.zeros_like(offset)
        return TypeModel(
            tuple(names), counts, method, offset, np.ones(x.shape[1]), empty, np.zeros(0), centroids, 0.0, 0.0, 0.0, 1.0
        )
    if scale is None:
        spread = np.sqrt(weights @ (x - offset) ** 2)
        if not spread.any():  # one example: there is no spread yet, so a quarter of its size stands in
            spread = np.full(x.shape[1], 0.25 * float(np.sqrt((offset**2).mean())) or 1.0)
        scale = spread + SCALE_FLOOR * spread.mean()
    z = (x - offset) / scale
    centroids = np.stack([z[y == name].mean(axis=0) for name in names])
    residuals = (z - np.repeat(centroids, counts, axis=0)) * np.sqrt(weights)[:, None]
    directions, gains = shrunk_whitening(residuals)
    base = TypeModel(tuple(names), counts, method, offset, scale, directions, gains, centroids, 0.0, 0.0, 0.0, 1.0)
    return replace(base, centroids=whiten(centroids, directions, gains))


def _distances(model: TypeModel, query: NDArray[np.float64]) -> NDArray[np.float64]:
    if model.method == "cosine":
        cosines: NDArray[np.float64] = model.centroids @ unit(query - model.offset)
        return np.maximum(1.0 - cosines, 0.0)
    z = whiten((query - model.offset) / model.scale, model.directions, model.gains)
    squared: NDArray[np.float64] = ((model.centroids - z) ** 2).mean(axis=1)
    return squared


def _leave_one_out(
    x: NDArray[np.float64], y: NDArray[np.str_], base: TypeModel
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distances (L, C) of each example to the centroids fitted without it, and its type's index (L,).

    An example that is alone in its type is left in: without it its type would not exist. The scale stays that of all
    examples: that of a few near-repetitions would put the one left out at any distance.
    """
    kept = [i for i in range(len(y)) if (y == y[i]).sum() > 1]
    rows = np.empty((len(kept), len(base.names)))
    for row, i in zip(rows, kept, strict=True):
        others = np.arange(len(y)) != i
        row[:] = _distances(_fit_geometry(x[others], y[others], base.method, base.scale), x[i])
    return rows, np.array([base.names.index(str(y[i])) for i in kept], dtype=np.int64)


def _consistent(model: TypeModel) -> bool:
    """Whether the stored shapes and numbers belong together."""
    c, k, r = len(model.names), model.offset.size, model.gains.size
    found = [model.counts.shape, *(getattr(model, name).shape for name in _ARRAYS)]
    positive = [*model.counts, *model.scale, model.temperature, model.unknown_at, model.softness]
    return (
        min(c, k) > 0
        and model.method in ("lda", "cosine")
        and found == [(c,), (k,), (k,), (r, k), (r,), (c, k)]
        and all(np.isfinite(getattr(model, name)).all() for name in _ARRAYS)
        and all(0 < number < np.inf for number in positive)
        and 0 <= model.trust <= 1
    )
