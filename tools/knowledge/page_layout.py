"""Where everything stands on a page: lines of text, fields of colour and pictures, broken to as many pages as needed.

All measures are in pixels of a page of PAGE_WIDTH_PX x PAGE_HEIGHT_PX, x right and y down, which has the proportions
of A4. Nothing is drawn here; what a line measures is asked of the font.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from .sections import Section

PAGE_WIDTH_PX, PAGE_HEIGHT_PX = 1000, 1414
MARGIN_PX = 64
BOTTOM_PX = PAGE_HEIGHT_PX - 84
"""Where the text ends; the foot of the page is below."""
_TEXT_LEFT_PX = 262
_MARK_PX = 26
_PANEL_GAP_PX = 20
_PANEL_HEIGHT_PX = 440
"""The most a picture may take, so that words fit beside a tall one on the first page."""

Role = Literal["kicker", "title", "lead", "label", "body", "minor", "note", "foot"]
Measure = Callable[[str, int], float]
"""Width of a text in pixels at a size in pixels."""


@dataclass(frozen=True)
class Line:
    """A line of text.

    Attributes:
        text: drawn whole, in one line.
        x, y: of its top left corner.
        size_px: of the font.
        role: what it is, which decides its colour.
    """

    text: str
    x: float
    y: float
    size_px: int
    role: Role


@dataclass(frozen=True)
class Field:
    """A rectangle of one colour, corners XYXY half-open: a rule, or the ground of the disposition."""

    box: tuple[int, int, int, int]
    kind: Literal["rule", "action"]


@dataclass(frozen=True)
class Slot:
    """Where a picture goes, corners XYXY half-open, and which."""

    box: tuple[int, int, int, int]
    panel: int


@dataclass
class Sheet:
    """One page."""

    lines: list[Line] = field(default_factory=list)
    fields: list[Field] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)


@dataclass(frozen=True)
class Content:
    """What is to be laid out, in letters that the font has.

    Attributes:
        kicker: above the title, whose page it is.
        title, lead: heading and one sentence below it, which may be empty.
        sections: see ``sections.sections``.
        captions, sizes_px: of the pictures, (width, height).
        note: below the pictures, may be empty.
        foot: at the foot of each page.
    """

    kicker: str
    title: str
    lead: str
    sections: Sequence[Section]
    captions: Sequence[str]
    sizes_px: Sequence[tuple[int, int]]
    note: str
    foot: str


@dataclass(frozen=True)
class _Sizes:
    body_px: int
    minor_px: int
    gap_px: int

    @property
    def leading(self) -> int:
        return round(self.body_px * 1.4)


_SIZES = (_Sizes(19, 16, 18), _Sizes(18, 15, 15), _Sizes(17, 14, 11), _Sizes(16, 14, 9))
"""From generous to close. Closer than that reads badly, so what does not fit then gets another page."""


def lay_out(content: Content, measure: Measure) -> list[Sheet]:
    """Pages for a document: one if the text can be set for it, else several in the generous size."""
    attempts = (_flow(content, measure, sizes) for sizes in _SIZES)
    sheets = next((pages for pages in attempts if len(pages) == 1), None) or _flow(content, measure, _SIZES[0])
    for number, sheet in enumerate(sheets, start=1):
        y = PAGE_HEIGHT_PX - 58
        sheet.fields.append(Field((MARGIN_PX, y - 12, PAGE_WIDTH_PX - MARGIN_PX, y - 11), "rule"))
        pages = f"page {number} of {len(sheets)}"
        x = PAGE_WIDTH_PX - MARGIN_PX - measure(pages, 14)
        sheet.lines.append(Line(pages, x, y, 14, "foot"))
        for row, text in enumerate(wrap(content.foot, x - MARGIN_PX - 20, 14, measure)):
            sheet.lines.append(Line(text, MARGIN_PX, y + row * 18, 14, "foot"))
    return sheets


def wrap(text: str, width_px: float, size_px: int, measure: Measure) -> list[str]:
    """Break text into lines that fit; a word wider than a line is broken too, and no letter is lost."""
    lines: list[str] = []
    current = ""
    for word in text.split():
        joined = f"{current} {word}" if current else word
        if measure(joined, size_px) <= width_px:
            current = joined
            continue
        if current:
            lines.append(current)
        *full, current = _broken(word, width_px, size_px, measure)
        lines += full
    return [*lines, current] if current else lines


def _broken(word: str, width_px: float, size_px: int, measure: Measure) -> Iterator[str]:
    while len(word) > 1 and measure(word, size_px) > width_px:
        start = word
        end = bisect_right(range(1, len(word)), width_px, key=lambda letters: measure(start[:letters], size_px))
        yield word[: max(1, end)]
        word = word[max(1, end) :]
    yield word


class _Flow:
    """The pages so far and how far down the last one is filled."""

    def __init__(self, title: str, measure: Measure) -> None:
        self.sheets = [Sheet()]
        self.y = MARGIN_PX - 8
        self._title = title
        self._measure = measure

    def room(self, height_px: int) -> bool:
        """Whether that much fits on this page; if not, a new page is begun."""
        if self.y + height_px <= BOTTOM_PX:
            return True
        self.sheets.append(Sheet())
        self.y = MARGIN_PX - 8
        self.paragraph(f"{self._title}, continued", MARGIN_PX, 18, "kicker")
        self.y += 14
        return False

    def line(self, text: str, x: float, size_px: int, role: Role) -> None:
        """A line at the current height, which stays."""
        self.sheets[-1].lines.append(Line(text, x, self.y, size_px, role))

    def paragraph(self, text: str, x: float, size_px: int, role: Role) -> None:
        """Lines down the page from here."""
        for line in wrap(text, PAGE_WIDTH_PX - MARGIN_PX - x, size_px, self._measure):
            self.room(round(size_px * 1.3))
            self.line(line, x, size_px, role)
            self.y += round(size_px * 1.3)


def _flow(content: Content, measure: Measure, sizes: _Sizes) -> list[Sheet]:
    flow = _Flow(content.title, measure)
    flow.paragraph(content.kicker, MARGIN_PX, 18, "kicker")
    flow.y += 2
    flow.paragraph(content.title, MARGIN_PX, 42, "title")
    if content.lead:
        flow.y += 6
        flow.paragraph(content.lead, MARGIN_PX, 22, "lead")
    flow.y += sizes.gap_px
    _pictures(flow, content, measure)
    minor = False
    for section in content.sections:
        if section.minor and not minor:
            flow.room(60)
            flow.sheets[-1].fields.append(Field((MARGIN_PX, flow.y, PAGE_WIDTH_PX - MARGIN_PX, flow.y + 1), "rule"))
            flow.y += sizes.gap_px
            minor = True
        _section(flow, section, measure, sizes)
    return flow.sheets


def _pictures(flow: _Flow, content: Content, measure: Measure) -> None:
    """The pictures side by side at one height, with captions, and the note below."""
    room = PAGE_WIDTH_PX - 2 * MARGIN_PX - _PANEL_GAP_PX * (len(content.sizes_px) - 1)
    if content.sizes_px:
        height = min(_PANEL_HEIGHT_PX, int(room / sum(w / h for w, h in content.sizes_px)))
        widths = [max(1, round(height * w / h)) for w, h in content.sizes_px]
        captions = [wrap(text, max(w, 160), 16, measure) for text, w in zip(content.captions, widths, strict=True)]
        flow.room(height + 8 + 21 * max(map(len, captions)))
        x = MARGIN_PX
        for index, (width, caption) in enumerate(zip(widths, captions, strict=True)):
            flow.sheets[-1].slots.append(Slot((x, flow.y, x + width, flow.y + height), index))
            for row, text in enumerate(caption):
                flow.sheets[-1].lines.append(Line(text, x, flow.y + height + 8 + 21 * row, 16, "label"))
            x += width + _PANEL_GAP_PX
        flow.y += height + 8 + 21 * max(map(len, captions))
    if content.note:
        flow.paragraph(content.note, MARGIN_PX, 15, "note")
    flow.y += 22 if content.sizes_px or content.note else 0


def _section(flow: _Flow, section: Section, measure: Measure, sizes: _Sizes) -> None:
    """Label on the left, text on the right; the label stays with at least two lines of its text."""
    size, leading = sizes.body_px, sizes.leading
    if section.minor:
        size, leading = sizes.minor_px, round(sizes.minor_px * 1.35)
    role: Role = "minor" if section.minor else "body"
    rows: list[tuple[str, str]] = []
    for mark, item in section.marked():
        left = _TEXT_LEFT_PX + (_MARK_PX if mark else 0)
        broken = wrap(item, PAGE_WIDTH_PX - MARGIN_PX - left - 8, size, measure)
        rows += [(mark if row == 0 else "", text) for row, text in enumerate(broken)]
    listed = section.kind in ("numbered", "bullets")
    flow.room(leading * min(2, len(rows)))
    start, sheet = flow.y, flow.sheets[-1]
    flow.line(section.label, MARGIN_PX + 12, size, "label")
    for mark, text in rows:
        if not flow.room(leading):
            _ground(section, sheet, start, BOTTOM_PX)
            start, sheet = flow.y, flow.sheets[-1]
        if mark:
            flow.line(mark, _TEXT_LEFT_PX, size, role)
        flow.line(text, _TEXT_LEFT_PX + (_MARK_PX if listed else 0), size, role)
        flow.y += leading
    _ground(section, sheet, start, flow.y)
    flow.y += 4 if section.minor else sizes.gap_px


def _ground(section: Section, sheet: Sheet, start: int, end: int) -> None:
    if section.kind == "action":
        sheet.fields.append(Field((MARGIN_PX, start - 8, PAGE_WIDTH_PX - MARGIN_PX, end + 5), "action"))
