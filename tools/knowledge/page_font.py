"""The letters of drawn pages.

The font inside Pillow is the same everywhere, so pages look the same everywhere, but it has little beyond ASCII. A
page that needs more is set in a common font of the machine; letters that this lacks too are written another way, and
never as empty boxes, which would lose what was said.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
BUILT_IN = ""
_COMMON_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "Arial Unicode.ttf",
    "arial.ttf",
    "Arial.ttf",
    "NotoSansCJK-Regular.ttc",
    "msyh.ttc",
)
_WRITTEN_AS = {
    "–": "-", "—": "-", "−": "-", "•": "-", "×": "x", "µ": "u", "μ": "u", "Ω": "Ohm", "Ø": "diameter ",
    "∅": "diameter ", "⌀": "diameter ", "≥": ">=", "≤": "<=", "≈": "~", "→": "->", "ß": "ss", "ø": "o", "æ": "ae",
    "œ": "oe", "ł": "l", "„": '"', "«": '"', "»": '"', "‚": "'", "€": "EUR",
}  # fmt: skip


@lru_cache(maxsize=64)
def font_of(name: str, size_px: int) -> Font:
    """A font by the name of its file, ``BUILT_IN`` for Pillow's own."""
    return ImageFont.truetype(name, size_px) if name else ImageFont.load_default(size=size_px)


def choose_font(texts: Iterable[str]) -> str:
    """Name of the font that has most of the letters: Pillow's own unless a font of the machine has more."""
    letters = {char for text in texts for char in text if not char.isspace()}
    best, fewest = BUILT_IN, len(missing(letters, BUILT_IN))
    for name in _COMMON_FONTS:
        if fewest == 0:
            break
        if _is_there(name) and (lacking := len(missing(letters, name))) < fewest:
            best, fewest = name, lacking
    return best


def missing(letters: Iterable[str], name: str) -> set[str]:
    """Those letters that a font has not."""
    return {char for char in letters if not _has(name, char)}


def written(text: str, name: str) -> str:
    """Text in letters that a font has; at worst ``é`` becomes ``e`` and what has no likeness its code ``[U+4E2D]``."""
    return "".join(char if char.isspace() or _has(name, char) else _substitute(char, name) for char in text)


def _substitute(char: str, name: str) -> str:
    if char in _WRITTEN_AS:
        return _WRITTEN_AS[char]
    if unicodedata.combining(char):
        return ""
    plain = "".join(part for part in unicodedata.normalize("NFKD", char) if not unicodedata.combining(part))
    return plain if plain and not missing(plain, name) else f"[U+{ord(char):04X}]"


@lru_cache(maxsize=8)
def _is_there(name: str) -> bool:
    try:
        font_of(name, 16)
    except OSError:
        return False
    return True


@lru_cache(maxsize=4096)
def _has(name: str, char: str) -> bool:
    return _shape(name, char) != _shape(name, "\uffff")  # which no font has


@lru_cache(maxsize=4096)
def _shape(name: str, char: str) -> tuple[tuple[int, int], bytes]:
    glyph = font_of(name, 16).getmask(char)
    return glyph.size, bytes(glyph)
