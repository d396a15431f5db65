"""Each layout as it is published, with the traps that its folders hold."""

from __future__ import annotations

from pathlib import Path

import dataset_trees as trees
import numpy as np
import pytest

from flawscope.agent.errors import InputError
from flawscope.benchmarks.datasets import GOOD, IMAGE, PIXEL, Dataset, LabelledPicture, load_mask, open_dataset

BOTH = frozenset({IMAGE, PIXEL})
BOX_PX = 18


def rows(dataset: Dataset, product: int = 0) -> list[tuple[str, str, list[str]]]:
    """Name, type and names of the masks of each test picture."""
    tests = dataset.products[product].tests
    return [(p.path.name, p.defect_type, [m.name for m in p.mask_paths]) for p in tests]


def mask_sizes(dataset: Dataset, product: int = 0) -> list[int | None]:
    found = [load_mask(p, trees.HEIGHT, trees.WIDTH) for p in dataset.products[product].tests if p.is_defective]
    return [None if mask is None else int(mask.sum()) for mask in found]


def test_mvtec_pairs_by_name_and_leaves_the_unlabelled_unlabelled(tmp_path: Path) -> None:
    trees.mvtec(tmp_path)
    data = open_dataset(tmp_path)
    assert (data.name, data.layout, data.metrics) == ("mvtec", "mvtec", BOTH)
    (bottle,) = data.products
    assert [path.name for path in bottle.references] == ["000.png", "001.png", "002.png"]
    assert bottle.validation == ()
    assert rows(data) == [
        ("000.png", GOOD, []),
        ("001.png", GOOD, []),
        ("002.png", GOOD, []),
        ("000.png", "broken", ["000_mask.png"]),
        ("001.png", "broken", []),
        ("002.PNG", "broken", ["002_mask.png"]),
    ]
    assert mask_sizes(data) == [BOX_PX, None, 1]
    assert not bottle.has_masks
    assert [p.has_mask for p in bottle.tests] == [True, True, True, True, False, True]


def test_one_product_may_be_given_by_itself(tmp_path: Path) -> None:
    trees.mvtec(tmp_path)
    assert [p.name for p in open_dataset(tmp_path / "bottle").products] == ["bottle"]


def test_visa_converted(tmp_path: Path) -> None:
    trees.visa_converted(tmp_path / "visa_pytorch")
    data = open_dataset(tmp_path)  # the folder around it
    assert (data.name, data.layout, data.root) == ("visa", "mvtec", tmp_path / "visa_pytorch")
    assert rows(data)[2:] == [("000.JPG", "bad", ["000.png"]), ("001.JPG", "bad", ["001.png"])]


def test_goodsad(tmp_path: Path) -> None:
    trees.goodsad(tmp_path)
    data = open_dataset(tmp_path)
    assert (data.name, data.layout) == ("goodsad", "mvtec")
    assert [masks for *_, masks in rows(data)[3:]] == [["001001.png"], ["001002.png"], ["002001.png"]]


def test_mpdd_pairs_within_a_type(tmp_path: Path) -> None:
    trees.mpdd(tmp_path)
    data = open_dataset(tmp_path)
    assert (data.name, data.layout, [p.name for p in data.products]) == (
        "mpdd",
        "mvtec",
        ["bracket_black", "connector"],
    )
    tests = data.products[0].tests
    assert [(p.defect_type, p.path.name) for p in tests[2:]] == [
        ("hole", "000.png"),
        ("hole", "001.png"),
        ("scratches", "000.png"),
        ("scratches", "001.png"),
    ]
    assert all(p.mask_paths[0].parent.name == p.defect_type for p in tests[2:])
    assert mask_sizes(data) == [BOX_PX] * 4


def test_dtd_synthetic(tmp_path: Path) -> None:
    trees.dtd_synthetic(tmp_path)
    data = open_dataset(tmp_path)
    assert (data.name, data.layout) == ("dtd-synthetic", "mvtec")
    assert [p.name for p in data.products] == ["Blotchy_099", "Woven_001"]
    assert rows(data, 1)[2:] == [("000.png", "bad", ["000_mask.png"]), ("001.png", "bad", ["001_mask.png"])]


def test_btad_calls_good_ok_and_mixes_suffixes(tmp_path: Path) -> None:
    trees.btad(tmp_path)
    data = open_dataset(tmp_path)
    assert (data.name, data.layout, [p.name for p in data.products]) == ("btad", "btad", ["01", "02", "03"])
    assert rows(data)[1:3] == [("0001.bmp", GOOD, []), ("0000.bmp", "ko", ["0000.png"])]
    assert rows(data, 2)[2:] == [("0000.bmp", "ko", ["0000.bmp"]), ("0001.bmp", "ko", ["0001.bmp"])]
    assert all(len(p.references) == 2 and p.has_masks for p in data.products)


