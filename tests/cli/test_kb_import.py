"""``kb import``: photos with notes, tables and control plans, as people and their programs write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import save
from fakes import texture, with_square

BLUE = (40, 60, 235)
GREEN = (60, 200, 60)


def photo(folder: Path, name: str, number: int, colour: tuple[int, int, int] = BLUE) -> Path:
    """A picture like no other: its square lies elsewhere."""
    return save(
        folder, name, with_square(texture(300 + number), 8 + 9 * (number % 8), 8 + 11 * (number // 8), colour=colour)
    )


def run(cli: Any, path: Path, *options: object) -> Any:
    return cli("kb", "import", path, "--author", "Ada", *options)


def table(cli: Any, text: str | bytes, name: str = "known.csv") -> Path:
    path: Path = cli.folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def ids(cli: Any) -> list[str]:
    folder = cli.home / "knowledge" / "plant"
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.exists() else []


def refused(result: Any) -> list[str]:
    assert "Traceback" not in result.err
    return [line.strip().removeprefix("REFUSED ") for line in result.out.splitlines() if "REFUSED" in line]


# --- folders --------------------------------------------------------------------------------------


def test_a_folder_of_types_and_of_notes(cli: Any) -> None:
    folder = cli.folder / "photos"
    photo(folder / "burr", "a.png", 1)
    photo(folder / "bent lead", "a.png", 2)
    (folder / "bent lead" / "a.txt").write_text("lead bent outwards, due to worn die, rework")
    photo(folder, "loose.png", 3)
    (folder / "loose.yaml").write_text("note: dent on rim\nseverity: 7\nbox: [10, 20, 60, 90]\n")
    photo(folder, "nothing.png", 4)
    photo(folder / "a" / "b", "deep.png", 5)
    (folder / "alone.txt").write_text("no photo")
    (folder / "list.xlsx").write_text("another program's")
    done = run(cli, folder, "--product", "plate")
    assert done.code == 6
    assert "photos: 3 new, 0 changed, 0 unchanged, 3 refused" in done.out
    assert "1 files are neither photos nor notes" in done.err
    assert ids(cli) == ["plate.bent-lead.a", "plate.burr.a", "plate.loose"]
    text = cli("kb", "show", "plate.bent-lead.a").out
    assert "bent lead (bent)" in text
    assert "worn die" in text
    assert "Severity" in cli("kb", "show", "plate.loose").out
    reasons = refused(done)
    assert any(line.startswith("a/b/deep.png: it lies too deep") for line in reasons)
    assert any(line.startswith("nothing.png: no note is beside it") for line in reasons)
    assert any(line.startswith("alone.txt: there is no photo") for line in reasons)
    assert cli("kb", "verify").code == 0


def test_names_in_capitals_have_their_notes_as_well(cli: Any) -> None:
    photo(cli.folder / "photos" / "dent", "A.PNG", 1)
    (cli.folder / "photos" / "dent" / "A.TXT").write_text("dent on rim, due to worn die, rework")
    assert run(cli, cli.folder / "photos", "--product", "plate").code == 0
    assert "worn die" in cli("kb", "show", "plate.dent.a").out


def test_a_note_that_is_a_link_to_another_folder_is_not_read(cli: Any) -> None:
    (cli.folder / "secret").write_text("the key is 1234")
    photo(cli.folder / "photos" / "dent", "a.png", 1)
    (cli.folder / "photos" / "dent" / "a.txt").symlink_to(cli.folder / "secret")
    done = run(cli, cli.folder / "photos", "--product", "plate")
    assert refused(done) == ["dent/a.png: a.txt is no file of the imported folder"]
    assert ids(cli) == []


def test_products_may_be_folders(cli: Any) -> None:
    photo(cli.folder / "photos" / "plate" / "burr", "a.png", 1)
    assert run(cli, cli.folder / "photos").code == 0
    assert ids(cli) == ["plate.burr.a"]
    photo(cli.folder / "other" / "burr", "b.png", 2)
    assert refused(run(cli, cli.folder / "other")) == ["burr/b.png: the product is missing"]


# --- tables ---------------------------------------------------------------------------------------


def test_a_table_is_imported_once_and_its_changes_become_versions(cli: Any) -> None:
    photo(cli.folder / "p", "1.png", 1)
    heading = "product,type,note,picture,box,severity,disposition,reaction plan\n"
    first = (
        heading + 'plate,burr,"burr, sharp",p/1.png,"10,20,60,90",8,scrap,Stop the press\nplate,dent,small dent,,,,,\n'
    )
    done = run(cli, table(cli, first))
    assert (done.out, done.err, done.code) == ("known.csv: 2 new, 0 changed, 0 unchanged, 0 refused\n", "", 0)
    assert ids(cli) == ["plate.dent", "plate.p.1"]
    assert "0 new, 0 changed, 2 unchanged" in run(cli, table(cli, first)).out
    changed = first.replace("small dent", "flat dent").replace("burr, sharp", "burr, very sharp")
    assert "0 new, 2 changed, 0 unchanged" in run(cli, table(cli, changed)).out
    lines = cli("kb", "history", "plate.p.1").out.splitlines()
    assert [line.split()[:2] for line in lines] == [["1", "import"], ["2", "import"]]
    photo(cli.folder / "p", "1.png", 2)
    assert "0 new, 1 changed, 1 unchanged" in run(cli, table(cli, changed)).out
    assert cli("kb", "verify").code == 0


def test_what_a_person_edited_or_removed_is_not_overwritten(cli: Any) -> None:
    text = "product,type,note\nplate,burr,burr\nplate,dent,dent\n"
    run(cli, table(cli, text))
    cli("kb", "edit", "plate.burr", "--action", "Scrap.", "--author", "Bob")
    cli("kb", "remove", "plate.dent", "--yes", "--author", "Bob")
    assert "2 unchanged, 0 refused" in run(cli, table(cli, text)).out
    changed = text.replace("burr\n", "a burr\n").replace("dent\n", "a dent\n")
    done = run(cli, table(cli, changed))
    assert done.code == 6
    first, second = refused(done)
    assert first.startswith("line 2: Bob changed the page plate.burr since it was imported (version 2, edit)")
    assert second.startswith("line 3: Bob changed the page plate.dent since it was imported (version 2, remove)")
    assert "2 changed" in run(cli, table(cli, changed), "--overwrite").out
    hand = photo(cli.folder, "hand.png", 9)
    cli("kb", "add", hand, "--note", "hole", "--product", "plate")
    clash = run(cli, table(cli, "id,product,note\nplate.hole.1,plate,another\ngeneral.scratch,plate,x\n"))
    assert [line.split(":")[0] for line in refused(clash)] == ["line 2", "line 3"]
    assert "was not imported" in clash.out
    assert "shipped with Flawscope" in clash.out


def test_a_dry_run_writes_nothing(cli: Any) -> None:
    path = table(cli, "product,note\nplate,burr\nplate,\n")
    done = run(cli, path, "--dry-run")
    assert done.code == 6
    assert "1 new, 0 changed, 0 unchanged, 1 refused (dry run, nothing was written)" in done.out
    assert ids(cli) == []


def test_empty_cells_that_a_spreadsheet_adds_mean_nothing(cli: Any) -> None:
    done = run(cli, table(cli, "sep=;\r\nproduct;type;note;;\r\nplate;burr;burr, on edge;;\r\nplate;dent;dent;;;;\r\n"))
    assert (done.code, done.err) == (0, "")
    assert ids(cli) == ["plate.burr", "plate.dent"]
    shifted = run(cli, table(cli, "product;type;note\nplate;hole;hole;;surplus\n"))
    assert refused(shifted) == ["line 2: it has 5 cells, the heading 3"]


def test_many_columns_that_mean_nothing_are_counted(cli: Any) -> None:
    heading = ",".join(["product", "note", *(f"x{n}" for n in range(500))])
    done = run(cli, table(cli, f"{heading}\n"))
    assert "x19 and 480 more" in done.err
    assert "x20" not in done.err


def test_a_name_that_windows_keeps_is_refused_by_its_line(cli: Any) -> None:
    done = run(cli, table(cli, "id,product,note\ncon.1,plate,burr\n"))
    assert refused(done) == ["line 2: no folder can be called 'con.1' on Windows"]


ROWS = "product;type;note\r\nplate;burr;Grat über Kante\r\n"


@pytest.mark.parametrize(
    "blob",
    [
        ("\ufeff" + ROWS).encode(),
        ROWS.encode("cp1252"),
        ROWS.encode("utf-16"),
        ROWS.replace(";", "\t").encode(),
        ROWS.replace(";", ",").replace("\r\n", "\n").encode(),
        (ROWS + "\r\n;;\r\n  ;;\r\n").encode(),
        ('"Product";"Defect type";"Description"\r\n' + ROWS.splitlines()[1]).encode(),
    ],
    ids=["bom", "latin-1", "utf-16", "tabs", "comma", "blank rows", "aliases"],
)
def test_what_spreadsheets_write(cli: Any, blob: bytes) -> None:
    done = run(cli, table(cli, blob))
    assert done.code == 0, done.err + done.out
    assert "Grat über Kante" in cli("kb", "show", "plate.burr").out


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("plate,burr,=HYPERLINK(1),", "line 2: note holds a formula"),
        ("plate,burr,@SUM(A1),", "line 2: note holds a formula"),
        ("plate,burr,-2+cmd|' /C calc'!A0,", "line 2: note holds a formula"),
        ("plate,burr", "line 2: it has 2 cells, the heading 4"),
        ("plate,burr,a,b,c", "line 2: it has 5 cells, the heading 4"),
        (",burr,note,", "line 2: the product is missing"),
        ("plate,,,", "line 2: neither a type nor a note is given"),
        ("../plate,burr,note,", "line 2: a page cannot have this product"),
        ("plate,burr,note,../secret.png", "line 2: the picture ../secret.png lies outside"),
        ("plate,burr,note,..\\secret.png", "line 2: the picture .. secret.png lies outside"),
        ("plate,burr,note,/etc/passwd", "line 2: the picture /etc/passwd is no path relative"),
        ("plate,burr,note,C:\\x.png", "line 2: the picture C: x.png is no path relative"),
        ("plate,burr,note,link.png", "line 2: the picture link.png lies outside"),
        ("plate,burr,note,nowhere.png", "line 2: there is no picture nowhere.png"),
        ("plate,burr,note,known.csv", "line 2: the picture known.csv"),
        ("plate,burr,note," + 5000 * "x", "line 2: there is no picture"),
        ("plate,burr," + "word " * 400 + ",", "line 2: the note has"),
        ('plate,burr,"a\nb",\nplate,burr,c,', "line 4: its page plate.burr is that of line 2 too"),
    ],
)
def test_a_row_that_cannot_be_is_refused_by_its_line(cli: Any, text: str, reason: str) -> None:
    save(cli.folder.parent, "secret.png", texture(1))
    (cli.folder / "link.png").symlink_to(cli.folder.parent / "secret.png")
    done = run(cli, table(cli, f"product,type,note,picture\n{text}\nplate,dent,fine,\n"))
    (line,) = refused(done)
    assert line.startswith(reason)
    assert done.err == "flawscope: 1 of the rows were refused, listed above.\n"
    assert "plate.dent" in ids(cli)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "known.csv is empty"),
        ("product,colour\nplate,red\n", "neither a column type nor a column note"),
        ("type,note\nburr,x\n", "has no column product"),
        ("product,note,description\nplate,a,b\n", "two columns for note"),
        ('product,note\nplate,"never closed\nplate,x\n', "known.csv, line 2: unexpected end of data"),
        ('product,note\nplate,"a"b\n', "known.csv, line 2:"),
        ("product,note\nplate," + 200_000 * "x" + "\n", "known.csv, line 2: field larger"),
        (b"\x00\x01\x02PK\x03", "is no text in UTF-8"),
        ("product,note\n" + "plate,burr\n" * 100_000, "has more than 10000 rows"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line(cli: Any, text: str | bytes, reason: str) -> None:
    run(cli, table(cli, text)).refused(6, reason)
    assert ids(cli) == []


def test_what_is_no_source_is_one_line(cli: Any) -> None:
    run(cli, cli.folder / "nowhere.csv").refused(6, "does not exist")
    run(cli, table(cli, "x", "known.txt")).refused(6, "no folder, .csv or .yaml")
    (cli.folder / "empty").mkdir()
    run(cli, cli.folder / "empty").refused(6, "holds no photos")


def test_a_picture_comes_in_once(cli: Any) -> None:
    first = photo(cli.folder, "1.png", 1)
    (cli.folder / "2.png").write_bytes(first.read_bytes())
    done = run(cli, table(cli, "product,type,picture,box\nplate,burr,1.png,\nplate,dent,2.png,\nplate,dent,1.png,\n"))
    assert refused(done) == [
        "line 3: its picture is there already, as plate.1",
        "line 4: its page plate.1 is that of line 2 too: give them different ids",
    ]
    boxes = run(cli, table(cli, 'product,type,picture,box\nplate,burr,1.png,"0,0,481,9"\nplate,dent,,"0,0,9,9"\n'))
    assert [line.split(":")[1] for line in refused(boxes)] == [
        " the box 0,0,481,9 is none in a picture of 480 x 480 px",
        " a box needs a picture",
    ]


# --- control plans --------------------------------------------------------------------------------

PLAN = """\
control_plan: CP-17
products:
  - product: plate
    severity: 5
    characteristics:
      - characteristic: hole position
        severity: 8
        disposition: Quarantine the lot.
        reaction_plan: Stop the press and check the punch.
        defects:
          - type: hole
            note: hole punched off centre
            causes: [worn guide, loose clamp]
            picture: p/hole.png
          - type: dent
            note: dent beside the hole
            severity: 3
    defects:
      - note: scratch across the plate
