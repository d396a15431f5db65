"""A page of a plant from one photo and one note, taking the note at its word and adding nothing."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import StringConstraints, ValidationError

from ...agent.errors import KnowledgeError
from .schema import GOOD, KnowledgeDocument, Label, Sentence, plain_text
from .vocabulary import canonical, vocabulary

UNKNOWN = "unknown"
Drafted = Literal["description", "appearance", "likely_causes", "consequences", "look_alikes", "confirm"]
"""What a language model may draft. What to do with a part is the plant's to say."""
MAX_NOTE_LETTERS = 1200
_DESCRIPTION_LETTERS = 400
_LONGEST_NAME_WORDS = 5
_DENIED = frozenset({"no", "not", "without", "never", "non"})
_FORMS = {
    "doc_id": "it has small letters, digits, _ . - only, begins with a letter or digit, and has 80 at most",
    "product": "it has letters, digits, _ . - only, begins with a letter or digit, and has 64 at most",
}
"""What names are made of, in words."""
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|$)")
_CLAUSE = re.compile(r"[,;.!?()\n]+")
_CAUSE = re.compile(r"(?:likely |probable |root )?causes?\b\s*(?:is|was|by|of)?|caused by|due to|because of", re.I)
_BECAUSE = re.compile(r"\b(?:caused by|due to|because of|(?:likely |probable |root )?causes?\b)", re.I)
_ACTION = re.compile(r"(?:rework|scrap|quarantine|repair|sort out|return|regrind|deburr|hold|block|reject)\b", re.I)


class PlantPage(KnowledgeDocument):
    """A page that people of the plant wrote; ``reviewed`` is its review state."""

    product: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    """As it was enrolled, capitals included."""
    author: Label = "unknown"
    created: Label = "unknown"
    """UTC, ISO 8601."""
    box: tuple[int, int, int, int] | None = None
    """Where the defect is: XYXY half-open, px of the picture; None for anywhere."""
    characteristic: Label | None = None
    """What a control plan calls the thing that is checked."""
    severity: Label | None = None
    """As the plant rates it, such as ``8`` or ``critical``."""
    reaction_plan: Sentence = ""
    """What to do with the process, beside what ``action`` does with the part."""
    reviewer: Label | None = None
    """Who checked the words as they stand; never their author."""
    reviewed_on: Label | None = None
    """UTC, ISO 8601."""
    origin: Label | None = None
    """Name of the file or folder that it was imported from."""
    imported_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Of the row that it was imported from, so that one that did not change is known again."""
    inspection: Label | None = None
    """The inspection whose part it shows, when a reviewer's verdict became the page."""
    drafted_by: Label | None = None
    """The language model whose words wait for a person's acceptance; None when none do."""
    drafted_fields: tuple[Drafted, ...] = ()
    """The fields that hold them. They are shown to whoever reviews them and quoted nowhere."""

    @property
    def rating(self) -> str:
        """Severity and characteristic as a page and a quotation say them, empty without."""
        of = f" ({self.characteristic})" if self.characteristic else ""
        return f"{self.severity}{of}" if self.severity else ""

    @property
    def instruction(self) -> str:
        """Disposition, severity and reaction plan; severity alone tells nobody what to do."""
        parts = [self.action, f"Reaction plan: {self.reaction_plan}" if self.reaction_plan else ""]
        said = [part for part in parts if part]
        if said and self.severity:
            said.append(f"Severity {self.severity}")
        return " ".join(part if part[-1] in ".!?…" else f"{part}." for part in said)

    @property
    def established(self) -> Self:
        """The page without a draft's words."""
        if not self.drafted_fields:
            return self
        empty: dict[str, object] = {name: type(getattr(self, name))() for name in self.drafted_fields}
        return self.model_copy(update=empty)

    @property
    def pending(self) -> str:
        """Which fields a model has drafted."""
        if not self.drafted_fields:
            return ""
        what = ", ".join(name.replace("_", " ") for name in self.drafted_fields)
        return f"{what}: an unreviewed draft by {self.drafted_by or 'a model'}, left out until a person accepts it."

    def searchable_text(self) -> str:
        """What the general page says, and the characteristic; a draft finds nothing."""
        established = super(PlantPage, self.established).searchable_text()
        return "\n".join([established, *([self.characteristic] if self.characteristic else [])])


def types_in(note: str, product: str | None = None) -> tuple[str, ...]:
    """Canonical defect types whose names occur in a note, in the order of mention.

    The longest name wins where names overlap, so that "colour spot" is not a spot. Left out are names that the note
    denies ("no burr"), those in its causes ("due to wear"), and those that do not say how a part is defective.

    Args:
        note: what a person wrote.
        product: whose labels to understand as well.
    """
    types, found = vocabulary().types, []
    for clause in _CLAUSE.split(note):
        seen = _BECAUSE.split(clause, maxsplit=1)[0]
        words, start = seen.split(), 0
        while start < len(words):
            step = 1
            for length in range(min(_LONGEST_NAME_WORDS, len(words) - start), 0, -1):
                name = canonical(" ".join(words[start : start + length]), product)
                if name is not None and types[name].is_specific:
                    if not _DENIED & {word.lower() for word in words[max(0, start - 2) : start]}:
                        found.append(name)
                    step = length
                    break
            start += step
    return tuple(dict.fromkeys(found))


def picture_name(path: Path) -> str:
    """Name under which a page keeps a picture: it says the format and nothing else."""
    suffix = path.suffix.lower()
    return f"picture{suffix if suffix[1:].isalnum() and suffix.isascii() and len(suffix) <= 6 else '.img'}"


