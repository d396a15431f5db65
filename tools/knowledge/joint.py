"""Pages by what their pictures show, in words: text-to-image search, for backbones with a text tower.

Lock features cannot answer words: they are patch statistics, standardised on the base. So with such a backbone each
page with a picture keeps one more vector, in the space that pictures and words share (CLIP: Radford et al., Learning
Transferable Visual Models From Natural Language Supervision, 2021, section 2). Half of it is the feature of the whole
picture, which was trained to lie near words; the other half is the patches of the deepest layer, weighted by what is
marked, since a defect is small and the whole picture speaks of the part.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import BackendError
from ...prompts import load_prompts, render
from ..backbones import Backbone, VisualFeatures
from .features import image_part

PROMPTS = "search"
MIN_LENGTH = 1e-6


def unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vector (D,) at unit length; zero stays zero."""
    return np.asarray(vector / max(float(np.linalg.norm(vector)), MIN_LENGTH), np.float32)


@dataclass(frozen=True)
class PictureFeatures:
    """What a base keeps of one picture.

    Attributes:
        part: its image part, see ``features.image_part``.
        joint: float32 (D,), unit length, in the space shared with words; None for a backbone without a text tower.
    """

    part: NDArray[np.float32]
    joint: NDArray[np.float32] | None

    @classmethod
    def of(
        cls, features: VisualFeatures, backbone: Backbone, weights: NDArray[np.float32] | None = None
    ) -> PictureFeatures:
        """From the first picture of a batch.

        Args:
            features: of the backbone.
            backbone: tells whether there is a joint space.
            weights: (N,) non-negative, the share of a mark on each patch; None for uniform.
        """
        return cls(image_part(features, weights), joint_part(features, weights) if backbone.has_text else None)

    @classmethod
    def mean(cls, several: Sequence[PictureFeatures]) -> PictureFeatures:
        """Of the pictures of one page, at least one, all of one backbone."""
        part = np.asarray(np.mean([one.part for one in several], axis=0), np.float32)
        joints = [one.joint for one in several if one.joint is not None]
        return cls(part, unit(np.asarray(np.mean(joints, axis=0), np.float32)) if joints else None)


def joint_part(features: VisualFeatures, weights: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """The first picture of a batch among words, float32 (D,), unit length; for backbones with a text tower."""
    deepest = VisualFeatures(features.patch_tokens[-1:], features.global_features, features.grid)
    return unit(unit(features.global_features[0]) + unit(image_part(deepest, weights)))


def encode_words(backbone: Backbone, words: str) -> NDArray[np.float32]:
    """Words among pictures, float32 (D,), unit length: the mean over the sentences of ``prompts/search.md``.

    A text that is longer than the tower reads is halved until it fits, and the mean is over all pieces.

    Raises:
        BackendError: there is no text tower, or a single word is longer than it reads.
    """
    return unit(np.concatenate(_encode(backbone, words.split())).mean(axis=0))


def _encode(backbone: Backbone, words: list[str]) -> list[NDArray[np.float32]]:
    text = " ".join(words)
    try:
        return [backbone.encode_text([render(PROMPTS, name, words=text) for name in load_prompts(PROMPTS).sections])]
    except BackendError:
        if len(words) < 2:
            raise
        half = len(words) // 2
        return _encode(backbone, words[:half]) + _encode(backbone, words[half:])


@dataclass(frozen=True)
class JointPictures:
    """The pictures of a base in the space shared with words.

    Attributes:
        backbone: encodes the words.
        doc_ids: of the pages that have a picture.
        vectors: float32 (n, D), unit length.
    """

    backbone: Backbone
    doc_ids: tuple[str, ...]
    vectors: NDArray[np.float32]

    @classmethod
    def of(cls, backbone: Backbone, doc_ids: Sequence[str], vectors: NDArray[np.float32]) -> JointPictures:
        """Of all pages (n) and their vectors (n, D), zero where a page has no picture."""
        there = np.flatnonzero(vectors.any(axis=1)).tolist()
        return cls(backbone, tuple(doc_ids[row] for row in there), vectors[there])

    def search(self, words: str, within: Container[str], limit: int) -> dict[str, float]:
        """Cosine of the words with the pictures of these pages by doc_id, best first, ties by doc_id."""
        if not self.doc_ids:
            return {}
        cosines = (self.vectors @ encode_words(self.backbone, words)).tolist()
        found = [(doc_id, cosine) for doc_id, cosine in zip(self.doc_ids, cosines, strict=True) if doc_id in within]
        return dict(sorted(found, key=lambda item: (-item[1], item[0]))[:limit])
