"""What must hold of the zero-shot scorer for any features and any words."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from flawscope.tools.ad_expert.text_anchors import TextAnchors
from flawscope.tools.ad_expert.zero_shot import (
    LocMode,
    ZeroShotConfig,
    patch_scores_of,
    scores_of,
    smooth_map,
    soft_maximum,
    stand_out,
)
from flawscope.tools.backbones import VisualFeatures

SEEDS = st.integers(0, 2**32 - 1)
MODES = st.sampled_from(["softmax", "paper"])
TEMPERATURES = st.sampled_from([0.01, 0.07, 1.0])


def unit(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    rows = rng.normal(size=shape)
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def drawn(seed: int, types: int = 1, pictures: int = 1) -> tuple[VisualFeatures, TextAnchors]:
    rng = np.random.default_rng(seed)
    dim, grid = int(rng.integers(2, 12)), (int(rng.integers(1, 6)), int(rng.integers(1, 6)))
    tokens = tuple(unit(rng, pictures, grid[0] * grid[1], dim) for _ in range(int(rng.integers(1, 5))))
    names = tuple(map(str, range(types)))
    return VisualFeatures(tokens, unit(rng, pictures, dim), grid), TextAnchors(
        unit(rng, dim), unit(rng, types, dim), names
    )


@given(SEEDS, st.integers(1, 6), MODES, TEMPERATURES)
def test_scores_lie_between_zero_and_one(seed: int, types: int, mode: LocMode, temperature: float) -> None:
    features, anchors = drawn(seed, types)
    found = patch_scores_of(features, anchors, ZeroShotConfig(mode, temperature))
    assert (found >= 0).all()
    assert (found <= 1).all()


@given(SEEDS, MODES, TEMPERATURES)
def test_swapping_the_states_turns_the_map_around(seed: int, mode: LocMode, temperature: float) -> None:
    features, anchors = drawn(seed)
    swapped = TextAnchors(anchors.abnormal[0], anchors.normal[None], anchors.names)
    config = ZeroShotConfig(mode, temperature)
    np.testing.assert_allclose(
        patch_scores_of(features, swapped, config), 1 - patch_scores_of(features, anchors, config), atol=1e-6
    )


@given(SEEDS, st.floats(1e-3, 1e3), MODES)
def test_the_length_of_features_does_not_matter(seed: int, factor: float, mode: LocMode) -> None:
    features, anchors = drawn(seed, 2)
    longer = VisualFeatures(
        tuple(np.float32(factor) * layer for layer in features.patch_tokens), features.global_features, features.grid
    )
    config = ZeroShotConfig(mode)
    np.testing.assert_allclose(
        patch_scores_of(longer, anchors, config), patch_scores_of(features, anchors, config), atol=2e-5
    )


@given(SEEDS, st.integers(1, 4), TEMPERATURES)
def test_both_modes_lie_on_the_same_side_of_one_half(seed: int, types: int, temperature: float) -> None:
    features, anchors = drawn(seed, types)
    tokens = features.patch_tokens[0]
    soft = scores_of(tokens, anchors, ZeroShotConfig("softmax", temperature))
    paper = scores_of(tokens, anchors, ZeroShotConfig("paper", temperature))
    assert ((soft - 0.5) * (paper - 0.5) >= 0).all()


@given(SEEDS, st.integers(2, 4), MODES)
def test_a_picture_scores_alone_as_in_a_batch(seed: int, pictures: int, mode: LocMode) -> None:
    features, anchors = drawn(seed, 2, pictures)
    config = ZeroShotConfig(mode)
    together = patch_scores_of(features, anchors, config)
    for index in range(pictures):
        one = VisualFeatures(
            tuple(layer[index : index + 1] for layer in features.patch_tokens),
            features.global_features[index : index + 1],
            features.grid,
        )
        np.testing.assert_allclose(patch_scores_of(one, anchors, config)[0], together[index], atol=1e-6)


@given(
    hnp.arrays(np.float64, st.tuples(st.just(7), st.integers(1, 8)), elements=st.floats(-1, 1)),
    TEMPERATURES,
)
def test_the_soft_maximum_lies_between_mean_and_maximum(cosines: NDArray[np.float64], temperature: float) -> None:
    found = soft_maximum(cosines, temperature)
    assert (found <= cosines.max(axis=1) + 1e-12).all()
    assert (found >= cosines.mean(axis=1) - 1e-9).all()


@given(SEEDS, st.integers(1, 6), TEMPERATURES)
def test_the_order_of_types_does_not_matter(seed: int, types: int, temperature: float) -> None:
    features, anchors = drawn(seed, types)
    turned = TextAnchors(anchors.normal, anchors.abnormal[::-1], anchors.names[::-1])
    config = ZeroShotConfig(temperature=temperature)
    np.testing.assert_allclose(
        patch_scores_of(features, turned, config), patch_scores_of(features, anchors, config), atol=1e-5
    )


@given(SEEDS, st.integers(1, 90), st.integers(1, 90))
def test_maps_stay_within_their_patches_and_pictures_may_have_any_size(seed: int, height: int, width: int) -> None:
    features, anchors = drawn(seed)
    patches = patch_scores_of(features, anchors, ZeroShotConfig())[0]
    found = smooth_map(patches, height, width)
    assert found.shape == (height, width)
    assert patches.min() <= found.min()
    assert found.max() <= patches.max()


@given(SEEDS, st.integers(2, 40), st.integers(2, 40))
def test_mirrored_patches_give_mirrored_maps(seed: int, height: int, width: int) -> None:
    features, anchors = drawn(seed)
    patches = patch_scores_of(features, anchors, ZeroShotConfig())[0]
    mirrored: Any = smooth_map(patches[:, ::-1], height, width)
    np.testing.assert_allclose(mirrored[:, ::-1], smooth_map(patches, height, width), atol=1e-6)


@given(hnp.arrays(np.float32, (5, 6), elements=st.floats(0, 1, width=32)))
def test_no_more_than_half_of_a_picture_stands_out_of_it(patches: NDArray[np.float32]) -> None:
    from flawscope.tools.ad_expert.anomaly_map import smooth_grid

    levels = stand_out(patches)
    assert levels.peak >= levels.threshold
    assert (smooth_grid(patches) >= levels.threshold).mean() <= 0.5
