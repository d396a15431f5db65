"""Pictures of the user's own data sets on the shipped pages: which page, which pictures, and what is kept of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attach_run import candidates
from dataset_trees import clutter, loco, visa
from fakes import PatchStatistics, texture, with_scratch, with_square
from PIL import Image

from flawscope.agent.errors import ConfigError, KnowledgeError
from flawscope.benchmarks.datasets import leaving_out, load_product, open_dataset
from flawscope.tools.knowledge.attaching import AttachReport, attach, drop_dataset
from flawscope.tools.knowledge.attachments import (
    CROP_SIDE_PX,
    FOLDER,
    PICTURE_SIDE_PX,
    Attached,
    Attachment,
    attachments,
    check,
    crop_defect,
    embedded,
    keep,
    picture_features,
    read_marked,
    read_picture,
    shown,
)
from flawscope.tools.knowledge.builder import open_knowledge_base
from flawscope.tools.knowledge.illustrations import illustrate
from flawscope.tools.knowledge.page_labels import find_page
from flawscope.tools.knowledge.schema import load_documents
from flawscope.tools.knowledge.verification import verify_knowledge

PAGES = load_documents()
DAMAGE = "splicing_connectors.structural_connection_or_damage"
LEATHER = tuple(page for page in PAGES if page.product == "leather" or page.doc_id == "general.cut")


def save(path: Path, rgb: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path, compress_level=1)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Leather in MVTec's layout: twelve cuts, one glue, a label and a product that no page knows, and stray files."""
    root = tmp_path / "data"
    for n in range(3):
        save(root / "leather/train/good" / f"{n:03d}.png", texture(n))
        save(root / "leather/test/good" / f"{n:03d}.png", texture(10 + n))
    for n in range(12):
        save(root / "leather/test/cut" / f"{n:03d}.png", with_square(texture(20 + n), 8 + 4 * n, 40))
        if n != 5:
            drawn = np.zeros((96, 96), np.uint8)
            drawn[8 + 4 * n : 24 + 4 * n, 40:56] = 255
            save(root / "leather/ground_truth/cut" / f"{n:03d}_mask.png", drawn)
    save(root / "leather/test/glue/000.png", with_scratch(texture(50)))
    save(root / "leather/test/moth/000.png", texture(60))
    save(root / "spaceship/test/dent/000.png", texture(70))
    clutter(root / "leather/test/cut")
    return root


def run(folder: Path, root: Path, **options: object) -> AttachReport:
    given = {"dataset": "mvtec", "licence": "CC BY-NC-SA 4.0", "limit": 4, **options}
    return attach(folder, candidates(root), PAGES, **given)  # type: ignore[arg-type]


def files(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(folder.rglob("*"))}


# --- which page ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("product", "label", "names", "wanted"),
    [
        ("leather", "cut", (), "leather.cut"),
        ("Leather", "Cut", (), "leather.cut"),
        ("leather", "colour", (), "leather.color"),  # British spelling
        ("leather", "glue spots", (), "leather.glue"),  # an alias, in the plural
        ("leather", "good", (), "leather.good"),
        ("leather", "moth", (), None),
        ("spaceship", "dent", (), None),
        ("capsule", "scratch", (), "capsule.scratch"),  # not capsules
        ("capsules", "scratch", (), "capsules.scratch"),
        ("candle", "anomaly", ("chunk of wax missing",), "candle.chunk_of_wax_missing"),
        ("candle", "anomaly", ("chunk of wax missing", "weird candle wick"), None),  # shows two
        ("candle", "anomaly", (), None),
        ("steel_types", "rolled-in_scale", (), "steel_types.rolled-in_scale"),
        ("solar_cell_mono", "defective", (), 3),
        ("pushpins", "logical_anomalies", ("missing_pushpin",), "pushpins.logical_missing_pushpin"),
        ("pushpins", "logical_anomalies", ("additional_2_pushpins",), "pushpins.logical_additional_pushpins"),
        ("pushpins", "logical_anomalies", ("missing_pushpin", "missing_separator"), 3),
        ("pushpins", "logical_anomalies", (), 3),
        ("splicing_connectors", "logical_anomalies", ("cable_cut",), "splicing_connectors.logical_cut_cable"),
        ("splicing_connectors", "structural_anomalies", ("broken_cable",), DAMAGE),
    ],
)  # fmt: skip
def test_the_page_of_a_label(product: str, label: str, names: tuple[str, ...], wanted: str | int | None) -> None:
    found = find_page(product, label, names, PAGES)
    assert (found if found is None or isinstance(found, int) else found.doc_id) == wanted


# --- which pictures -----------------------------------------------------------------------------------------------


