"""Exports of an audit, read back by the tools that others read them with."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from audit_records import made
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from pycocotools.coco import COCO

from flawscope.agent.errors import StorageError
from flawscope.agent.schemas import Region
from flawscope.audits.coco import CocoCounts, export_coco
from flawscope.audits.exports import COLUMNS, FORMULA_SIGNS, defused, export_csv, export_parquet
from flawscope.audits.junit import JunitCounts, export_junit
from flawscope.audits.records import AuditRecord
from flawscope.audits.rle import encode_mask


def region(name: str, box: tuple[int, int, int, int]) -> Region:
    area = (box[2] - box[0]) * (box[3] - box[1])
    return Region(id=name, box=box, area_px=area, peak=3.5, place="upper left")


def disc() -> np.ndarray:
    y, x = np.mgrid[:48, :64]
    return (y - 20) ** 2 + (x - 30) ** 2 < 100


MASK = disc()
RECORDS = [
    made(1, product="nut", serial="=1+1", lot="L;1", station="cam", label="good"),
    made(
        2,
        "NG",
        score=7.25,
        kind="scratch",
        image='odd, "name"\n\x00.png',
        regions=[region("R1", (20, 10, 41, 31)), region("R2", (0, 0, 4, 2))],
        masks={"R1": encode_mask(MASK)},
        said={"verdict": "It deviates & more <than> good parts.", "action": "-stop the line"},
    ),
    made(3, "REVIEW", score=2.0, regions=[region("R1", (60, 40, 64, 48))], said={"verdict": "Unsure."}),
    made(4, error="input"),
]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


# --- tables -----------------------------------------------------------------------------------------------------------


def test_csv_has_a_row_a_record_and_nothing_to_run(tmp_path: Path) -> None:
    assert export_csv(RECORDS, tmp_path / "a.csv") == 4
    rows = read_csv(tmp_path / "a.csv")
    assert [row["verdict"] for row in rows] == ["OK", "NG", "REVIEW", "REVIEW"]
    assert rows[0]["serial"] == "'=1+1"
    assert rows[0]["lot"] == "L;1"
    assert rows[1]["image"] == 'odd, "name"\n\ufffd.png'
    assert rows[1]["action"] == "'-stop the line"
    assert (rows[1]["image_score"], rows[1]["x0_px"], rows[1]["region_count"]) == ("7.25", "20", "2")
    assert (rows[3]["error"], rows[3]["image_score"], rows[3]["width_px"]) == ("input", "", "")


@given(st.text())
def test_no_text_is_left_that_a_spreadsheet_would_run(text: str) -> None:
    cell = defused(text)
    assert not cell.lstrip().startswith(FORMULA_SIGNS)
    assert not cell.startswith(("\t", "\r", "\n"))
    assert all(char.isprintable() or char in "\t\n" for char in cell)
    assert text not in {"plain", "ätsch 12"} or cell == text


def test_negative_numbers_stay_numbers(tmp_path: Path) -> None:
    export_csv([made(1, score=-0.5)], tmp_path / "a.csv")
    assert read_csv(tmp_path / "a.csv")[0]["image_score"] == "-0.5"


def test_parquet_is_typed_and_holds_all_regions(tmp_path: Path) -> None:
    assert export_parquet(iter(RECORDS), tmp_path / "a.parquet") == 4
    table = parquet.read_table(tmp_path / "a.parquet")
    kinds = {"text": "string", "integer": "int64", "number": "double", "time": "timestamp[us, tz=UTC]"}
    assert {c.name: str(table.schema.field(c.name).type) for c in COLUMNS} == {c.name: kinds[c.kind] for c in COLUMNS}
    rows = table.to_pylist()
    assert rows[0]["serial"] == "=1+1"  # nothing runs it, so it stays as it was
    assert rows[1]["regions"][1]["box_px"] == [0, 0, 4, 2]
    assert rows[1]["regions"][0]["mask"] == encode_mask(MASK)
    assert rows[3]["image_score"] is None
    assert rows[0]["finished"].isoformat() == "2026-01-02T03:04:05+00:00"


def test_parquet_and_csv_agree(tmp_path: Path) -> None:
    export_csv(RECORDS, tmp_path / "a.csv")
    export_parquet(RECORDS, tmp_path / "a.parquet")
    typed = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    for column in COLUMNS:
        if column.kind in ("integer", "number"):
            cells = [row[column.name] for row in read_csv(tmp_path / "a.csv")]
            assert [float(cell) if cell else None for cell in cells] == [row[column.name] for row in typed]


# --- COCO -------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools, under NumPy 2
def test_coco_is_read_by_pycocotools_with_boxes_and_masks(tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    assert export_coco(RECORDS, path) == CocoCounts(images=3, annotations=3, masks=1, left_out=1)
    with redirect_stdout(io.StringIO()):
        data = COCO(str(path))
    assert [image["file_name"] for image in data.dataset["images"]] == [r.line.image for r in RECORDS[:3]]
    names = {category["id"]: category["name"] for category in data.dataset["categories"]}
    found = data.loadAnns(data.getAnnIds())
    assert [names[item["category_id"]] for item in found] == ["scratch", "scratch", "unknown"]
    masked = found[0]
    assert np.array_equal(data.annToMask(masked).astype(bool), MASK)
    assert masked["area"] == MASK.sum()
    rows, columns = np.nonzero(MASK)
    box = [columns.min(), rows.min(), columns.max() + 1 - columns.min(), rows.max() + 1 - rows.min()]
    assert masked["bbox"] == box
    assert (found[1]["bbox"], found[1]["segmentation"]) == ([0, 0, 4, 2], [])
    assert found[2]["attributes"] == {"region": "R1", "verdict": "REVIEW"}


def test_coco_of_good_parts_has_pictures_only(tmp_path: Path) -> None:
    export_coco([made(1, regions=[region("R1", (0, 0, 2, 2))])], tmp_path / "coco.json")
    data = json.loads((tmp_path / "coco.json").read_text())
    assert (len(data["images"]), data["annotations"], data["categories"]) == (1, [], [])


# --- JUnit ------------------------------------------------------------------------------------------------------------


def test_junit_has_a_case_a_part(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    assert export_junit(RECORDS, path, name="shift <1>") == JunitCounts(4, 2, 1, 0, 1.0)
    suite = ElementTree.parse(path).getroot().find("testsuite")
    assert suite is not None
    assert (suite.get("name"), suite.get("tests"), suite.get("failures"), suite.get("errors")) == (
        "shift <1>",
        "4",
        "2",
        "1",
    )
    cases = suite.findall("testcase")
    assert [[child.tag for child in case] for case in cases] == [[], ["failure"], ["failure"], ["error"]]
    assert cases[0].get("classname") == "nut.L;1.cam"
    assert cases[1].get("name") == '2 odd, "name"\n\ufffd.png'
    failure = cases[1].find("failure")
    assert failure is not None
    assert failure.get("message") == "NG: scratch: It deviates & more <than> good parts."
    assert failure.text == "-stop the line"


def test_review_is_skipped_when_asked_and_never_passes(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    assert export_junit(RECORDS, path, name="x", review="skipped") == JunitCounts(4, 1, 1, 1, 1.0)
    cases = ElementTree.parse(path).getroot().findall("testsuite/testcase")
    assert [child.tag for child in cases[2]] == ["skipped"]


@given(st.text(), st.text(), st.text())
def test_any_text_gives_a_whole_document(
    tmp_path_factory: pytest.TempPathFactory, image: str, lot: str, said: str
) -> None:
    path = tmp_path_factory.mktemp("junit") / "a.xml"
    export_junit(
        [made(1, "NG", image=image[:100], lot=lot[:100], said={"verdict": said, "action": said})], path, name=said
    )
    case = ElementTree.parse(path).getroot().find("testsuite/testcase")
    assert case is not None
    assert case.get("name", "").startswith("1 ")


# --- all of them ------------------------------------------------------------------------------------------------------

EXPORTS = {
    "csv": export_csv,
    "parquet": export_parquet,
    "coco": export_coco,
    "junit": lambda records, path: export_junit(records, path, name="audit"),
}


@pytest.mark.parametrize("kind", EXPORTS)
def test_an_empty_audit_gives_a_whole_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    EXPORTS[kind]([], path)
    if kind == "csv":
        assert read_csv(path) == []
    elif kind == "parquet":
        assert parquet.read_table(path).num_rows == 0
    elif kind == "coco":
        assert json.loads(path.read_text())["images"] == []
    else:
        assert ElementTree.parse(path).getroot().get("tests") == "0"


@pytest.mark.parametrize("kind", EXPORTS)
def test_a_record_that_cannot_be_read_leaves_the_old_file(tmp_path: Path, kind: str) -> None:
    def breaking() -> Iterator[AuditRecord]:
        yield RECORDS[0]
        raise StorageError("gone")

    path = tmp_path / kind
    path.write_text("old")
    with pytest.raises(StorageError):
        EXPORTS[kind](breaking(), path)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == [kind]


@pytest.mark.parametrize("kind", ["csv", "coco", "junit"])
def test_memory_does_not_grow_with_the_audit(tmp_path: Path, kind: str) -> None:
    one = RECORDS[1]

    def peak(count: int) -> int:
        tracemalloc.start()
        EXPORTS[kind]((one for _ in range(count)), tmp_path / kind)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(50)  # imports
    assert peak(5_000) < 1.2 * peak(1_500)  # both are larger than the files' buffers
