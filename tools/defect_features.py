"""What a defect looks like, as one vector: the patch tokens of a picture summed up where the picture is abnormal.

The weighted mean says what the abnormal patches look like, the weighted spread how uniform they are. Examples and
queries must be weighted the same way: masks for the examples and anomaly maps for the queries would put the two in
different places of the feature space and costs more accuracy than the better outline brings (docs/defect_types.md).

Source: the masked-region centroids behind the type-level prompts of ADSeeker (arXiv 2508.03088), with the anomaly
map in the place of the mask.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..agent.errors import InputError
from .backbones import VisualFeatures

WEIGHT_POWER = 2
"""Squares the excess anomaly, so that a small strong defect outweighs a large faint background."""


def patch_matrix(features: VisualFeatures, index: int = 0) -> NDArray[np.float32]:
    """The patch tokens of one picture of a batch, all layers side by side.

    Args:
        features: what the backbone returned.
        index: which picture of the batch.

    Returns:
        float32 (N, D), D the sum of the layers' widths, rows in raster order of the grid.
    """
    joined: NDArray[np.float32] = np.concatenate([tokens[index] for tokens in features.patch_tokens], axis=1)
    return joined.astype(np.float32, copy=False)


def defect_weights(patch_scores: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """How much each patch counts as defect: the squared excess of its score over the picture's median patch.

    Args:
        patch_scores: anomaly score of each patch, any shape (grid (h, w) or (N,)), higher is more anomalous.

    Returns:
        float32 (N,), all at least 0, summing to 1; uniform when no patch stands out.

    Raises:
        InputError: a score is not finite, or there is none.
    """
    scores = np.asarray(patch_scores, dtype=np.float64).ravel()
    if scores.size == 0 or not np.isfinite(scores).all():
        raise InputError("patch scores must be finite and not empty.")
    excess = np.maximum(scores - np.median(scores), 0.0)
    peak = float(excess.max())
    if peak <= 0:
        return np.full(scores.size, 1 / scores.size, dtype=np.float32)
    weights = (excess / peak) ** WEIGHT_POWER  # by the peak first: tiny scores must not underflow when squared
    shares: NDArray[np.float32] = (weights / weights.sum()).astype(np.float32)
    return shares


def defect_feature(
    patch_tokens: NDArray[np.floating[Any]], weights: NDArray[np.floating[Any]] | None = None
) -> NDArray[np.float32]:
    """Sum up the defect of one picture.

    Args:
        patch_tokens: (N, D), see :func:`patch_matrix`.
        weights: (N,) or a grid of N patches, at least 0, of any scale; see :func:`defect_weights`. None weighs all
            patches alike: for pictures of a surface without any good reference.

    Returns:
        float32 (2 D,): weighted mean, then weighted standard deviation, of the tokens.

    Raises:
        InputError: shapes do not match, a value is not finite, a weight is negative or all are zero.
    """
    tokens = np.asarray(patch_tokens, dtype=np.float64)
    if tokens.ndim != 2 or 0 in tokens.shape:
        raise InputError(f"patch tokens must be (N, D), got shape {tokens.shape}.")
    share = np.ones(len(tokens)) if weights is None else np.asarray(weights, dtype=np.float64).ravel()
    if share.shape != (len(tokens),):
        raise InputError(f"{share.size} weights for {len(tokens)} patch tokens.")
    if not np.isfinite(tokens).all() or not np.isfinite(share).all():
        raise InputError("patch tokens and weights must be finite.")
    if share.min() < 0 or share.max() <= 0:
        raise InputError("weights must be at least 0, and one of them above.")
    share = share / share.max()
    share = share / share.sum()
    mean = share @ tokens
    spread = np.sqrt(share @ (tokens - mean) ** 2)
    return np.concatenate([mean, spread]).astype(np.float32)
