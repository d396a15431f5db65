"""What a line of a table, a defect of a control plan or a photo of a folder says, before it becomes a page.

Every source is read into rows with the same fields and the place they stand at, so that a refusal can name it. A row
is taken whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from ...agent.errors import KnowledgeError
from .plant_edit import validated
from .plant_page import PlantPage, check_name, cut, note_fields, picture_name, title_of, type_fields
from .schema import plain_text

FIELDS: Final = (
    "id",
    "product",
    "type",
    "note",
    "title",
    "causes",
    "consequences",
    "confirm",
    "action",
    "severity",
    "reaction_plan",
    "characteristic",
    "picture",
    "box",
)
"""Columns of a table, keys of a control plan's defect and of a note beside a photo."""
ALIASES: Final[Mapping[str, str]] = {
    "defect": "type",
    "defect_type": "type",
    "defect_name": "type",
    "description": "note",
    "cause": "causes",
    "likely_causes": "causes",
    "consequence": "consequences",
    "effect": "consequences",
    "disposition": "action",
    "image": "picture",
    "photo": "picture",
    "reaction": "reaction_plan",
    "part": "product",
}
MAX_ROWS: Final = 10_000
_LISTS = frozenset({"causes", "consequences"})
# What a spreadsheet would run: it can stand in a page, but whoever exported it did not mean these words.
_FORMULA = re.compile(r"^[=@]|^[+-][^\s].*[(|!]")
_MAX_ID = 80


class RowError(KnowledgeError):
    """A row that cannot become a page; the others can."""


@dataclass(frozen=True)
class ImportRow:
    """One page to be.

    Attributes:
        place: where it stands, such as ``line 12``.
        fields: values by the names of ``FIELDS``; text, or a list of it.
        picture: file of its picture, not yet looked at; None without one.
        key: path of the picture in its source without suffix, or empty: names a page whose row has no id.
    """

    place: str
    fields: Mapping[str, Any]
    picture: Path | None = None
    key: str = ""


@dataclass(frozen=True)
class ImportSource:
    """What was read.

    Attributes:
        name: of the file or folder.
        rows: those that can be read.
        refused: one line for each place that cannot, with the reason.
        notes: what a person should know of how it was read.
    """

    name: str
    rows: tuple[ImportRow, ...]
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def field_name(text: str) -> str | None:
    """The field that a heading or key means, None if it means none."""
    name = re.sub(r"[^a-z0-9]+", "_", text.strip().lower()).strip("_")
    name = ALIASES.get(name, name)
    return name if name in FIELDS else None


def picture_inside(folder: Path, text: str) -> Path:
    """The file that a relative path names.

    Args:
        folder: the path starts here and must not leave it.
        text: as it is written, with slashes of either kind between folders.

    Raises:
        RowError: the path is absolute, leads outside (also by a link) or names no file.
    """
    shown = plain_text(text)[:120] or "an empty path"
    relative = text.strip().replace("\\", "/")
    if "\0" in relative or relative.startswith(("/", "~")) or re.match(r"[A-Za-z]:", relative):
        raise RowError(f"the picture {shown} is no path relative to the imported file")
    try:
        path = (folder / relative).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise RowError(f"the picture {shown} lies outside of the imported folder")
        if not path.is_file():
            raise RowError(f"there is no picture {shown}")
    except OSError as error:  # a name that is too long, a loop of links
        raise RowError(f"there is no picture {shown}") from error
    return path


def picture_key(text: str) -> str:
    """A picture's path as it is written, without its suffix: what tells pictures of one source apart."""
    return PurePosixPath(text.strip().replace("\\", "/")).with_suffix("").as_posix()


def row_id(row: ImportRow) -> str:
    """Name of the page of a row: its id, else product and picture, else product, type and characteristic.

    It does not depend on what may be corrected later, so that a corrected row becomes a new version of its page.

    Raises:
        RowError: nothing names it.
    """
    if given := _text(row, "id"):
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", given) or len(given) > _MAX_ID:
            raise RowError(f"the id {given[:80]!r} must have small letters, digits, _ . - and at most {_MAX_ID}")
        return given
    product = _text(row, "product")
    parts = [product, row.key] if row.key else [product, _text(row, "type"), _text(row, "characteristic")]
    name = ".".join(filter(None, (re.sub(r"[^a-z0-9]+", "-", p).strip("-") for x in parts for p in _parts(x))))
    if not name:
        raise RowError("neither id, product nor type names the page")
    if len(name) > _MAX_ID:
        name = f"{name[: _MAX_ID - 9].rstrip('.-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name


