"""The zero-shot map beside AnomalyCLIP's own ``compute_similarity`` and ``get_similarity_map`` on the same numbers.

``tests/data/original_scores.npz`` holds random patch tokens of two layers, two text embeddings, and what the authors'
functions and the loop of their ``test.py`` (518 px, Gaussian of 4 px, sum over layers) made of them; of the map every
sixteenth pixel from the third on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from flawscope.tools.ad_expert.text_anchors import GENERIC, TextAnchors
from flawscope.tools.ad_expert.zero_shot import ZeroShotConfig, patch_scores_of, scores_of, smooth_map
from flawscope.tools.backbones import VisualFeatures

TOLERANCE = 1e-5
IMAGE_PX = 518
KEPT = slice(3, None, 16)

Recorded = dict[str, NDArray[np.float32]]


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    with np.load(Path(__file__).parents[1] / "data" / "original_scores.npz", allow_pickle=False) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def anchors(recorded: Recorded) -> TextAnchors:
    text = recorded["clip_text"].astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    return TextAnchors(text[0], text[1:], (GENERIC,))


@pytest.fixture(scope="module")
def layers(recorded: Recorded) -> tuple[NDArray[np.float32], ...]:
    return tuple(layer[None, 1:].astype(np.float32) for layer in recorded["clip_layers"])  # the first token is [cls]


def as_features(*layers: NDArray[np.float32]) -> VisualFeatures:
    return VisualFeatures(layers, layers[-1].mean(axis=1), (6, 6))


def test_each_layer_scores_its_patches_alike(
    recorded: Recorded, anchors: TextAnchors, layers: tuple[NDArray[np.float32], ...]
) -> None:
    for layer, expected in zip(layers, recorded["clip_patch_scores"], strict=True):
        found = patch_scores_of(as_features(layer), anchors, ZeroShotConfig())[0]
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_the_map_is_alike(recorded: Recorded, anchors: TextAnchors, layers: tuple[NDArray[np.float32], ...]) -> None:
    scores = patch_scores_of(as_features(*layers), anchors, ZeroShotConfig())[0]
    found = smooth_map(scores, IMAGE_PX, IMAGE_PX)[KEPT, KEPT]
    # they sum over the layers, we average
    np.testing.assert_allclose(2 * found, recorded["clip_map"], atol=TOLERANCE)


def test_the_picture_as_a_whole_scores_alike(recorded: Recorded, anchors: TextAnchors) -> None:
    found = scores_of(recorded["clip_cls"][None].astype(np.float32), anchors, ZeroShotConfig())
    assert float(found[0]) == pytest.approx(float(recorded["clip_score"]), abs=TOLERANCE)
