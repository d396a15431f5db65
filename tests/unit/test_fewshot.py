from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from colour_products import ColourBackbone, write_products
from rich.console import Console

from flawscope.agent.errors import ConfigError, InputError
from flawscope.benchmarks.datasets import load_dataset, load_mask, load_product
from flawscope.benchmarks.fewshot import baseline_tokens, draw_references, nearest_per_reference, render, run_fewshot
from flawscope.tools.ad_expert.expert import ExpertConfig


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_products(root)
    return root


def test_only_products_that_can_be_judged_are_listed(data: Path) -> None:
    (plate,) = load_dataset(data)
    assert (plate.name, len(plate.references), len(plate.tests), int(plate.labels.sum())) == ("plate", 5, 23, 3)
    assert plate.has_masks
    assert [picture.defect_type for picture in plate.tests] == ["good"] * 20 + ["red"] * 3


def test_masks_are_in_the_frame_of_the_picture(data: Path) -> None:
    plate = load_product(data / "plate")
    assert load_mask(plate.tests[-1], 64, 96).sum() == 16 * 32
    assert load_mask(plate.tests[-1], 128, 192).sum() == 4 * 16 * 32
    assert not load_mask(plate.tests[0], 64, 96).any()


@pytest.mark.parametrize("names", [["boards"], ["nothing"]])
def test_a_product_that_cannot_be_judged_is_refused_by_name(data: Path, names: list[str]) -> None:
    with pytest.raises(InputError, match=names[0]):
        load_dataset(data, names)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no product"):
        load_dataset(tmp_path)


def test_draws_are_nested_and_differ() -> None:
    assert draw_references(60, 16, 0)[:4] == draw_references(60, 4, 0)
    assert draw_references(60, 16, 0) != draw_references(60, 16, 1)
    assert len(set(draw_references(60, 16, 2))) == 16


def test_baseline_tokens_line_up() -> None:
    # The coarse map rises by 1 a cell of two fine ones: between cell centres the finer grid lies at quarters.
    fine = np.ones((1, 1, 2, 8), np.float32)
    coarse = np.stack([np.arange(4.0), np.ones(4)])[None, :, None].astype(np.float32)
    tokens = baseline_tokens([fine, coarse])
    assert tokens.shape == (2, 8, 3)
    np.testing.assert_allclose(tokens[..., 0], 1.0)
    # cells 1 and 2 keep their values under the 3-cell average of a ramp
    np.testing.assert_allclose((tokens[0, :, 1] / tokens[0, :, 2])[3:5], [1.25, 1.75], rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(tokens[..., 1:], axis=2), 1.0, rtol=1e-5)


def test_nearest_neighbours_agree_with_the_definition() -> None:
    rng = np.random.default_rng(0)
    query, *references = (rng.normal(size=(3, 4, 5)).astype(np.float32) for _ in range(3))
    found = nearest_per_reference(query, references)
    for row, reference in zip(found, references, strict=True):
        every = np.linalg.norm(query[:, :, None] - reference.reshape(1, 1, -1, 5), axis=3)
        np.testing.assert_allclose(row, every.min(axis=2), rtol=1e-4)


def test_a_plain_defect_is_found_by_both_methods(data: Path) -> None:
    result = run_fewshot(
        data, shots=(1, 4, 9), draws=2, backbone=ColourBackbone(), config=ExpertConfig(short_side_px=64)
    )
    (row,) = result["products"]
    assert set(row["shots"]) == {1, 4}  # nine references do not exist
    assert not row["in_macro"]
    for shots in (1, 4):
        for method in ("default", "baseline"):
            assert row["shots"][shots][method]["image_auroc"] == [1.0, 1.0]
            assert min(row["shots"][shots][method]["pixel_auroc"]) > 0.95


def test_the_table_shows_mean_difference_and_what_is_left_out() -> None:
    def figures(*image: float) -> dict[str, list[float]]:
        return {"image_auroc": list(image), "pixel_auroc": [], "aupro": []}

    def product(name: str, in_macro: bool) -> dict[str, object]:
        shots = {4: {"default": figures(0.9, 0.8), "baseline": figures(0.8, 0.8)}}
        return {"product": name, "in_macro": in_macro, "shots": shots}

    macro = {4: {"default": [0.9, 0.8], "baseline": [0.8, 0.8]}}
    result = {"shots": (4,), "products": [product("plate", True), product("hide", False)], "macro": macro}
    console = Console(width=80, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(render(result))
    text = captured.get()
    assert "85.0±7.1" in text
    assert "+5.0" in text
    assert "hide *" in text
    assert "* not in the macro mean" in text


@pytest.mark.parametrize("shots", [(), (0,), (4, 4)])
def test_shots_that_make_no_sense_are_refused(data: Path, shots: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="shots"):
        run_fewshot(data, shots=shots)
