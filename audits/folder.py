"""The folder of an audit: one writer at a time, and what of an earlier run still holds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from ..agent.errors import FlawscopeError, InputError, StorageError
from ..agent.home import storage_errors, write_atomically
from ..agent.settings import LoadedSettings
from .record_file import RECORDS_NAME, RecordHead, RecordWriter, read_heads, sync_folder
from .records import AuditHeader, AuditRecord, RecordError, WorklistLine
from .worker import Basis, basis_of, content_sha256
from .worklist import Job, identity_of, record_id

HEADER_NAME, LOCK_NAME, SUPERSEDED_NAME = "audit.json", ".lock", "superseded.jsonl"


@dataclass
class AuditSummary:
    """How an audit stands; also told while it runs.

    Attributes:
        lines: that this run was to do: of its shard, up to the limit.
        verdicts: how many of each, failures apart.
        errors: failures by kind.
        kept: lines that an earlier run had done.
        done: lines of this run.
        superseded: records of an earlier run that no longer hold.
        seconds: since the first line was begun.
        exit_code_of_errors: of the first failure, None without one.
        examples: by kind of failure its first line, of the manifest where there is one, and why.
    """

    lines: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    kept: int = 0
    done: int = 0
    superseded: int = 0
    seconds: float = 0.0
    exit_code_of_errors: int | None = None
    examples: dict[str, str] = field(default_factory=dict)

    def count(self, verdict: str, error: RecordError | None, line: WorklistLine) -> None:
        """Take the record of a line into account."""
        if error is None:
            self.verdicts[verdict] += 1
            return
        self.errors[error.kind] += 1
        self.examples.setdefault(error.kind, f"line {line.source_line or line.number}: {error.message}")
        if self.exit_code_of_errors is None:
            self.exit_code_of_errors = error.exit_code


@dataclass(frozen=True)
class Stand:
    """What the results of a product depend on, and why it cannot be used, if so."""

    basis: Basis
    error: FlawscopeError | None = None

    @classmethod
    def of(cls, loaded: LoadedSettings, told: Basis | FlawscopeError) -> Stand:
        """From what a worker told of the product."""
        return cls(basis_of(loaded, {"product": None}), told) if isinstance(told, FlawscopeError) else cls(told)


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold an audit's folder against a second writer for as long as this process lives.

    Raises:
        StorageError: another process writes there, or the disk refuses.
    """
    try:
        import fcntl
    except ImportError:  # Windows: nothing is locked there
        yield
        return
    with storage_errors(out):
        file = (out / LOCK_NAME).open("a+b")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(f"another audit writes to {out}.", hint="Wait for it, or give another --out.") from error
        yield


