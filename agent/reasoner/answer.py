"""The form that a vision-language model fills in: small, closed, every text and list bounded, so that it ends.

The verdict comes first and stands alone: the probabilities of its token are read before any words could sway them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..schemas import Frozen, Verdict

About = Literal["verdict", "location", "defect_type", "description", "root_cause", "consequence", "action"]
Cite = Annotated[str, Field(pattern=r"^[A-Z][0-9]{1,3}$")]
NO_REGION, NO_TYPE = "none", "none"


class Sentence(Frozen):
    """One sentence.

    Attributes:
        about: the field of the report that it belongs to.
        text: the sentence.
        cites: ids of the evidence that carries it; a sentence that cites nothing is cut.
    """

    about: About
    text: Annotated[str, Field(min_length=1, max_length=300)]
    cites: Annotated[tuple[Cite, ...], Field(max_length=4)]


class Answer(Frozen):
    """What the model is asked for.

    Attributes:
        verdict: OK, NG or REVIEW.
        defect_type: a type of the shortlist, ``unknown``, or ``none`` for a good part.
        region: id of the area that the defect is in, or ``none``.
        sentences: the report's words.
    """

    verdict: Verdict
    defect_type: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_ -]{0,59}$")]
    region: Annotated[str, Field(pattern=r"^(R[0-9]{1,2}|none)$")]
    sentences: Annotated[tuple[Sentence, ...], Field(max_length=8)]
