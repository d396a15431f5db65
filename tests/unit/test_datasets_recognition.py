"""Names, refusals, masks in every encoding, and data in folders of one's own choice."""

from __future__ import annotations

from pathlib import Path

import dataset_trees as trees
import numpy as np
import pytest
from PIL import Image

from flawscope.agent.errors import ConfigError, InputError
from flawscope.benchmarks.datasets import (
    DATASETS,
    GOOD,
    LAYOUTS,
    canonical_name,
    load_dataset,
    load_folders,
    open_dataset,
)
from flawscope.benchmarks.datasets.listing import masks_by_stem
from flawscope.benchmarks.datasets.pictures import read_mask


def test_every_layout_has_a_tree_that_tests_it() -> None:
    assert set(trees.BUILDERS) == set(LAYOUTS)
    assert {layout for known in DATASETS.values() for layout in known.layouts} <= set(LAYOUTS)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("MVTec AD", "mvtec"),
        ("mvtec_ad", "mvtec"),
        ("VisA", "visa"),
        ("DTD-Synthetic", "dtd-synthetic"),
        ("own", "own"),
    ],
)
def test_names_are_the_same_however_written(written: str, name: str) -> None:
    assert canonical_name(written) == name


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"imagenet is no known.*brainmri"):
        open_dataset(tmp_path, "imagenet")


def test_a_folder_that_fits_nothing_says_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    with pytest.raises(InputError, match=r"no product.*split_csv/1cls\.csv.*yes/ and no/"):
        open_dataset(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        open_dataset(tmp_path / "nothing")


def test_a_folder_of_another_set_says_which_layout_was_expected(tmp_path: Path) -> None:
    trees.btad(tmp_path)
    with pytest.raises(InputError, match="01, 02, 03, which VisA does not have"):
        open_dataset(tmp_path, "visa")
    with pytest.raises(InputError, match=r"Expected one of isic: pictures beside") as raised:
        open_dataset(tmp_path / "01" / "train", "isic")
    assert "kosNN" not in str(raised.value)


def test_other_products_in_a_known_layout_are_nobodys_set(tmp_path: Path) -> None:
    trees.mvtec(tmp_path, "bottle")
    trees.mvtec(tmp_path / "valves", "valve")
    assert open_dataset(tmp_path / "valves").name is None
    trees.mvtec(tmp_path, "valve")
    assert open_dataset(tmp_path).name is None


def test_products_for_few_shots_come_from_every_layout(tmp_path: Path) -> None:
    trees.btad(tmp_path / "btad")
    assert [p.name for p in load_dataset(tmp_path / "btad", ["03", "01"])] == ["03", "01"]
    trees.sdd(tmp_path / "sdd")
    with pytest.raises(InputError, match="no product"):
        load_dataset(tmp_path / "sdd")  # no references


def test_masks_that_belong_to_other_pictures_are_refused(tmp_path: Path) -> None:
    trees.polyps(tmp_path)
    for path in (tmp_path / "masks").iterdir():
        path.rename(path.with_name(f"m{path.name}"))
    with pytest.raises(InputError, match=r"no mask in .*masks.*Expected 1\.png or 1_mask\.png, found m1\.PNG"):
        open_dataset(tmp_path)


def test_two_masks_for_one_picture_are_refused(tmp_path: Path) -> None:
    trees.mask(tmp_path / "000_mask.png")
    trees.mask(tmp_path / "000.bmp")
    with pytest.raises(InputError, match="two masks for picture 000"):
        masks_by_stem(tmp_path)


def grey(values: list[int], mode: str = "L") -> Image.Image:
    kinds = {"L": np.uint8, "I;16": np.uint16}
    return Image.fromarray(np.array([values], kinds[mode]))


def palette(indices: list[int], *colours: tuple[int, int, int]) -> Image.Image:
    image = Image.new("P", (len(indices), 1))
    image.putpalette([channel for colour in colours for channel in colour])
    image.putdata(indices)
    return image


@pytest.mark.parametrize(
    ("image", "defective"),
    [
        (grey([0, 255, 3, 200]), [0, 1, 0, 1]),  # JPEG ringing near black is background
        (grey([0, 1, 2, 7]), [0, 1, 1, 1]),  # class numbers
        (grey([0, 0, 0, 0]), [0, 0, 0, 0]),
        (grey([0, 65535, 200, 40000], "I;16"), [0, 1, 0, 1]),
        (grey([0, 255, 254, 0]).convert("1"), [0, 1, 1, 0]),
        (grey([0, 255, 255, 0]).convert("RGBA"), [0, 1, 1, 0]),
        (palette([0, 1, 2, 0], (0, 0, 0), (128, 0, 0), (255, 255, 255)), [0, 1, 1, 0]),
        (palette([1, 0, 0, 1], (255, 255, 255), (0, 0, 0)), [0, 1, 1, 0]),  # white first
        (palette([0, 1, 2, 0], (0, 0, 0), (0, 0, 0), (0, 0, 0)), [0, 1, 1, 0]),  # numbers without colours
    ],
)
def test_masks_in_every_encoding(tmp_path: Path, image: Image.Image, defective: list[int]) -> None:
    image.save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png").astype(int).tolist() == [defective]


def test_a_broken_mask_is_named(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"mask\.png cannot be read"):
        read_mask(tmp_path / "mask.png")


def test_folders_of_ones_own_choice(tmp_path: Path) -> None:
    trees.folders(tmp_path)
    product = load_folders(tmp_path / "good", [tmp_path / "scratch"], masks=tmp_path / "masks", name="valve")
    assert (product.name, product.references) == ("valve", ())
    assert [p.defect_type for p in product.tests] == [GOOD] * 3 + ["scratch"] * 3
    assert product.has_masks
    flat_masks = load_folders(tmp_path / "good", [tmp_path / "scratch"], masks=tmp_path / "masks/scratch")
    assert flat_masks.has_masks
    apart = load_folders(tmp_path / "good", [tmp_path / "dent"], tmp_path / "good_test")
    assert len(apart.references) == 3
    with pytest.raises(InputError, match="nothing is no folder with pictures"):
        load_folders(tmp_path / "good", [tmp_path / "nothing"])
    with pytest.raises(InputError, match="is not a folder"):
        load_folders(tmp_path / "good", [tmp_path / "dent"], masks=tmp_path / "nothing")


def test_the_page_lists_every_data_set_and_layout() -> None:
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    for name in (*DATASETS, *LAYOUTS):
        assert any(f"`{name}`" in row for row in rows), name
