"""Words as a search counts them: lower case, without the commonest words, endings taken off.

Both stores index what this module gives, so that they find the same pages whatever analyzer a server brings. Endings
follow the first and the last step of Porter's algorithm (Program 14(3), 1980), with his later rule that a short word
keeps its e: "scratches" and "scratching" are one term, "scrape" and "scrap" stay two, which on a shop floor they are.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

MAX_BYTES = 60_000
"""Of a page's terms with the blanks between them; a text column of Milvus holds 65,535."""
MAX_TERM = 40
_WORD = re.compile(r"[^\W_]+")
_STOP = frozenset(
    "a an and any are as at be been by can do does for from had has have how if in into is it its may no not of on "
    "one or over so such than that the their then there these they this to under up was were what when where which "
    "who will with without would".split()
)
_VOWEL = re.compile(r"[aeiouy]")
_SHORT = re.compile(r"[^aeiouy]*[aeiouy][^aeiouywx]")
"""A word of one short syllable, such as ``scrap``: nothing but the e of ``scrape`` tells it from another."""


def terms(text: str) -> list[str]:
    """The terms of a text in their order, repeated ones as often as they occur.

    Args:
        text: of any length; what does not fit into ``MAX_BYTES`` is left out.
    """
    found: list[str] = []
    left = MAX_BYTES
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).lower().replace("'s ", " ")):
        if word in _STOP:
            continue
        term = stem(word)[:MAX_TERM]
        left -= len(term.encode("utf-8", "replace")) + 1
        if left < 0:
            break
        found.append(term)
    return found


@lru_cache(maxsize=16384)
def stem(word: str) -> str:
    """An English word in lower case without its inflection; any other word as it is."""
    if len(word) <= 3 or not word.isascii() or not word.isalpha():
        return word
    for ending in ("ing", "ed"):
        bare = _singular(word).removesuffix(ending)
        if bare != _singular(word) and len(bare) > 2 and _VOWEL.search(bare) and not bare.endswith("e"):
            return _without_e(_restored(bare))
    return _without_e(_singular(word))


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if word.endswith(("sses", "xes", "zes", "ches", "shes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def _restored(bare: str) -> str:
    """A verb without -ing or -ed as it is written: ``chipp`` is ``chip``, ``scor`` is ``score``."""
    if bare[-1] == bare[-2] and bare[-1] not in "lszaeiou":
        return bare[:-1]
    return f"{bare}e" if _SHORT.fullmatch(bare) or bare.endswith(("at", "bl", "iz")) else bare


def _without_e(word: str) -> str:
    return word[:-1] if word.endswith("e") and len(word) > 4 and not _SHORT.fullmatch(word[:-1]) else word
