"""``kb build``: pictures of the user's own data sets on the shipped pages, and what benchmarks then leave out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import texture, with_square
from PIL import Image

from flawscope.tools.knowledge import builder, schema

LEATHER = frozenset({"leather.good", "leather.cut", "leather.glue", "general.cut", "general.scratch"})


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leather in MVTec's layout, and a base of few pages."""
    few = tuple(page for page in schema.load_documents() if page.doc_id in LEATHER)
    monkeypatch.setattr(builder, "load_documents", lambda: few)
    root = tmp_path / "mvtec_ad"
    for n in range(3):
        _save(texture(n), root / "leather/train/good" / f"{n}.png")
        _save(texture(10 + n), root / "leather/test/good" / f"{n}.png")
    for n in range(8):
        _save(with_square(texture(20 + n), 8 + 6 * n, 30), root / "leather/test/cut" / f"{n}.png")
        drawn = np.zeros((96, 96), np.uint8)
        drawn[8 + 6 * n : 24 + 6 * n, 30:46] = 255
        _save(drawn, root / "leather/ground_truth/cut" / f"{n}_mask.png")
    _save(texture(40), root / "leather/test/moth/0.png")
    return root


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=1)


def test_pictures_are_attached_shown_checked_and_dropped(cli: Any, data: Path, snapshot: Any) -> None:
    before = snapshot(data)
    built = cli("kb", "build", "--dataset", f"mvtec={data}", "--out", cli.folder / "pages")
    assert (built.code, built.err) == (0, "")
    assert "mvtec: 4 pictures on 2 pages, 4 of them new, 0 taken away" in built.out
    assert "2 are test pictures of the data set: flawscope bench leaves them out from now on" in built.out
    assert "no page of the label: leather/moth (1 pictures)" in built.out
    assert "pages of these products without a picture: leather.glue" in built.out
    assert "2 pages drawn" in built.out
    assert {path.name for path in (cli.folder / "pages").iterdir()} == {"leather.cut.png", "leather.good.png"}
    assert snapshot(data) == before
    again = cli("kb", "build", "--dataset", f"mvtec={data}")
    assert "mvtec: 4 pictures on 2 pages, 0 of them new, 0 taken away" in again.out

    listed = cli("kb", "list", "--product", "leather").out
    assert re.search(r"leather\.cut .* yes +no ", listed)
    assert re.search(r"leather\.glue .* no +no ", listed)
    shown = cli("kb", "show", "leather.cut", "--out", cli.folder / "one")
    assert (cli.folder / "one/leather.cut.png").read_bytes() == (cli.folder / "pages/leather.cut.png").read_bytes()
    assert shown.code == 0
    assert cli("kb", "export", cli.folder / "all.html").code == 0
    assert "The cut, marked" in (cli.folder / "all.html").read_text(encoding="utf-8")
    verified = cli("kb", "verify")
    assert "4 attached pictures" in verified.out
    assert verified.code == 0

    dropped = cli("kb", "build", "--drop", "mvtec")
    assert "mvtec: 4 pictures taken away" in dropped.out
    assert re.search(r"leather\.cut .* no +no ", cli("kb", "list", "--product", "leather").out)
    cli("kb", "build", "--drop", "mvtec").refused(2, "no pictures of a data set 'mvtec'", "Attached: none")


def test_the_guard_and_the_attached_pictures_leave_each_other_alone(cli: Any, data: Path) -> None:
    cli("kb", "build", "--dataset", f"mvtec={data}")
    guarded = cli("kb", "guard", "add", data)
    assert "10 test pictures" in guarded.out  # of twelve, two are knowledge
    again = cli("kb", "build", "--dataset", f"mvtec={data}")
    assert "4 pictures on 2 pages, 0 of them new, 0 taken away" in again.out
    more = cli("kb", "build", "--dataset", f"other={data}", "--limit", "1")
    assert re.search(r"there already: leather/.*: as leather/.* of mvtec", more.out)