def test_loco_unites_the_masks_of_a_picture(tmp_path: Path) -> None:
    trees.loco(tmp_path)
    data = open_dataset(tmp_path)
    (pushpins,) = data.products
    assert (data.name, data.layout, len(pushpins.validation)) == ("mvtec-loco", "loco", 2)
    assert [masks for *_, masks in rows(data)] == [
        [],
        [],
        ["000.png"],
        ["000.png", "001.png"],
        ["000.png"],
        ["000.png"],
    ]
    assert mask_sizes(data) == [BOX_PX, BOX_PX + 4, BOX_PX, BOX_PX]
    assert {p.parent.parent.name for p in pushpins.validation} == {"validation"}


def test_mvtec_3d_takes_the_colour_pictures(tmp_path: Path) -> None:
    trees.mvtec_3d(tmp_path)
    data = open_dataset(tmp_path)
    (bagel,) = data.products
    assert (data.name, data.layout) == ("mvtec-3d", "mvtec-3d")
    assert (len(bagel.references), len(bagel.validation)) == (2, 2)
    assert {p.path.parent.name for p in bagel.tests} == {"rgb"}
    assert rows(data)[1:3] == [("001.png", GOOD, []), ("000.png", "hole", ["000.png"])]


def test_visa_reads_its_table_and_class_numbers(tmp_path: Path) -> None:
    trees.visa(tmp_path)
    data = open_dataset(tmp_path)
    assert (data.name, data.layout, [p.name for p in data.products]) == ("visa", "visa", ["pcb1"])
    assert [path.name for path in data.products[0].references] == ["0000.JPG", "0001.JPG"]
    assert rows(data) == [
        ("0002.JPG", GOOD, []),
        ("000.JPG", "anomaly", ["000.png"]),
        ("001.JPG", "anomaly", ["001.png"]),
    ]
    assert mask_sizes(data) == [BOX_PX, BOX_PX]  # values 1 and 2


def test_visa_with_holes_is_refused(tmp_path: Path) -> None:
    trees.visa(tmp_path)
    (tmp_path / "pcb1/Data/Images/Anomaly/001.JPG").unlink()
    with pytest.raises(InputError, match=r"1 of 5 pictures of pcb1 are missing"):
        open_dataset(tmp_path)


def test_visa_with_another_table_is_refused(tmp_path: Path) -> None:
    trees.visa(tmp_path)
    (tmp_path / "split_csv/1cls.csv").write_text("object,split,image\npcb1,test,a.png\n")
    with pytest.raises(InputError, match="no column label, mask"):
        open_dataset(tmp_path)


def test_dagm_is_defective_where_a_label_exists(tmp_path: Path) -> None:
    trees.dagm(tmp_path)
    data = open_dataset(tmp_path)
    assert (data.name, data.layout, [p.name for p in data.products]) == (
        "dagm",
        "dagm",
        ["Class1", "Class2", "Class10"],
    )
    assert [path.name for path in data.products[0].references] == ["0576.PNG", "0578.PNG"]
    assert rows(data) == [
        ("0576.PNG", GOOD, []),
        ("0578.PNG", GOOD, []),
        ("0577.PNG", "defect", ["0577_label.PNG"]),
    ]


def test_sdd_is_defective_where_the_drawing_is_not_empty(tmp_path: Path) -> None:
    trees.sdd(tmp_path)
    data = open_dataset(tmp_path)
    assert (data.name, data.layout, data.products[0].references) == ("sdd", "sdd", ())
    assert [defect for _, defect, _ in rows(data)] == [GOOD] * 4 + ["defect"] * 2
    assert mask_sizes(data) == [BOX_PX, BOX_PX]


