"""One page of the knowledge base: what a defect looks like, why it happens, what to mistake it for.

A page follows the visual documents of SEEK-M&V (ADSeeker, arXiv 2508.03088, section 3.1): a product or the
general case, one defect type, a picture, an analysis, a description and the scenario of production and use.
Ours adds what an inspector asks next: look-alikes, how to confirm, what to do with the part.

Pages are written as YAML by people. Whatever they hold is data: `quoted_text` is the only way a page may
enter a prompt, and it takes out everything that could pass for markup or for a speaker's turn.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Hashable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, field_validator, model_validator

from ...agent.errors import KnowledgeError
from .safe_yaml import check_yaml
from .vocabulary import vocabulary

Shape = Literal["point", "compact", "elongated", "network", "area", "edge", "whole_part", "displacement"]
Contrast = Literal["darker", "brighter", "either", "texture", "none"]

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=80)]
CanonicalType = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
Label = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80)]
Sentence = Annotated[str, StringConstraints(strip_whitespace=True, max_length=400)]
Paragraph = Annotated[str, StringConstraints(strip_whitespace=True, max_length=1200)]
Causes = Annotated[tuple[Sentence, ...], "most likely first"]

GOOD = "good"
_MAX_FILE_BYTES = 2_000_000  # a page is some 2 kB: a larger file is not a collection of pages


class LookAlike(BaseModel):
    """A general defect type that is easily mistaken for this one, and the tell between the two."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    defect_type: CanonicalType
    how_to_tell: Sentence


class KnowledgeDocument(BaseModel):
    """One page of the knowledge base. Only identity is required; an empty field means "not written yet"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    doc_id: Slug
    """Unique over all pages, ``<product>.<defect_type>`` by custom."""
    scope: Literal["general", "product"]
    product: Slug
    """Name of the product, ``general`` for pages that hold for any product."""
    defect_type: Slug
    """Canonical snake_case in general pages, the product's own label in its pages, ``good`` for its normal look."""
    general_type: CanonicalType | None = None
    """The general type that a product's own label stands for; None in general pages and for ``good``."""
    title: Label
    aliases: tuple[Label, ...] = ()
    page_image: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    """Name of a drawing (no suffix), or a picture's path relative to the file that holds the page."""
    normal_traits: Paragraph = ""
    appearance: Paragraph = ""
    description: Sentence = ""
    """One neutral sentence that a report can quote: it claims nothing that the picture does not show."""
    likely_causes: Causes = ()
    consequences: tuple[Sentence, ...] = ()
    look_alikes: tuple[LookAlike, ...] = ()
    confirm: Paragraph = ""
    action: Sentence = ""
    scenario: Paragraph = ""
    shape: Shape | None = None
    contrast: Contrast | None = None
    source: Sentence = ""
    licence: Label = "unknown"
    generated_by: Label = "unknown"
    reviewed: bool = False

    @field_validator("page_image")
    @classmethod
    def _stay_inside_the_folder(cls, value: str | None) -> str | None:
        if value is not None and (value.startswith("/") or "\\" in value or ":" in value or ".." in value.split("/")):
            raise ValueError("must be the name of a drawing or a relative path without '..'")
        return value

    @model_validator(mode="after")
    def _names_agree_with_scope(self) -> Self:
        if (self.scope == "general") != (self.product == "general"):
            raise ValueError("scope 'general' and product 'general' go together")
        if self.scope == "general" and self.defect_type == GOOD:
            raise ValueError("'good' needs a product: there is no general normal appearance")
        needs_type = self.scope == "product" and self.defect_type != GOOD
        if needs_type != (self.general_type is not None):
            raise ValueError("general_type belongs to the defects of a product, and only to them")
        return self

    @property
    def canonical_type(self) -> str:
        """The general defect type of this page, or ``good``."""
        return self.general_type or self.defect_type

    @property
    def drawing(self) -> str | None:
        """Name of the drawing that illustrates the page, None if it has a picture of its own or none."""
        return self.page_image if self.page_image is not None and "." not in self.page_image else None

    @property
    def rating(self) -> str:
        """How serious the defect is, if a plant has rated it."""
        return ""

    @property
    def instruction(self) -> str:
        """What to do, as a report says it."""
        return self.action

    @property
    def established(self) -> Self:
        """The page without words that nobody has answered for: what may be quoted."""
        return self

    @property
    def pending(self) -> str:
        """What `established` leaves out, in one sentence; empty for nothing."""
        return ""

    @property
    def says_something(self) -> bool:
        """Whether a picture or words are on it that somebody answers for, beside its name."""
        page = self.established
        words = (page.normal_traits, page.description, page.appearance, page.likely_causes, page.consequences)
        return any((page.page_image, *words, page.look_alikes, page.confirm, page.instruction, page.scenario))

    def content_hash(self) -> str:
        """Return the sha256 (hex) of the page as canonical JSON: equal pages have equal hashes, whatever their file."""
        payload = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(payload.encode("utf-8")).hexdigest()

    def searchable_text(self) -> str:
        """Return what a text search should match: names first, then prose; provenance is left out."""
        parts: list[str] = [self.title, self.defect_type.replace("_", " "), *self.aliases]
        if self.general_type:
            parts.append(self.general_type.replace("_", " "))
        if self.scope == "product":
            parts.append(self.product.replace("_", " "))
        parts += [self.description, self.appearance, self.normal_traits, *self.likely_causes, *self.consequences]
        parts += [look_alike.how_to_tell for look_alike in self.look_alikes]
        parts += [self.confirm, self.action, self.scenario]
        return "\n".join(part for part in parts if part)


