"""Which option a reply names: as MMAD's scripts read it, and strictly."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

_STANDALONE = re.compile(r"\b([A-E])\b")
_STRICT = re.compile(
    r"(?:the )?(?:(?:correct |right )?answer(?: is|:)?|option)?[\s:]*[(\[*]*([a-z])[)\]*]*(?:[.,:;\s]|$)", re.IGNORECASE
)


def official_letter(reply: str, options: Mapping[str, str]) -> str:
    """What the published scripts take from a reply.

    The last letter A to E that stands alone, wherever it stands: ``B. A scratch`` is read as A. Without one, the option
    whose text is nearest to the reply, however far. What they can read no letter from is kept as it is.

    Args:
        reply: what the model said.
        options: letter -> text.
    """
    found = _STANDALONE.findall(reply)
    if found:
        return str(found[-1])
    nearest = difflib.get_close_matches(reply, list(options.values()), n=1, cutoff=0.0)
    return next((letter for letter, text in options.items() if nearest and text == nearest[0]), reply)


def strict_letter(reply: str, options: Mapping[str, str]) -> str | None:
    """The option that a reply names beyond doubt; None when it names none.

    Its beginning must be an option's letter (``B``, ``(b)``, ``B. A scratch``, ``Answer: B``), or the whole of it the
    text of exactly one option. An article is no letter: of ``A scratch`` only the text counts.

    Args:
        reply: what the model said.
        options: letter -> text.
    """
    said = " ".join(reply.split())
    by_text = [letter for letter, text in options.items() if _plain(text) == _plain(said)]
    if len(by_text) == 1:
        return by_text[0]
    match = _STRICT.match(said)
    if match is None or match[1].upper() not in options:
        return None
    letter, rest = match[1].upper(), said[match.end(1) :]
    if rest and rest[0] == " " and not rest.strip(" .*)]"):
        rest = ""
    if rest.startswith(" "):  # a letter before a word without a mark between them is an article or a pronoun
        return None
    told = rest.lstrip(" .,:;)]*")
    others = [other for other, text in options.items() if other != letter and told and _plain(text) == _plain(told)]
    return None if others else letter


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))
