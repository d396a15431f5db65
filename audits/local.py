"""Workers in processes of their own: a picture that hangs, takes all memory or crashes one costs that picture only.

Each worker has two lines at hand, so that it never waits for the next. A line that takes too long has its worker
killed and replaced; the line behind it goes to another. A worker that ends by itself gets its line tried once more,
alone, before the line is recorded as the cause: the system may have ended it for another's memory.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from ..agent.errors import BackendError, FlawscopeError
from .records import RecordError
from .worker import Basis, Done, InspectWorker, failed
from .worklist import Job

AT_HAND = 2
TRIES = 2
FAILED_STARTS = 3
"""Workers in a row that may end before they are ready."""


@dataclass(frozen=True)
class Limits:
    """What one line may take.

    Attributes:
        timeout_s: wall time.
        memory_mb: memory beyond what a loaded worker has; None for no limit.
    """

    timeout_s: float = 60.0
    memory_mb: int | None = 4000


@dataclass
class _Task:
    index: int
    job: Job
    basis: Basis
    tries: int = 0


@dataclass
class _Slot:
    """A worker's process and the lines it has."""

    process: Any
    channel: Connection
    tasks: deque[_Task] = field(default_factory=deque)
    since: float = 0.0
    ready: bool = False


class RemoteError(FlawscopeError):
    """A worker could not start; the code and the exit code are those of its reason."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__(told["message"])
        self.exit_code = told["exit_code"]  # type: ignore[misc]  # of the error that the worker met
        self.code = told["code"]  # type: ignore[misc]


class LocalEngine:
    """Runs lines in processes of this machine.

    Args:
        worker: what inspects; a copy goes to each process.
        workers: how many processes.
        limits: of each line.
        product: loaded by each before its first line.

    Use it as a context manager: at the end, however it comes, all processes are gone.
    """

    def __init__(self, worker: InspectWorker, workers: int, limits: Limits, product: str | None = None) -> None:
        self._worker = worker
        self._workers = workers
        self._limits = limits
        self._product = product
        self._slots: list[_Slot] = []
        self._failed_starts = 0

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes; may be called again."""
        for slot in self._slots:
            slot.process.kill()
        for slot in self._slots:
            slot.process.join(5.0)
            slot.channel.close()
        self._slots.clear()

    def bases(self, products: list[str | None]) -> dict[str | None, Basis | FlawscopeError]:
        """What results of each product depend on, told by the first worker.

        Raises:
            FlawscopeError: no worker can start.
        """
        slot = self._started_slot()
        found: dict[str | None, Basis | FlawscopeError] = {}
        try:
            self._receive_start(slot)
            for product in products:
                slot.channel.send(("basis", product))
                kind, told = slot.channel.recv()
                found[product] = told if kind == "basis" else RemoteError(told)
        except (EOFError, OSError) as error:
            raise BackendError("a worker ended before it was ready.", hint="Is there enough memory?") from error
        return found

    def run(
        self, tasks: Iterator[tuple[int, Job, Basis]], may_start: Callable[[int], bool] = lambda index: True
    ) -> Iterator[tuple[int, Done]]:
        """Inspect lines; results come as they are ready, each index once.

        Args:
            tasks: index, line and what its results depend on.
            may_start: whether a line may be begun yet; asked in order.

        Raises:
            FlawscopeError: workers do not start.
        """
        waiting: deque[_Task] = deque()
        coming = (_Task(*task) for task in tasks)
        while True:
            self._fill(waiting, coming, may_start)
            busy = [slot for slot in self._slots if slot.tasks or not slot.ready]
            if not waiting and not any(slot.tasks for slot in self._slots):
                return
            wait([slot.channel for slot in busy], timeout=self._patience(busy))
            for slot in busy:
                yield from self._attend(slot, waiting)

    # --- what happens in a round ------------------------------------------------------------------------------------

    def _fill(self, waiting: deque[_Task], coming: Iterator[_Task], may_start: Callable[[int], bool]) -> None:
        """Give lines to workers with room, starting workers while there are lines for them."""

        def following() -> _Task | None:
            if not waiting and (task := next(coming, None)) is not None:
                waiting.append(task)
            return waiting[0] if waiting and may_start(waiting[0].index) else None

        following()  # also when nobody has room, so that an empty queue means the end
        for depth in range(1, AT_HAND + 1):
            for slot in self._slots:
                alone = any(task.tries for task in slot.tasks)
                while slot.ready and not alone and len(slot.tasks) < depth and (task := following()) is not None:
                    if slot.tasks and (task.tries or task.index < slot.tasks[-1].index):
                        break  # a line that comes back is not put behind a later one, for which all would wait
                    waiting.popleft()
                    self._send(slot, task)
                    alone = task.tries > 0
        if len(self._slots) < self._workers and following() is not None:
            self._started_slot()

    def _send(self, slot: _Slot, task: _Task) -> None:
        if not slot.tasks:
            slot.since = time.monotonic()
        slot.tasks.append(task)
        try:
            slot.channel.send(("inspect", task.job, task.basis))
        except OSError:  # it has ended: seen when it is attended to
            return

    def _patience(self, busy: list[_Slot]) -> float | None:
        """Seconds until the first line has taken too long; None while nothing is being inspected."""
        ends = [slot.since + self._limits.timeout_s for slot in busy if slot.tasks]
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _attend(self, slot: _Slot, waiting: deque[_Task]) -> Iterator[tuple[int, Done]]:
        try:
            while slot.channel.poll():
                if not slot.ready:
                    self._receive_start(slot)
                    continue
                done: Done = slot.channel.recv()
                task = slot.tasks.popleft()
                slot.since = time.monotonic()
                yield task.index, done
                if done.spent:
                    self._discard(slot, waiting)
                    return
        except (EOFError, OSError):
            yield from self._ended(slot, waiting)
            return
        if slot.tasks and time.monotonic() - slot.since >= self._limits.timeout_s:
            task = slot.tasks.popleft()
            self._discard(slot, waiting)
            limit = self._limits.timeout_s
            yield task.index, self._failure(task, "timeout", f"it took longer than {limit:g} s.", limit)

    def _ended(self, slot: _Slot, waiting: deque[_Task]) -> Iterator[tuple[int, Done]]:
        """A worker that ended by itself."""
        slot.process.join(5.0)
        code = slot.process.exitcode
        if not slot.ready:
            self._failed_starts += 1
            self._discard(slot, waiting)
            if self._failed_starts >= FAILED_STARTS:
                raise BackendError(
                    f"workers end before they are ready (exit code {code}).", hint="Is there enough memory?"
                )
            return
        task = slot.tasks.popleft() if slot.tasks else None
        self._discard(slot, waiting)
        if task is None:
            return
        task.tries += 1
        if task.tries < TRIES:
            _give_back(waiting, [task])
            return
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        yield task.index, self._failure(task, "crashed", f"the worker ended with {how} while it inspected this.", None)

    def _failure(self, task: _Task, kind: str, message: str, seconds: float | None) -> Done:
        error = RecordError(kind=kind, message=message, exit_code=BackendError.exit_code)
        return Done.of(failed(task.job, task.basis, error, seconds))

    def _discard(self, slot: _Slot, waiting: deque[_Task]) -> None:
        """End a worker; what it had not begun is given back."""
        _give_back(waiting, slot.tasks)
        slot.tasks.clear()
        self._slots.remove(slot)
        slot.process.kill()
        slot.process.join(5.0)
        slot.channel.close()

    # --- starting ---------------------------------------------------------------------------------------------------

    def _started_slot(self) -> _Slot:
        context = multiprocessing.get_context("spawn")  # a fork would inherit the runtimes' threads, half alive
        here, there = context.Pipe()
        process = context.Process(
            target=_serve, args=(there, self._worker, self._product, self._limits.memory_mb), daemon=True
        )
        with _few_threads(self._worker.threads):
            process.start()
        there.close()
        slot = _Slot(process, here)
        self._slots.append(slot)
        return slot

    def _receive_start(self, slot: _Slot) -> None:
        kind, told = slot.channel.recv()
        if kind == "failed":
            raise RemoteError(told)
        slot.ready, self._failed_starts = True, 0