"""


@pytest.fixture
def plan(cli: Any) -> Path:
    photo(cli.folder / "p", "hole.png", 1)
    return table(cli, PLAN, "plan.yaml")


def test_what_a_control_plan_says_reaches_the_page_and_the_report(cli: Any, plan: Path) -> None:
    done = run(cli, plan)
    assert (done.code, done.out) == (0, "plan.yaml, CP-17: 3 new, 0 changed, 0 unchanged, 0 refused\n")
    assert ids(cli) == ["plate", "plate.dent.hole-position", "plate.p.hole"]
    page = cli("kb", "show", "plate.p.hole").out
    for words in ("Quarantine the lot.", "Stop the press and check the punch.", "8 (hole position)", "1. worn guide"):
        assert words in page
    assert "3 (hole position)" in cli("kb", "show", "plate.dent.hole-position").out
    report = json.loads(cli("inspect", cli.plant.square, "--product", "plate", "--json").out)
    assert report["defect_type"]["name"] == "hole"
    assert "Quarantine the lot. Reaction plan: Stop the press and check the punch. Severity 8." in report["action"]
    assert "worn guide; loose clamp" in report["root_cause"]
    (cited,) = [item for item in report["evidence"] if item["source"] == "plate.p.hole"]
    assert {i for c in report["claims"] if c["field"] == "action" for i in c["evidence_ids"]} == {cited["id"]}
    assert "Severity: 8 (hole position)" in cited["text"]


def test_a_plan_changed_at_its_top_changes_the_pages_below(cli: Any, plan: Path) -> None:
    run(cli, plan)
    changed = table(cli, PLAN.replace("severity: 8", "severity: 9"), "plan.yaml")
    assert "0 new, 1 changed, 2 unchanged, 0 refused" in run(cli, changed).out


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("- product: plate", "is no control plan"),
        ("products: []", "holds no defects"),
        ("products: [", "no valid control plan"),
        ("a: &x 1\nproducts: *x", "uses an alias"),
        ("products:\n  - product: plate\n    product: plate", "line 3: a key is no word or is written twice"),
        ("products: " + "[" * 5000, "nested too deep"),
        ("products: " + "[" * 50 + "]" * 50, "nested too deep"),
    ],
)
def test_a_plan_that_cannot_be_read_is_one_line(cli: Any, text: str, reason: str) -> None:
    run(cli, table(cli, text, "plan.yaml")).refused(6, reason)


def test_what_is_wrong_in_a_plan_is_refused_by_its_line(cli: Any) -> None:
    text = """\
