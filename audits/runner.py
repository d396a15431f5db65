"""An audit from its worklist to its records: resumed, in order, each line once, and one writer at a time.

Records are written in the order of the worklist; a line that takes long holds back those behind it, at most HELD. So
``records.jsonl`` is at every moment the beginning of the same file, whatever the number of workers. What an earlier
run of the audit wrote is kept where line, picture and settings are the same; the rest goes to ``superseded.jsonl``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..agent.errors import ConfigError, StorageError
from ..agent.home import storage_errors, write_json_atomically
from ..agent.settings import SECRETS, LoadedSettings
from ..graphs.report import own_version
from .folder import HEADER_NAME, AuditSummary, Stand, locked, put_in_order, read_header, settle
from .local import Limits, LocalEngine
from .record_file import RECORDS_NAME, RecordWriter
from .records import AuditHeader
from .worker import Done, InspectWorker, Pictures, now, without_product
from .worklist import Job, read_worklist, shard_of, worklist_sha256

WATCHED = ("outbox.sqlite", "seen.sqlite")
"""Files of a folder that ``flawscope watch`` writes to: its records are no worklist's, and wait to be delivered."""
HELD = 1000
"""Finished records that wait in memory for one before them."""

Progress = Callable[[AuditSummary], None]


@dataclass(frozen=True)
class AuditPlan:
    """What is to be done.

    Attributes:
        inputs: pictures, folders, patterns, manifests.
        out: the audit's folder.
        product: of lines that name none.
        workers: processes; None for one per core.
        engine: processes of this machine, or Ray's actors.
        shard: which of how many parts.
        limit: only so many lines of it; those that an earlier run did beyond them are kept.
        limits: of each line.
        pictures: which records have pictures.
        retry: whether lines that failed are tried again.
    """

    inputs: Sequence[str]
    out: Path
    product: str | None = None
    workers: int | None = None
    engine: Literal["local", "ray"] = "local"
    shard: tuple[int, int] = (1, 1)
    limit: int | None = None
    limits: Limits = field(default_factory=Limits)
    pictures: Pictures = "flagged"
    retry: bool = False


def run_audit(loaded: LoadedSettings, plan: AuditPlan, progress: Progress | None = None) -> AuditSummary:
    """Inspect what is not done yet.

    Args:
        loaded: settings.
        plan: what is to be done.
        progress: told after each record.

    Raises:
        FlawscopeError: nothing can be inspected (product, weights, knowledge base, worklist), the folder belongs to
            another audit or another writer, or the disk refuses; records written until then are kept.
    """
    whole = read_worklist(plan.inputs, plan.product, except_in=plan.out)
    jobs = shard_of(whole, plan.shard)
    worker = InspectWorker(loaded, str(plan.out), plan.pictures)
    with storage_errors(plan.out):
        plan.out.mkdir(parents=True, exist_ok=True)
    with locked(plan.out), LocalEngine(worker, plan.workers or cores(), plan.limits, plan.product) as engine:
        _refuse_other_owner(plan)
        bases = {product: Stand.of(loaded, told) for product, told in engine.bases(_products(jobs)).items()}
        if plan.product in bases and (error := bases[plan.product].error) is not None:
            raise error
        wanted = jobs[: plan.limit]
        summary = AuditSummary(lines=len(wanted))
        _write_header(loaded, plan, len(jobs), worklist_sha256(whole))
        kept = settle(plan.out, jobs, bases, summary, limit=wanted[-1].line.number if wanted else 0, retry=plan.retry)
        todo = [job for job in wanted if job.identity not in kept]
        with RecordWriter(plan.out / RECORDS_NAME) as writer:
            ordered = _InOrder(todo, bases, writer, summary, progress)
            workable = ((i, job, bases[job.line.product].basis) for i, job in enumerate(todo) if ordered.workable(job))
            if plan.engine == "ray":
                from .ray_engine import run_on_ray

                engine.close()  # the actors need its memory and cores
                results = run_on_ray(worker, plan.workers or cores(), plan.limits, plan.product, list(workable))
            else:
                results = engine.run(workable, ordered.may_start)
            ordered.write(results)
        put_in_order(plan.out, jobs)
    return summary


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _InOrder:
    """Writes results in the order of the worklist, each as soon as all before it are there."""

    def __init__(
        self,
        todo: Sequence[Job],
        bases: Mapping[str | None, Stand],
        writer: RecordWriter,
        summary: AuditSummary,
        progress: Progress | None,
    ) -> None:
        self._todo, self._bases, self._writer = todo, bases, writer
        self._summary, self._progress = summary, progress
        self._held: dict[int, Done] = {}
        self._next = 0

    def workable(self, job: Job) -> bool:
        """Whether a worker can do it: its product can be used."""
        return self._bases[job.line.product].error is None

    def may_start(self, index: int) -> bool:
        """Whether a line's record would not wait behind too many others."""
        return index < self._next + HELD

    def write(self, results: Iterator[tuple[int, Done]]) -> None:
        """Write all results.

        Raises:
            StorageError: the disk refuses.
        """
        begun = time.monotonic()
        self._flush(begun)
        for index, done in results:
            if done.error is not None and done.error.kind == StorageError.code:
                raise StorageError(done.error.message)  # a full disk is no property of the picture
            self._held[index] = done
            self._flush(begun)

    def _flush(self, begun: float) -> None:
        ready: list[Done] = []
        while (done := self._following()) is not None:
            ready.append(done)
            self._next += 1
            if len(ready) == HELD:
                self._append(ready, begun)
                ready = []
        self._append(ready, begun)

    def _following(self) -> Done | None:
        if self._next in self._held or self._next >= len(self._todo):
            return self._held.pop(self._next, None)
        job = self._todo[self._next]
        stand = self._bases[job.line.product]
        return None if stand.error is None else without_product(job, stand.basis, stand.error)

    def _append(self, ready: list[Done], begun: float) -> None:
        if not ready:
            return
        self._writer.append_lines([done.data for done in ready])
        for job, done in zip(self._todo[self._next - len(ready) : self._next], ready, strict=True):
            self._summary.done += 1
            self._summary.count(done.verdict, done.error, job.line)
        self._summary.seconds = time.monotonic() - begun
        if self._progress is not None:
            self._progress(self._summary)


def _refuse_other_owner(plan: AuditPlan) -> None:
    if any((plan.out / name).exists() for name in WATCHED):
        raise ConfigError(f"{plan.out} belongs to flawscope watch.", hint="Give another --out.")
    header = read_header(plan.out)
    if header is not None and (header.merged or header.shard != plan.shard):
        what = "was merged" if header.merged else f"is shard {header.shard[0]}/{header.shard[1]}"
        raise ConfigError(f"the audit in {plan.out} {what}.", hint="Give each shard a folder of its own by --out.")


def _write_header(loaded: LoadedSettings, plan: AuditPlan, lines: int, worklist: str) -> None:
    values = loaded.settings.model_dump(mode="json", exclude=set(SECRETS))
    header = AuditHeader(
        flawscope=own_version(),
        started=now(),
        product=plan.product,
        settings={key: {"value": value, "origin": loaded.origins[key]} for key, value in values.items()},
        shard=plan.shard,
        lines=lines,
        limit=plan.limit,
        worklist_sha256=worklist,
        pictures=plan.pictures,
    )
    write_json_atomically(plan.out / HEADER_NAME, header.model_dump(mode="json"))


def _products(jobs: Sequence[Job]) -> list[str | None]:
    return sorted({job.line.product for job in jobs}, key=lambda name: (name is not None, name or ""))
