"""Text anchors: what a zero-shot scorer compares patches with, whoever made them.

The prompt ensemble, type-level prompts and learned prompts all end in the same thing: one unit vector for normal parts
and one or more for abnormal ones, in the joint space of a backbone that has a text tower.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import BackendError

GENERIC = "generic"
"""Name of the abnormal anchor that stands for any defect."""
NORM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class TextAnchors:
    """Text embeddings of the two states of a part.

    Attributes:
        normal: float32 (D,), unit length.
        abnormal: float32 (T, D), unit rows, T >= 1.
        names: of the abnormal rows: defect types, or GENERIC.
        prompts_sha256: of the prompts or the checkpoint that they come from, recorded in reports; empty when unknown.
    """

    normal: NDArray[np.float32]
    abnormal: NDArray[np.float32]
    names: tuple[str, ...]
    prompts_sha256: str = ""

    def __post_init__(self) -> None:
        dim = self.normal.shape[-1] if self.normal.ndim == 1 else -1
        if dim < 1 or self.abnormal.ndim != 2 or self.abnormal.shape != (len(self.names), dim) or not self.names:
            raise BackendError(
                f"text anchors of shapes {self.normal.shape} and {self.abnormal.shape} for {len(self.names)} names."
            )
        lengths = np.linalg.norm(np.vstack([self.normal[None], self.abnormal]), axis=1)
        if not (np.abs(lengths - 1.0) <= NORM_TOLERANCE).all():  # NaN fails too
            raise BackendError("text anchors must be finite and of unit length.")

    @property
    def dim(self) -> int:
        """D, the width of the joint space."""
        return len(self.normal)


def mean_direction(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of the normalised rows, normalised again: one vector for a set of prompts that say the same.

    Args:
        embeddings: (P, D), of any length but zero.

    Returns:
        float32 (D,), unit length.

    Raises:
        BackendError: a row is zero or not finite, or the rows cancel out.
    """
    rows = np.asarray(embeddings, np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if rows.ndim != 2 or not len(rows) or not np.isfinite(lengths).all() or lengths.min() <= 0.0:
        raise BackendError("the text tower returned an embedding without a direction.")
    mean = (rows / lengths).mean(axis=0)
    length = float(np.linalg.norm(mean))
    if length < 1e-6:
        raise BackendError("the embeddings of a prompt set cancel out.")
    return np.asarray(mean / length, np.float32)
