"""What a page says, in the order in which an inspector asks: one source for terminal, drawn page and catalogue.

Text of documents is data. Here it loses what could steer a reader's screen (control characters, invisible marks that
turn the direction of writing) and nothing else, so that a person sees what is written there.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from ...agent.errors import ConfigError
from .plant_page import PlantPage
from .schema import GOOD, KnowledgeDocument

_JOINERS = frozenset("\u200c\u200d")  # invisible, but words of several scripts are misspelt without them
_LABEL_COLUMNS = 20
_SHAPES = {"whole_part": "the whole part", "area": "an area", "edge": "at an edge", "network": "a network"}
_CONTRASTS = {
    "darker": "darker than sound material",
    "brighter": "brighter than sound material",
    "either": "darker or brighter than sound material",
    "texture": "seen by its structure, not by its brightness",
    "none": "seen by its place or outline, not by its brightness",
}


@dataclass(frozen=True)
class Section:
    """One question and its answers.

    Attributes:
        label: the question in a word or two.
        items: one or more lines of prose, none empty.
        kind: whether they are prose, a list in order of likelihood, a list in any order, or what to do with the part.
        minor: about the page rather than the part.
    """

    label: str
    items: tuple[str, ...]
    kind: Literal["prose", "numbered", "bullets", "action"] = "prose"
    minor: bool = False

    def marked(self) -> Iterator[tuple[str, str]]:
        """Each item with the mark that stands before it, empty for prose."""
        for position, item in enumerate(self.items, start=1):
            yield {"numbered": f"{position}.", "bullets": "-"}.get(self.kind, ""), item


def printable(text: str) -> str:
    """Return text on one line without control, invisible and unassigned characters."""
    kept = (" " if c.isspace() else c for c in text if c.isspace() or c in _JOINERS or not _is_unprintable(c))
    return " ".join("".join(kept).split())


def _is_unprintable(char: str) -> bool:
    return unicodedata.category(char) in {"Cc", "Cf", "Co", "Cs", "Cn"}


def words(name: str) -> str:
    """A snake_case name as words."""
    return printable(name.replace("_", " "))


def heading(document: KnowledgeDocument) -> str:
    """What stands above the title: whose page it is."""
    return "any product" if document.scope == "general" else words(document.product)


def defect_type(document: KnowledgeDocument) -> str:
    """The defect type as words, with the general type behind a product's own label where the two differ."""
    if document.defect_type == GOOD:
        return "none: normal appearance"
    own = words(document.defect_type)
    general = words(document.canonical_type)
    return own if own == general else f"{own} ({general})"


def sections(document: KnowledgeDocument) -> tuple[Section, ...]:
    """Every written field of a page except title and description; an empty field gives no section."""
    seen_as = [words(_SHAPES.get(document.shape, document.shape))] if document.shape else []
    seen_as += [_CONTRASTS[document.contrast]] if document.contrast else []
    tells = [f"{words(item.defect_type).capitalize()}: {item.how_to_tell}" for item in document.look_alikes]
    found = [
        Section("Defect type", (defect_type(document),)),
        Section("Normal appearance", (document.normal_traits,)),
        Section("What it looks like", (document.appearance,)),
        Section("Shape, contrast", ("; ".join(seen_as),)),
        Section("Causes", document.likely_causes, "numbered"),
        Section("Consequences", document.consequences, "bullets"),
        Section("Mistaken for", tuple(tells), "bullets"),
        Section("How to confirm", (document.confirm,)),
        Section("Disposition", (document.action,), "action"),
        Section("Reaction plan", (document.reaction_plan if isinstance(document, PlantPage) else "",), "action"),
        Section("Severity", (document.rating,)),
        Section("Where it occurs", (document.scenario,)),
        Section("Also called", (", ".join(document.aliases),)),
        Section("Source", (document.source,), minor=True),
        Section("Licence", (f"{document.licence}; {_written_by(document)}",), minor=True),
        Section("Review", (review_state(document),), minor=True),
    ]
    cleaned = [(section, tuple(filter(None, map(printable, section.items)))) for section in found]
    return tuple(Section(s.label, items, s.kind, s.minor) for s, items in cleaned if items)


