"""The gate in front of the expert's map: its scale and its admission, worked by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Plant
from fakes import PatchStatistics

from flawscope.agent.errors import ProductError
from flawscope.tools import product_files
from flawscope.tools.ad_expert.evidence_gate import (
    MapScale,
    cells_of,
    fit_map_scale,
    judge_map,
    largest_area,
)
from flawscope.tools.enrolment import UNCALIBRATED_SCALE, fit_product
from flawscope.tools.imaging import load_image
from flawscope.tools.product_files import load_product
from flawscope.tools.product_model import ProductModel

BACKBONE = PatchStatistics()


def grid(*rows: str) -> np.ndarray:
    """A map written as digits, a tenth each."""
    return np.array([[int(digit) for digit in row] for row in rows], np.float32) / 10


class TestScale:
    def test_ends_of_a_pool_of_a_hundred(self) -> None:
        residuals = np.arange(1, 101, dtype=np.float32).reshape(10, 10)
        scale = fit_map_scale([[residuals]], [100])
        # the 99th of 100 values is the first with 99 percent at or below it; the median is 50.5
        assert scale == MapScale(low=99.0, high=99.0 + 2 * (99.0 - 50.5), area_share=0.01)
        assert scale.calibrate(np.array([[0.0, 99.0, 147.5, 1000.0]], np.float32)) == pytest.approx(
            np.array([[0.0, 0.0, 0.5, 1.0]])
        )

    def test_good_parts_that_are_all_alike_leave_a_scale_that_works(self) -> None:
        scale = fit_map_scale([[np.full((4, 4), 0.3, np.float32)]] * 3, [16] * 3)
        assert scale.low == scale.high
        assert scale.area_share == 0.0
        found = scale.calibrate(np.array([[0.1, 0.3, 0.4]], np.float32))
        assert found.tolist() == [[0.0, 0.0, 1.0]]

    def test_areas_of_tiles_are_shares_of_the_picture(self) -> None:
        quiet, blob = np.zeros((20, 20), np.float32), np.zeros((20, 20), np.float32)
        blob[:2, :2] = 1.0
        scale = fit_map_scale([[quiet, blob], [quiet, blob]], [500, 500])
        assert scale.low == 0.0  # 8 of 1600 values are above it
        assert scale.area_share == pytest.approx(4 / 500)

    @pytest.mark.parametrize("wrong", [(1.0, 0.5, 0.1), (np.nan, 1.0, 0.1), (0.1, np.inf, 0.1), (0.1, 0.2, 1.5)])
    def test_a_damaged_scale_is_refused(self, wrong: tuple[float, float, float]) -> None:
        with pytest.raises(ProductError, match="damaged"):
            MapScale(*wrong)


class TestGate:
    scale = MapScale(low=0.5, high=0.9, area_share=2 / 12)

    def test_one_area_larger_than_on_good_parts_is_admitted(self) -> None:
        gate = judge_map(grid("9900", "0900", "0000"), self.scale, calibrated=True)
        assert gate.admitted
        assert gate.coherence == pytest.approx(3 / 12)
        assert gate.limit == pytest.approx(3 / 12)  # two patches and a margin of one
        assert gate.weight == 1.0

    def test_as_large_an_area_as_on_good_parts_is_not(self) -> None:
        assert not judge_map(grid("9900", "0000", "0009"), self.scale, calibrated=True).admitted

    def test_scattered_patches_are_no_area(self) -> None:
        assert not judge_map(grid("9090", "0000", "9090"), self.scale, calibrated=True).admitted

    def test_patches_that_touch_at_a_corner_belong_together(self) -> None:
        assert judge_map(grid("9000", "0900", "0090"), self.scale, calibrated=True).admitted

    def test_nothing_above_the_scale_is_never_admitted(self) -> None:
        gate = judge_map(grid("5555", "5555", "5555"), replace(self.scale, area_share=0.0), calibrated=True)
        assert gate.coherence == 0.0
        assert not gate.admitted

    def test_without_calibration_nothing_is_admitted_and_the_weight_is_halved(self) -> None:
        gate = judge_map(grid("9999", "9999", "9999"), self.scale, calibrated=False)
        assert not gate.admitted
        assert not gate.calibrated
        assert gate.weight == 0.5

    def test_values_are_read_at_the_centres_of_patches(self) -> None:
        anomaly_map = np.zeros((4, 6), np.float32)
        anomaly_map[1, 3] = 1.0  # the pixel at the centre of the patch in row 0, column 1
        assert cells_of(anomaly_map, (2, 2)).tolist() == [[0.0, 0.0], [0.0, 0.0]]
        anomaly_map[1, 4] = 1.0
        assert cells_of(anomaly_map, (2, 2)).tolist() == [[0.0, 1.0], [0.0, 0.0]]
        assert cells_of(anomaly_map, (9, 9)).shape == (9, 9)  # more patches than pixels repeat them


class TestProducts:
    def gate_of(self, model: ProductModel, picture: Path) -> bool:
        rgb = load_image(str(picture)).rgb
        found = model.localise(model.expert.encode(BACKBONE, rgb), rgb)
        return model.gate(found.anomaly_map, found.patch_scores.shape).admitted

    def test_a_square_is_admitted_and_a_good_part_is_not(self, plant: Plant) -> None:
        model = load_product(plant.home / "products", "plate", BACKBONE)
        assert self.gate_of(model, plant.square)
        assert not self.gate_of(model, plant.new_good)

    def test_the_scale_is_stored(self, plant: Plant) -> None:
        stored = load_product(plant.home / "products", "plate", BACKBONE)
        fresh = fit_product("plate", [str(path) for path in plant.good], BACKBONE)
        assert stored.map_scale == fresh.map_scale
        assert stored.map_scale is not None
        assert stored.map_scale.low <= stored.pixel_threshold

    def test_a_product_of_an_earlier_version_is_read_by_its_pixel_scale(self, plant: Plant, tmp_path: Path) -> None:
        model = load_product(plant.home / "products", "plate", BACKBONE)
        pictures = tuple(load_image(path).rgb for path in model.reference_files)
        (tmp_path / "plate").mkdir()
        earlier = replace(model, map_scale=None, types=None, type_examples={}, reference_pictures=pictures)
        product_files.write_product(earlier, tmp_path / "plate")
        old = load_product(tmp_path, "plate", BACKBONE)
        assert old.map_scale is None
        assert old.shown_scale.low == old.pixel_threshold
        assert self.gate_of(old, plant.square)

    def test_a_single_reference_calibrates_nothing(self, plant: Plant) -> None:
        model = fit_product("one", [str(plant.good[0])], BACKBONE)
        assert model.map_scale is None
        assert model.shown_scale.low == UNCALIBRATED_SCALE.threshold
        assert not self.gate_of(model, plant.square)

    def test_large_pictures_are_judged_on_the_patches_of_their_tiles(self, plant: Plant) -> None:
        model = fit_product("few", [str(path) for path in plant.good[:3]], BACKBONE)
        tiled = replace(model, tiles=model.expert, map_scale=MapScale(0.5, 1.0, 0.0))
        anomaly_map = np.zeros((1036, 2072), np.float32)
        anomaly_map[:100, :100] = 1.0
        gate = tiled.gate(anomaly_map, (3, 3))
        assert gate.limit == pytest.approx(1 / (28 * 56))
        assert gate.coherence == pytest.approx(9 / (28 * 56))  # centres at 18.5, 55.5 and 92.5 px
        assert gate.admitted


def test_the_largest_of_several_areas_counts() -> None:
    assert largest_area(grid("99000", "00000", "00999", "00090"), 0.5) == 4
    assert largest_area(grid("555", "555"), 0.5) == 0
