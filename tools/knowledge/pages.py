"""A document as pages that a person can read, hang up and file: one picture per page, A4 in proportion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from ...agent.home import write_atomically
from .illustrations import Illustration, PagePicture, illustrate
from .page_font import choose_font, font_of, written
from .page_layout import PAGE_HEIGHT_PX, PAGE_WIDTH_PX, Content, Role, Sheet, lay_out
from .schema import KnowledgeDocument
from .sections import heading, printable, review_state, sections

_PAPER = (255, 255, 255)
_INK: dict[Role, tuple[int, int, int]] = {
    "kicker": (0, 84, 122),
    "title": (20, 24, 28),
    "lead": (70, 76, 82),
    "label": (0, 84, 122),
    "body": (28, 32, 36),
    "minor": (96, 102, 108),
    "note": (96, 102, 108),
    "foot": (120, 126, 132),
}
_GROUNDS = {"rule": (200, 206, 212), "action": (255, 240, 208)}
_BAND = (0, 84, 122)
_BOLD_ROLES = frozenset({"title"})


def draw_pages(document: KnowledgeDocument, picture: PagePicture | None = None) -> list[Image.Image]:
    """Draw a document.

    Args:
        document: the page of the knowledge base.
        picture: its own, if it has one.

    Returns:
        RGB pictures of PAGE_WIDTH_PX x PAGE_HEIGHT_PX, at least one.
    """
    illustration = illustrate(document, picture)
    font, sheets = set_pages(document, illustration)
    return [_draw(sheet, illustration, font) for sheet in sheets]


def set_pages(document: KnowledgeDocument, illustration: Illustration) -> tuple[str, list[Sheet]]:
    """Name of the font (see ``page_font``) and the pages laid out in it."""
    content = _content(document, illustration)
    font = choose_font(_texts(content))

    def measure(text: str, size_px: int) -> float:
        return float(font_of(font, size_px).getlength(text))

    def fit(text: str) -> str:
        return written(text, font)

    fitted = replace(
        content,
        kicker=fit(content.kicker),
        title=fit(content.title),
        lead=fit(content.lead),
        sections=[replace(section, items=tuple(map(fit, section.items))) for section in content.sections],
        captions=[fit(caption) for caption in content.captions],
        note=fit(content.note),
    )
    return font, lay_out(fitted, measure)


def save_pages(document: KnowledgeDocument, out: Path, picture: PagePicture | None = None) -> list[Path]:
    """Write a document as PNG files ``<doc_id>.png``, ``<doc_id>_page2.png`` and so on.

    Args:
        document: the page of the knowledge base.
        out: folder, made if need be.
        picture: its own, if it has one.

    Returns:
        The files in order.

    Raises:
        StorageError: they cannot be written.
    """
    paths = []
    for number, page in enumerate(draw_pages(document, picture), start=1):
        suffix = f"_page{number}" if number > 1 else ""
        path = out / f"{document.doc_id}{suffix}.png"
        write_atomically(path, lambda temporary, page=page: page.save(temporary, "PNG", optimize=True))  # type: ignore[misc]
        paths.append(path)
    return paths


def _content(document: KnowledgeDocument, illustration: Illustration) -> Content:
    return Content(
        kicker=f"DEFECT CATALOGUE  ·  {heading(document).upper()}",
        title=printable(document.title),
        lead=printable(document.description),
        sections=sections(document),
        captions=[panel.caption for panel in illustration.panels],
        sizes_px=[(panel.rgb.shape[1], panel.rgb.shape[0]) for panel in illustration.panels],
        note=illustration.note,
        foot=f"{document.doc_id}  ·  {document.content_hash()[:12]}  ·  {review_state(document)}",
    )


def _texts(content: Content) -> Sequence[str]:
    items = [item for section in content.sections for item in section.items]
    return [content.kicker, content.title, content.lead, content.note, *content.captions, *items]


def _draw(sheet: Sheet, illustration: Illustration, font: str) -> Image.Image:
    page = Image.new("RGB", (PAGE_WIDTH_PX, PAGE_HEIGHT_PX), _PAPER)
    draw = ImageDraw.Draw(page)
    draw.rectangle([0, 0, PAGE_WIDTH_PX, 13], fill=_BAND)
    for ground in sheet.fields:
        x0, y0, x1, y1 = ground.box
        draw.rectangle([x0, y0, x1 - 1, y1 - 1], fill=_GROUNDS[ground.kind])
    for slot in sheet.slots:
        x0, y0, x1, y1 = slot.box
        panel = Image.fromarray(illustration.panels[slot.panel].rgb)
        page.paste(ImageOps.fit(panel, (x1 - x0, y1 - y0), Image.Resampling.LANCZOS), (x0, y0))
        draw.rectangle([x0 - 1, y0 - 1, x1, y1], outline=_GROUNDS["rule"])
    for line in sheet.lines:
        weight = 1 if line.role in _BOLD_ROLES else 0
        # "la": from the ascender, so that lines of one size stand at equal distances whatever letters they have
        draw.text(
            (line.x, line.y), line.text, _INK[line.role], font_of(font, line.size_px), anchor="la", stroke_width=weight
        )
    return page
