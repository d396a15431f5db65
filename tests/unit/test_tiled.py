"""Large pictures: tiles are learnt, stored and searched, and a small defect is found where it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fakes import PatchStatistics
from numpy.typing import NDArray
from PIL import Image

from flawscope.tools.ad_expert.expert import ExpertConfig, prepare
from flawscope.tools.product_files import load_product
from flawscope.tools.products import enroll_product
from flawscope.tools.tiled import fit_tiles, localise_tiles, score_tiles, tile_tokens
from flawscope.tools.tiling import Tile

CONFIG = ExpertConfig(bank_size=600)
SPOT = (1500, 1560, 300, 360)  # y0, y1, x0, x1: smaller than a patch of the whole picture would show


def grain(seed: int, height: int = 1700, width: int = 1200) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(128, 12, (height // 4, width // 4))
    grey = np.clip(np.kron(noise, np.ones((4, 4))), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def spotted(seed: int, **size: int) -> NDArray[np.uint8]:
    picture = grain(seed, **size).copy()
    y0, y1, x0, x1 = SPOT
    picture[y0:y1, x0:x1] = 250
    return picture


def test_each_reference_owns_its_tiles_and_leaves_with_them() -> None:
    fit, tiles = fit_tiles([grain(0), grain(1), grain(2)], PatchStatistics(), CONFIG, lambda *_: None)
    assert [len(own) for own in tiles] == [4, 4, 4]  # 1700 x 1200 px in tiles of 1036, two each way
    assert set(fit.expert.bank.owners) == {0, 1, 2}
    assert 1 not in fit.without(1).bank.owners


def test_the_strongest_tile_speaks() -> None:
    fit, _ = fit_tiles([grain(0), grain(1)], PatchStatistics(), CONFIG, lambda *_: None)
    grids, score = score_tiles(fit.expert, tile_tokens(spotted(2), PatchStatistics(), CONFIG))
    assert score == pytest.approx(max(fit.expert.local_score(grid) for grid in grids))


def test_a_small_defect_is_found_where_it_is() -> None:
    fit, _ = fit_tiles([grain(seed) for seed in range(4)], PatchStatistics(), CONFIG, lambda *_: None)
    good, usual = localise_tiles(fit.expert, PatchStatistics(), grain(8))
    bad, score = localise_tiles(fit.expert, PatchStatistics(), spotted(9))
    assert good.shape == bad.shape == (1700, 1200)
    assert score > usual
    y, x = np.unravel_index(int(bad.argmax()), bad.shape)
    margin = 80  # two patches of a tile, and the smoothing
    assert SPOT[0] - margin <= y <= SPOT[1] + margin
    assert SPOT[2] - margin <= x <= SPOT[3] + margin


def halves(height: int, width: int) -> list[Tile]:
    return [Tile(0, 0, height, width // 2), Tile(0, width // 2, height, width)]


def test_tiles_of_another_plan() -> None:
    backbone = PatchStatistics()
    fit, tiles = fit_tiles([grain(0), grain(1)], backbone, CONFIG, lambda *_: None, halves)
    assert [len(own) for own in tiles] == [2, 2]
    picture = spotted(2)
    anomaly_map, score = localise_tiles(fit.expert, backbone, picture, halves)
    left = prepare(picture[:, :600], CONFIG)
    grid = fit.expert.score_grid(backbone.encode_image(left[None]))
    assert score == pytest.approx(fit.expert.local_score(grid))  # the spot is in the left half
    y, x = np.unravel_index(int(anomaly_map.argmax()), anomaly_map.shape)
    assert SPOT[0] - 80 <= y <= SPOT[1] + 80
    assert SPOT[2] - 80 <= x <= SPOT[3] + 80


def test_a_product_of_large_references_is_stored_and_judged_by_tiles(tmp_path: Path) -> None:
    size = {"height": 3600, "width": 3600}  # above 12.8 million pixels
    paths = []
    for seed in range(3):
        paths.append(tmp_path / f"{seed}.png")
        Image.fromarray(grain(seed, **size)).save(paths[-1], compress_level=1)
    enroll_product(tmp_path / "products", "scan", paths, PatchStatistics())
    model = load_product(tmp_path / "products", "scan", PatchStatistics())
    assert "tiles" in model.calibration.views
    assert "zoom" not in model.calibration.views
    good, bad = grain(7, **size), spotted(7, **size)
    scores = [model.localise(model.expert.encode(model.backbone, p), p).tile_score for p in (good, bad)]
    assert scores[0] is not None
    assert scores[1] is not None
    assert scores[1] > scores[0]
