"""The expert against brute force: distances, leave-one-out, batches, flat pictures, odd shapes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fakes import PatchStatistics, texture, with_square
from numpy.typing import NDArray

from flawscope.agent.errors import ProductError
from flawscope.tools.ad_expert.anomaly_map import grid_to_pixels, smooth_grid, top_fraction_mean
from flawscope.tools.ad_expert.expert import (
    ExpertConfig,
    FittedExpert,
    ReferenceFit,
    expert_tokens,
    level_light,
    prepare,
    resize_to_frame,
)
from flawscope.tools.ad_expert.memory_bank import MemoryBank
from flawscope.tools.ad_expert.regions import place_in_words
from flawscope.tools.backbones import VisualFeatures

CONFIG = ExpertConfig(short_side_px=96)
BACKBONE = PatchStatistics()


def tokens_of(seed: int) -> NDArray[np.float32]:
    return expert_tokens(BACKBONE.encode_image(prepare(texture(seed), CONFIG)[None]))


def fitted(count: int, bank_size: int = 4000) -> ReferenceFit:
    config = ExpertConfig(short_side_px=96, bank_size=bank_size)
    return ReferenceFit([tokens_of(seed) for seed in range(count)], range(count), config)


def test_a_reference_is_at_no_distance_from_itself() -> None:
    expert = fitted(3).expert
    found = expert.localise(expert.encode(BACKBONE, texture(1)), 96, 96)
    assert found.anomaly_map.shape == (96, 96)
    # float32 cosines err by about 1e-7, whose chord is about 5e-4
    assert float(found.anomaly_map.max()) < 2e-3
    assert found.image_score < 2e-3


def test_a_defect_peaks_where_it_is() -> None:
    config = ExpertConfig(short_side_px=384)  # 24 x 24 patches of 4 px each
    views = [expert_tokens(BACKBONE.encode_image(prepare(texture(seed), config)[None])) for seed in range(6)]
    expert = ReferenceFit(views, range(6), config).expert
    found = expert.localise(expert.encode(BACKBONE, with_square(texture(9), 60, 20, 18)), 96, 96)
    y, x = np.unravel_index(int(found.anomaly_map.argmax()), (96, 96))
    assert 56 <= x < 82
    assert 16 <= y < 42


@pytest.mark.parametrize("shape", [(96, 96), (70, 200), (300, 310), (1500, 1400)])
def test_grey_pictures_are_prepared_as_colour_pictures_are(shape: tuple[int, int]) -> None:
    plane = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    grey = np.stack([plane] * 3, axis=2)
    in_colour = level_light(resize_to_frame(grey, 224), 110.0)
    found = prepare(grey, ExpertConfig(short_side_px=224))
    np.testing.assert_array_equal(found, in_colour)
    tinted = grey.copy()
    tinted[1, 1, 2] ^= 255  # a single pixel with a colour, off the grid of the quick look
    in_colour = level_light(resize_to_frame(tinted, 224), 110.0)
    np.testing.assert_array_equal(prepare(tinted, ExpertConfig(short_side_px=224)), in_colour)
    assert (in_colour[..., 2] != in_colour[..., 0]).any()


@pytest.mark.parametrize("owner", range(4))
def test_leaving_one_out_of_an_unthinned_bank_is_brute_force(owner: int) -> None:
    without = fitted(4).without(owner)
    others = np.concatenate([tokens_of(seed) for seed in range(4) if seed != owner])
    query = tokens_of(owner)
    brute = np.sqrt(np.maximum(2 - 2 * (query.astype(np.float64) @ others.T.astype(np.float64)).max(axis=1), 0))
    unweighted = replace(without.bank, weights=None)  # ten dimensions all fit into the subspace
    np.testing.assert_allclose(unweighted.distances(query), brute, atol=1e-3)
    assert owner not in set(without.bank.owners.tolist())


def test_leaving_one_out_of_a_thinned_bank_brings_back_as_many_as_left() -> None:
    thinned = fitted(6, bank_size=60)
    assert len(thinned.expert.bank.tokens) == 60
    for owner in range(6):
        without = thinned.without(owner)
        assert owner not in set(without.bank.owners.tolist())
        assert len(without.bank.tokens) == 60  # as fine as the whole bank, not finer where this reference lies
        others = np.concatenate([tokens_of(seed) for seed in range(6) if seed != owner])
        brute = FittedExpert(MemoryBank(others, np.zeros(len(others), np.int32)), CONFIG)
        query = tokens_of(owner)
        unweighted = replace(without.bank, weights=None)
        assert (unweighted.distances(query) >= brute.bank.distances(query) - 1e-3).all()  # a subset of the others


def test_one_reference_cannot_be_left_out_and_none_is_no_product() -> None:
    with pytest.raises(ProductError, match="empty"):
        fitted(1).without(0)
    with pytest.raises(ProductError, match="no good references"):
        ReferenceFit([], [], CONFIG)


def test_a_batch_is_its_pictures() -> None:
    pictures = np.stack([texture(seed) for seed in range(3)])
    together = BACKBONE.encode_image(pictures)
    for index in range(3):
        alone = BACKBONE.encode_image(pictures[index][None])
        for layer, single in zip(together.patch_tokens, alone.patch_tokens, strict=True):
            np.testing.assert_allclose(layer[index], single[0], atol=1e-5)


def test_tokens_by_hand() -> None:
    """A 2x2 grid: the 3x3 average with repeated edges weighs own, neighbours and diagonal 4:2:2:1."""
    layer = np.array([[[9.0, 0.0], [0.0, 9.0], [0.0, 0.0], [0.0, 0.0]]], np.float32)
    found = expert_tokens(VisualFeatures((layer,), np.zeros((1, 2), np.float32), (2, 2)))
    np.testing.assert_allclose(found[0], np.array([4.0, 2.0]) / np.sqrt(20.0), rtol=1e-6)
    np.testing.assert_allclose(found[2], np.array([2.0, 1.0]) / np.sqrt(5.0), rtol=1e-6)


def test_flat_pictures_and_dead_features_are_finite() -> None:
    expert = fitted(3).expert
    found = expert.localise(expert.encode(BACKBONE, np.full((64, 64, 3), 127, np.uint8)), 64, 64)
    assert np.isfinite(found.anomaly_map).all()
    dead = VisualFeatures((np.zeros((1, 4, 3), np.float32),), np.zeros((1, 3), np.float32), (2, 2))
    assert np.isfinite(expert_tokens(dead)).all()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((96, 96), (96, 96)),
        ((100, 50), (192, 96)),
        ((50, 100), (96, 192)),
        ((97, 95), (96, 96)),
        ((10, 4000), (96, 768)),
    ],
)
def test_preparing_keeps_the_aspect_up_to_a_limit(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resize_to_frame(np.zeros((*size, 3), np.uint8), 96).shape == (*expected, 3)


def test_a_picture_that_fits_is_not_resampled() -> None:
    picture = texture(1)
    assert resize_to_frame(picture, 96) is picture


def test_light_is_brought_to_one_level() -> None:
    picture = np.full((32, 32, 3), 55, np.uint8)
    assert (level_light(picture, 110.0) == 110).all()
    assert (level_light(np.full_like(picture, 220), 110.0) == 110).all()
    assert (level_light(np.full_like(picture, 10), 110.0) == 30).all()  # not more than three times as bright
    assert (level_light(np.zeros_like(picture), 110.0) == 0).all()
    bright = picture.copy()
    bright[0, 1] = 250
    assert (level_light(bright, 110.0)[0, 1] == 255).all()  # white is the end


def test_a_darker_lamp_changes_nothing() -> None:
    expert = fitted(3).expert
    lit = expert.localise(expert.encode(BACKBONE, with_square(texture(9), 60, 20, 18)), 96, 96)
    dimmed = (with_square(texture(9), 60, 20, 18) * 0.7).astype(np.uint8)
    assert expert.localise(expert.encode(BACKBONE, dimmed), 96, 96).image_score == pytest.approx(
        lit.image_score, rel=0.05
    )


def test_a_four_by_four_map_by_hand() -> None:
    grid = np.zeros((4, 4), np.float32)
    grid[1, 2] = 16.0
    smoothed = smooth_grid(grid)
    # 1:2:1 both ways; the right edge is repeated beyond the border, where it is zero
    np.testing.assert_allclose(smoothed, [[0, 1, 2, 1], [0, 2, 4, 2], [0, 1, 2, 1], [0, 0, 0, 0]])
    pixels = grid_to_pixels(smoothed, 8, 8)
    # Centres of patches lie at 0.5, 2.5, 4.5, 6.5: pixel 4 is three quarters of patch 2 and a quarter of patch 1.
    np.testing.assert_allclose(pixels[2, 4], 0.75 * (0.75 * 4 + 0.25 * 2) + 0.25 * (0.75 * 2 + 0.25 * 1), rtol=1e-5)
    assert pixels.max() <= smoothed.max()
    assert top_fraction_mean(grid, 2 / 16) == 8.0


@pytest.mark.parametrize(
    ("column", "row", "place"),
    [
        (0, 0, "upper left"), (1, 0, "upper centre"), (2, 0, "upper right"),
        (0, 1, "left"), (1, 1, "centre"), (2, 1, "right"),
        (0, 2, "lower left"), (1, 2, "lower centre"), (2, 2, "lower right"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("width", "height"), [(300, 300), (900, 120), (31, 64)])
def test_all_nine_places(column: int, row: int, place: str, width: int, height: int) -> None:
    x, y = (column + 0.5) * width / 3, (row + 0.5) * height / 3
    box = (int(x) - 1, int(y) - 1, int(x) + 1, int(y) + 1)
    assert place_in_words(box, width, height) == place