def read_header(out: Path) -> AuditHeader | None:
    """What ``audit.json`` says; None when there is none.

    Raises:
        InputError: it is damaged.
    """
    try:
        return AuditHeader.model_validate_json((out / HEADER_NAME).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise InputError(f"{out / HEADER_NAME} is damaged.", hint="Audit into another folder.") from error


def settle(
    out: Path,
    jobs: Sequence[Job],
    bases: Mapping[str | None, Stand],
    summary: AuditSummary,
    *,
    limit: int | None,
    retry: bool,
) -> set[str]:
    """Keep the records of an earlier run that hold; move others to ``superseded.jsonl``.

    A record holds when its line is in the worklist, its picture has the same bytes and nothing that results depend on
    has changed.

    Args:
        out: the audit's folder, locked.
        jobs: all lines of this shard.
        bases: by product.
        summary: counts what is kept.
        limit: place of the last line that is counted, and tried again; None for all.
        retry: whether records of failures do not hold.

    Returns:
        Identities of the lines that are done.

    Raises:
        StorageError: the disk refuses.
        InputError: a line is no record.
    """
    path = out / RECORDS_NAME
    RecordWriter(path).close()  # cuts an unfinished last line off
    index = _Index(jobs)
    kept: set[str] = set()
    stale: set[int] = set()
    hashes: dict[str, str | None] = {}
    for number, (head, _) in enumerate(read_heads(path)):
        job = _held(head, index, bases, hashes)
        wanted = job is not None and (limit is None or job.line.number <= limit)
        if job is None or job.identity in kept or (retry and wanted and head.error is not None):
            stale.add(number)
            continue
        kept.add(job.identity)
        if wanted:
            summary.kept += 1
            summary.count(head.verdict, head.error, head.line)
    if stale:
        with RecordWriter(out / SUPERSEDED_NAME) as writer:
            writer.append_lines(raw for number, (_, raw) in enumerate(read_heads(path)) if number in stale)
        rewrite(path, (raw for number, (_, raw) in enumerate(read_heads(path)) if number not in stale))
        summary.superseded = len(stale)
    return kept


class _Index:
    """Finds the line that a record is of; among lines that are equal to the letter, too, without trying all of them."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._alike: dict[str, list[Job]] = {}
        for job in jobs:
            self._alike.setdefault(identity_of(job.line, 0), []).append(job)
        self._by_id: dict[tuple[str, str | None, str], dict[str, Job]] = {}

    def first(self, head: RecordHead) -> Job | None:
        """The first of the lines that say what a record's line says."""
        alike = self._alike.get(identity_of(head.line, 0))
        return alike[0] if alike else None

    def job(self, head: RecordHead, sha256: str | None) -> Job | None:
        """The line whose record has this id when its picture has these bytes."""
        key = (identity_of(head.line, 0), sha256, head.settings_sha256)
        if key not in self._by_id:
            alike = self._alike.get(key[0], ())
            self._by_id[key] = {record_id(job.identity, sha256, key[2]): job for job in alike}
        return self._by_id[key].get(head.id)


def _held(
    head: RecordHead, index: _Index, bases: Mapping[str | None, Stand], hashes: dict[str, str | None]
) -> Job | None:
    """The line that a record still holds for."""
    first = index.first(head)
    if first is None or head.settings_sha256 != bases[first.line.product].basis.settings_sha256:
        return None
    if first.path not in hashes:
        hashes[first.path] = content_sha256(first.path)
    return index.job(head, hashes[first.path])


def put_in_order(out: Path, jobs: Sequence[Job]) -> None:
    """Bring records into the order of the worklist, with its numbers; nothing is written when they are.

    They are not after a worklist has grown in between, or a picture has changed.
    """
    path = out / RECORDS_NAME
    numbers = dict(_numbers(path, jobs))
    found = [(head.id, head.line.number) for head, _ in read_heads(path)]
    wanted = sorted(found, key=lambda item: numbers.get(item[0], item[1]))
    if found == [(name, numbers.get(name, number)) for name, number in wanted]:
        return
    places: dict[str, tuple[int, int]] = {}
    with path.open("rb") as file:
        at = 0
        for name, _ in found:
            length = len(file.readline())
            places[name] = (at, length)
            at += length

        def lines() -> Iterator[bytes]:
            for name, number in wanted:
                file.seek(places[name][0])
                yield renumbered(file.read(places[name][1]), numbers.get(name, number))

        rewrite(path, lines())


def _numbers(path: Path, jobs: Sequence[Job]) -> Iterator[tuple[str, int]]:
    """Ids of the records in a file and the places of their lines in the worklist."""
    index = _Index(jobs)
    for head, _ in read_heads(path):
        if (job := index.job(head, head.sha256)) is not None:
            yield head.id, job.line.number


def renumbered(raw: bytes, number: int) -> bytes:
    """A record's line with another place in the worklist."""
    plain = json.loads(raw)
    if plain["line"]["number"] == number:
        return raw
    plain["line"]["number"] = number
    return AuditRecord.model_validate(plain).model_dump_json().encode() + b"\n"


def rewrite(path: Path, lines: Iterable[bytes]) -> None:
    """Replace a file of records whole.

    Raises:
        StorageError: the disk refuses.
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.writelines(lines)

    write_atomically(path, write)
    sync_folder(path.parent)
