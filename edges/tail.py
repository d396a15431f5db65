"""Read on in a file of records while it grows."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from ..agent.errors import StorageError
from ..agent.home import storage_errors
from ..audits.records import AuditRecord


def records_from(path: Path, begin: int, limit: int) -> list[tuple[AuditRecord, int]]:
    """Whole records behind a place in the file, and where each ends.

    Args:
        path: the file; it may be missing when nothing was read of it yet.
        begin: bytes that were read.
        limit: how many records at most.

    Raises:
        StorageError: the file cannot be read, is damaged, or shorter than what was read of it.
    """
    if not path.exists() and begin == 0:
        return []
    found: list[tuple[AuditRecord, int]] = []
    with storage_errors(path), path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < begin:
            raise StorageError(f"{path} is shorter than what was read of it.", hint="Restore it, or use another --out.")
        file.seek(begin)
        while len(found) < limit and (line := file.readline()).endswith(b"\n"):
            try:
                found.append((AuditRecord.model_validate_json(line), file.tell()))
            except ValidationError as error:
                at = file.tell() - len(line)
                raise StorageError(
                    f"{path} is damaged at byte {at}.", hint="Restore it, or use another --out."
                ) from error
    return found
