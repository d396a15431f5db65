"""Rows of a table as text, with the number of the line that each begins at."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from ..agent.errors import FlawscopeError


def table_rows(
    name: str, text: str, delimiter: str, error_type: type[FlawscopeError]
) -> Iterator[tuple[int, list[str]]]:
    """Number of the first line and cells of each row that is not blank.

    Args:
        name: of the file, for errors.
        text: its content.
        delimiter: between cells.
        error_type: what to raise.

    Raises:
        FlawscopeError: of the given type: a quote is not closed.
    """
    reader, line = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise error_type(
                f"{name}, line {line}: {error}.", hint="Is a quote not closed or not doubled? Export it again."
            ) from error
        if any(cell.strip() for cell in cells):
            yield line, cells
        line = reader.line_num + 1
