"""Our few-shot scores beside those of the methods' own authors, on the same numbers.

``tests/data/original_scores.npz`` holds random feature arrays and what was computed from them: the distances, scores
and map of AnomalyDINO's ``run_anomaly_detection`` (its model replaced by one that returns the arrays, search on the
CPU), and of PatchCore's ``NearestNeighbourScorer``, ``PatchMaker`` and ``RescaleSegmentor`` on unit tokens.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from flawscope.benchmarks.fewshot import nearest_per_reference
from flawscope.tools.ad_expert.anomaly_map import grid_to_pixels, top_fraction_mean
from flawscope.tools.ad_expert.expert import expert_tokens
from flawscope.tools.ad_expert.memory_bank import MemoryBank, assign
from flawscope.tools.backbones import VisualFeatures

TOLERANCE = 1e-5
MAP_SIGMA_PX = 4.0
"""Both originals smooth the enlarged map by this; we smooth on the patch grid, so the filter is put here."""

Recorded = dict[str, NDArray[np.float32]]


def unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    wide = rows.astype(np.float32)
    return np.asarray(wide / np.linalg.norm(wide, axis=-1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    with np.load(Path(__file__).parents[1] / "data" / "original_scores.npz", allow_pickle=False) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def bank(recorded: Recorded) -> MemoryBank:
    references = unit(recorded["references"])
    owners = np.repeat(np.arange(len(references), dtype=np.int32), references.shape[1])
    return MemoryBank(references.reshape(-1, references.shape[-1]), owners)


@pytest.mark.parametrize("name", ["", "small_"])
def test_distances_are_those_of_anomalydino(recorded: Recorded, bank: MemoryBank, name: str) -> None:
    # AnomalyDINO compares by 1 - cosine, we by the chord: d^2 / 2 = 1 - cosine
    distances = bank.distances(unit(recorded[f"{name}query"]))
    np.testing.assert_allclose(distances**2 / 2, recorded[f"dino_{name}distances"].ravel(), atol=TOLERANCE)


@pytest.mark.parametrize("name", ["", "small_"])
def test_the_mean_of_the_top_percent_is_that_of_anomalydino(recorded: Recorded, name: str) -> None:
    # Of 400 patches the highest four count, of 77 the highest one. Where 1% is no whole number of patches AnomalyDINO
    # rounds down and we round up.
    found = top_fraction_mean(recorded[f"dino_{name}distances"], 0.01)
    assert found == pytest.approx(float(recorded[f"dino_{name}score"]), abs=TOLERANCE)


def test_the_map_is_enlarged_as_in_anomalydino(recorded: Recorded) -> None:
    height, width = recorded["dino_map"].shape
    enlarged = gaussian_filter(grid_to_pixels(recorded["dino_distances"], height, width), MAP_SIGMA_PX)
    np.testing.assert_allclose(enlarged, recorded["dino_map"], atol=TOLERANCE)


def test_distances_and_neighbours_are_those_of_patchcore(recorded: Recorded, bank: MemoryBank) -> None:
    query = unit(recorded["query"])
    # PatchCore's search returns squared distances
    np.testing.assert_allclose(bank.distances(query) ** 2, recorded["patchcore_distances"].ravel(), atol=2 * TOLERANCE)
    assert np.array_equal(assign(query, bank.tokens), recorded["patchcore_nearest"])


def test_the_maximum_is_the_image_score_of_patchcore(recorded: Recorded, bank: MemoryBank) -> None:
    distances = bank.distances(unit(recorded["query"]))
    found = top_fraction_mean(distances, 1 / len(distances)) ** 2
    assert found == pytest.approx(float(recorded["patchcore_score"]), abs=2 * TOLERANCE)


def test_the_map_is_enlarged_as_in_patchcore(recorded: Recorded) -> None:
    height, width = recorded["patchcore_map"].shape
    enlarged = gaussian_filter(grid_to_pixels(recorded["patchcore_distances"], height, width), MAP_SIGMA_PX)
    np.testing.assert_allclose(enlarged, recorded["patchcore_map"], atol=2 * TOLERANCE)


def test_tokens_are_averaged_as_in_patchcore(recorded: Recorded) -> None:
    # inside the picture; at its border PatchCore averages with zeros and we repeat the border
    channels, height, width = recorded["feature_map"].shape[1:]
    tokens = recorded["feature_map"].reshape(1, channels, height * width).transpose(0, 2, 1)
    features = VisualFeatures((np.ascontiguousarray(tokens),), tokens.mean(axis=1), (height, width))
    ours = expert_tokens(features).reshape(height, width, channels)
    theirs = unit(recorded["patchcore_pooled"])
    np.testing.assert_allclose(ours[1:-1, 1:-1], theirs[1:-1, 1:-1], atol=TOLERANCE)


def test_the_baseline_of_the_benchmark_searches_as_patchcore(recorded: Recorded) -> None:
    references = unit(recorded["references"]).reshape(3, 20, 20, -1)
    query = unit(recorded["query"]).reshape(20, 20, -1)
    nearest = nearest_per_reference(query, list(references)).min(axis=0)
    np.testing.assert_allclose(nearest**2, recorded["patchcore_distances"], atol=2 * TOLERANCE)