# --- reading pages --------------------------------------------------------------------------------


class UniqueKeyLoader(yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc]
    """The safe loader, refusing a key that is written twice (YAML would keep the last one silently)."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """As the base class does it, after the keys were looked at."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue  # the base class refuses it as a key
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key_node.value}' twice", key_node.start_mark
                )
            seen.add(key_node.value)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return mapping


def load_documents(folder: Path | None = None) -> tuple[KnowledgeDocument, ...]:
    """Read every page of a folder, in the order of file names and then as written.

    A file is a mapping of ``documents`` (a list of pages) and, if wanted, ``defaults`` (fields that each page of
    the file has unless it says otherwise).

    Args:
        folder: folder of ``*.yaml`` files; None for the pages that Flawscope ships.

    Returns:
        The pages; look-alikes and general types of a folder of your own may refer to shipped pages too.

    Raises:
        KnowledgeError: nothing to read, a file that is no YAML, a page that is not valid (naming file, page and
            field), a doc_id used twice, or a reference to a type that neither the vocabulary nor a general page names.
    """
    shipped_folder = Path(__file__).with_name("documents")
    where = shipped_folder if folder is None else folder
    paths = sorted(where.glob("*.yaml"))
    if not paths:
        raise KnowledgeError(f"No knowledge documents (*.yaml) in {where}.", hint="Check the folder's path.")
    origins: dict[str, str] = {}
    documents: list[KnowledgeDocument] = []
    for path in paths:
        for document in _read_file(path):
            if document.doc_id in origins:
                raise KnowledgeError(
                    f"{path.name}, document '{document.doc_id}', field 'doc_id': "
                    f"already used in {origins[document.doc_id]}.",
                    hint="Give one of the two another doc_id.",
                )
            origins[document.doc_id] = path.name
            documents.append(document)
    known = {*general_types(documents), *vocabulary().types}  # not every type of the vocabulary has a page yet
    if where.resolve() != shipped_folder.resolve():
        known |= set(general_types(load_documents()))
    for document in documents:
        _check_references(document, origins[document.doc_id], known)
    return tuple(documents)


def general_types(documents: Iterable[KnowledgeDocument]) -> tuple[str, ...]:
    """Return the canonical defect types that general pages describe, sorted."""
    return tuple(sorted({document.defect_type for document in documents if document.scope == "general"}))


def _read_file(path: Path) -> list[KnowledgeDocument]:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise KnowledgeError(f"{path.name} is larger than {_MAX_FILE_BYTES} bytes.", hint="Split it by family.")
        text = path.read_text(encoding="utf-8")
        check_yaml(text, aliases=True)
        content = yaml.load(text, Loader=UniqueKeyLoader)  # noqa: S506 - a safe loader
    except (OSError, UnicodeDecodeError) as error:
        raise KnowledgeError(f"{path.name} cannot be read: {error}.") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise KnowledgeError(f"{path.name} is not valid YAML: {error}.", hint="Correct the file.") from error
    if not isinstance(content, dict) or not set(content) <= {"defaults", "documents"}:
        raise KnowledgeError(f"{path.name}: the top level must be 'documents', with optional 'defaults', nothing else.")
    defaults, pages = content.get("defaults") or {}, content.get("documents")
    if not isinstance(defaults, dict) or not isinstance(pages, list) or not pages:
        raise KnowledgeError(f"{path.name}: 'documents' must be a list of pages and 'defaults' a mapping of fields.")
    return [_read_page(path.name, index, defaults, page) for index, page in enumerate(pages, start=1)]


def _read_page(file_name: str, index: int, defaults: dict[str, Any], page: object) -> KnowledgeDocument:
    if not isinstance(page, dict):
        raise KnowledgeError(f"{file_name}, document {index}: a page must be a mapping of fields.")
    name = str(page.get("doc_id", f"number {index}"))[:80]
    try:
        return KnowledgeDocument.model_validate({**defaults, **page})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole page"
        raise KnowledgeError(
            f"{file_name}, document '{name}', field '{field}': {first['msg']}.",
            hint="Correct the field and load again.",
        ) from error


