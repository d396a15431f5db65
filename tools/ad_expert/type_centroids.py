"""Centroids of defect types, and which of them a picture's defect is nearest to.

A type's centroid is the mean direction of its labelled defects, shrunk towards the embedding of its name where the
backbone has a text tower. The query is the defect itself, the patch tokens weighted by an anomaly map, and not the
picture's global feature, which says what the object is.

Source: type-level prompts of ADSeeker (arXiv 2508.03088): key features of a data set are clustered around predefined
centres, and a query's nearest centroid chooses its prompt. Shrinkage, temperature and the share below which no type is
named are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...agent.errors import InputError
from ..backbones import VisualFeatures
from ..defect_features import patch_matrix
from .spherical_kmeans import spherical_kmeans

VISUAL_SHARE, TEXT_SHARE = 0.7, 0.3
MIN_EXAMPLES = 5
"""Fewer labelled defects are not trusted: the type is known by its name alone, or not at all without a text tower."""
TEMPERATURE = 0.05
TOP_TYPES = 3
MIN_SHARE = 0.1

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class TypeMatch:
    """The types that a defect may be of.

    Attributes:
        names: at most TOP_TYPES canonical types, most likely first; empty when none is likely: a generic defect.
        shares: of each name, between MIN_SHARE and 1.
    """

    names: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()


@dataclass(frozen=True)
class TypeCentroids:
    """One direction per defect type; build it with :func:`fit_centroids`.

    Attributes:
        names: the C canonical types, sorted.
        counts: labelled defects of each, (C,); below MIN_EXAMPLES the centroid is its name's embedding.
        vectors: float32 (C, D), unit rows.
    """

    names: tuple[str, ...]
    counts: NDArray[np.int64]
    vectors: NDArray[np.float32]

    def shares(self, key: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Softmax over the cosines of a defect to the centroids.

        Args:
            key: (D,) from :func:`defect_key`, of any length.

        Returns:
            float64 (C,), summing to 1.

        Raises:
            InputError: a key of another width, or not finite.
        """
        query = np.asarray(key, dtype=np.float64).ravel()
        if query.shape != self.vectors.shape[1:]:
            raise InputError(f"the defect has {query.size} values, the type centroids {self.vectors.shape[1]}.")
        if not np.isfinite(query).all():
            raise InputError("the description of the defect is not finite.")
        cosines = self.vectors @ _unit(query)
        likelihoods = np.exp((cosines - cosines.max()) / TEMPERATURE)
        return np.asarray(likelihoods / likelihoods.sum(), np.float64)

    def match(self, key: NDArray[np.floating[Any]]) -> TypeMatch:
        """The likely types of a defect, see :meth:`shares` for arguments and errors."""
        shares = self.shares(key)
        best = [int(i) for i in np.argsort(-shares, kind="stable")[:TOP_TYPES] if shares[i] >= MIN_SHARE]
        return TypeMatch(tuple(self.names[i] for i in best), tuple(float(shares[i]) for i in best))


