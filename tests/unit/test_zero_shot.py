"""The zero-shot scorer against hand-worked numbers and an independent reference; the ensemble's sentences."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from fakes import ColourWords, PatchStatistics, texture, with_square
from numpy.typing import NDArray
from scipy import ndimage

from flawscope import prompts
from flawscope.agent.errors import BackendError, ConfigError
from flawscope.tools.ad_expert import prompt_ensemble, zero_shot
from flawscope.tools.ad_expert.prompt_ensemble import ensemble_anchors, load_ensemble, with_article
from flawscope.tools.ad_expert.text_anchors import GENERIC, TextAnchors, mean_direction
from flawscope.tools.ad_expert.zero_shot import (
    SMOOTHING_SHARE,
    ZeroShotConfig,
    ZeroShotExpert,
    patch_scores_of,
    scores_of,
    smooth_map,
    soft_maximum,
    stand_out,
)
from flawscope.tools.backbones import VisualFeatures

SOFTMAX, PAPER = ZeroShotConfig(), ZeroShotConfig(loc_mode="paper")
PLANE = TextAnchors(np.array([1, 0], np.float32), np.array([[0, 1]], np.float32), (GENERIC,))


def unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def random_features(seed: int, grid: tuple[int, int] = (5, 7), dim: int = 6, layers: int = 4) -> VisualFeatures:
    rng = np.random.default_rng(seed)
    tokens = tuple(unit(rng.normal(size=(2, grid[0] * grid[1], dim))) for _ in range(layers))
    return VisualFeatures(tokens, unit(rng.normal(size=(2, dim))), grid)


def random_anchors(seed: int, types: int = 1, dim: int = 6) -> TextAnchors:
    rng = np.random.default_rng(seed)
    names = tuple(f"type {t}" for t in range(types))
    return TextAnchors(unit(rng.normal(size=dim)), unit(rng.normal(size=(types, dim))), names)


# Scores


def test_the_softmax_by_hand() -> None:
    """cos to normal 0.8, to abnormal 0.6: the logits differ by 0.2 / 0.07."""
    found = scores_of(np.array([0.8, 0.6], np.float32), PLANE, SOFTMAX)
    assert float(found) == pytest.approx(1 / (1 + math.exp(0.2 / 0.07)), rel=1e-6)


def test_the_shifted_ratio_by_hand() -> None:
    found = scores_of(np.array([0.8, 0.6], np.float32), PLANE, PAPER)
    assert float(found) == pytest.approx(1.6 / 3.4, rel=1e-6)


@pytest.mark.parametrize("config", [SOFTMAX, PAPER])
def test_what_lies_between_the_states_scores_one_half(config: ZeroShotConfig) -> None:
    between = scores_of(np.array([[3.0, 3.0], [0.0, 0.0]], np.float32), PLANE, config)
    assert between.tolist() == [0.5, 0.5]


def test_the_ratio_is_defined_where_both_cosines_are_minus_one() -> None:
    same = TextAnchors(np.array([1, 0], np.float32), np.array([[1, 0]], np.float32), (GENERIC,))
    assert float(scores_of(np.array([-1.0, 0.0], np.float32), same, PAPER)) == 0.5


def test_a_single_type_stays_as_it_is_to_the_bit() -> None:
    cosines = np.random.default_rng(0).uniform(-1, 1, (100, 1))
    assert (soft_maximum(cosines, 0.07) == cosines[:, 0]).all()


def test_several_types_by_hand() -> None:
    found = soft_maximum(np.array([[0.3, 0.1]]), 0.07)
    expected = 0.07 * (math.log(math.exp(0.3 / 0.07) + math.exp(0.1 / 0.07)) - math.log(2))
    assert float(found[0]) == pytest.approx(expected, rel=1e-12)


def test_a_type_given_twice_changes_nothing() -> None:
    once = random_anchors(3)
    twice = TextAnchors(once.normal, np.repeat(once.abnormal, 2, axis=0), ("a", "b"))
    features = random_features(4)
    np.testing.assert_allclose(
        patch_scores_of(features, twice, SOFTMAX), patch_scores_of(features, once, SOFTMAX), atol=1e-7
    )


def test_other_widths_and_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(BackendError, match="width 3"):
        scores_of(np.ones(3, np.float32), PLANE, SOFTMAX)
    with pytest.raises(BackendError, match="not finite"):
        scores_of(np.array([np.nan, 0], np.float32), PLANE, SOFTMAX)


# Maps


def reference_map(
    features: VisualFeatures, anchors: TextAnchors, height: int, width: int, temperature: float
) -> NDArray[np.float64]:
    """The map of the first picture, step by step: softmax of logits per layer, mean, resize, Gaussian filter."""
    h, w = features.grid
    total = np.zeros((h, w))
    for tokens in features.patch_tokens:
        for n in range(h * w):
            patch = np.asarray(tokens[0, n], np.float64)
            patch = patch / np.linalg.norm(patch)
            z_normal = float(patch @ anchors.normal) / temperature
            z_types = [float(patch @ row) / temperature for row in anchors.abnormal]
            z_abnormal = math.log(sum(math.exp(z) for z in z_types)) - math.log(len(z_types))
            share = math.exp(z_abnormal) / (math.exp(z_normal) + math.exp(z_abnormal))
            total[n // w, n % w] += (share + 1 - (1 - share)) / 2
    mean = total / len(features.patch_tokens)
    enlarged = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * h / height - 0.5, 0), h - 1)
            x = min(max((j + 0.5) * w / width - 0.5, 0), w - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            fy, fx = y - y0, x - x0
            top = (1 - fx) * mean[y0, x0] + fx * mean[y0, x1]
            bottom = (1 - fx) * mean[y1, x0] + fx * mean[y1, x1]
            enlarged[i, j] = (1 - fy) * top + fy * bottom
    return ndimage.gaussian_filter(enlarged, SMOOTHING_SHARE * max(height, width))


@pytest.mark.parametrize(("types", "size"), [(1, (40, 56)), (3, (61, 33)), (2, (300, 420))])
def test_the_map_and_the_score_equal_an_independent_reference(types: int, size: tuple[int, int]) -> None:
    features, anchors = random_features(types), random_anchors(types, types)
    backbone = ColourWords()
    look = ZeroShotExpert(backbone, anchors).localise(features, np.zeros((*size, 3), np.uint8))
    expected = reference_map(features, anchors, *size, SOFTMAX.temperature)
    np.testing.assert_allclose(look.anomaly_map, expected, atol=2e-6)
    picture = np.asarray(features.global_features[0], np.float64)
    logits = [float(picture @ row) / 0.07 for row in anchors.abnormal]
    z = math.log(sum(map(math.exp, logits)) / types) - float(picture @ anchors.normal) / 0.07
    highest = np.sort(expected.ravel())[-math.ceil(0.01 * expected.size) :]
    assert look.image_score == pytest.approx(0.5 / (1 + math.exp(-z)) + 0.5 * highest.mean(), abs=2e-6)
    assert look.anomaly_map.dtype == np.float32
    assert look.anomaly_map.shape == size


def test_smoothing_is_four_pixels_at_518() -> None:
    """A single bright patch on a fine grid spreads like a Gaussian of sigma 4."""
    grid = np.zeros((518, 518), np.float32)
    grid[259, 259] = 1.0
    across = smooth_map(grid, 518, 518)[259]
    offsets = np.arange(518) - 259
    assert float((across / across.sum() * offsets**2).sum()) == pytest.approx(16, rel=0.02)


def test_an_even_grid_stays_even_to_the_bit() -> None:
    found = smooth_map(np.full((6, 9), 0.37, np.float32), 50, 77)
    assert (found == np.float32(0.37)).all()


def test_a_flat_picture_stands_out_nowhere_and_a_spot_does() -> None:
    flat = np.random.default_rng(0).normal(0.4, 0.001, (12, 12)).astype(np.float32)
    assert smooth_map(flat, 96, 96).max() < stand_out(flat).threshold
    spot = flat.copy()
    spot[4:7, 4:7] = 0.8
    assert smooth_map(spot, 96, 96).max() > stand_out(spot).peak


# The expert


def test_a_red_square_scores_higher_and_is_where_the_map_peaks() -> None:
    expert = ZeroShotExpert(ColourWords())
    good_score, good_map = expert.score(texture(1))
    bad_score, bad_map = expert.score(with_square(texture(1), 32, 48, 32))
    assert bad_score > good_score + 0.05
    y, x = np.unravel_index(int(bad_map.argmax()), bad_map.shape)
    assert 32 <= x < 64
    assert 48 <= y < 80
    assert good_map.shape == bad_map.shape == (96, 96)


def test_anchors_are_embedded_once() -> None:
    backbone = ColourWords()
    expert = ZeroShotExpert(backbone)
    expert.score(texture(1))
    seen = backbone.embedded
    expert.score(texture(2))
    assert backbone.embedded == seen == 12 * 35


def test_a_backbone_without_words_is_refused() -> None:
    with pytest.raises(BackendError, match="no text tower"):
        ZeroShotExpert(PatchStatistics())
    with pytest.raises(BackendError, match="no text tower"):
        ensemble_anchors(PatchStatistics())


# The ensemble


def test_every_state_comes_in_every_template() -> None:
    ensemble = load_ensemble()
    assert (len(ensemble.normal), len(ensemble.abnormal), len(ensemble.templates)) == (7, 5, 35)
    normal, abnormal = ensemble.sentences(ensemble.normal), ensemble.sentences(ensemble.abnormal, "metal nut")
    assert len(set(normal)) == 7 * 35
    assert len(set(abnormal)) == 5 * 35
    assert "a photo of an intact object." in normal
    assert "a close-up of a metal nut that shows damage." in abnormal
    assert not [text for text in [*normal, *abnormal] if "{" in text or "  " in text]
    assert not set(normal) & set(ensemble.sentences(ensemble.abnormal))


@pytest.mark.parametrize(("phrase", "expected"), [("intact bolt", "an intact bolt"), ("nut", "a nut")])
def test_articles(phrase: str, expected: str) -> None:
    assert with_article(phrase) == expected


def test_the_anchor_is_the_mean_of_directions() -> None:
    rows = np.array([[2.0, 0.0], [0.0, 5.0]], np.float32)
    np.testing.assert_allclose(mean_direction(rows), [math.sqrt(0.5)] * 2, atol=1e-7)
    for bad in (np.zeros((1, 2)), np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([[np.nan, 1.0]])):
        with pytest.raises(BackendError):
            mean_direction(bad.astype(np.float32))


def test_the_noun_changes_the_prompts_and_their_hash() -> None:
    backbone = ColourWords()
    generic, named = ensemble_anchors(backbone), ensemble_anchors(backbone, "zipper")
    assert generic.prompts_sha256 != named.prompts_sha256
    assert generic.names == (GENERIC,)
    assert float(generic.normal @ generic.abnormal[0]) < 0.9


def test_anchors_are_kept_between_runs_and_made_again_when_damaged(tmp_path: Path) -> None:
    backbone = ColourWords()
    first = ensemble_anchors(backbone, folder=tmp_path)
    seen = backbone.embedded
    second = ensemble_anchors(backbone, folder=tmp_path)
    assert backbone.embedded == seen
    assert (first.normal == second.normal).all()
    assert first.prompts_sha256 == second.prompts_sha256
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    third = ensemble_anchors(backbone, folder=tmp_path)
    assert backbone.embedded == 2 * seen
    assert (third.abnormal == first.abnormal).all()
    other = ColourWords()
    other.weights_sha256 = "2" * 64
    ensemble_anchors(other, folder=tmp_path)
    assert other.embedded == seen


@pytest.mark.parametrize("text", ["", "version: 1", "version: 1\nnoun: x\nnormal: []\nabnormal: [a]\ntemplates: [b]"])
def test_a_damaged_ensemble_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_ensemble, "FOLDER", tmp_path)
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        load_ensemble("mine")
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        load_ensemble("missing")
    load_ensemble.cache_clear()


def test_the_shipped_ensemble_is_where_prompts_are() -> None:
    assert (prompts.FOLDER / "ensemble.yaml").is_file()


@pytest.mark.parametrize(
    ("normal", "abnormal", "names"),
    [
        (np.ones(2), np.ones((1, 2)), ("a",)),
        (np.array([1.0, 0]), np.ones((0, 2)), ()),
        (np.array([1.0, 0]), np.array([[1.0, 0]]), ("a", "b")),
        (np.array([1.0, 0]), np.array([[np.nan, 0]]), ("a",)),
        (np.array([[1.0, 0]]), np.array([[1.0, 0]]), ("a",)),
    ],
)
def test_unsound_anchors_are_refused(normal: NDArray[np.float64], abnormal: NDArray[np.float64], names: tuple) -> None:
    with pytest.raises(BackendError):
        TextAnchors(normal.astype(np.float32), abnormal.astype(np.float32), names)


def test_the_words_behind_the_numbers_are_told() -> None:
    told = zero_shot.describe_anchors(PLANE, PAPER)
    assert told == {"prompts_sha256": "", "anchors": [GENERIC], "loc_mode": "paper"}