def test_an_attached_picture_is_no_new_knowledge(cli: Any, data: Path) -> None:
    cli("kb", "build", "--dataset", f"mvtec={data}")
    record = next((cli.home / "knowledge" / "attached" / "leather.good").glob("*/record.json"))
    source = data / json.loads(record.read_text())["source"]
    with Image.open(source) as picture:
        picture.resize((80, 80)).save(cli.folder / "smaller.png")
    for photo in (source, cli.folder / "smaller.png"):
        added = cli("kb", "add", photo, "--note", "cut", "--product", "leather")
        added.refused(6, "the picture is there already, as the picture of leather.good from mvtec", "kb list")
    folder = cli.folder / "photos" / "cut"
    folder.mkdir(parents=True)
    (cli.folder / "smaller.png").rename(folder / "a.png")
    imported = cli("kb", "import", cli.folder / "photos", "--product", "leather")
    assert "its picture is there already, as the picture of leather.good from mvtec" in imported.out


def test_two_builds_do_not_work_on_one_folder(cli: Any, data: Path) -> None:
    from flawscope.tools.knowledge.plant import FOLDER, PlantStore

    with PlantStore(cli.home / "knowledge" / FOLDER).locked():
        cli("kb", "build", "--dataset", f"mvtec={data}").refused(6, "another process is changing")
    assert not (cli.home / "knowledge" / "attached").exists()


def test_guarding_another_set_by_the_same_name_says_what_it_replaces(cli: Any, data: Path) -> None:
    assert "in place" not in cli("kb", "guard", "add", data, "--name", "mine").out
    assert "in place" not in cli("kb", "guard", "add", data, "--name", "mine").out
    (data / "leather/test/moth/0.png").unlink()
    assert "in place of 12 known by this name" in cli("kb", "guard", "add", data, "--name", "mine").out


def test_rollback_brings_no_guarded_picture_back(cli: Any, data: Path) -> None:
    photo = data / "leather/test/moth/0.png"
    cli("kb", "add", photo, "--note", "hole", "--product", "leather")
    cli("kb", "remove", "leather.hole.1", "--yes")
    cli("kb", "guard", "add", data)
    cli("kb", "rollback", "leather.hole.1", "1").refused(6, "is the test picture leather/test/moth/0.png")


def test_guarding_names_the_pages_that_hold_a_test_picture_already(cli: Any, data: Path) -> None:
    cli("kb", "add", data / "leather/test/moth/0.png", "--note", "hole", "--product", "leather")
    late = cli("kb", "guard", "add", data)
    assert "12 test pictures" in late.out
    late.refused(6, "1 of the plant's pages hold test pictures already: leather.hole.1.")
    cli("kb", "remove", "leather.hole.1", "--yes")
    assert cli("kb", "guard", "add", data).code == 0


def test_a_guarded_split_stays_out(cli: Any, data: Path) -> None:
    cli("kb", "guard", "add", data)
    built = cli("kb", "build", "--dataset", f"mvtec={data}")
    assert "2 pictures on 1 pages" in built.out
    assert "left for tests, being guarded: leather/test/cut/" in built.out


def test_benchmarks_say_what_they_leave_out(cli: Any, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flawscope.benchmarks import types
    from flawscope.benchmarks.datasets import load_dataset

    monkeypatch.setattr(types, "run_types", lambda root, **_: [len(p.tests) for p in load_dataset(root)])
    monkeypatch.setattr(types, "render", str)
    whole = cli("bench", "types", "--data", data)
    assert (whole.out.strip(), whole.err) == ("[12]", "")
    cli("kb", "build", "--dataset", f"mvtec={data}")
    rest = cli("bench", "types", "--data", data)
    assert rest.out.strip() == "[10]"
    assert "2 test pictures are in the knowledge base of" in rest.err
    assert cli("bench", "types", "--data", data, FLAWSCOPE_HOME=str(cli.folder / "new")).out.strip() == "[12]"


def test_nonsense_is_refused_in_one_line(cli: Any, data: Path) -> None:
    cli("kb", "build", "--dataset", str(data)).refused(2, "--dataset takes NAME=DIR")
    cli("kb", "build", "--dataset", "mvtec=").refused(2, "--dataset takes NAME=DIR")
    cli("kb", "build", "--dataset", f"mvtec={data / 'nowhere'}").refused(4, "is not a folder")
    (data / "leather").rename(data / "suede")
    cli("kb", "build", "--dataset", f"mvtec={data}").refused(4, "suede", "which MVTec AD does not have")
    unknown = cli("kb", "build", "--dataset", f"mine={data}")
    assert "no pages of the product: suede (12 pictures)" in unknown.out