products:
  - product: plate
    colour: red
    defects: [{type: burr}]
  - product: plate
    defects:
      - type: dent
      - note: {a: b}
      - just words
      - type: burr
        picture: ../x.png
  - product: plate
    characteristics: many
"""
    done = run(cli, table(cli, text, "plan.yaml"))
    assert [line.partition(": ")[::2] for line in refused(done)] == [
        ("line 2", "the key 'colour' is not read here"),
        ("line 8", "a value is a mapping where text is expected"),
        ("line 5", "each of the defects must be a mapping such as 'type: burr'"),
        ("line 10", "the picture ../x.png lies outside of the imported folder"),
        ("line 12", "characteristics must be a list"),
    ]
    assert ids(cli) == ["plate.dent"]


# --- leaks ----------------------------------------------------------------------------------------


def test_test_pictures_are_refused_everywhere(cli: Any) -> None:
    data = cli.folder / "data" / "plate"
    for number in range(2):
        photo(data / "train" / "good", f"{number}.png", 20 + number)
        photo(data / "test" / "good", f"{number}.png", 30 + number)
        photo(data / "test" / "burr", f"{number}.png", 40 + number)
    own = photo(cli.folder, "own.png", 50, GREEN)
    cli("kb", "add", own, "--note", "burr", "--product", "plate")
    leaked = data / "test" / "burr" / "1.png"
    cli("kb", "add", leaked, "--note", "burr", "--product", "plate", "--id", "plate.early")
    added = cli("kb", "guard", "add", cli.folder / "data", "--name", "plates")
    assert added.out.startswith("plates: 4 test pictures ")
    assert cli("kb", "guard", "list").out == added.out
    bad = data / "test" / "burr" / "0.png"
    named = "the test picture plate/test/burr/0.png of plates"
    cli("kb", "add", bad, "--note", "burr", "--product", "plate").refused(6, named)
    cli("kb", "edit", "plate.burr.1", "--picture", bad).refused(6, named)
    text = "product,type,picture\nplate,burr,data/plate/test/burr/0.png\nplate,dent,data/plate/train/good/0.png\n"
    assert refused(run(cli, table(cli, text))) == [f"line 2: its picture is {named}"]
    found = cli("kb", "verify")
    assert found.code == 6
    assert "FAULT plate.early: its picture is the test picture plate/test/burr/1.png of plates" in found.out
    assert "4 guarded test pictures" in found.out
    cli("kb", "remove", "plate.early", "--yes")
    assert cli("kb", "verify").code == 0
    assert cli("kb", "guard", "remove", "plates").code == 0
    assert cli("kb", "add", bad, "--note", "burr", "--product", "plate").code == 0
    cli("kb", "guard", "add", cli.folder / "data" / "plate" / "train").refused(4, "test pictures")
