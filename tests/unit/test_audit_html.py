"""The page of an audit without a browser: what is written, how it is escaped, and that its colours can be read."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from html.parser import HTMLParser
from importlib.resources import files
from itertools import product
from pathlib import Path

import pytest
from audit_records import made, written
from hypothesis import given
from hypothesis import strategies as st
from page_audit import HOSTILE, page_audit
from PIL import Image

from flawscope.agent.errors import InputError
from flawscope.audits.page import build_page, builder
from flawscope.audits.page.document import data_block, deflated, frame, json_text
from flawscope.audits.page.pictures import THUMBNAIL_PX, large_of, small_of
from flawscope.audits.page.rows import Rows, detail_of, visible
from flawscope.audits.record_file import RECORDS_NAME, RecordWriter, read_records

CSS = files("flawscope.audits.page").joinpath("page.css").read_text(encoding="utf-8")
LEAST_TEXT, LEAST_MARK = 4.5, 3.0
"""Contrast that WCAG 2.2 asks of text (1.4.3) and of parts one must see (1.4.11)."""


# --- colours ----------------------------------------------------------------------------------------------------------


def tokens(theme: str) -> dict[str, str]:
    """The colours of one theme by name."""
    start = CSS.index(":root {" if theme == "light" else ':root[data-theme="dark"] {')
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", CSS[start : CSS.index("}", start)]))


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_marks_can_be_read(theme: str) -> None:
    colour = tokens(theme)
    texts = [*product(("ink", "muted"), ("bg", "panel", "well")), *product(("ink", "accent"), ("tint",))]
    texts += [("accent", "panel"), ("accent", "bg"), ("on-accent", "accent"), ("on-stage", "stage"), ("ng", "panel")]
    texts += [(name, f"{name}-soft") for name in ("ng", "review", "ok")]
    marks = [*product(("ng-mark", "review-mark", "ok-mark", "accent", "edge"), ("panel",))]
    marks += [("accent", "bg"), ("edge", "bg"), ("accent", "well")]
    low = {pair: contrast(colour[pair[0]], colour[pair[1]]) for pair in texts}
    assert {pair: ratio for pair, ratio in low.items() if ratio < LEAST_TEXT} == {}
    low = {pair: contrast(colour[pair[0]], colour[pair[1]]) for pair in marks}
    assert {pair: ratio for pair, ratio in low.items() if ratio < LEAST_MARK} == {}


def test_both_themes_have_the_same_colours_and_motion_is_asked_for() -> None:
    assert set(tokens("light")) == set(tokens("dark"))
    outside = CSS.replace(CSS[CSS.index("@media (prefers-reduced-motion: no-preference)") :].split("\n}\n")[0], "")
    assert "transition" not in outside
    assert "animation" not in CSS


# --- escaping ---------------------------------------------------------------------------------------------------------


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_in_the_page_is_plain_ascii_that_reads_back(data: object) -> None:
    text = json_text(data)
    assert text.isascii()
    assert not set("<>&") & set(text)
    assert json.loads(text) == data


def test_a_number_that_json_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_text(float("nan"))


@given(st.text())
def test_nothing_stays_hidden_in_a_text(text: str) -> None:
    shown = visible(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]", shown)
    assert visible(shown) == shown


def test_what_reads_as_it_is_stays_as_it_is() -> None:
    for text in ("part 1.png", "über 部品 🔩.png", "a\nb\tc", "\\u202e"):
        assert visible(text) == text
    assert visible("\u202egnp.exe") == "\\u202egnp.exe"


class Elements(HTMLParser):
    """Elements with their attributes, and what the scripts hold."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": [], "title": []}
        self._open = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._open = tag
        if tag in self.texts:
            self.texts[tag].append("")

    def handle_data(self, data: str) -> None:
        if self._open in self.texts:
            self.texts[self._open][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._open = ""


def elements(text: str) -> Elements:
    parsed = Elements()
    parsed.feed(text)
    return parsed


def test_hostile_text_adds_no_element(tmp_path: Path) -> None:
    quiet = page_audit(tmp_path / "quiet", len(HOSTILE), side_px=32, pictures=2)
    loud = page_audit(tmp_path / "<i> & loud", len(HOSTILE), names=HOSTILE, side_px=32, pictures=2)
    plain, hostile = (
        elements(build_page(audit, audit / "page.html").path.read_text(encoding="utf-8")) for audit in (quiet, loud)
    )
    assert hostile.found[0][0] == "html"
    assert [(tag, sorted(given)) for tag, given in hostile.found] == [
        (tag, sorted(given)) for tag, given in plain.found
    ]
    assert hostile.texts["title"] == ["Audit <i> & loud"]
    assert not [given for _, given in hostile.found if set(given) & {"onclick", "onerror", "onload", "style"}]
    assert not [given["src"] for _, given in hostile.found if "src" in given]


def test_the_policy_names_what_the_page_holds(tmp_path: Path) -> None:
    audit = written(tmp_path / "audit", [made(1)])
    page = elements(build_page(audit, audit / "page.html").path.read_text(encoding="utf-8"))
    (policy,) = [given["content"] for tag, given in page.found if given.get("http-equiv") == "Content-Security-Policy"]
    kinds = [given.get("type") for tag, given in page.found if tag == "script"]
    run = [text for text, kind in zip(page.texts["script"], kinds, strict=True) if kind is None]
    assert len(run) == 2
    for text in (*run, *page.texts["style"]):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy is not None
        assert f"'sha256-{digest}'" in policy
    assert "default-src 'none'" in (policy or "")
    assert "unsafe" not in (policy or "")
    assert "http:" not in (policy or "")


def test_a_part_of_the_page_is_not_looked_at_for_placeholders() -> None:
    before, _ = frame("{{policy}} {{script}}", "{{store}}", "1", [data_block("x", json_text("{{style}}"))])
    assert "<title>{{policy}} {{script}}</title>" in before
    assert '"{{style}}"' in before


# --- rows -------------------------------------------------------------------------------------------------------------


def test_rows_number_words_and_rank_names_by_their_numbers() -> None:
    rows = Rows()
    for number, (name, lot) in enumerate((("b/part-10.png", "L2"), ("a/part-9.png", None), ("part-010.PNG", "L2")), 1):
        rows.add(made(number, image=name, lot=lot, label="good", verdict="NG", kind="dent"))
    rows.finish()
    assert rows.columns["lot"] == [0, -1, 0]
    assert rows.words["lot"] == ["L2"]
    assert rows.words["type"] == ["dent"]
    assert rows.columns["rank"] == [1, 0, 2]
    assert rows.columns["x"] == [1, 1, 1]
    assert set(rows.columns) == set(Rows.ALL)


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        ("{here}/parts/a b#1.png", "./parts/a%20b%231.png"),
        ("{here}/../other/ü.png", "../other/%C3%BC.png"),
        ("{here}/javascript:alert(1)", "./javascript%3Aalert%281%29"),
        ("{here}/a?b=\u202e\\.png", "./a%3Fb%3D%E2%80%AE%5C.png"),
    ],
)
def test_a_link_stays_a_way_to_a_file(tmp_path: Path, image: str, wanted: str) -> None:
    record = made(1, image=image.format(here=tmp_path / "audit"))
    assert detail_of(record, tmp_path / "audit" / "page.html")["href"] == wanted


