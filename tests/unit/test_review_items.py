"""Items, decisions and pictures of a review, without a product."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_records import made, written
from conftest import Plant
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from flawscope.agent.errors import ConfigError, InputError
from flawscope.agent.review.decisions import make_decision, one_line, person
from flawscope.agent.review.desk import ReviewDesk
from flawscope.agent.review.items import ReviewItem, record_item, record_item_id
from flawscope.agent.review.pictures import SHOWN_SIDE_PX, shown_overlay, shown_picture
from flawscope.agent.review.standing import decided
from flawscope.agent.schemas import Region
from flawscope.audits.record_file import read_records
from flawscope.tools.overlay import colour_map

LIMIT = 10**8


def test_the_same_part_is_the_same_item() -> None:
    first = made(1, "REVIEW", picture="x", serial="S1", product="plate")
    again = made(7, "OK", picture="x", serial="S1", product="plate", image="moved/elsewhere.png")
    assert record_item_id(first) == record_item_id(again)
    for other in ({"picture": "y"}, {"serial": "S2"}, {"product": "bolt"}):
        given_other: dict[str, Any] = {"picture": "x", "serial": "S1", "product": "plate", **other}
        assert record_item_id(made(1, "REVIEW", **given_other)) != record_item_id(first)


def test_a_picture_that_could_not_be_read_is_known_by_its_name() -> None:
    gone = made(1, error="input", image="a.png").model_copy(update={"sha256": None})
    other = made(1, error="input", image="b.png").model_copy(update={"sha256": None})
    assert record_item_id(gone) != record_item_id(other)
    assert record_item(gone, Path("audit")).reason == "the input of line 1"


def test_a_machines_verdict_can_be_overruled(tmp_path: Path) -> None:
    records = [made(1, "NG", kind="hole"), made(2, "OK"), made(3, "REVIEW")]
    folder = written(tmp_path / "audit", records)
    assert [w.item.verdict for w in ReviewDesk(tmp_path / "r", audits=[folder]).queue()] == ["REVIEW"]
    desk = ReviewDesk(tmp_path / "r", audits=[folder], everything=True)
    alarm, escape, _ = desk.queue()
    desk.decide(alarm.item.id, make_decision("OK", note="only dust"), "Kim")
    desk.decide(escape.item.id, make_decision("NG", "burr"), "Kim")
    found = list(decided(read_records(folder), desk.journal))
    assert [(one.record.verdict, one.verdict, one.defect_type) for one in found] == [
        ("NG", "OK", None),
        ("OK", "NG", "burr"),
        ("REVIEW", "REVIEW", None),
    ]
    assert found[2].standing is None
    assert found[0].standing is not None
    desk.undo(alarm.item.id, "Kim")
    assert [one.verdict for one in decided(read_records(folder), desk.journal)] == ["NG", "NG", "REVIEW"]
    report = alarm.item.report()  # what a page of the plant is made of
    assert (report.verdict, report.defect_type.name) == ("NG", "hole")  # type: ignore[union-attr]


def test_an_item_that_was_decided_outlives_its_audit(tmp_path: Path) -> None:
    folder = written(tmp_path / "audit", [made(1, "REVIEW")])
    desk = ReviewDesk(tmp_path / "r", audits=[folder])
    (waiting,) = desk.queue()
    desk.decide(waiting.item.id, make_decision("OK"), "Kim")
    (kept,) = ReviewDesk(tmp_path / "r").queue()
    assert kept.item == waiting.item
    written(tmp_path / "audit", [made(1, "REVIEW"), made(2, "REVIEW")])
    assert len(desk.queue()) == 2  # the file is read again once it has changed


@given(st.text(st.characters(codec=None)))
def test_any_words_become_one_printable_line(text: str) -> None:
    words = one_line(text)
    assert words.isprintable()
    assert words == one_line(words)
    assert 1 <= len(person(text)) <= 80


@pytest.mark.parametrize(
    "wrong",
    [
        ("REVIEW",),
        ("",),
        ("OK", "hole"),
        ("NG", "good"),
        ("NG", "<>"),
        ("OK", None, "", (0, 0, 1, 1)),
        ("NG", None, "x" * 501),
    ],
)
def test_a_decision_that_is_none_is_refused(wrong: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError):
        make_decision(*wrong)


def test_type_names_are_small_letters() -> None:
    assert make_decision("ng", "Bent  Lead!").defect_type == "bent_lead"
    assert make_decision("ng", "  ").defect_type is None


# pictures


def item(tmp_path: Path, rgb: Any, **more: Any) -> ReviewItem:
    path = tmp_path / "part.png"
    Image.fromarray(rgb).save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    base = record_item(made(1, "REVIEW", image=str(path)), tmp_path)
    return base.model_copy(update={"sha256": digest, **more})


def opened(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_the_picture_is_shown_as_it_is_and_the_map_over_it(tmp_path: Path, plant: Plant) -> None:
    rgb = np.full((60, 80, 3), 100, np.uint8)
    rgb[0, 0] = 7
    rgb[30, 34] = 160
    (tmp_path / "pictures").mkdir()
    mapped = np.zeros((30, 40, 3), np.uint8)
    mapped[10:20, 10:20] = colour_map(np.ones(1, np.float32))
    Image.fromarray(mapped).save(tmp_path / "pictures" / "m.png")
    seen = item(tmp_path, rgb, pictures={"map": "pictures/m.png"})
    assert np.array_equal(opened(shown_picture(seen, max_pixels=LIMIT)), rgb)
    over = shown_overlay(seen, plant.deps(), max_pixels=LIMIT)
    assert over is not None
    assert np.array_equal(opened(over)[:15], rgb[:15])  # nothing where the map shows nothing
    # the scale's end (255, 245, 150) at 40 %, and 60 % of what lies under it: a grey of 100, and 160 at the flaw
    assert opened(over)[30, 30].tolist() == [162, 158, 120]
    assert opened(over)[30, 34].tolist() == [198, 194, 156]


def test_a_large_picture_is_reduced(tmp_path: Path) -> None:
    seen = item(tmp_path, np.random.default_rng(0).integers(0, 9, (40, 2 * SHOWN_SIDE_PX, 3), np.uint8))
    assert opened(shown_picture(seen, max_pixels=LIMIT)).shape == (20, SHOWN_SIDE_PX, 3)


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/passwd", "pictures/../../secret.png", "link.png", "x\0y", "", "."]
)
def test_a_record_cannot_name_a_file_outside_its_audit(tmp_path: Path, plant: Plant, name: str) -> None:
    folder = tmp_path / "audit"
    (folder / "pictures").mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "secret.png")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    seen = item(folder, np.full((8, 8, 3), 5, np.uint8), pictures={"map": name, "image": name}, audit=str(folder))
    assert shown_overlay(seen, plant.deps(), max_pixels=LIMIT) is None
    Path(seen.image).unlink()
    with pytest.raises(InputError):
        shown_picture(seen, max_pixels=LIMIT)


def test_the_audits_copy_stands_in_for_a_picture_that_is_gone(tmp_path: Path) -> None:
    seen = item(tmp_path, np.full((8, 8, 3), 5, np.uint8), pictures={"image": "copy.png"})
    Image.new("RGB", (64, 64), (1, 2, 3)).save(tmp_path / "copy.png")
    Path(seen.image).write_bytes(b"changed")
    with pytest.raises(InputError):
        shown_picture(seen, max_pixels=LIMIT)
    Path(seen.image).unlink()
    assert opened(shown_picture(seen, max_pixels=LIMIT)).tolist() == [[[1, 2, 3]] * 64] * 64


def test_regions_survive_the_journal(tmp_path: Path) -> None:
    region = Region(id="R1", box=(1, 2, 3, 4), area_px=3, peak=1.5, place="centre")
    folder = written(tmp_path / "audit", [made(1, "REVIEW", regions=[region], image="\udcffname.png")])
    desk = ReviewDesk(tmp_path / "r", audits=[folder])
    desk.decide(desk.queue()[0].item.id, make_decision("OK"), "Kim")
    (kept,) = ReviewDesk(tmp_path / "r").queue()
    assert kept.item.regions == (region,)
    assert kept.item.image == "\\xffname.png"
