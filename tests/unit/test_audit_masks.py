"""The pixels of a region as a record keeps them."""

from __future__ import annotations

import numpy as np

from flawscope.agent.schemas import Region
from flawscope.audits.masks import region_masks
from flawscope.audits.rle import decode_mask
from flawscope.tools.ad_expert.regions import find_regions


def regions_of(anomaly_map: np.ndarray, threshold: float) -> list[Region]:
    found = find_regions(anomaly_map, threshold, min_area_px=0, min_peak=0)
    return [
        Region(id=f"R{n}", box=r.box, area_px=r.area_px, peak=r.peak, place=r.place)
        for n, r in enumerate(found, start=1)
    ]


def test_masks_are_the_connected_areas_that_made_the_regions() -> None:
    anomaly_map = np.zeros((12, 16), np.float32)
    anomaly_map[2:7, 3] = anomaly_map[6, 3:9] = 2.0  # an L, in whose box ...
    anomaly_map[2:4, 7] = 1.5  # ... another area lies
    regions = regions_of(anomaly_map, 1.0)
    masks = region_masks(anomaly_map, 1.0, regions, (16, 12))
    assert [decode_mask(masks[region.id], 12, 16).sum() for region in regions] == [10, 2]
    both = decode_mask(masks["R1"], 12, 16) | decode_mask(masks["R2"], 12, 16)
    assert np.array_equal(both, anomaly_map >= 1.0)


def test_a_map_of_an_enlarged_picture_gives_masks_of_the_original() -> None:
    anomaly_map = np.zeros((8, 8), np.float32)
    anomaly_map[2:4, 4:8] = 3.0
    region = Region(id="R1", box=(2, 1, 4, 2), area_px=2, peak=3.0, place="right")
    mask = decode_mask(region_masks(anomaly_map, 1.0, [region], (4, 4))["R1"], 4, 4)
    assert np.argwhere(mask).tolist() == [[1, 2], [1, 3]]


def test_a_region_below_the_threshold_has_no_mask() -> None:
    region = Region(id="R1", box=(0, 0, 2, 2), area_px=4, peak=0.5, place="centre")
    assert region_masks(np.full((4, 4), 0.5, np.float32), 1.0, [region], (4, 4)) == {}
