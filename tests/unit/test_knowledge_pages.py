"""Documents as pages: nothing is lost on the way to paper, and nothing of a document acts."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flawscope.agent.errors import ConfigError, StorageError
from flawscope.tools.knowledge.catalogue import as_html, export
from flawscope.tools.knowledge.illustrations import illustrate, mark_defect
from flawscope.tools.knowledge.page_font import BUILT_IN, written
from flawscope.tools.knowledge.page_layout import BOTTOM_PX, MARGIN_PX, PAGE_HEIGHT_PX, PAGE_WIDTH_PX, wrap
from flawscope.tools.knowledge.pages import draw_pages, save_pages, set_pages
from flawscope.tools.knowledge.plant_page import PlantPage
from flawscope.tools.knowledge.schema import KnowledgeDocument, load_documents
from flawscope.tools.knowledge.sections import as_text, find_document, printable, sections, select_documents

SHIPPED = load_documents()


def document(**fields: Any) -> KnowledgeDocument:
    given = {"doc_id": "plate.odd", "scope": "product", "product": "plate", "defect_type": "odd"}
    return KnowledgeDocument.model_validate({**given, "general_type": "oddity", "title": "Odd", **fields})


def long_document() -> KnowledgeDocument:
    numbers = iter(range(10_000))

    def prose(letters: int) -> str:
        text = ""
        while len(text) < letters - 10:
            text += f"word{next(numbers)} "
        return text

    return document(
        normal_traits=prose(1200),
        appearance=prose(1200),
        description=prose(390),
        likely_causes=[prose(390) for _ in range(8)],
        consequences=[prose(390) for _ in range(8)],
        look_alikes=[{"defect_type": "crack", "how_to_tell": prose(390)} for _ in range(4)],
        confirm=prose(1200),
        action=prose(390),
        scenario=prose(1200),
        source="S" * 399,
        page_image="scratch",
    )


def drawn_text(page: KnowledgeDocument) -> str:
    _, sheets = set_pages(page, illustrate(page))
    return " ".join(line.text for sheet in sheets for line in sheet.lines)


def said(page: KnowledgeDocument) -> set[str]:
    texts = [page.title, page.description, *(item for section in sections(page) for item in section.items)]
    return {word for text in texts for word in printable(text).split()}


def test_a_long_document_keeps_every_word_over_several_pages() -> None:
    page = long_document()
    _, sheets = set_pages(page, illustrate(page))
    assert len(sheets) >= 3
    everything = drawn_text(page)
    words = set(everything.split())
    assert said(page) - words == {"S" * 399}
    assert "S" * 399 in everything.replace(" ", "")  # a word longer than a line is broken, not cut
    for number, sheet in enumerate(sheets, start=1):
        assert any(line.text == f"page {number} of {len(sheets)}" for line in sheet.lines)
    for sheet in sheets[1:]:
        assert sheet.lines[0].text == "Odd, continued"


@pytest.mark.parametrize("page", [long_document(), *SHIPPED[::17]], ids=lambda page: page.doc_id)
def test_nothing_stands_outside_the_page_or_over_its_foot(page: KnowledgeDocument) -> None:
    from flawscope.tools.knowledge.page_font import font_of

    font, sheets = set_pages(page, illustrate(page))
    for sheet in sheets:
        for line in sheet.lines:
            width = font_of(font, line.size_px).getlength(line.text)
            assert line.x >= MARGIN_PX
            assert line.x + width <= PAGE_WIDTH_PX - MARGIN_PX + 0.5, line.text
            if line.role != "foot":
                assert line.y + line.size_px <= BOTTOM_PX + 8, line.text
        rows = sorted(
            (line.y, line.x, line.x + font_of(font, line.size_px).getlength(line.text)) for line in sheet.lines
        )
        for (y, _, right), (next_y, left, _) in pairwise(rows):
            assert y != next_y or right <= left


def test_every_shipped_document_says_all_it_has() -> None:
    for page in SHIPPED[::5]:
        assert said(page) <= set(drawn_text(page).split()), page.doc_id


@given(st.text(max_size=200), st.integers(20, 300))
@settings(max_examples=60, deadline=None)
def test_wrapping_loses_no_letter_and_keeps_to_the_width(text: str, width_px: int) -> None:
    lines = wrap(text, width_px, 10, lambda part, size: len(part) * size)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(len(line) * 10 <= width_px or len(line) == 1 for line in lines)


def test_pages_are_drawn_with_and_without_a_picture(tmp_path: Path) -> None:
    with_picture, without = find_document(SHIPPED, "general.crack"), document(appearance="Odd all over.")
    for page in (with_picture, without):
        for picture in draw_pages(page):
            assert picture.size == (PAGE_WIDTH_PX, PAGE_HEIGHT_PX)
            assert np.asarray(picture).std() > 5
    assert illustrate(without).panels == ()
    assert "No picture yet." in drawn_text(without)
    (path,) = save_pages(without, tmp_path / "new" / "folder")
    assert path.name == "plate.odd.png"
    assert [p.name for p in path.parent.iterdir()] == ["plate.odd.png"]
    assert [p.name for p in save_pages(long_document(), tmp_path)][:2] == ["plate.odd.png", "plate.odd_page2.png"]


def test_a_picture_that_cannot_be_read_leaves_the_words(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    page = document(page_image="broken.png", action="Scrap.")
    assert "cannot be shown" in illustrate(page, broken).note
    assert "not at hand" in illustrate(page).note
    assert len(draw_pages(page, broken)) == 1


def test_a_product_without_a_picture_borrows_its_types_drawing_and_says_so() -> None:
    borrowed = illustrate(find_document(SHIPPED, "leather.color"))
    assert len(borrowed.panels) == 3
    assert "not on this product" in borrowed.note


def test_a_photograph_is_marked_where_its_box_is(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    noise = np.random.default_rng(0).integers(90, 110, (900, 1200, 3), np.uint8)
    Image.fromarray(noise).save(path)
    fields = document(page_image="photo.png").model_dump()
    page = PlantPage.model_validate({**fields, "box": (400, 300, 600, 500)})
    plain, marked = (panel.rgb.astype(int) for panel in illustrate(page, path).panels)
    changed = np.abs(plain - marked).sum(axis=2) > 60
    rows, columns = np.nonzero(changed)
    scale = 640 / 1200
    assert abs(rows.min() - 300 * scale) < 12
    assert abs(columns.max() - 600 * scale) < 12
    assert not changed[int(300 * scale) : int(500 * scale), int(400 * scale) : int(600 * scale)].any()


def test_a_mark_leaves_the_defect_uncovered_and_is_none_where_there_is_no_place() -> None:
    rgb = np.full((80, 80, 3), 128, np.uint8)
    mask = np.zeros((80, 80), bool)
    mask[30:40, 30:40] = True
    marked = mark_defect(rgb, mask)
    assert (marked[mask] == 128).all()
    assert (marked != 128).any()
    for everywhere in (np.ones((80, 80), bool), np.zeros((80, 80), bool)):
        np.testing.assert_array_equal(mark_defect(rgb, everywhere), rgb)


def test_letters_that_the_font_lacks_are_written_another_way() -> None:
    assert written("Größe 5 µm × 3 – ok", BUILT_IN) == "Grosse 5 um x 3 - ok"
    assert written("中", BUILT_IN) == "[U+4E2D]"


def test_control_and_invisible_characters_are_stripped() -> None:
    hostile = "a\x1b[31mb\u202ec\x00d\nnext\u200b"
    assert printable(hostile) == "a[31mbcd next"
    text = as_text(document(title=hostile, appearance=hostile, likely_causes=[hostile]))
    assert all(char.isprintable() for line in text for char in line)


def test_what_documents_hold_is_escaped_in_html() -> None:
    script = "<script>alert('x')</script>"
    image = '"><img src=x onerror=alert(1)>'
    page = document(
        title=script, appearance=image, description=script, likely_causes=[script], source=image, aliases=[script],
        look_alikes=[{"defect_type": "crack", "how_to_tell": image}], page_image="a<b>.png",
    )  # fmt: skip
    text = as_html([page, find_document(SHIPPED, "general.crack")])
    assert "<script" not in text
    assert "<img src=x" not in text
    assert text.count("&lt;script&gt;") >= 5
    assert set(re.findall(r'(?:src|href)="([^"]{5})', text)) <= {"data:", "#plat", "#gene"}
    assert "http:" not in text
    assert "https:" not in text
    assert text.count("<img ") == text.count(' alt="') == 3
    assert set(re.findall(r'href="#([^"]+)"', text)) == set(re.findall(r'<article id="([^"]+)"', text))


def test_the_catalogue_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    chosen = select_documents(SHIPPED, "leather")
    seen: list[tuple[str, int, int]] = []
    export([*chosen] * 3, tmp_path / "a.pdf", progress=lambda *step: seen.append(step))
    blob = (tmp_path / "a.pdf").read_bytes()
    assert blob.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", blob)) >= 18
    assert re.findall(rb"/Count (\d+)", blob)[-1] == b"18"
    assert seen[-1] == ("drawing pages", 18, 18)
    with pytest.raises(ConfigError, match=r"\.pdf or a \.html"):
        export(chosen, tmp_path / "a.docx")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        export(chosen, tmp_path / "folder.html")
    with pytest.raises(StorageError):
        export(chosen, tmp_path / "a.pdf" / "b.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pdf", "folder.html"]


def test_documents_are_chosen_by_product_and_type() -> None:
    assert {page.product for page in select_documents(SHIPPED, "leather")} == {"leather"}
    by_type = select_documents(SHIPPED, None, "colour_spot")
    assert by_type[0].doc_id == "general.colour_spot"
    assert "leather.color" in {page.doc_id for page in by_type}
    for product, kind, words in [("lether", None, "leather"), (None, "crak", "crack"), ("leather", "spur", "has no")]:
        with pytest.raises(ConfigError, match=words):
            select_documents(SHIPPED, product, kind)
    with pytest.raises(ConfigError, match=r"no document 'general.scrach'. Did you mean general.scratch"):
        find_document(SHIPPED, "general.scrach")


def test_contents_tell_pages_of_one_title_apart() -> None:
    crack = find_document(SHIPPED, "general.crack")
    other = crack.model_copy(update={"doc_id": "general.crack.2"})
    nav = as_html([crack, other, find_document(SHIPPED, "general.hole")]).split("<main>")[0]
    assert "<small>general.crack</small>" in nav
    assert "<small>general.crack.2</small>" in nav
    assert "<small>general.hole</small>" not in nav
