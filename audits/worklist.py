"""The worklist: what the command line and manifests name, one line per picture to judge, in a fixed order.

A manifest is a table (.csv or .tsv) with a heading. Its column ``image`` is needed; ``product``, ``serial``, ``lot``,
``station`` and ``label`` may be there, and others are not read. Relative pictures lie beside the manifest. A cell is
text: nothing in it is a formula, a pattern or markup.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..agent.errors import ConfigError, InputError
from ..agent.home import is_file_or_was
from ..agent.session import PICTURE_SUFFIXES, expand_pictures
from ..tools.table_rows import table_rows
from .records import WorklistLine, spelt_out

COLUMNS = ("image", "product", "serial", "lot", "station", "label")
ALIASES = {
    "path": "image",
    "file": "image",
    "filename": "image",
    "file_name": "image",
    "image_path": "image",
    "picture": "image",
    "serial_number": "serial",
    "serial_no": "serial",
    "sn": "serial",
    "batch": "lot",
    "expected": "label",
    "expected_label": "label",
}
MAX_CELL = 4000
MAX_MANIFEST_BYTES = 1 << 28
_DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Job:
    """One line of work as a worker gets it.

    Attributes:
        line: as records tell it.
        path: of the picture, as the file system knows it.
        repeat: how many earlier lines say exactly the same.
    """

    line: WorklistLine
    path: str
    repeat: int = 0

    @property
    def identity(self) -> str:
        """What tells the line from any other of the worklist, whatever its place."""
        return identity_of(self.line, self.repeat)


def identity_of(line: WorklistLine, repeat: int) -> str:
    """Names a line by its content: 64 hexadecimal digits.

    Args:
        line: its place does not count.
        repeat: how many earlier lines say the same.
    """
    said = (line.image, line.product, line.serial, line.lot, line.station, line.label, repeat)
    return hashlib.sha256(repr(said).encode("utf-8", "backslashreplace")).hexdigest()


def record_id(identity: str, sha256: str | None, settings_sha256: str) -> str:
    """The id of a record: equal only for the same line, the same bytes and the same settings."""
    return hashlib.sha256(f"{identity} {sha256} {settings_sha256}".encode()).hexdigest()[:32]


def read_worklist(inputs: Sequence[str], product: str | None, *, except_in: Path | None = None) -> list[Job]:
    """Every line that files, folders, patterns and manifests stand for, in the order given; folders are sorted.

    Args:
        inputs: pictures, folders (searched with their subfolders), patterns such as ``lots/**/*.png``, and manifests.
        product: of lines that name none.
        except_in: the audit's own folder, whose pictures are none to inspect.

    Raises:
        InputError: a folder or pattern holds no picture, there is no such folder, or a manifest cannot be read.
    """
    found: list[tuple[dict[str, str], str, int | None]] = []
    for text in inputs:
        if Path(text).suffix.lower() in {".csv", ".tsv"}:
            found += read_manifest(Path(text))
        else:
            found += [({}, os.fspath(path), None) for path in _pictures(text, except_in)]
    jobs, seen = [], Counter[str]()
    for number, (cells, path, source_line) in enumerate(found, start=1):
        stated = {key: cells.get(key) or None for key in COLUMNS[1:]}
        stated["product"] = stated["product"] or product
        if len(spelt_out(path)) > MAX_CELL:
            raise InputError(f"a path has more than {MAX_CELL} characters: {spelt_out(path)[:80]}…")
        line = WorklistLine(number=number, image=path, source_line=source_line, **stated)
        repeat = seen[plain := identity_of(line, 0)]
        seen[plain] += 1
        jobs.append(Job(line, path, repeat))
    return jobs


def worklist_sha256(jobs: Sequence[Job]) -> str:
    """What tells one worklist from another."""
    digest = hashlib.sha256()
    for job in jobs:
        digest.update(job.identity.encode())
    return digest.hexdigest()


def shard_of(jobs: Sequence[Job], shard: tuple[int, int]) -> list[Job]:
    """Every n-th line from the i-th on, with the numbers of the whole worklist.

    Args:
        jobs: all.
        shard: (i, n), i from 1.
    """
    return list(jobs[shard[0] - 1 :: shard[1]])


def parse_shard(text: str) -> tuple[int, int]:
    """``2/5`` as (2, 5).

    Raises:
        ConfigError: it is something else.
    """
    index, _, count = text.partition("/")
    if index.isascii() and index.isdigit() and count.isascii() and count.isdigit() and 1 <= int(index) <= int(count):
        return int(index), int(count)
    raise ConfigError(f"--shard takes a part such as 2/5, not {text!r}.")


def _pictures(text: str, except_in: Path | None) -> list[Path]:
    path = Path(text)
    if os.path.lexists(text) or not glob.has_magic(text):
        if not os.path.lexists(text) and path.suffix.lower() not in PICTURE_SUFFIXES:
            raise InputError(f"there is no file or folder {spelt_out(text)}.", hint="Check the path.")
        return expand_pictures([path], except_in=except_in)
    own = except_in.resolve() if except_in is not None else None
    matches = [Path(match) for match in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207 - absolute patterns too
    matches = [match for match in matches if is_file_or_was(match)]
    matches = [match for match in matches if own is None or not Path(os.path.realpath(match)).is_relative_to(own)]
    if not matches:
        raise InputError(f"no file matches {spelt_out(text)}.", hint="Check the pattern; ** stands for subfolders.")
    return matches


# --- manifests --------------------------------------------------------------------------------------------------------


def read_manifest(path: Path) -> list[tuple[dict[str, str], str, int | None]]:
    """The lines of a manifest: cells by column, the picture's path and the line of the file.

    Raises:
        InputError: it cannot be read, has no heading with a column ``image``, two columns of one meaning, a row with
            another number of cells, or a quote that is not closed.
    """
    text = _decoded(path)
    columns: list[str | None] = []
    found: list[tuple[dict[str, str], str, int | None]] = []
    for line, cells in _rows(path, text):
        if not columns:
            if line == 1 and cells[0].strip().lower().startswith("sep="):  # spreadsheets tell each other so
                continue
            columns = _heading(path, cells)
            continue
        while len(cells) > len(columns) and not cells[-1].strip():
            cells.pop()
        if len(cells) > len(columns):
            raise InputError(f"{path}, line {line}: {len(cells)} cells, the heading has {len(columns)}.")
        stated = {name: cell.strip() for name, cell in zip(columns, cells, strict=False) if name}
        if long := next((name for name, cell in stated.items() if len(cell) > MAX_CELL), None):
            raise InputError(f"{path}, line {line}: the cell of {long} has more than {MAX_CELL} characters.")
        image = stated.pop("image", "")
        found.append((stated, os.fspath(path.parent / image) if image else "", line))
    if not found:
        raise InputError(f"the manifest {path} has no lines.", hint="Below the heading, each line names an image.")
    return found


def _decoded(path: Path) -> str:
    try:
        if not path.is_file():
            raise InputError(f"there is no manifest {path}.", hint="Check the path.")
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise InputError(f"the manifest {path} is larger than {MAX_MANIFEST_BYTES >> 20} MiB.", hint="Split it.")
        blob = path.read_bytes()
    except OSError as error:
        raise InputError(f"the manifest {path} cannot be read: {error.strerror or error}.") from error
    marked = blob.startswith((b"\xff\xfe", b"\xfe\xff"))
    for encoding in ("utf-16",) if marked else ("utf-8-sig", "cp1252"):  # Excel's own without and with UTF-8
        try:
            text = blob.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise InputError(
        f"the manifest {path} is no text in UTF-8, UTF-16 or Windows-1252.", hint="Export it as CSV UTF-8."
    )


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Number of the first line and cells of each row that is not blank."""
    first = next((line for line in text.splitlines() if line.strip() and not line.lower().startswith("sep=")), "")
    delimiter = max(_DELIMITERS, key=lambda mark: sum(_column(cell) is not None for cell in first.split(mark)))
    return table_rows(str(path), text, delimiter, InputError)


def _heading(path: Path, cells: Sequence[str]) -> list[str | None]:
    columns = [_column(cell) for cell in cells]
    known = [column for column in columns if column]
    if double := next((column for column in known if known.count(column) > 1), None):
        raise InputError(f"{path} has two columns for {double}.", hint="Leave one of them.")
    if "image" not in known:
        raise InputError(
            f"the manifest {path} has no column image.", hint=f"Its first line names: {', '.join(COLUMNS)}."
        )
    return columns


def _column(cell: str) -> str | None:
    name = "_".join(cell.strip().strip('"').lower().replace("-", " ").replace("_", " ").split())
    name = ALIASES.get(name, name)
    return name if name in COLUMNS else None