def fit_centroids(
    keys: NDArray[np.floating[Any]],
    labels: Sequence[str],
    texts: Mapping[str, NDArray[np.floating[Any]]] | None = None,
    *,
    refine: bool = False,
) -> TypeCentroids:
    """Make centroids of labelled defects and of names.

    Args:
        keys: (M, D), one :func:`defect_key` per labelled defect; M may be 0 when there are texts.
        labels: canonical type of each.
        texts: embedding (D,) of each type that may be named; None for a backbone without a text tower.
        refine: let spherical k-means move the visual centres over the keys, which then count for the centre they are
            nearest to, whatever their label. Named fewer left-out pictures right than plain centres did
            (docs/type_prompts.md).

    Returns:
        Centroids of the types with a text or with MIN_EXAMPLES keys.

    Raises:
        InputError: shapes that do not match, a value that is not finite, or nothing to make a centroid of.
    """
    x = np.asarray(keys, dtype=np.float64)
    y = np.asarray(labels, dtype=np.str_)
    if x.ndim != 2 or len(x) != len(y) or not np.isfinite(x).all():
        raise InputError(f"expected finite keys (M, D) with a label each, got {x.shape} and {len(y)} labels.")
    written = {name: _unit(np.asarray(text, np.float64)) for name, text in (texts or {}).items()}
    counted = {str(name): int((y == name).sum()) for name in sorted(set(y.tolist()))}
    seen = [name for name, count in counted.items() if count >= MIN_EXAMPLES and (not written or name in written)]
    looks: dict[str, NDArray[np.float64]] = {}
    if seen:
        rows = _unit(x)
        centres = _unit(np.stack([rows[y == name].mean(axis=0) for name in seen]))
        if refine:
            centres = spherical_kmeans(rows[np.isin(y, seen)], centres).centres
        looks = dict(zip(seen, centres, strict=True))
    names = tuple(sorted({*looks, *written}))
    if not names:
        raise InputError(
            f"no defect type has {MIN_EXAMPLES} pictures with a mask.", hint="Give more data, or a backbone with text."
        )
    if len({v.shape for v in (*looks.values(), *written.values())}) > 1:
        raise InputError("texts and pictures are described by vectors of different widths.")
    vectors = np.stack([_shrunk(looks.get(name), written.get(name)) for name in names])
    counts = np.array([counted.get(name, 0) for name in names], dtype=np.int64)
    return TypeCentroids(names, counts, np.asarray(vectors, np.float32))


def _shrunk(look: NDArray[np.float64] | None, text: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """``normalise(0.7 look + 0.3 text)``, or whichever there is."""
    if look is None or text is None:
        only = text if look is None else look
        assert only is not None  # noqa: S101 - callers ask for types that have one of the two
        return only
    return _unit(VISUAL_SHARE * look + TEXT_SHARE * text)


def defect_key(
    features: VisualFeatures, weights: NDArray[np.floating[Any]], index: int = 0, *, joint: bool = False
) -> Vector:
    """Describe the defect of a picture by the weighted mean of its patch tokens.

    Args:
        features: what the backbone returned.
        weights: of each patch, (N,) or the grid (h, w), at least 0 and not all zero: :func:`mask_weights` of a labelled
            picture, :func:`~..defect_features.defect_weights` of an anomaly map.
        index: which picture of the batch.
        joint: whether the layers lie in one space, that of the backbone's text tower: they are averaged then, and put
            side by side otherwise.

    Returns:
        float32 (D,), unit length (zero when the tokens cancel out).

    Raises:
        InputError: shapes that do not match, or weights that are not as they must be.
    """
    if joint and len({tokens.shape[2] for tokens in features.patch_tokens}) != 1:
        raise InputError("the layers of a backbone with text must share one width.")
    tokens = np.mean([layer[index] for layer in features.patch_tokens], axis=0) if joint else None
    tokens = patch_matrix(features, index) if tokens is None else tokens
    share = np.asarray(weights, dtype=np.float64).ravel()
    if share.shape != (len(tokens),):
        raise InputError(f"{share.size} weights for {len(tokens)} patch tokens.")
    if not np.isfinite(share).all() or share.min() < 0 or share.max() <= 0:
        raise InputError("weights must be finite, at least 0, and one of them above.")
    share = share / share.max()
    return np.asarray(_unit(share / share.sum() @ tokens.astype(np.float64)), np.float32)


def mask_weights(mask: NDArray[np.bool_], grid: tuple[int, int]) -> NDArray[np.float32]:
    """How much of each patch is defective.

    Args:
        mask: bool (H, W), pixels of the picture.
        grid: (h, w) of patches that cover it edge to edge.

    Returns:
        float32 (h, w), in [0, 1]; a defect of one pixel still counts.
    """
    size = (grid[1], grid[0])  # Pillow wants (width, height)
    area = Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX)
    return np.clip(np.asarray(area, np.float32), 0.0, 1.0)


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of length 1; a row of zeros stays."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12))
