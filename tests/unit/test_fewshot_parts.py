from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour_products import ColourBackbone, write_products
from fakes import PatchStatistics, texture, with_square
from rich.console import Console

from flawscope.agent.errors import ConfigError
from flawscope.benchmarks.fewshot import run_fewshot
from flawscope.benchmarks.fewshot_parts import AVERAGED, SHIPPED, TILED, render, run_fewshot_parts
from flawscope.benchmarks.fewshot_variants import JoinedStages, Tiles, Variant, decided, share_tiles, variants
from flawscope.tools.ad_expert import reference_views
from flawscope.tools.ad_expert.expert import ExpertConfig, expert_tokens
from flawscope.tools.tiling import Tile

SMALL = ExpertConfig(short_side_px=64)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_products(root)
    return root


def small(every: list[Variant]) -> list[Variant]:
    return [replace(each, config=replace(each.config, short_side_px=64)) for each in every]


def test_the_shipped_row_is_that_of_bench_fewshot(data: Path) -> None:
    wanted = small(
        [v for v in variants() if v.name in (SHIPPED, "no look of the whole", "quarter turns of the references")]
    )
    found = run_fewshot_parts(data, 2, 2, backbone=ColourBackbone(), wanted=wanted)
    other = run_fewshot(data, (2,), 2, backbone=ColourBackbone(), config=SMALL)
    (product,) = other["products"]
    rows = found["products"]["plate"]
    assert rows[SHIPPED]["image_auroc"] == product["shots"][2]["default"]["image_auroc"]
    assert rows[SHIPPED]["aupro"] == product["shots"][2]["default"]["aupro"]
    assert set(rows) == {v.name for v in wanted} | {TILED, AVERAGED}
    assert all(0.0 <= value <= 1.0 for row in rows.values() for value in (*row["image_auroc"], *row["aupro"]))
    lines = told(found).splitlines()
    assert any("plate AUPRO" in line for line in lines)
    assert sum("(+" in line or "(-" in line for line in lines) == len(rows) - 1


def told(result: dict[str, Any], width: int = 200) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(render(result))
    return captured.get()


def test_all_references_at_once_are_drawn_once(data: Path) -> None:
    found = run_fewshot_parts(data, 5, 3, backbone=ColourBackbone(), wanted=small(variants()[:1]))
    assert len(found["products"]["plate"][SHIPPED]["image_auroc"]) == 1
    assert "5 references, 1 draw: image AUROC" in told(found)


def test_products_that_were_drawn_less_often_are_named() -> None:
    rows = {name: {SHIPPED: {"image_auroc": values, "aupro": []}} for name, values in (("a", [0.5, 0.7]), ("b", [0.9]))}
    text = " ".join(told({"shots": 4, "products": rows}).split())
    assert "4 references, 2 draws (1 of b): image AUROC" in text


def test_every_variant_changes_what_it_says() -> None:
    """A swapped name that nothing reads any more would compare the expert with itself."""
    for variant in variants()[1:]:
        assert variant.swaps or variant.rotate or variant.fine or variant.config != ExpertConfig()
        for module, name, value in variant.swaps:
            before = getattr(module, name)
            with decided(variant.swaps):
                assert getattr(module, name) is value
            assert getattr(module, name) is before
    for variant in variants():
        for module, name, _ in variant.swaps:
            assert reads(Path(module.__file__).read_text(), name), f"{module.__name__} never looks at its {name}"


def reads(source: str, name: str) -> bool:
    """Whether a module looks a name up; imports, definitions, comments and docstrings do not."""
    return any(
        isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load)
        for node in ast.walk(ast.parse(source))
    )


def test_a_name_that_nothing_reads_is_found() -> None:
    assert reads("FEW = 8\ndef few(n):\n    return n < FEW", "FEW")
    unread = 'from .a import tokens, NATURAL\nFEW: int = 8  # FEW\ndef tokens():\n    """FEW"""\n'
    assert not any(reads(unread, name) for name in ("FEW", "NATURAL", "tokens"))


def test_decisions_are_given_back_after_a_failure() -> None:
    before = reference_views.NATURAL
    with pytest.raises(AttributeError), decided(((reference_views, "NATURAL", 9.0),)):
        reference_views.nothing_of_that_name()
    assert before == reference_views.NATURAL


def test_tiles_are_a_share_of_the_picture() -> None:
    assert [Tile(*(side // 10 for side in tile)) for tile in share_tiles(960, 960)] == share_tiles(96, 96)
    sides = {(tile.y1 - tile.y0, tile.x1 - tile.x0) for tile in share_tiles(96, 200)}
    assert sides == {(60, 60)}


def test_the_strongest_tile_judges_a_picture() -> None:
    tiles = Tiles([texture(0), texture(1)], PatchStatistics())
    (usual, _), (score, anomaly_map) = tiles.judge(texture(2)), tiles.judge(with_square(texture(2), 60, 30))
    assert score > usual
    y, x = np.unravel_index(int(anomaly_map.argmax()), anomaly_map.shape)
    assert 30 <= y <= 50
    assert 60 <= x <= 80


def test_joined_stages_stand_side_by_side() -> None:
    picture = np.zeros((1, 32, 48, 3), np.uint8)
    picture[:, :16, :16] = 200
    seen = JoinedStages(ColourBackbone(), 0.5).encode_image(picture)
    assert (seen.grid, seen.patch_tokens[0].shape) == ((2, 3), (1, 6, 6))
    lengths = np.linalg.norm(seen.patch_tokens[0][0].reshape(6, 2, 3), axis=2)
    assert np.allclose(lengths, [[1.0, 0.5]] * 6, atol=1e-6)
    assert np.allclose(np.linalg.norm(expert_tokens(seen), axis=1), 1.0, atol=1e-6)


def test_too_little_to_judge_is_said(data: Path) -> None:
    with pytest.raises(ConfigError, match="positive"):
        run_fewshot_parts(data, 0)
    with pytest.raises(ConfigError, match="9 references"):
        run_fewshot_parts(data, 9, backbone=ColourBackbone())