def row_sha256(row: ImportRow, picture_sha256: str) -> str:
    """What tells whether a row has changed since it was imported: its fields and its picture, not its place."""
    fields = {key: row.fields[key] for key in sorted(row.fields) if key != "picture"}
    return hashlib.sha256(json.dumps([fields, picture_sha256], sort_keys=True, default=str).encode()).hexdigest()


def page_of(row: ImportRow, doc_id: str, *, author: str, created: str, origin: str, digest: str) -> PlantPage:
    """The page of a row.

    Args:
        row: as it was read.
        doc_id: its name.
        author: who imports it.
        created: UTC, ISO 8601.
        origin: name of the file or folder.
        digest: see ``row_sha256``.

    Raises:
        RowError: a field is missing or cannot be in a page.
    """
    product, type_name = _text(row, "product"), _text(row, "type")
    note = _text(row, "note") or type_name.replace("_", " ")
    if not product:
        raise RowError("the product is missing")
    try:
        check_name(doc_id)
        written = note_fields(note)
        typed = type_fields(plain_text(note), product, type_name or None)
        stated = {
            "likely_causes": tuple(map(cut, _list(row, "causes"))),
            "consequences": tuple(map(cut, _list(row, "consequences"))),
            **{name: _text(row, name) for name in ("title", "confirm", "action", "severity", "reaction_plan")},
            "characteristic": _text(row, "characteristic"),
        }
        return validated(
            {
                "doc_id": doc_id,
                "scope": "general" if product == "general" else "product",
                "product": product,
                **typed,
                "title": title_of(typed["defect_type"], product),
                "page_image": None if row.picture is None else picture_name(row.picture),
                **written,
                **{name: value for name, value in stated.items() if value},
                "source": f"Imported from {origin}.",
                "licence": "the plant's own",
                "generated_by": author,
                "author": author,
                "created": created,
                "box": _box(row),
                "origin": origin,
                "imported_sha256": digest,
            }
        )
    except RowError:
        raise
    except KnowledgeError as error:
        raise RowError(error.message.rstrip(".")) from error


def _text(row: ImportRow, name: str) -> str:
    value = row.fields.get(name)
    if value is None:
        return ""
    if isinstance(value, list | dict):
        raise RowError(f"{name} must be one text")
    text = str(value).strip()
    if _FORMULA.match(text):
        raise RowError(f"{name} holds a formula, {plain_text(text)[:40]!r}")
    return plain_text(text)


def _list(row: ImportRow, name: str) -> list[str]:
    """Several texts: a list, or one text with ; or line breaks between."""
    value = row.fields.get(name)
    several = value if isinstance(value, list) else re.split(r"[;\n]+", "" if value is None else str(value))
    found = []
    for one in several:
        if isinstance(one, list | dict):
            raise RowError(f"{name} must be texts")
        if _FORMULA.match(str(one).strip()):
            raise RowError(f"{name} holds a formula, {plain_text(str(one))[:40]!r}")
        found.append(plain_text(str(one)))
    return [one for one in found if one]


def _box(row: ImportRow) -> tuple[int, int, int, int] | None:
    value = row.fields.get("box")
    if value is None or value == "":
        return None
    if row.picture is None:
        raise RowError("a box needs a picture")
    parts = value if isinstance(value, list) else re.split(r"[\s,;]+", str(value).strip())
    texts = [str(part) for part in parts]
    if len(texts) != 4 or not all(t.isascii() and t.isdigit() and len(t) < 8 for t in texts):
        raise RowError(f"the box {plain_text(str(value))[:40]!r} is not four numbers such as 10,20,60,90")
    x0, y0, x1, y1 = map(int, texts)
    return x0, y0, x1, y1


def _parts(text: str) -> list[str]:
    return text.lower().split("/")