def _give_back(waiting: deque[_Task], tasks: Iterable[_Task]) -> None:
    """Lines wait in their order: that is how they are recorded."""
    ordered = sorted([*tasks, *waiting], key=lambda task: task.index)
    waiting.clear()
    waiting.extend(ordered)


@contextmanager
def _few_threads(threads: int) -> Iterator[None]:
    """Linear algebra of a process started inside has so many threads; the libraries ask when they are loaded."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update({"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": str(threads)})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# --- in the worker's process ------------------------------------------------------------------------------------------


def _serve(channel: Connection, worker: InspectWorker, product: str | None, memory_mb: int | None) -> None:
    """Answer until the other end is gone."""
    import gc
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    _die_with_parent()
    try:
        worker.prepare(product)
    except FlawscopeError as error:
        channel.send(("failed", _told(error)))
        return
    _limit_memory(memory_mb)
    gc.collect()
    gc.freeze()  # models live to the end: no collection needs to look at them
    gc.set_threshold(50_000)  # a picture leaves hardly any cycles; looking for them at every 700 objects costs percents
    channel.send(("ready", None))
    while True:
        try:
            asked = channel.recv()
        except EOFError:
            return
        if asked[0] == "inspect":
            channel.send(worker(asked[1], asked[2]))
            continue
        try:
            channel.send(("basis", worker.basis(asked[1])))
        except FlawscopeError as error:
            channel.send(("failed", _told(error)))


def _told(error: FlawscopeError) -> dict[str, Any]:
    return {"code": error.code, "message": str(error), "exit_code": error.exit_code}


def _die_with_parent() -> None:
    """Also when a picture hangs, and the end of the channel would never be seen."""
    from threading import Thread

    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    Thread(target=watch, args=(parent.sentinel,), daemon=True).start()


def _limit_memory(memory_mb: int | None) -> None:
    """Refuse memory beyond what is used now and so much more; only where the system can."""
    try:
        import resource
        from pathlib import Path

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (ImportError, OSError):
        return
    if memory_mb is not None:
        used = pages * os.sysconf("SC_PAGE_SIZE")
        wanted, hard = used + (memory_mb << 20), resource.getrlimit(resource.RLIMIT_AS)[1]
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)  # a service's own limit may be lower
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
