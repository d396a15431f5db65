"""The form that a vision-language model fills in: small, closed, every text and list bounded, so that it ends.

The verdict comes first and stands alone: the probabilities of its token are read before any words could sway them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Literal, cast

from pydantic import Field, create_model

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
    defect_type: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_. -]{0,63}$")]
    region: Annotated[str, Field(pattern=r"^(R[0-9]{1,2}|none)$")]
    sentences: Annotated[tuple[Sentence, ...], Field(max_length=8)]


@lru_cache(maxsize=64)
def form_for(types: tuple[str, ...], regions: tuple[str, ...], ids: tuple[str, ...]) -> type[Answer]:
    """The form for one part: a model that is held to it can name no type, area or evidence that there is not.

    Args:
        types: what ``defect_type`` may say.
        regions: what ``region`` may say.
        ids: of the evidence; with none, sentences may cite what looks like one.

    Returns:
        A narrower ``Answer`` of the same name.
    """
    cite: Any = _one_of(ids) if ids else Cite
    cites = Annotated[tuple[cite, ...], Field(max_length=4)]
    sentence: Any = create_model("Sentence", __base__=Sentence, cites=(cites, ...))
    fields: dict[str, Any] = {
        "defect_type": (_one_of(types), ...),
        "region": (_one_of(regions), ...),
        "sentences": (Annotated[tuple[sentence, ...], Field(max_length=8)], ...),
    }
    return cast("type[Answer]", create_model("Answer", __base__=Answer, **fields))


def _one_of(values: tuple[str, ...]) -> Any:
    return Literal[tuple(dict.fromkeys(values))]
