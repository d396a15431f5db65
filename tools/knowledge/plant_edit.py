"""Change a plant's page by field or as a text that a person edits, and show two versions side by side.

Whoever changes the words becomes their author, and the page counts as not checked until somebody else says so.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import ValidationError

from ...agent.errors import KnowledgeError
from .plant import PlantDocument, page_text
from .plant_page import PlantPage, invalid_page, note_fields, title_of, type_fields
from .safe_yaml import check_yaml
from .schema import UniqueKeyLoader, plain_text
from .sections import printable

REVIEW_FIELDS = frozenset({"reviewed", "reviewer", "reviewed_on"})
KEPT_FIELDS = frozenset(
    {
        "doc_id",
        "page_image",
        "author",
        "created",
        "generated_by",
        "origin",
        "imported_sha256",
        "inspection",
        "drafted_by",
        "drafted_fields",
        *REVIEW_FIELDS,
    }
)
"""What an edit does not touch by itself: identity, provenance and review."""
_HEAD = """\
# The page {doc_id}, version {number}. Save and leave the editor to keep the changes; leave it unchanged to change
# nothing. Lines that begin with # do not count. An empty field means: not written yet.
"""
_MAX_LETTERS = 20_000


def changed_page(page: PlantPage, changes: Mapping[str, Any], author: str) -> PlantPage:
    """The page with some fields changed.

    Args:
        page: as it is.
        changes: values by field; ``note`` stands for what is read into a note (what the note leaves out stays), and
            ``type_name`` for the type with what follows from it.
        author: who changes it.

    Returns:
        The same page where nothing differs; else with this author and not reviewed.

    Raises:
        KnowledgeError: a value cannot be in a page.
    """
    given = dict(changes)
    fields = page.model_dump()
    if (note := given.pop("note", None)) is not None:
        fields.update(note_fields(note))
    if (type_name := given.pop("type_name", None)) is not None:
        typed = type_fields(page.description, page.product, type_name)
        if page.title == title_of(page.defect_type, page.product):
            fields["title"] = title_of(typed["defect_type"], page.product)
        fields.update(typed)
    fields.update(given)
    changed = validated(fields)
    if changed == page:
        return page
    return written_by(changed, author, tuple(n for n in page.drafted_fields if getattr(changed, n) == getattr(page, n)))


def written_by(page: PlantPage, author: str, drafted_fields: tuple[Any, ...]) -> PlantPage:
    """The page with another author, whom nobody has checked yet.

    Args:
        page: with its new words.
        author: who wrote them.
        drafted_fields: those whose words are still a model's.
    """
    return page.model_copy(
        update={
            "author": plain_text(author)[:80] or "unknown",
            "reviewed": False,
            "reviewer": None,
            "reviewed_on": None,
            "drafted_fields": drafted_fields,
            "drafted_by": page.drafted_by if drafted_fields else None,
        }
    )


def reviewed_page(page: PlantPage, reviewer: str | None, on: str) -> PlantPage:
    """The page with its words checked by somebody, or by nobody.

    Args:
        page: as it is.
        reviewer: who checked it; None to take a review back.
        on: UTC, ISO 8601.

    Raises:
        KnowledgeError: the author checks their own words, or they are a draft that nobody has accepted.
    """
    if reviewer is None:
        return page.model_copy(update={"reviewed": False, "reviewer": None, "reviewed_on": None})
    if page.drafted_fields:
        raise KnowledgeError(
            f"the page {page.doc_id!r} holds a model's draft.", hint=f"First: flawscope kb accept {page.doc_id}"
        )
    name = plain_text(reviewer)[:80] or "unknown"
    if name == page.author:
        raise KnowledgeError(
            f"{name} wrote the page as it stands, so somebody else must check it.", hint="Name them: --reviewer NAME"
        )
    if page.reviewed and page.reviewer == name:
        return page
    return page.model_copy(update={"reviewed": True, "reviewer": name, "reviewed_on": on})


def editable_text(document: PlantDocument) -> str:
    """The page as a person edits it: YAML without what an edit does not touch."""
    fields = {key: value for key, value in document.page.model_dump(mode="json").items() if key not in KEPT_FIELDS}
    text = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=100)
    return _HEAD.format(doc_id=document.page.doc_id, number=document.version.number) + text


def edited_version(text: str) -> int | None:
    """The version that an edited text began with, None if its first line no longer says so."""
    found = re.match(r"# The page \S+, version ([0-9]{1,9})\.", text)
    return int(found[1]) if found else None


def edited_fields(text: str) -> dict[str, Any]:
    """The fields of an edited text, not yet validated.

    Raises:
        KnowledgeError: it is no YAML mapping of fields, or names a field that an edit does not touch.
    """
    if len(text) > _MAX_LETTERS:
        raise KnowledgeError(f"the page has {len(text)} letters; {_MAX_LETTERS} is the most.", hint="Shorten it.")
    try:
        check_yaml(text)
        fields = yaml.load(text, UniqueKeyLoader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise KnowledgeError(f"the page is no valid YAML: {printable(reason)[:200]}.") from error
    if not isinstance(fields, dict) or not all(isinstance(key, str) for key in fields):
        raise KnowledgeError("the page is no mapping of fields such as 'title: …'.")
    if fixed := sorted(KEPT_FIELDS & set(fields)):
        raise KnowledgeError(f"the field {fixed[0]} cannot be edited.", hint="Take its line out.")
    return {key: _cleaned(value) for key, value in fields.items()}


def validated(fields: Mapping[str, Any]) -> PlantPage:
    """A page of these fields.

    Raises:
        KnowledgeError: it would not be one; the message names the field.
    """
    try:
        return PlantPage.model_validate(dict(fields))
    except ValidationError as error:
        raise invalid_page(error) from error


def difference(old: PlantDocument, new: PlantDocument) -> list[str]:
    """What differs between two versions, as a unified diff of plain lines; pictures by their hashes.

    Args:
        old: one version.
        new: another one of the same page.
    """
    before, after = (f"{one.version.doc_id} version {one.version.number}" for one in (old, new))
    texts = [
        [*page_text(one.page).splitlines(), f"picture sha256: {one.version.picture_sha256 or 'none'}"]
        for one in (old, new)
    ]
    return [_visible(line) for line in difflib.unified_diff(texts[0], texts[1], before, after, lineterm="")]


def _visible(line: str) -> str:
    """A line of a diff without what could steer a terminal; blanks at its beginning belong to the YAML."""
    mark, rest = line[:1], line[1:]
    indent = len(rest) - len(rest.lstrip(" "))
    return f"{mark}{' ' * indent}{printable(rest)}"


def _cleaned(value: Any) -> Any:
    """Text of people as it is kept: one line of plain words, as a note."""
    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, list):
        return [_cleaned(one) for one in value]
    if isinstance(value, dict):
        return {key: _cleaned(one) for key, one in value.items()}
    return value