def _written_by(document: KnowledgeDocument) -> str:
    if isinstance(document, PlantPage):
        return f"written by {document.author} on {document.created}"
    return f"written by {document.generated_by}"


def review_state(document: KnowledgeDocument) -> str:
    """Whether a second person has checked the page, and who and when where that is known."""
    if document.pending:
        return printable(document.pending)
    if not document.reviewed:
        return "not yet checked by a second person"
    if isinstance(document, PlantPage) and document.reviewer:
        on = f" on {document.reviewed_on}" if document.reviewed_on else ""
        return printable(f"checked by {document.reviewer}{on}")
    return "checked by a second person"


def as_text(document: KnowledgeDocument, width: int = 80) -> list[str]:
    """A page for the terminal.

    Args:
        document: the page.
        width: columns, at least 40.

    Returns:
        Lines of at most ``width`` characters, except that a longer word is kept whole.
    """
    title = f"{printable(document.title)}  [{document.doc_id}]"
    lines = [*_wrapped(title, width), *_wrapped(f"for {heading(document)}", width)]
    if description := printable(document.description):
        lines += ["", *_wrapped(description, width)]
    for section in sections(document):
        label = section.label
        lines.append("")
        for mark, item in section.marked():
            before = f"{label:<{_LABEL_COLUMNS}}" + (f"{mark:<3}" if mark else "")
            lines += _wrapped(item, width, before)
            label = ""
    return lines


def _wrapped(text: str, width: int, before: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        max(width, 40),
        initial_indent=before,
        subsequent_indent=" " * len(before),
        break_long_words=False,  # an order number or a path is copied from here
        break_on_hyphens=False,
    )


# --- choosing pages -------------------------------------------------------------------------------


def find_document(documents: Iterable[KnowledgeDocument], doc_id: str) -> KnowledgeDocument:
    """The page of that id.

    Raises:
        ConfigError: there is none; the message names the nearest ids.
    """
    pages = {document.doc_id: document for document in documents}
    if doc_id not in pages:
        raise ConfigError(f"no document {printable(doc_id)[:80]!r}.", hint=_nearest(doc_id, list(pages)))
    return pages[doc_id]


def select_documents(
    documents: Iterable[KnowledgeDocument], product: str | None = None, type_name: str | None = None
) -> tuple[KnowledgeDocument, ...]:
    """Pages of a product and a type, general ones first, then by product, each as they were written.

    Args:
        documents: all pages.
        product: its name, ``general`` for the pages that hold for any product; None for all.
        type_name: a product's own label, a general type or ``good``; None for all.

    Raises:
        ConfigError: no page is of that product, that type, or both.
    """
    pages = sorted(documents, key=lambda page: (page.scope != "general", page.product))
    if product is not None and all(page.product != product for page in pages):
        raise ConfigError(
            f"no document of the product {printable(product)[:80]!r}.",
            hint=_nearest(product, [p.product for p in pages]),
        )
    names = [name for page in pages for name in (page.canonical_type, page.defect_type)]
    if type_name is not None and type_name not in names:
        raise ConfigError(f"no document of the type {printable(type_name)[:80]!r}.", hint=_nearest(type_name, names))
    chosen = tuple(
        page
        for page in pages
        if product in (None, page.product) and type_name in (None, page.defect_type, page.canonical_type)
    )
    if not chosen:
        raise ConfigError(f"the product {product!r} has no document of the type {type_name!r}.")
    return chosen


def _nearest(name: str, known: list[str]) -> str:
    close = get_close_matches(name, sorted(set(known)), n=3)
    return f"Did you mean {' or '.join(close)}?" if close else "List them: flawscope kb list"
