"""Read a table or a folder of photos with notes into rows; a control plan is read in ``control_plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from ...agent.errors import KnowledgeError
from ..table_rows import table_rows
from .control_plan import read_plan
from .import_rows import FIELDS, MAX_ROWS, ImportRow, ImportSource, RowError, field_name, picture_inside, picture_key
from .safe_yaml import check_yaml
from .schema import UniqueKeyLoader
from .sections import printable

MAX_FILE_BYTES: Final = 64_000_000
PICTURE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
_NOTE_SUFFIXES = (".yaml", ".yml", ".txt")
_DELIMITERS = ",;\t"
_EXCEL_MARK = "sep="
"""A first line such as ``sep=;`` is for Excel only."""
_MAX_NOTE_BYTES = 100_000
_SHOWN = 20


def read_source(path: Path, product: str | None) -> ImportSource:
    """Read whatever a path is: a folder, a table (.csv, .tsv) or a control plan (.yaml).

    Args:
        path: the file or folder.
        product: of rows that name none.

    Raises:
        KnowledgeError: it is missing or none of these, or no row of it can be told from another.
    """
    if path.is_dir():
        return read_folder(path, product)
    suffix = path.suffix.lower()
    if suffix not in {".csv", ".tsv", ".yaml", ".yml"} or not path.is_file():
        problem = "is no folder, .csv or .yaml file" if path.exists() else "does not exist"
        raise KnowledgeError(f"{path} {problem}.", hint="Give a folder of photos, a table or a control plan.")
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise KnowledgeError(f"{path.name} is larger than {MAX_FILE_BYTES} bytes.", hint="Split it.")
        blob = path.read_bytes()
    except OSError as error:
        raise KnowledgeError(f"{path} cannot be read: {error.strerror}.") from error
    text, notes = _decoded(path.name, blob)
    if suffix in {".yaml", ".yml"}:
        return read_plan(path, text, product, notes)
    return read_table(path, text, product, notes)


def _decoded(name: str, blob: bytes) -> tuple[str, tuple[str, ...]]:
    """The text of a file in the encodings that spreadsheets write."""
    encodings = ["utf-16"] if blob.startswith((b"\xff\xfe", b"\xfe\xff")) else ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            text = blob.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        return text, (("read as Windows-1252 (Latin-1), since it is no UTF-8",) if encoding == "cp1252" else ())
    raise KnowledgeError(f"{name} is no text in UTF-8, UTF-16 or Windows-1252.", hint="Export it as CSV UTF-8.")


# --- tables ---------------------------------------------------------------------------------------


def read_table(path: Path, text: str, product: str | None, notes: tuple[str, ...]) -> ImportSource:
    """Rows of a table with a heading; comma, semicolon or tab is told by the heading.

    Args:
        path: of the file; pictures are relative to it.
        text: its content.
        product: of rows that name none.
        notes: what is to be said anyway.

    Raises:
        KnowledgeError: there is no heading or it lacks a column, a quote is not closed, or there are too many rows.
    """
    delimiter = _delimiter(text)
    rows: list[ImportRow] = []
    refused: list[str] = []
    columns: list[str | None] = []
    for line, cells in table_rows(path.name, text, delimiter, KnowledgeError):
        if not columns and line == 1 and cells[0].strip().lower().startswith(_EXCEL_MARK):
            continue
        if not columns:
            columns = _heading(path.name, cells, product)
            named = zip(cells, columns, strict=True)  # spreadsheets fill the heading up with empty cells
            unread = [printable(cell)[:40] for cell, name in named if name is None and cell.strip()]
            more = f" and {len(unread) - _SHOWN} more" if len(unread) > _SHOWN else ""
            notes = (*notes, *([f"columns not read: {', '.join(unread[:_SHOWN])}{more}"] if unread else []))
            continue
        if len(rows) + len(refused) >= MAX_ROWS:
            raise KnowledgeError(f"{path.name} has more than {MAX_ROWS} rows.", hint="Split it.")
        place = f"line {line}"
        while len(cells) > len(columns) and not cells[-1].strip():  # they fill up rows as well
            cells.pop()
        try:
            if len(cells) != len(columns):
                raise RowError(f"it has {len(cells)} cells, the heading {len(columns)}")
            fields = {name: cell.strip() for name, cell in zip(columns, cells, strict=True) if name and cell.strip()}
            rows.append(_row(place, fields, path.parent, product))
        except RowError as error:
            refused.append(f"{place}: {error.message}")
    if not columns:
        raise KnowledgeError(f"{path.name} is empty.", hint=f"Its first line names columns: {', '.join(FIELDS)}.")
    return ImportSource(path.name, tuple(rows), tuple(refused), notes)


def _delimiter(text: str) -> str:
    """The delimiter with which the heading names the most columns."""
    lines = (line for line in text.splitlines() if line.strip() and not line.lower().startswith(_EXCEL_MARK))
    heading = next(lines, "")
    return max(
        _DELIMITERS, key=lambda mark: sum(field_name(cell.strip('"')) is not None for cell in heading.split(mark))
    )


def _heading(name: str, cells: list[str], product: str | None) -> list[str | None]:
    columns = [field_name(cell) for cell in cells]
    known = [column for column in columns if column]
    if double := next((column for column in known if known.count(column) > 1), None):
        raise KnowledgeError(f"{name} has two columns for {double}.", hint="Leave one of them.")
    if "product" not in known and product is None:
        raise KnowledgeError(f"{name} has no column product.", hint="Add it, or give --product.")
    if "type" not in known and "note" not in known:
        raise KnowledgeError(
            f"{name} has neither a column type nor a column note.", hint=f"Columns that are read: {', '.join(FIELDS)}."
        )
    return columns


def _row(place: str, fields: dict[str, Any], folder: Path, product: str | None) -> ImportRow:
    """A row with its picture looked up below a folder."""
    fields = {**({"product": product} if product is not None else {}), **fields}
    if not fields.get("type") and not fields.get("note"):
        raise RowError("neither a type nor a note is given")
    name = str(fields.get("picture") or "").strip()
    if not name:
        return ImportRow(place, fields)
    path = picture_inside(folder, name)
    return ImportRow(place, fields, path, picture_key(name))


# --- folders --------------------------------------------------------------------------------------


def read_folder(folder: Path, product: str | None) -> ImportSource:
    """Rows of the photos in a folder.

    A photo has its note beside it, under the same name with .txt (the note) or .yaml (fields). In a subfolder the
    folder's name is the defect type, and the note may be missing. Without ``product`` the subfolders of products hold
    those of types: ``PRODUCT/TYPE/photo.jpg``.

    Args:
        folder: the folder.
        product: of all photos; None to take it from the folders, or from the .yaml beside a photo.

    Raises:
        KnowledgeError: there are no photos, or too many.
    """
    files = sorted(
        path
        for path in folder.rglob("*")
        if not any(part.startswith((".", "__")) for part in path.relative_to(folder).parts) and not path.is_dir()
    )
    photos = [path for path in files if path.suffix.lower() in PICTURE_SUFFIXES]
    if not photos:
        raise KnowledgeError(f"{folder} holds no photos.", hint="Photos are .png, .jpg, .bmp, .tif or .webp files.")
    if len(photos) > MAX_ROWS:
        raise KnowledgeError(f"{folder} holds more than {MAX_ROWS} photos.", hint="Import its folders one by one.")
    rows, refused = [], []
    notes_of: dict[Path, list[Path]] = {path.with_suffix(""): [] for path in photos}
    others = [path for path in files if path.suffix.lower() not in PICTURE_SUFFIXES]
    for path in others:
        if path.suffix.lower() in _NOTE_SUFFIXES and path.with_suffix("") in notes_of:
            notes_of[path.with_suffix("")].append(path)
    for path in photos:
        place = printable(path.relative_to(folder).as_posix())
        try:
            rows.append(_photo(place, path, folder, product, notes_of[path.with_suffix("")]))
        except RowError as error:
            refused.append(f"{place}: {error.message}")
    for path in others:
        if path.suffix.lower() in _NOTE_SUFFIXES and path.with_suffix("") not in notes_of:
            refused.append(f"{printable(path.relative_to(folder).as_posix())}: there is no photo of that name")
    unread = sum(path.suffix.lower() not in _NOTE_SUFFIXES for path in others)
    notes = (f"{unread} files are neither photos nor notes",) if unread else ()
    return ImportSource(printable(folder.resolve().name)[:60] or "folder", tuple(rows), tuple(refused), notes)


def _photo(place: str, path: Path, folder: Path, product: str | None, beside: list[Path]) -> ImportRow:
    relative = path.relative_to(folder)
    above = relative.parts[:-1]
    fields: dict[str, Any] = {} if product is None else {"product": product}
    if product is None and len(above) == 2:
        fields["product"], above = above[0], above[1:]
    if len(above) > 1:
        raise RowError("it lies too deep: a photo lies in TYPE/, or in PRODUCT/TYPE/ without --product")
    if above:
        fields["type"] = above[0]
    if len(beside) > 1:
        raise RowError(f"two notes are beside it, {beside[0].name} and {beside[1].name}")
    if not beside and not above:
        raise RowError(f"no note is beside it: write {path.with_suffix('.txt').name}, or put it into a folder TYPE/")
    if beside:
        fields |= _note(beside[0], folder)
    picture = picture_inside(folder, relative.as_posix())
    return ImportRow(place, fields, picture, picture_key(_within(relative, product)))


def _within(relative: Path, product: str | None) -> str:
    """The path of a photo within its product's folder."""
    parts = relative.parts[1:] if product is None and len(relative.parts) > 2 else relative.parts
    return "/".join(parts)


def _note(path: Path, folder: Path) -> dict[str, Any]:
    """The fields of a note beside a photo."""
    try:
        if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):  # a link to somebody's secrets
            raise RowError(f"{path.name} is no file of the imported folder")
        if path.stat().st_size > _MAX_NOTE_BYTES:
            raise RowError(f"{path.name} is longer than a note can be")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RowError(f"{path.name} cannot be read as UTF-8") from error
    if path.suffix.lower() == ".txt":
        return {"note": text.strip()} if text.strip() else {}
    try:
        check_yaml(text)
        found = yaml.load(text, UniqueKeyLoader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise RowError(f"{path.name} is no valid YAML") from error
    if not isinstance(found, dict):
        raise RowError(f"{path.name} is no mapping of fields such as 'note: …'")
    fields = {}
    for key, value in found.items():
        name = field_name(str(key))
        if name is None or name == "picture":
            raise RowError(f"{path.name} has a key {printable(str(key))[:40]!r} that is not read")
        fields[name] = value
    return fields
