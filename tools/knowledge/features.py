"""Key features of a query and lock features of a document, in one space (ADSeeker, section on Q2K RAG).

Both are an image part and a text part, each standardised and of unit length, concatenated with square-root weights so
that the cosine of two complete vectors is ``0.7 * image cosine + 0.3 * text cosine``. A missing part is zero and the
rest is renormalised: a document without a picture is found by its words alone.
"""

from __future__ import annotations

import itertools
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...agent.errors import KnowledgeError
from ..backbones import VisualFeatures

if TYPE_CHECKING:
    from .retriever import Projection, Tower

IMAGE_WEIGHT = 0.7
TEXT_DIM = 256
MIN_SPREAD = 1e-6


def image_part(features: VisualFeatures, weights: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Weighted mean of the patch tokens of the first picture of a batch, all layers side by side.

    Args:
        features: of one picture.
        weights: (N,) non-negative, such as the anomaly map on the patch grid or the share of a mask; None for uniform.

    Returns:
        float32 (D,), D the sum of the layers' depths, not standardised.
    """
    tokens = np.concatenate([layer[0] for layer in features.patch_tokens], axis=1)
    if weights is None or not float(weights.sum()) > 0.0:
        return np.asarray(tokens.mean(axis=0), dtype=np.float32)
    return np.asarray((weights / weights.sum()) @ tokens, dtype=np.float32)


def grid_weights(mask: NDArray[np.bool_], grid: tuple[int, int]) -> NDArray[np.float32]:
    """Share of each patch that a mask covers, float32 (h * w,) in raster order."""
    size = (grid[1], grid[0])
    share = Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX)
    return np.asarray(share, dtype=np.float32).ravel()


def text_part(text: str) -> NDArray[np.float32]:
    """Signed feature hashing of the words and their pairs, counts damped by a square root.

    Returns:
        float32 (TEXT_DIM,), unit length, or zero for a text without words.
    """
    tokens = re.findall(r"[a-z0-9]{2,}", text.lower().replace("_", " "))
    vector = np.zeros(TEXT_DIM, dtype=np.float32)
    for token in tokens + [f"{a} {b}" for a, b in itertools.pairwise(tokens)]:
        code = zlib.crc32(token.encode())
        vector[code % TEXT_DIM] += 1.0 if code & 0x10000 else -1.0
    vector = np.sign(vector) * np.sqrt(np.abs(vector))
    norm = float(np.linalg.norm(vector))
    return vector / norm if norm else vector


@dataclass(frozen=True)
class LockSpace:
    """The standardisation of image parts, taken from the knowledge base's own pictures.

    Raw means of rectified features all point the same way (cosines above 0.9); taking out the base's mean and spread
    makes the cosine tell pictures apart.

    Attributes:
        mean, spread: float32 (D,), spread positive.
        projection: trained, applied to the image part; None for none. Then ``mean`` and ``spread`` are its own.
    """

    mean: NDArray[np.float32]
    spread: NDArray[np.float32]
    projection: Projection | None = None

    @classmethod
    def fit(cls, image_parts: NDArray[np.float32]) -> LockSpace:
        """From the image parts (M, D) of the pictures in the base, M >= 1."""
        spread = image_parts.std(axis=0) if len(image_parts) > 1 else np.ones(image_parts.shape[1], np.float32)
        floor = max(float(np.median(spread)) * 0.1, MIN_SPREAD)
        return cls(image_parts.mean(axis=0).astype(np.float32), np.maximum(spread, floor).astype(np.float32))

    @property
    def dim(self) -> int:
        """Length of a key or lock vector."""
        return len(self.mean) + TEXT_DIM

    def key(self, image: NDArray[np.float32] | None, text: str) -> NDArray[np.float32]:
        """Key features of a query; like ``embed`` unless there is a trained projection."""
        return self._embed(image, text, None if self.projection is None else self.projection.key)

    def embed(self, image: NDArray[np.float32] | None, text: str) -> NDArray[np.float32]:
        """Lock features of a document.

        Args:
            image: image part (D,), None without a picture.
            text: its words, may be empty.

        Returns:
            float32 (dim,), unit length.

        Raises:
            KnowledgeError: there is neither a picture nor a word.
        """
        return self._embed(image, text, None if self.projection is None else self.projection.lock)

    def _embed(self, image: NDArray[np.float32] | None, text: str, tower: Tower | None) -> NDArray[np.float32]:
        visual = np.zeros(len(self.mean), np.float32)
        if image is not None:
            standard = (image - self.mean) / self.spread
            visual = standard / max(float(np.linalg.norm(standard)), MIN_SPREAD)
            visual = visual if tower is None else tower(visual)
        joint = np.concatenate([np.sqrt(IMAGE_WEIGHT) * visual, np.sqrt(1.0 - IMAGE_WEIGHT) * text_part(text)])
        norm = float(np.linalg.norm(joint))
        if not np.isfinite(norm) or norm < MIN_SPREAD:
            raise KnowledgeError("a key or document with neither a picture nor a word cannot be embedded.")
        return np.asarray(joint / norm, dtype=np.float32)

    def visual(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Image parts of keys or locks (n, dim), float32 (n, D) of unit length, zero where there is no picture."""
        parts = vectors[:, : len(self.mean)]
        lengths = np.linalg.norm(parts, axis=1, keepdims=True)
        return np.asarray(np.where(lengths > MIN_SPREAD, parts / np.maximum(lengths, MIN_SPREAD), 0.0), np.float32)
