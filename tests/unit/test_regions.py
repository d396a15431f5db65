from __future__ import annotations

import numpy as np
import pytest

from flawscope.tools.ad_expert.regions import find_regions, place_in_words


def test_a_box_is_half_open_and_a_peak_lies_in_it() -> None:
    anomaly_map = np.zeros((20, 30), np.float32)
    anomaly_map[4:7, 10:15] = 1.0
    anomaly_map[5, 12] = 3.0
    (region,) = find_regions(anomaly_map, 1.0, min_area_px=1, min_peak=9)
    assert region.box == (10, 4, 15, 7)
    assert (region.area_px, region.peak, region.peak_px) == (15, 3.0, (12, 5))


def test_corners_connect_and_gaps_do_not() -> None:
    anomaly_map = np.zeros((8, 8), np.float32)
    anomaly_map[0, 0] = anomaly_map[1, 1] = 1.0
    anomaly_map[5, 5] = 2.0
    found = find_regions(anomaly_map, 0.5, min_area_px=1, min_peak=9)
    assert [region.box for region in found] == [(5, 5, 6, 6), (0, 0, 2, 2)]


def test_a_small_area_needs_a_high_peak() -> None:
    anomaly_map = np.zeros((10, 10), np.float32)
    anomaly_map[1, 1] = 5.0
    anomaly_map[8, 8] = 2.0
    found = find_regions(anomaly_map, 1.0, min_area_px=4, min_peak=4.0)
    assert [region.peak for region in found] == [5.0]


def test_neighbours_in_one_window_do_not_mix() -> None:
    anomaly_map = np.zeros((9, 9), np.float32)
    anomaly_map[0, :] = anomaly_map[:, 0] = 1.0  # an L whose window covers the picture
    anomaly_map[5, 5] = 7.0
    point, ell = find_regions(anomaly_map, 0.5, min_area_px=1, min_peak=9)
    assert (point.peak, ell.peak, ell.area_px) == (7.0, 1.0, 17)


def test_a_map_below_the_threshold_has_no_region_however_uneven() -> None:
    anomaly_map = np.random.default_rng(0).random((16, 16)).astype(np.float32)
    assert find_regions(anomaly_map, 1.5, min_area_px=1, min_peak=0) == []


def test_only_the_strongest_are_named() -> None:
    anomaly_map = np.zeros((4, 40), np.float32)
    anomaly_map[1, ::4] = np.arange(1, 11)
    found = find_regions(anomaly_map, 0.5, min_area_px=1, min_peak=0, max_regions=3)
    assert [region.peak for region in found] == [10.0, 9.0, 8.0]


@pytest.mark.parametrize(
    ("box", "place"),
    [
        ((140, 140, 160, 160), "centre"),
        ((40, 40, 60, 60), "upper left"),
        ((140, 40, 160, 60), "upper centre"),
        ((240, 140, 260, 160), "right"),
        ((0, 140, 20, 160), "left edge"),
        ((140, 0, 160, 20), "upper edge"),
        ((285, 285, 300, 300), "lower right corner"),
        ((0, 240, 20, 260), "lower left, at the edge"),
        ((0, 0, 300, 300), "whole picture"),
        ((0, 100, 300, 200), "centre"),
    ],
)
def test_places_by_hand(box: tuple[int, int, int, int], place: str) -> None:
    assert place_in_words(box, 300, 300) == place