def _check_references(document: KnowledgeDocument, file_name: str, known: set[str]) -> None:
    references = [("look_alikes", look_alike.defect_type) for look_alike in document.look_alikes]
    if document.general_type is not None:
        references.append(("general_type", document.general_type))
    for field, defect_type in references:
        where = f"{file_name}, document '{document.doc_id}', field '{field}'"
        if defect_type not in known:
            raise KnowledgeError(
                f"{where}: '{defect_type}' is no type of the vocabulary and no general document describes it.",
                hint="Use the name of an existing type or write its page.",
            )
        if field == "look_alikes" and defect_type == document.canonical_type:
            raise KnowledgeError(f"{where}: '{defect_type}' is the page's own type.", hint="Name another type.")


# --- quoting pages --------------------------------------------------------------------------------

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_URL = re.compile(r"(?:\b[a-z][a-z0-9+.-]*://|\bwww\.|\b(?:javascript|data|mailto|file):)\S+", re.IGNORECASE)
_MARKDOWN_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_TAG = re.compile(r"<[^<>]{0,200}>")
_MARKUP = re.compile(r"[<>`*#|{}\[\]\\~]|_{2,}|-{3,}|={3,}")
_ROLE = re.compile(
    r"\b(?:system|assistant|user|human|developer|tool|instructions?|prompt|end_of_turn|im_start|im_end|inst|sys)"
    r"(?:\s*:)+\s*",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+|[^\w\s]")


@lru_cache(maxsize=4096)  # every inspection quotes the same pages
def plain_text(text: str) -> str:
    """Return text as one line of plain words: no control or invisible characters, links, markup or speaker's turns."""
    text = _ANSI.sub(" ", text)
    text = unicodedata.normalize("NFKC", text)  # full-width '＜' and ':' would pass the patterns below
    text = "".join(" " if char.isspace() else char for char in text if char.isspace() or _is_visible(char))
    # Taking something out can bring its neighbours together to a new match, so until nothing changes. Each
    # pass shortens the text or ends the loop.
    while True:
        cleaned = _URL.sub(" ", _MARKDOWN_LINK.sub(r"\1", text))
        cleaned = _ROLE.sub(" ", _MARKUP.sub(" ", _TAG.sub(" ", cleaned)))
        cleaned = " ".join(cleaned.split())
        if cleaned == text:
            return cleaned
        text = cleaned


def _is_visible(char: str) -> bool:
    return unicodedata.category(char) not in {"Cc", "Cf", "Co", "Cs", "Cn"}


@lru_cache(maxsize=4096)
def estimated_tokens(text: str) -> int:
    """Estimate the tokens of a text without a tokenizer, rather too many than too few for English prose.

    A word costs one token per six letters begun, a mark one, and any other script one per character.
    """
    return sum(math.ceil(len(word) / 6) if word.isascii() else len(word) for word in _WORD.findall(text))


def quoted_text(document: KnowledgeDocument, max_tokens: int = 350) -> str:
    """Return a page as a quotation for a prompt: data between two marks, each of its lines behind ``> ``.

    A line of the page can neither forge the closing mark nor open a turn, since no line of it starts at the margin.
    Fields are added in order of use to a judge of the image until the budget is spent; the last is cut at a word.

    Args:
        document: the page.
        max_tokens: budget of the whole quotation by `estimated_tokens`, at least 40.

    Raises:
        ValueError: the budget is too small to hold a title.
    """
    if max_tokens < 40:
        raise ValueError(f"max_tokens is {max_tokens}, but a quotation needs at least 40")
    opening, closing = f"[document {document.doc_id}]", "[end of document]"
    title = f"> {plain_text(document.title)}"
    left = max_tokens - sum(estimated_tokens(line) for line in (opening, closing))
    lines = []
    for line in (title, *_quotation_lines(document)):
        fitting = cut_to_budget(line, left)
        if fitting:
            lines.append(fitting)
            left -= estimated_tokens(fitting)
        if fitting != line:
            break
    return "\n".join([opening, *lines, closing])


def _quotation_lines(document: KnowledgeDocument) -> list[str]:
    look_alikes = [f"{item.defect_type.replace('_', ' ')} - {item.how_to_tell}" for item in document.look_alikes]
    fields = [
        ("Not quoted", document.pending),
        ("Normal", document.normal_traits),
        ("Looks like", document.appearance),
        ("In one sentence", document.description),
        ("Likely causes, most likely first", "; ".join(document.likely_causes)),
        ("Not to be mistaken for", "; ".join(look_alikes)),
        ("Consequences", "; ".join(document.consequences)),
        ("Confirm by", document.confirm),
        ("Action", document.instruction),
        ("Severity", document.rating),
        ("Where it occurs", document.scenario),
    ]
    plain = [(name, plain_text(value)) for name, value in fields]
    return [f"> {name}: {value}" for name, value in plain if value]


def cut_to_budget(line: str, budget: int) -> str:
    """A line of at most ``budget`` tokens by `estimated_tokens`, cut at a word; empty when hardly any would be left."""
    if estimated_tokens(line) <= budget:
        return line
    budget -= 1  # for the ellipsis
    words: list[str] = []
    for word in line.split(" "):
        budget -= estimated_tokens(word)
        if budget < 0:
            break
        words.append(word)
    return f"{' '.join(words)} …" if len(words) > 3 else ""