def test_a_few_pictures_are_kept_and_the_rest_is_told(data: Path, tmp_path: Path) -> None:
    before, folder, told = files(data), tmp_path / FOLDER, []
    report = run(folder, data, progress=lambda what, done, total: told.append((done, total)))
    assert report.attached == {"leather.good": 3, "leather.cut": 3}  # a quarter of twelve cuts
    assert (report.made, report.test_pictures, report.removed) == (6, 3, 0)
    assert report.too_few == ["leather.glue"]
    assert report.unknown_labels == {"leather/moth": 1}
    assert report.unknown_products == {"spaceship": 1}
    assert report.without == ["leather.color", "leather.fold", "leather.glue", "leather.poke"]
    assert told[0] == (0, 6)
    assert told[-1] == (6, 6)
    assert files(data) == before  # nothing is written into the data set
    kept = attachments(folder)
    assert [a.record.is_test for a in kept] == [True] * 3 + [False] * 3
    cut = kept[0]
    assert cut.record.source.startswith("leather/test/cut/")
    assert cut.record.licence == "CC BY-NC-SA 4.0"
    assert all(a.mask is not None for a in kept[:3])  # the one without a drawn defect comes last
    assert all(a.record.source.startswith("leather/train/good/") for a in kept[3:])


def test_again_changes_nothing_and_a_limit_takes_away(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    run(folder, data)
    before = files(folder)
    again = run(folder, data)
    assert (again.made, again.removed) == (0, 0)
    assert files(folder) == before
    fewer = run(folder, data, limit=1)
    assert fewer.attached == {"leather.good": 1, "leather.cut": 1}
    assert (fewer.made, fewer.removed) == (0, 4)
    assert {str(p) for p in folder.rglob("record.json")} < set(before)


def test_a_data_set_of_other_products_takes_nothing_away(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    run(folder, data)
    shutil.copytree(data / "leather", tmp_path / "other/zipper")
    assert run(folder, tmp_path / "other").removed == 0
    assert len(attachments(folder)) == 6 + 3  # good zippers


def test_a_run_that_was_cut_off_goes_on(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / FOLDER

    def stop(what: str, done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, data, progress=stop)
    assert len(attachments(folder)) == 4
    rest = run(folder, data)
    assert (rest.made, sum(rest.attached.values())) == (2, 6)


def test_what_is_damaged_is_made_again(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    run(folder, data)
    first, second, third = attachments(folder)[:3]
    first.picture.write_bytes(b"nonsense")
    (second.folder / "record.json").write_text("{}")
    third.mask.unlink()  # type: ignore[union-attr]
    with pytest.raises(KnowledgeError, match=r"picture\.jpg was changed"):
        check(first)
    with pytest.raises(KnowledgeError, match="its record cannot be read"):
        attachments(folder)
    report = run(folder, data)
    assert (len(report.damaged), report.made, report.removed) == (3, 3, 0)
    for attachment in attachments(folder):
        check(attachment)


def test_a_guarded_picture_is_not_taken(data: Path, tmp_path: Path) -> None:
    guarded = {path.name for path in (data / "leather/test/cut").glob("00*.png")}
    report = run(tmp_path / FOLDER, data, is_protected=lambda path: path.name in guarded and "cut" in path.parts)
    assert {a.record.source for a in attachments(tmp_path / FOLDER) if a.record.is_test} == {
        "leather/test/cut/010.png",
        "leather/test/cut/011.png",
    }
    assert len(report.protected) == 10


def test_a_smaller_copy_in_another_data_set_is_the_same_picture(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    run(folder, data)
    copy = tmp_path / "copy"
    for path in data.rglob("leather/**/*.png"):
        if path.parent.name in ("good", "cut", "glue") and "__MACOSX" not in path.parts and path.name[0].isdigit():
            with Image.open(path) as image:
                small = image.resize((80, 80), Image.Resampling.BOX)
            target = copy / path.relative_to(data)
            target.parent.mkdir(parents=True, exist_ok=True)
            small.save(target)
    report = run(folder, copy, dataset="small")
    assert report.attached == {}
    assert len(report.twins) == 6
    assert "of mvtec" in report.twins[0]


def test_an_unreadable_picture_is_told_and_the_others_are_kept(data: Path, tmp_path: Path) -> None:
    for path in (data / "leather/train/good").iterdir():
        path.write_bytes(b"no picture")
    report = run(tmp_path / FOLDER, data)
    assert set(report.attached) == {"leather.cut"}
    assert len(report.unread) == 3
    assert report.unread[0].startswith("leather/train/good/")


def test_a_data_set_can_be_dropped(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    run(folder, data)
    with pytest.raises(ConfigError, match="no pictures of a data set 'visa'"):
        drop_dataset(folder, "visa")
    assert drop_dataset(folder, "mvtec") == 6
    assert attachments(folder) == []


def test_visa_and_loco_as_published_reach_their_pages(tmp_path: Path) -> None:
    visa(tmp_path / "visa")
    rows = [f"pcb1/Data/Images/Anomaly/00{n}.JPG,{label},x" for n, label in enumerate(("bent", "bent"))]
    (tmp_path / "visa/pcb1/image_anno.csv").write_text("\n".join(["image,label,mask", *rows]) + "\n")
    loco(tmp_path / "loco")
    levels = [{"defect_name": "missing_pushpin", "pixel_value": 254}, {"defect_name": "broken", "pixel_value": 250}]
    (tmp_path / "loco/pushpins/defects_config.json").write_text(json.dumps(levels))
    found = run(tmp_path / FOLDER, tmp_path / "visa", dataset="visa")
    assert found.attached == {"pcb1.good": 2, "pcb1.bent": 1}
    found = run(tmp_path / FOLDER, tmp_path / "loco", dataset="mvtec-loco")
    assert found.attached == {"pushpins.good": 2, "pushpins.structural_pin_or_box_damage": 1}
    assert found.too_few == ["pushpins.logical_missing_pushpin"]
    assert found.ambiguous == {"pushpins/logical_anomalies/missing_pushpin/broken": 1}


# --- what is kept -------------------------------------------------------------------------------------------------


def one(folder: Path, rgb: np.ndarray, mask: np.ndarray | None) -> Attachment:
    record: dict[str, Any] = {"source_bytes": 1, "is_test": True, "doc_id": "leather.cut", "key": "0" * 16}
    text = ("product", "defect_type", "label", "dataset", "source", "source_sha256", "licence")
    hashes = ("picture_sha256", "crop_sha256", "mask_sha256", "picture_hash")
    return keep(folder, Attached(**record, **dict.fromkeys(text, "x"), **dict.fromkeys(hashes, "")), rgb, mask)


def test_large_pictures_are_reduced_and_a_defect_of_one_pixel_stays(tmp_path: Path) -> None:
    rgb = np.zeros((1000, 2000, 3), np.uint8)
    mask = np.zeros((1000, 2000), bool)
    mask[501, 1003] = True
    kept = one(tmp_path, rgb, mask)
    assert read_picture(kept).shape == (320, PICTURE_SIDE_PX, 3)
    marked = read_marked(kept)
    assert marked is not None
    assert [int(n) for n in np.argwhere(marked)[0]] == [160, 321]  # 501.5 * 0.32, 1003.5 * 0.32
    assert marked.sum() == 1


def test_without_a_drawn_defect_there_is_neither_mask_nor_crop(tmp_path: Path) -> None:
    for mask in (None, np.zeros((20, 20), bool)):
        kept = one(tmp_path, np.zeros((20, 20, 3), np.uint8), mask)
        assert (kept.mask, kept.crop, read_marked(kept)) == (None, None, None)


def test_the_crop_is_a_square_around_the_largest_place(tmp_path: Path) -> None:
    rgb = np.zeros((400, 600, 3), np.uint8)
    rgb[100:160, 200:300] = 255
    mask = rgb[..., 0] > 0
    mask[390:395, 590:595] = True  # a smaller place elsewhere
    crop = np.asarray(crop_defect(rgb, mask))
    assert crop.shape == (200, 200, 3)  # twice the longer side of 60 x 100
    assert (crop[70:130, 50:150] == 255).all()
    assert int((crop > 0).sum()) == 60 * 100 * 3
    corner = np.zeros((400, 600), bool)
    corner[0, 0] = True
    assert crop_defect(rgb, corner).size == (64, 64)
    assert max(crop_defect(np.zeros((2000, 2000, 3), np.uint8), np.ones((2000, 2000), bool)).size) == CROP_SIDE_PX


# --- what becomes of it -------------------------------------------------------------------------------------------


def test_the_base_embeds_them_and_finds_the_page(data: Path, tmp_path: Path) -> None:
    backbone, home = PatchStatistics(), tmp_path / "knowledge"
    plain = open_knowledge_base(home, backbone, store="memory", documents=LEATHER)
    run(home / FOLDER, data)
    rich = open_knowledge_base(home, backbone, store="memory", documents=LEATHER)
    assert rich.content_hash != plain.content_hash
    cuts = [a for a in attachments(home / FOLDER) if a.record.doc_id == "leather.cut"]
    key = np.mean([picture_features(a, backbone).part for a in cuts], axis=0)
    found = rich.retrieve(key, "leather", product="leather", k=2)
    assert found.documents[0].doc_id == "leather.cut"
    assert found.similarities[0] > 0.7
    before = plain.retrieve(key, "leather", product="leather", k=2)
    assert found.similarities[0] > dict(zip(before.documents, before.similarities, strict=True)).get(
        found.documents[0], 0.0
    )
    drop_dataset(home / FOLDER, "mvtec")
    assert open_knowledge_base(home, backbone, store="memory", documents=LEATHER).content_hash == plain.content_hash


def test_good_pictures_are_shown_and_not_searched_by(data: Path, tmp_path: Path) -> None:
    run(tmp_path / FOLDER, data)
    (page,) = (p for p in PAGES if p.doc_id == "leather.good")
    picture = shown(tmp_path / FOLDER)[page.doc_id]
    assert [panel.caption for panel in illustrate(page, picture).panels] == ["Sound"]
    assert {a.record.doc_id for a in embedded(tmp_path / FOLDER, {p.doc_id for p in PAGES})} == {"leather.cut"}
    assert embedded(tmp_path / FOLDER, {page.doc_id}) == []


def test_a_damaged_cache_of_features_costs_one_pass(data: Path, tmp_path: Path) -> None:
    run(tmp_path / FOLDER, data)
    first, backbone = attachments(tmp_path / FOLDER)[0], PatchStatistics()
    part = picture_features(first, backbone).part
    (cached,) = (tmp_path / FOLDER / ".parts").rglob("*.npz")
    cached.write_bytes(b"PK nonsense")
    np.testing.assert_array_equal(picture_features(first, backbone).part, part)
    np.testing.assert_array_equal(np.load(cached)["part"], part)


def test_a_page_shows_the_picture_its_place_and_a_close_up(data: Path, tmp_path: Path) -> None:
    run(tmp_path / FOLDER, data)
    picture = shown(tmp_path / FOLDER)["leather.cut"]
    (page,) = (p for p in PAGES if p.doc_id == "leather.cut")
    illustration = illustrate(page, picture)
    assert [panel.caption for panel in illustration.panels] == ["With cut", "The cut, marked", "The cut, close up"]
    assert "leather/test/cut/" in illustration.note
    assert "CC BY-NC-SA 4.0" in illustration.note
    assert "Not part of Flawscope" in illustration.note
    plain, marked, _ = (panel.rgb for panel in illustration.panels)
    assert (plain != marked).any()
    picture.mask.write_bytes(b"")  # type: ignore[union-attr]
    broken = illustrate(page, picture)
    assert broken.panels == ()
    assert "cannot be shown" in broken.note


def test_verify_names_a_damaged_picture_and_one_of_no_page(data: Path, tmp_path: Path) -> None:
    backbone, home = PatchStatistics(), tmp_path / "knowledge"
    run(home / FOLDER, data)
    open_knowledge_base(home, backbone, store="memory", documents=LEATHER).close()
    clean = verify_knowledge(home, backbone, milvus=False, documents=LEATHER)
    assert clean.problems == []
    assert clean.counts["attached pictures"] == 6
    without = tuple(page for page in LEATHER if page.doc_id != "leather.good")
    assert (
        "leather.good: attached to no page that is shipped"
        in verify_knowledge(home, backbone, milvus=False, documents=without).notes
    )
    first = attachments(home / FOLDER)[0]
    first.picture.write_bytes(b"changed")
    (problem,) = verify_knowledge(home, backbone, milvus=False, documents=LEATHER).problems
    assert "leather.cut" in problem
    assert "picture.jpg was changed" in problem


# --- benchmarks ---------------------------------------------------------------------------------------------------


def test_benchmarks_leave_out_what_was_taken_even_as_a_smaller_copy(data: Path, tmp_path: Path) -> None:
    run(tmp_path / FOLDER, data)
    attached = attachments(tmp_path / FOLDER)
    taken = {data / a.record.source for a in attached if a.record.is_test}
    whole = load_product(data / "leather")
    with leaving_out(attached) as left_out:
        rest = load_product(data / "leather")
        other = next(p for p in open_dataset(data).products if p.name == "leather")
    assert {picture.path for picture in whole.tests} - {picture.path for picture in rest.tests} == taken
    assert rest == other
    assert rest.references == whole.references  # good references may be known
    assert left_out.met == taken
    assert load_product(data / "leather") == whole
    for path in taken:  # the same picture in half the size, under another name
        with Image.open(path) as image:
            image.resize((72, 72), Image.Resampling.BOX).save(path.with_name(f"copy_{path.name}"))
        path.unlink()
    with leaving_out(attached):
        assert not [p for p in load_product(data / "leather").tests if p.path.name.startswith("copy_")]
    shutil.move(data / "leather", data / "hide")  # another name: only the file itself is known
    with leaving_out(attached):
        assert [p for p in load_product(data / "hide").tests if p.path.name.startswith("copy_")]
