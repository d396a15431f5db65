"""The file of an audit's records: appended and synced, read line by line, mended after a kill."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ..agent.errors import InputError, StorageError
from ..agent.home import storage_errors
from ..agent.schemas import Verdict
from .records import RECORD_VERSION, AuditRecord, RecordError, WorklistLine

RECORDS_NAME = "records.jsonl"


def records_path(where: Path) -> Path:
    """The file of records that a folder of an audit, or the file itself, stands for."""
    return where / RECORDS_NAME if where.is_dir() else where


def read_records(where: Path) -> Iterator[AuditRecord]:
    """The records of an audit in their order, one at a time.

    A last line that a killed process left unfinished is passed over: its picture is inspected again on resuming.

    Args:
        where: the audit's folder or its ``records.jsonl``.

    Raises:
        InputError: there is no such file, or a line of it is no record.
    """
    path = records_path(where)
    for number, raw in _whole_lines(path):
        try:
            record = AuditRecord.model_validate_json(raw)
        except ValidationError as error:
            raise _damaged(path, number, error) from error
        yield record


class RecordHead(BaseModel):
    """The few fields that resuming needs; the rest of the record is passed over."""

    model_config = ConfigDict(extra="ignore")

    id: str
    line: WorklistLine
    sha256: str | None
    settings_sha256: str
    verdict: Verdict
    error: RecordError | None = None


def read_heads(path: Path) -> Iterator[tuple[RecordHead, bytes]]:
    """What ``read_records`` reads, quicker: the head of each record and its line of the file.

    Raises:
        InputError: there is no such file, or a line of it is no record.
    """
    for number, raw in _whole_lines(path):
        try:
            head = RecordHead.model_validate_json(raw)
        except ValidationError as error:
            raise _damaged(path, number, error) from error
        yield head, raw


def _whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if not raw.endswith(b"\n"):
                    return
                yield number, raw
    except OSError as error:
        raise InputError(
            f"the audit's records {path} cannot be read: {error.strerror or error}.", hint="Name the folder of --out."
        ) from error


def _damaged(path: Path, number: int, error: ValidationError) -> InputError:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the line"
    return InputError(
        f"line {number} of {path} is not a record of version {RECORD_VERSION}: {where}: {first['msg']}.",
        hint="Restore the file, or audit into another folder.",
    )


class RecordWriter:
    """Appends records so that a crash at any moment leaves whole lines and at most one unfinished last one.

    Opening cuts an unfinished last line off. Each ``append`` is on the disk when it returns; when the disk refuses,
    what was half written is taken back, so that the file stays readable and the audit can be resumed.

    Args:
        path: the file; made when missing. Only one writer may have it (see ``runner.locked``).

    Raises:
        StorageError: the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with storage_errors(path):
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o644)
            self._size = self._repair()
            sync_folder(path.parent)

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._handle)

    def append(self, records: Iterable[BaseModel]) -> None:
        """Write records and wait until the disk has them; see ``append_lines``."""
        self.append_lines(record.model_dump_json().encode() + b"\n" for record in records)

    def append_lines(self, lines: Iterable[bytes]) -> None:
        """Write records that are spelt already and wait until the disk has them.

        Args:
            lines: JSON of one record each, with its line end.

        Raises:
            StorageError: the disk refuses; none of these records is in the file then.
        """
        data = b"".join(lines)
        if not data:
            return
        try:
            with storage_errors(self._path):
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(self._handle, rest) :]
                os.fsync(self._handle)
        except StorageError:
            os.ftruncate(self._handle, self._size)
            raise
        self._size += len(data)

    def _repair(self) -> int:
        """Cut what follows the last line end; a power cut may leave zeros there, a killed process half a line."""
        size = end = os.fstat(self._handle).st_size
        while end > 0:
            begin = max(0, end - 65_536)
            os.lseek(self._handle, begin, os.SEEK_SET)
            found = os.read(self._handle, end - begin).rfind(b"\n")
            if found >= 0:
                end = begin + found + 1
                break
            end = begin
        if end < size:
            os.ftruncate(self._handle, end)
            os.fsync(self._handle)
        return end


def sync_folder(folder: Path) -> None:
    """Wait until the disk knows the names in a folder, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