def test_a_report_without_claims_says_the_records_sentences() -> None:
    record = made(1, said={"description": "A dent\u202e."}, verdict="NG", kind="dent")
    assert detail_of(record, Path("page.html"))["claims"] == [["description", "A dent\\u202e.", []]]


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_a_picture_outside_of_the_audit_is_not_shown(tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), "red").save(tmp_path / "secret.png")
    audit = tmp_path / "audit"
    audit.mkdir()
    (audit / "link.png").symlink_to(tmp_path / "secret.png")
    for name in ("../secret.png", str(tmp_path / "secret.png"), "link.png"):
        record = made(1, image=str(audit / "gone.png")).model_copy(update={"pictures": {"image": name, "map": name}})
        assert small_of(record, audit) == small_of(record.model_copy(update={"pictures": {}}), audit)
        assert small_of(record, audit).thumbnail is None
        assert large_of(record, audit) is None


def test_the_original_is_shown_while_it_is_the_inspected_one(tmp_path: Path) -> None:
    path = tmp_path / "part.png"
    Image.new("RGB", (300, 200), "red").save(path)
    record = made(1, image=str(path)).model_copy(update={"sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    small, large = small_of(record, tmp_path), large_of(record, tmp_path)
    assert sizes(small.thumbnail, large) == [(THUMBNAIL_PX, round(THUMBNAIL_PX * 2 / 3)), (300, 200)]
    assert small.map is None
    Image.new("RGB", (300, 200), "blue").save(path)
    assert small_of(record, tmp_path).thumbnail is None


def test_a_map_is_clear_where_nothing_stands_out(tmp_path: Path) -> None:
    heat = Image.new("RGB", (80, 80))
    record = made(1).model_copy(update={"pictures": {"image": "i.png", "map": "m.png"}})
    Image.new("RGB", (80, 80), "grey").save(tmp_path / "i.png")
    heat.save(tmp_path / "m.png")
    assert small_of(record, tmp_path).map == ""
    heat.paste((255, 190, 40), (0, 0, 40, 80))
    heat.save(tmp_path / "m.png")
    layer = decoded(small_of(record, tmp_path).map)
    assert layer.mode == "RGBA"
    assert layer.getpixel((70, 40))[3] < 10
    assert layer.getpixel((10, 40))[3] > 245


def decoded(text: str | None) -> Image.Image:
    import io

    assert text is not None
    picture = Image.open(io.BytesIO(base64.b64decode(text)))
    picture.load()
    return picture


def sizes(*texts: str | None) -> list[tuple[int, int]]:
    return [decoded(text).size for text in texts]


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_file_holds_what_it_says_and_keeps_to_its_size(tmp_path: Path) -> None:
    audit = page_audit(tmp_path / "audit", 90, side_px=240, pictures=6)
    steps: list[tuple[str, int, int]] = []
    facts = build_page(audit, tmp_path / "whole.html", progress=lambda *step: steps.append(step))
    assert (facts.records, facts.thumbnails, facts.large) == (90, 90, 90)
    assert facts.size_bytes == facts.path.stat().st_size
    assert ("thumbnails", 90, 90) in steps
    blocks = blocks_of(facts.path)
    details = [each for number in range(3) for each in inflated(blocks[f"detail-{number}"])]
    assert [each["id"] for each in details] == [record.id for record in read_records(audit)]
    assert len(json.loads(blocks["small-2"])) == 10
    verdicts = json.loads(blocks["rows-0"])["v"]

    tight = build_page(audit, tmp_path / "tight.html", max_bytes=facts.size_bytes * 2 // 3)
    assert tight.size_bytes <= facts.size_bytes * 2 // 3
    assert tight.thumbnails == 90
    assert 0 < tight.large < 90
    shown = [int(name[6:]) for name in blocks_of(tight.path) if name.startswith("large-")]
    assert max(verdicts[row] for row in shown) <= min(verdicts[row] for row in range(90) if row not in shown)

    small = sum(len(text) for name, text in blocks.items() if name.startswith("small-"))
    large = sum(len(text) for name, text in blocks.items() if name.startswith("large-"))
    half = build_page(audit, tmp_path / "half.html", max_bytes=facts.size_bytes - large - small // 2)
    assert 0 < half.thumbnails < 90
    smalls = [each for number in range(3) for each in json.loads(blocks_of(half.path)[f"small-{number}"])]
    with_one, without = ([row for row in range(90) if (smalls[row][0] is None) is gone] for gone in (False, True))
    assert max(verdicts[row] for row in with_one) <= min(verdicts[row] for row in without)

    tiny = build_page(audit, tmp_path / "tiny.html", max_bytes=1)
    assert (tiny.records, tiny.thumbnails, tiny.large) == (90, 0, 0)


def blocks_of(path: Path) -> dict[str, str]:
    found = re.findall(r'<script type="application/json" id="([^"]+)">([^<]*)</script>', path.read_text("utf-8"))
    return dict(found)


def inflated(text: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(zlib.decompress(base64.b64decode(text)))
    assert deflated(found) == text
    return found


def test_the_same_audit_makes_the_same_page(tmp_path: Path) -> None:
    audit = page_audit(tmp_path / "audit", 12, side_px=48, pictures=3)
    one, two = (build_page(audit, tmp_path / name).path.read_bytes() for name in ("one.html", "two.html"))
    assert one == two


def test_an_audit_without_records_has_a_page(tmp_path: Path) -> None:
    audit = written(tmp_path / "audit", [])
    facts = build_page(audit, tmp_path / "page.html")
    assert (facts.records, facts.thumbnails) == (0, 0)
    assert json.loads(blocks_of(facts.path)["audit"])["count"] == 0


def test_an_unfinished_audit_says_so(tmp_path: Path) -> None:
    audit = written(tmp_path / "audit", [made(1), made(2)])
    whole = blocks_of(build_page(audit, tmp_path / "page.html").path)["audit"]
    assert "unfinished" not in json.loads(whole)["subtitle"]
    lines = (audit / "records.jsonl").read_bytes().splitlines(keepends=True)
    (audit / "records.jsonl").write_bytes(lines[0] + lines[1][:50])
    part = json.loads(blocks_of(build_page(audit, tmp_path / "page.html").path)["audit"])
    assert part["subtitle"].startswith("1 picture: 0 NG, 0 REVIEW, 1 OK")
    assert "unfinished: 2 lines to do" in part["subtitle"]


def test_an_audit_that_goes_on_meanwhile_gives_a_page_of_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(tmp_path, [made(number) for number in (1, 2)])
    first, urgency = build_page(folder, tmp_path / "before.html"), builder._urgency

    def meanwhile(rows: Rows) -> list[int]:
        with RecordWriter(folder / RECORDS_NAME) as writer:
            writer.append([made(3)])
        return urgency(rows)

    monkeypatch.setattr(builder, "_urgency", meanwhile)
    assert build_page(folder, tmp_path / "page.html").records == first.records == 2
    assert (tmp_path / "page.html").read_bytes() == (tmp_path / "before.html").read_bytes()


def test_records_that_are_written_anew_meanwhile_give_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, urgency = written(tmp_path, [made(number) for number in (1, 2)]), builder._urgency

    def meanwhile(rows: Rows) -> list[int]:
        written(tmp_path, [made(2)])
        return urgency(rows)

    monkeypatch.setattr(builder, "_urgency", meanwhile)
    with pytest.raises(InputError, match="written anew"):
        build_page(folder, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_what_is_no_audit_leaves_no_page(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        build_page(tmp_path, tmp_path / "page.html")
    (tmp_path / "records.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="not a record"):
        build_page(tmp_path, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