def test_sdd_needs_every_drawing(tmp_path: Path) -> None:
    trees.sdd(tmp_path)
    (tmp_path / "kos01/Part2_label.bmp").unlink()
    with pytest.raises(InputError, match=r"Part2\.jpg has no Part2_label\.bmp"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(("builder", "name", "counts"), [("brain_mri", "brainmri", (3, 2)), ("br35h", "br35h", (2, 2))])
def test_yes_no_takes_nothing_twice_and_nothing_else(
    tmp_path: Path, builder: str, name: str, counts: tuple[int, int]
) -> None:
    getattr(trees, builder)(tmp_path)
    data = open_dataset(tmp_path, name)
    labels = data.products[0].labels
    assert (data.name, data.layout, data.metrics) == (name, "yes-no", frozenset({IMAGE}))
    assert (int((~labels).sum()), int(labels.sum())) == counts
    assert open_dataset(tmp_path).name is None  # the folders alone do not say which of the two it is


def test_headct(tmp_path: Path) -> None:
    trees.headct(tmp_path)
    data = open_dataset(tmp_path)
    assert (data.name, data.layout, data.metrics) == ("headct", "headct", frozenset({IMAGE}))
    assert [(name, kind) for name, kind, _ in rows(data)] == [
        ("001.png", GOOD),
        ("003.png", GOOD),
        ("000.png", "hemorrhage"),
        ("002.png", "hemorrhage"),
    ]


def test_headct_without_a_label_is_refused(tmp_path: Path) -> None:
    trees.headct(tmp_path)
    trees.picture(tmp_path / "head_ct/head_ct/004.png")
    with pytest.raises(InputError, match=r"004\.png has no row"):
        open_dataset(tmp_path)
    (tmp_path / "labels.csv").write_text("id, hemorrhage\n0,yes\n")
    with pytest.raises(InputError, match="0,yes"):
        open_dataset(tmp_path)


def test_headct_prepared_has_no_pixel_metrics(tmp_path: Path) -> None:
    trees.headct_prepared(tmp_path)
    data = open_dataset(tmp_path, "headct")
    assert (data.layout, data.metrics, data.products[0].references) == ("mvtec", frozenset({IMAGE}), ())


@pytest.mark.parametrize("builder", ["isic", "isic_raw"])
def test_isic(tmp_path: Path, builder: str) -> None:
    getattr(trees, builder)(tmp_path)
    data = open_dataset(tmp_path)
    assert (data.name, data.layout, data.metrics) == ("isic", "isic", frozenset({PIXEL}))
    found = {path: masks for path, _, masks in rows(data)}
    assert found["ISIC_0000003.jpg"] == ["ISIC_0000003_Segmentation.png"]
    if builder == "isic":
        assert found["ISIC_0000004.jpg"] == []
        assert found["ISIC_0000012.jpg"] == ["ISIC_0000012_Segmentation.png"]
    else:
        assert list(found) == ["ISIC_0000003.jpg"]  # neither superpixels nor the training part
        assert "_Test_" in str(data.products[0].tests[0].path)


def test_polyps_are_paired_by_stem(tmp_path: Path) -> None:
    trees.polyps(tmp_path / "CVC-ColonDB")
    data = open_dataset(tmp_path, "CVC-ColonDB")
    assert (data.name, data.layout, data.metrics) == ("colondb", "pairs", frozenset({PIXEL}))
    assert {name: masks for name, _, masks in rows(data)} == {
        "1.png": ["1.PNG"],
        "10.png": ["10.PNG"],
        "11.png": ["11.PNG"],
        "2.png": [],
    }
    assert data.products[0].labels.all()


def test_kvasir_reads_lossy_drawings(tmp_path: Path) -> None:
    trees.kvasir(tmp_path)
    data = open_dataset(tmp_path, "Kvasir-SEG")
    assert (data.name, data.layout, data.metrics) == ("kvasir", "pairs", frozenset({PIXEL}))
    assert data.products[0].labels.all()
    assert mask_sizes(data) == [BOX_PX] * 2


def test_clinicdb_as_published(tmp_path: Path) -> None:
    trees.clinicdb_raw(tmp_path)
    data = open_dataset(tmp_path, "clinicdb")
    assert (data.name, len(data.products[0].tests), data.products[0].has_masks) == ("clinicdb", 2, True)


def test_own_folders(tmp_path: Path) -> None:
    trees.folders(tmp_path / "valve")
    data = open_dataset(tmp_path / "valve")
    (valve,) = data.products
    assert (data.name, data.layout, valve.name, data.metrics) == (None, "folders", "valve", BOTH)
    assert [path.name for path in valve.references] == ["a0.png", "a1.png", "a2.png"]
    assert [kind for _, kind, _ in rows(data)] == [GOOD] * 3 + ["dent"] * 3 + ["scratch"] * 3
    assert mask_sizes(data) == [None] * 3 + [BOX_PX] * 3


def test_a_flat_folder_is_references(tmp_path: Path) -> None:
    trees.flat(tmp_path / "plates")
    data = open_dataset(tmp_path / "plates")
    (plates,) = data.products
    assert (data.layout, data.metrics, len(plates.references), plates.tests) == ("flat", frozenset(), 3, ())


@pytest.mark.parametrize("layout", list(trees.BUILDERS))
def test_each_layout_is_recognised_and_can_be_named(tmp_path: Path, layout: str) -> None:
    trees.BUILDERS[layout](tmp_path / "set")
    found = open_dataset(tmp_path / "set")
    assert found.layout == layout
    assert open_dataset(tmp_path / "set", layout).products == found.products
    paths = [picture.path for product in found.products for picture in product.tests]
    paths += [path for product in found.products for path in (*product.references, *product.validation)]
    assert len(set(paths)) == len(paths) > 0
    assert not [path for path in paths if path.name.startswith(".") or "__MACOSX" in path.parts]


def test_a_drawing_of_another_size_is_fitted(tmp_path: Path) -> None:
    drawn = LabelledPicture(tmp_path / "a.png", "scratch", (trees.mask(tmp_path / "a_mask.png"),))
    found = load_mask(drawn, 2 * trees.HEIGHT, 2 * trees.WIDTH)
    assert found is not None
    assert found.sum() == 4 * BOX_PX
    assert found.dtype == np.bool_