def page_from_note(
    note: str,
    product: str,
    *,
    type_name: str | None,
    doc_id: str | None,
    taken: Collection[str],
    author: str,
    created: str,
    box: tuple[int, int, int, int] | None,
    picture_name: str | None,
) -> PlantPage:
    """Make a page of a note.

    Clauses that begin with a disposition ("rework") are also its action, those that begin with "due to" or "cause" its
    causes; nothing else is read into the words.

    Args:
        note: what a person wrote; control characters, links and markup are taken out.
        product: the product, or ``general`` for all.
        type_name: the defect type; None to look for exactly one in the note, else it is ``unknown``.
        doc_id: name of the page; None for ``<product>.<type>.<number>``.
        taken: ids that are in use.
        author: who wrote it.
        created: UTC, ISO 8601.
        box: see `PlantPage`.
        picture_name: file name of the picture; None for a page without one.

    Raises:
        KnowledgeError: the note is empty or too long, or something given cannot be in a page.
    """
    written = note_fields(note)
    typed = type_fields(plain_text(note), product, type_name)
    stem = f"{product}.{typed['defect_type']}".lower()
    name = doc_id or next(f"{stem}.{n}" for n in range(1, len(taken) + 2) if f"{stem}.{n}" not in taken)
    check_name(name)
    who = plain_text(author)[:80] or "unknown"
    fields = {
        "doc_id": name,
        "scope": "general" if product == "general" else "product",
        "product": product,
        **typed,
        "title": title_of(typed["defect_type"], product),
        "page_image": picture_name,
        **written,
        "source": "A picture and a note from the plant." if picture_name else "A note from the plant.",
        "licence": "the plant's own",
        "generated_by": who,
        "author": who,
        "created": created,
        "box": box,
    }
    try:
        return PlantPage.model_validate(fields)
    except ValidationError as error:
        raise invalid_page(error) from error


def invalid_page(error: ValidationError) -> KnowledgeError:
    """What is wrong with fields that make no page, in one line."""
    wrong = error.errors(include_url=False, include_input=False, include_context=False)
    first = min(wrong, key=lambda one: one["loc"] != ("product",))  # a name made of a wrong product is wrong too
    field = ".".join(str(part) for part in first["loc"]) or "the page"
    why = _FORMS.get(field, first["msg"]) if first["type"].startswith("string_") else first["msg"]
    return KnowledgeError(f"a page cannot have this {field[:80]}: {why}.", hint="Correct it and try again.")


def check_name(doc_id: str) -> None:
    """Refuse a new page's name that a folder could not have everywhere: a snapshot may be restored on any system.

    Raises:
        KnowledgeError: Windows keeps the name for itself.
    """
    if _RESERVED.match(doc_id) or doc_id.endswith("."):
        raise KnowledgeError(f"no folder can be called {doc_id[:80]!r} on Windows.", hint="Choose another id.")


def note_fields(note: str) -> dict[str, Any]:
    """Description and appearance of a note, and the causes and the action that it names, if it does.

    Raises:
        KnowledgeError: the note is empty or too long.
    """
    text = plain_text(note)
    if not text:
        raise KnowledgeError(
            "the note has no words.", hint='Say what is seen: --note "burr on edge, dull punch, rework"'
        )
    if len(text) > MAX_NOTE_LETTERS:
        raise KnowledgeError(f"the note has {len(text)} letters; {MAX_NOTE_LETTERS} is the most.", hint="Shorten it.")
    clauses = [clause.strip() for clause in re.split(r"[,;.\n]+", text) if clause.strip()]
    causes = tuple(_CAUSE.sub("", c, count=1).strip(" :-") for c in clauses if _CAUSE.match(c))
    actions = [clause[0].upper() + clause[1:] for clause in clauses if _ACTION.match(clause)]
    fields: dict[str, Any] = {
        "description": cut(text),
        "appearance": text if len(text) > _DESCRIPTION_LETTERS else "",
    }
    if any(causes):
        fields["likely_causes"] = tuple(cut(cause) for cause in causes if cause)
    if actions:
        fields["action"] = cut(f"{'; '.join(actions)}.")
    return fields


def type_fields(note: str, product: str, given: str | None) -> dict[str, Any]:
    """The product's label and the general type behind it.

    Args:
        note: plain words in which exactly one type is looked for if none is given.
        product: whose label it is.
        given: the defect type, None to look for one.

    Raises:
        KnowledgeError: what is given cannot name a type.
    """
    label, general_type = _types(note, product, given)
    return {
        "defect_type": label,
        "general_type": None if product == "general" or label == GOOD else general_type,
    }


def title_of(defect_type: str, product: str) -> str:
    """The title of a page that nobody gave one."""
    kind = "unknown defect" if defect_type == UNKNOWN else defect_type.replace("_", " ")
    return f"{kind.capitalize()} of {product}"[:80]


def _types(note: str, product: str, given: str | None) -> tuple[str, str]:
    """The product's label and the general type behind it."""
    if given is None:
        named = types_in(note, product)
        found = named[0] if len(named) == 1 else UNKNOWN  # of several, a person must choose
        return found, found
    label = "_".join(re.findall(r"[a-z0-9]+", plain_text(given).lower()))[:40]
    if not label:
        raise KnowledgeError(f"{given!r} cannot name a defect type.", hint="Use words such as burr or bent_lead.")
    meant = canonical(given, product)
    return label if product != "general" else meant or label, meant or UNKNOWN


def cut(text: str) -> str:
    """Text cut at a word to the length that a report quotes."""
    if len(text) <= _DESCRIPTION_LETTERS:
        return text
    return f"{text[: _DESCRIPTION_LETTERS - 2].rsplit(' ', 1)[0]} …"
