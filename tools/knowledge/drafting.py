"""Drafts of a page's missing words by a language model.

It is the expansion step of SEEK-M&V, where DeepSeek-R1 did it (ADSeeker, arXiv 2508.03088, section 3.1). A model's
words are untrusted: they are stripped and capped as notes are, fill only what is empty, never say what to do with a
part, and count for nothing until a person accepts them (`PlantPage.established`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...agent.errors import KnowledgeError
from ...prompts import render
from .lookup import documents_about
from .plant_page import UNKNOWN, Drafted, PlantPage, page_from_note
from .schema import GOOD, KnowledgeDocument, LookAlike, plain_text, quoted_text
from .vocabulary import canonical, vocabulary

FIELDS: tuple[Drafted, ...] = get_args(Drafted)
SENTENCE_LETTERS, PARAGRAPH_LETTERS, NAME_LETTERS = 400, 1200, 80
MAX_CAUSES, MAX_CONSEQUENCES, MAX_LOOK_ALIKES = 5, 4, 4
CONTEXT_PAGES = 4
_REVIEW = ("reviewed", "reviewer", "reviewed_on")

_Line = Annotated[str, Field(max_length=SENTENCE_LETTERS)]
_Prose = Annotated[str, Field(max_length=PARAGRAPH_LETTERS)]


class DraftedLookAlike(BaseModel):
    """A type that is mistaken for the defect."""

    model_config = ConfigDict(extra="forbid")

    defect_type: Annotated[str, Field(max_length=NAME_LETTERS)]
    how_to_tell: _Line


class Draft(BaseModel):
    """What a model is asked for. Every field is required, since some servers enforce no other kind of schema."""

    model_config = ConfigDict(extra="forbid")

    description: _Line
    appearance: _Prose
    likely_causes: Annotated[list[_Line], Field(max_length=MAX_CAUSES)]
    consequences: Annotated[list[_Line], Field(max_length=MAX_CONSEQUENCES)]
    confirm: _Prose
    look_alikes: Annotated[list[DraftedLookAlike], Field(max_length=MAX_LOOK_ALIKES)]


def new_page(
    note: str | None,
    product: str,
    *,
    type_name: str,
    doc_id: str | None,
    taken: Collection[str],
    author: str,
    created: str,
    box: tuple[int, int, int, int] | None,
    picture_name: str | None,
) -> PlantPage:
    """A page to be expanded: `page_from_note`, though there may be neither a note nor a picture."""
    page = page_from_note(
        note if note is not None else type_name,
        product,
        type_name=type_name,
        doc_id=doc_id,
        taken=taken,
        author=author,
        created=created,
        box=box,
        picture_name=picture_name or "none.png",
    )
    update: dict[str, object] = {}
    if note is None:
        update = {"description": "", "appearance": "", "likely_causes": (), "action": ""}
    if note is None or picture_name is None:
        given = [what for what, there in (("picture", picture_name), ("note", note)) if there is not None]
        update["source"] = f"A {given[0]} from the plant." if given else "Asked for by the plant."
    if picture_name is None:
        update["page_image"] = None
    return page.model_copy(update=update)


def gaps(page: PlantPage) -> tuple[Drafted, ...]:
    """The fields that a draft could fill: those that are empty, or hold words of an earlier draft."""
    return tuple(name for name in FIELDS if not getattr(page.established, name))


def context_pages(page: PlantPage, documents: Sequence[KnowledgeDocument]) -> tuple[KnowledgeDocument, ...]:
    """What a model is shown: the page itself, its product's normal look, and the pages about its type.

    Args:
        page: that is to be expanded.
        documents: all pages; of other drafts only what is established is shown.
    """
    others = [one for one in documents if one.doc_id != page.doc_id]
    normal = [one for one in others if one.product == page.product and one.defect_type == GOOD]
    alike = (*documents_about(others, page.defect_type, page.product), *documents_about(others, general(page), None))
    found = {one.doc_id: one for one in (page, *normal, *alike)}
    return tuple(found.values())[:CONTEXT_PAGES]


def question(
    page: PlantPage,
    context: Sequence[KnowledgeDocument],
    *,
    picture_size_px: tuple[int, int] | None = None,
) -> tuple[str, str]:
    """The system's and the user's text.

    Args:
        page: that is to be expanded.
        context: quoted to the model.
        picture_size_px: width and height of the picture that is sent along, None without one.
    """
    known = [name for name, kind in vocabulary().types.items() if kind.is_specific and name != general(page)]
    parts = [
        render(
            "expand",
            "task",
            product=page.product,
            defect=page.defect_type.replace("_", " "),
            general=general(page).replace("_", " "),
            fields=", ".join(gaps(page)),
            types=", ".join(known),
        )
    ]
    if picture_size_px is not None:
        parts.append(render("expand", "picture"))
        if page.box is not None:
            x0, y0, x1, y1 = page.box
            width, height = picture_size_px
            parts.append(render("expand", "marked", x0=x0, y0=y0, x1=x1, y1=y1, width=width, height=height))
    if context:
        parts.append(render("expand", "known"))
        parts += [quoted_text(one.established) for one in context]
    return render("expand", "system"), "\n\n".join(parts)


def general(page: PlantPage) -> str:
    """The general type that the page is about."""
    return page.general_type or page.defect_type


def with_draft(page: PlantPage, draft: Draft, model: str) -> PlantPage:
    """The page with a model's words in its gaps, marked as a draft.

    Args:
        page: an earlier draft in it is replaced.
        draft: the model's answer.
        model: who answered.

    Raises:
        KnowledgeError: the page has no gaps, or nothing usable was drafted.
    """
    base = page.established
    words: dict[str, object] = {name: _cleaned(page, draft, name) for name in gaps(page)}
    filled = {name: value for name, value in words.items() if value}
    if not filled:
        raise KnowledgeError(f"nothing was drafted for {page.doc_id} that could be kept.", hint="Try another model.")
    name = plain_text(model)[:NAME_LETTERS] or "a model"
    fields = base.model_dump() | filled
    fields |= {"drafted_by": name, "drafted_fields": tuple(filled), "generated_by": name}
    fields |= {"reviewed": False, "reviewer": None, "reviewed_on": None}
    try:
        return PlantPage.model_validate(fields)
    except ValidationError as error:
        where = error.errors(include_url=False, include_input=False)[0]["loc"]
        raise KnowledgeError(f"the draft of {page.doc_id} cannot be kept: {'.'.join(map(str, where))}.") from error


def accepted(page: PlantPage, reviewer: str, time: str) -> PlantPage:
    """The page with its draft's words counting as any others.

    It counts as reviewed too, unless a person's own words are on it and that person accepts: those words somebody else
    must check.

    Raises:
        KnowledgeError: it holds no draft, or nobody is named.
    """
    _refuse_without_draft(page)
    name = plain_text(reviewer)[:NAME_LETTERS]
    if not name:
        raise KnowledgeError("an acceptance needs the name of a person.", hint="Give one with --author.")
    own_words = page.established.model_copy(update={"page_image": None}).says_something
    update: dict[str, object] = {"drafted_by": None, "drafted_fields": ()}
    if name != page.author or not own_words:
        update |= {"reviewed": True, "reviewer": name, "reviewed_on": time}
    return page.model_copy(update=update)


def rejected(page: PlantPage, before: PlantPage | None = None) -> PlantPage | None:
    """The page without its draft; None when nothing is left of it.

    Args:
        page: with a draft.
        before: as it last was without one; who wrote it stands again, and its review if no word has changed since.

    Raises:
        KnowledgeError: it holds no draft.
    """
    _refuse_without_draft(page)
    if not page.says_something:
        return None
    base = page.established
    update = {"drafted_by": None, "drafted_fields": (), "generated_by": base.author}
    if before is not None:
        update["generated_by"] = before.generated_by
        reviewed = before.model_copy(update={name: getattr(base, name) for name in _REVIEW})
        if reviewed == base.model_copy(update=update):
            return before
    return base.model_copy(update=update)


def _refuse_without_draft(page: PlantPage) -> None:
    if not page.drafted_fields:
        raise KnowledgeError(f"the page {page.doc_id} holds no draft.", hint=f"See it: flawscope kb show {page.doc_id}")


def _cleaned(page: PlantPage, draft: Draft, name: Drafted) -> object:
    """A drafted field as it may be kept: plain words within the page's limits."""
    if name == "look_alikes":
        return _look_alikes(page, draft.look_alikes)
    value = getattr(draft, name)
    if isinstance(value, list):
        return tuple(dict.fromkeys(filter(None, (plain_text(one)[:SENTENCE_LETTERS] for one in value))))
    return plain_text(value)[: SENTENCE_LETTERS if name == "description" else PARAGRAPH_LETTERS]


def _look_alikes(page: PlantPage, drafted: Sequence[DraftedLookAlike]) -> tuple[LookAlike, ...]:
    """Those of types that there are and that are not the page's own, each once."""
    found: dict[str, LookAlike] = {}
    for one in drafted:
        meant, how = canonical(plain_text(one.defect_type)), plain_text(one.how_to_tell)[:SENTENCE_LETTERS]
        if meant is not None and meant not in (general(page), UNKNOWN) and how:
            found.setdefault(meant, LookAlike(defect_type=meant, how_to_tell=how))
    return tuple(found.values())
