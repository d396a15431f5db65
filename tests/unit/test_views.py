"""Windows, copies and place-by-place distances by hand; what each view offers for a defect and for a good part."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import Plant

from flawscope.tools import views
from flawscope.tools.imaging import load_image


@pytest.mark.parametrize(
    ("size", "centre", "window"),
    [
        ((100, 200), (100, 50), (50, 25, 150, 75)),
        ((100, 200), (0, 0), (0, 0, 100, 50)),
        ((100, 200), (199, 99), (100, 50, 200, 100)),
        ((101, 201), (500, -500), (100, 0, 201, 51)),
        ((1, 1), (0, 0), (0, 0, 1, 1)),
    ],
)
def test_windows_by_hand(size: tuple[int, int], centre: tuple[int, int], window: tuple[int, ...]) -> None:
    assert views.window_around(size, centre) == window


def test_the_tiles_cover_the_picture() -> None:
    covered = np.zeros((101, 67), bool)
    for x0, y0, x1, y1 in views.tiles_of((101, 67)):
        covered[y0:y1, x0:x1] = True
    assert covered.all()
    assert len(views.tiles_of((101, 67))) == 5


def test_peaks_by_hand() -> None:
    anomaly_map = np.zeros((4, 6), np.float32)
    anomaly_map[1, 5] = 1
    assert views.peak_of(anomaly_map) == [5, 1]
    grid = np.zeros((4, 4), np.float32)
    grid[3, 0] = 1
    assert views.peak_px_of_grid(grid, (80, 40)) == (5, 70)


def test_copies_are_shifted_not_cropped() -> None:
    picture = np.random.default_rng(0).integers(0, 200, (64, 80, 3)).astype(np.uint8)
    copies = views.jittered(picture)
    assert len(copies) == len(views.JITTERS)
    for copy, (dx, dy, gain) in zip(copies, views.JITTERS, strict=True):
        assert copy.shape == picture.shape
        inner = picture[20 + dy : 40 + dy, 20 + dx : 40 + dx].astype(float) * gain
        np.testing.assert_allclose(copy[20:40, 20:40], inner, atol=0.51)


def unit_tokens(seed: int, h: int, w: int) -> np.ndarray:
    tokens = np.random.default_rng(seed).normal(size=(h * w, 8)).astype(np.float32)
    return np.asarray(tokens / np.linalg.norm(tokens, axis=1, keepdims=True), np.float32)


def test_place_by_place_tolerates_small_shifts_and_no_large_ones() -> None:
    tokens = unit_tokens(0, 12, 12)
    moved = {shift: np.roll(tokens.reshape(12, 12, 8), shift, axis=1).reshape(-1, 8) for shift in (0, 2, 5)}
    inner = np.s_[3:-3, 3:-3]
    for shift, near in ((0, True), (2, True), (5, False)):
        stored = {0: (moved[shift].astype(np.float16), (12, 12))}
        distances, owner = views.placewise_distances(tokens, (12, 12), stored)
        assert owner == 0
        assert bool((distances[inner] < 0.05).all()) is near


def test_place_by_place_can_leave_one_out_and_compare_other_shapes() -> None:
    stored = {o: (unit_tokens(o, 6, 6).astype(np.float16), (6, 6)) for o in range(3)}
    stored[3] = (unit_tokens(9, 4, 9).astype(np.float16), (4, 9))
    distances, owner = views.placewise_distances(unit_tokens(1, 6, 6), (6, 6), stored, skip=1)
    assert owner != 1
    assert float(distances.min()) > 0.05
    only_other = {3: stored[3]}
    distances, owner = views.placewise_distances(unit_tokens(1, 6, 6), (6, 6), only_other)
    assert (distances.shape, owner) == ((6, 6), 3)
    assert np.isfinite(distances).all()


def test_regions_return_to_the_pixels_of_the_file() -> None:
    from flawscope.tools.ad_expert.regions import FoundRegion

    enlarged = {"scale": [3.0, 2.0], "original_size_px": [20, 10]}
    (plain,) = views.original_regions([FoundRegion((10, 3, 60, 20), 300, 0.8, (11, 4), "left")], enlarged)
    assert plain == {"id": "R1", "box": [3, 1, 20, 10], "area_px": 50, "peak": 0.8, "place": "left"}


@pytest.mark.parametrize("name", sorted(views.VIEWS))
def test_each_view_tells_a_defect_from_a_good_part(plant: Plant, name: str) -> None:
    product = plant.deps().product("plate")
    assert product is not None
    assert name in product.calibration.views
    scores = []
    for path in (plant.new_good, plant.square):
        rgb = load_image(path).rgb
        features = views.encode(product.backbone, product, rgb)
        peak = tuple(views.peak_of(product.localise(features, rgb).anomaly_map))
        seen = views.VIEWS[name](product, rgb, features, peak)
        assert f"{seen.score:.3g}" in seen.note
        scores.append(seen.score)
    column = product.calibration.scores[:, product.calibration.views.index(name)]
    assert scores[0] <= column.max() * 1.2
    assert scores[1] > 2 * column.max()
