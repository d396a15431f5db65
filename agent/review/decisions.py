"""A person's word: OK, or NG with a type, a note and a place."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from ..errors import ConfigError
from ..schemas import Frozen, Verdict

MAX_NOTE, MAX_TYPE, MAX_NAME = 500, 40, 80
"""Letters."""


class Decision(Frozen):
    """A person's word.

    Attributes:
        verdict: OK or NG.
        defect_type: of an NG; None when not known.
        note: their own words.
        box: where, XYXY half-open in pixels of the original picture; None for where the machine saw it.
    """

    verdict: Literal[Verdict.OK, Verdict.NG]
    defect_type: Annotated[str, Field(min_length=1, max_length=MAX_TYPE)] | None = None
    note: Annotated[str, Field(max_length=MAX_NOTE)] = ""
    box: tuple[int, int, int, int] | None = None

    @model_validator(mode="after")
    def _hangs_together(self) -> Decision:
        if self.verdict is Verdict.OK and (self.defect_type is not None or self.box is not None):
            raise ValueError("a part that is OK has no defect")
        return self


def make_decision(
    verdict: str, defect_type: str | None = None, note: str = "", box: tuple[int, int, int, int] | None = None
) -> Decision:
    """A decision of what a person typed: one line of printable words, a type's name in small letters.

    Raises:
        ConfigError: it is none.
    """
    kind = None
    if defect_type is not None and defect_type.strip():
        kind = "_".join(re.findall(r"[a-z0-9]+", defect_type.lower()))[:MAX_TYPE]
        if not kind or kind == "good":
            raise ConfigError(f"{defect_type[:40]!r} cannot name a defect type.", hint="Use words such as bent_lead.")
    words = one_line(note)
    if len(words) > MAX_NOTE:
        raise ConfigError(f"the note has {len(words)} letters; {MAX_NOTE} is the most.", hint="Shorten it.")
    if verdict.upper() not in ("OK", "NG"):
        raise ConfigError(f"a decision is OK or NG, not {verdict[:40]!r}.")
    try:
        return Decision.model_validate({"verdict": verdict.upper(), "defect_type": kind, "note": words, "box": box})
    except ValidationError as error:
        raise ConfigError("a part that is OK has no defect type and no box.", hint="Decide NG.") from error


def one_line(text: str) -> str:
    """Text on one line, without what cannot be printed."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def person(by: str) -> str:
    """A person's name, fit to be written down."""
    return one_line(by)[:MAX_NAME] or "unknown"
