"""Single defects under the finest name that a data set gives them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import HEIGHT, WIDTH, loco, mask, mvtec, picture, visa

from flawscope.agent.errors import InputError
from flawscope.benchmarks.datasets import open_dataset
from flawscope.benchmarks.datasets.examples import Example, examples


def read(root: Path) -> list[Example]:
    dataset = open_dataset(root)
    return [example for product in dataset.products for example in examples(dataset, product)]


def test_references_are_good_and_not_for_tests_and_good_test_pictures_are_no_examples(tmp_path: Path) -> None:
    mvtec(tmp_path)
    found = read(tmp_path)
    good = [example for example in found if example.label == "good"]
    assert [example.path.parent.parent.name for example in good] == ["train"] * 3
    assert not any(example.is_test for example in good)
    assert all(example.mask(HEIGHT, WIDTH) is None for example in good)
    broken = [example for example in found if example.label == "broken"]
    assert len(broken) == 3
    assert all(example.is_test for example in broken)
    assert [bool(example.mask_paths) for example in broken] == [True, False, True]
    assert broken[0].mask(HEIGHT, WIDTH).sum() == 18  # type: ignore[union-attr]


def test_visa_names_what_its_split_calls_anomaly(tmp_path: Path) -> None:
    visa(tmp_path)
    rows = [
        "image,label,mask",
        'pcb1/Data/Images/Anomaly/000.JPG,"melt, scratch",x',
        "pcb1/Data/Images/Anomaly/001.JPG,bent,x",
    ]
    (tmp_path / "pcb1/image_anno.csv").write_text("\n".join(rows) + "\n", encoding="utf-8-sig")
    bad = [example for example in read(tmp_path) if example.is_test]
    assert [(example.label, example.names) for example in bad] == [
        ("anomaly", ("melt", "scratch")),
        ("anomaly", ("bent",)),
    ]


def test_a_table_without_its_columns_is_refused(tmp_path: Path) -> None:
    visa(tmp_path)
    (tmp_path / "pcb1/image_anno.csv").write_text("picture,kind\na,b\n")
    with pytest.raises(InputError, match=r"image_anno\.csv has no column image, label"):
        read(tmp_path)


def test_loco_names_defects_by_the_level_of_their_masks(tmp_path: Path) -> None:
    loco(tmp_path)
    config = [
        {"defect_name": "missing_pushpin", "pixel_value": 254, "saturation_threshold": 1, "relative_saturation": True},
        {
            "defect_name": "missing_separator",
            "pixel_value": 250,
            "saturation_threshold": 1,
            "relative_saturation": True,
        },
    ]
    (tmp_path / "pushpins/defects_config.json").write_text(json.dumps(config))
    names = {(e.label, e.path.stem): e.names for e in read(tmp_path) if e.is_test}
    assert names["logical_anomalies", "000"] == ("missing_pushpin",)
    assert names["logical_anomalies", "001"] == ("missing_pushpin", "missing_separator")
    (tmp_path / "pushpins/defects_config.json").write_text('[{"pixel_value": "red"}]')
    with pytest.raises(InputError, match="not a list of defects"):
        read(tmp_path)


def boards(root: Path) -> None:
    for n in range(2):
        picture(root / "board/test/mixed" / f"{n:03d}.png")
        mask(root / "board/ground_truth/mixed" / f"{n:03d}_mask.png")
    rows = [
        "image,x1,y1,x2,y2,defect_type",
        "000,0,0,2,2,open",
        "000,4,4,6,5,open",
        "000,10,6,14,9,short",
        "777,0,0,1,1,open",
    ]
    (root / "board/boxes.csv").write_text("\n".join(rows) + "\n")


def test_a_table_of_boxes_gives_one_example_for_each_type_in_a_picture(tmp_path: Path) -> None:
    boards(tmp_path)
    found = read(tmp_path)
    assert [(example.path.stem, example.label) for example in found] == [("000", "open"), ("000", "short")]
    opened, short = (example.mask(HEIGHT, WIDTH) for example in found)
    assert opened is not None
    assert short is not None
    wanted = np.zeros((HEIGHT, WIDTH), bool)
    wanted[0:2, 0:2] = wanted[4:5, 4:6] = True
    np.testing.assert_array_equal(opened, wanted)
    assert short.sum() == 4  # cut at the picture's edge: 2 x 2
    doubled = found[0].mask(2 * HEIGHT, 2 * WIDTH)
    assert doubled is not None
    assert doubled.sum() == 4 * opened.sum()


def test_a_box_that_is_not_four_numbers_is_refused(tmp_path: Path) -> None:
    boards(tmp_path)
    (tmp_path / "board/boxes.csv").write_text("image,x1,y1,x2,y2,defect_type\n000,0,zero,2,2,open\n")
    with pytest.raises(InputError, match="a box of 000 is not four numbers"):
        read(tmp_path)
