"""Watch a folder: each complete picture is inspected once, recorded, and its verdict sent on its way.

The order of things is what makes a kill at any moment harmless. A record is on the disk before anybody is told of it;
the outbox and the list of what was seen are both made from the records, and catch up with them when they are opened.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..agent.errors import ConfigError, FlawscopeError, StorageError
from ..agent.home import storage_errors, write_json_atomically
from ..agent.settings import SECRETS, LoadedSettings
from ..audits.folder import HEADER_NAME, locked, read_header
from ..audits.local import Limits, LocalEngine
from ..audits.record_file import RECORDS_NAME, RecordWriter
from ..audits.records import AuditHeader, AuditRecord, WorklistLine, spelt_out
from ..audits.worker import Basis, InspectWorker, content_sha256, now
from ..audits.worklist import Job
from ..graphs.report import own_version
from .delivery import Delivery
from .destination import Outcome, Publisher, publisher_for
from .folder import WatchedFolder
from .outbox import Outbox
from .seen import Seen
from .settling import Arrival, Settling, Signature

if TYPE_CHECKING:
    from .telemetry import Metrics, Traces, Waiting

DRAIN_S = 5.0
"""What is due is still delivered for so long when the watch ends."""
NAMED = ("serial", "lot", "station")


@dataclass(frozen=True)
class WatchPlan:
    """What is watched, and who is told.

    Attributes:
        folder: with its subfolders; hidden ones are left out.
        out: takes the records, pictures and the outbox; belongs to this folder alone.
        product: to compare with.
        publish: addresses.
        settle_s: how long a file must stay as it is to be complete.
        look_s: look through the folder this often instead of being told of changes; None: be told where possible.
        name_pattern: finds serial, lot and station in a picture's path within the folder, by groups of these names.
        limits: of each picture.
        metrics_port: of the metrics endpoint on loopback, None for none.
        traces: whether spans are sent.
    """

    folder: Path
    out: Path
    product: str
    publish: tuple[str, ...] = ()
    settle_s: float = 1.0
    look_s: float | None = None
    name_pattern: re.Pattern[str] | None = None
    limits: Limits = field(default_factory=Limits)
    metrics_port: int | None = None
    traces: bool = False

    @property
    def root(self) -> Path:
        """The folder without links, as records name it."""
        return self.folder.resolve()


def name_pattern(text: str) -> re.Pattern[str]:
    """A pattern that finds a part's names in a path.

    Raises:
        ConfigError: it is no pattern, or names none of serial, lot and station.
    """
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ConfigError(f"--name-pattern is no regular expression: {error}.") from error
    if not pattern.groupindex or set(pattern.groupindex) - set(NAMED):
        raise ConfigError(
            "--name-pattern needs groups named serial, lot or station, and no others.",
            hint=r"Such as '(?P<lot>[^/]+)/(?P<serial>\d+)_'.",
        )
    return pattern


class Watch:
    """One watched folder.

    Args:
        loaded: settings.
        plan: what is watched.
        on_record: told each record when it is on the disk.
        worker: what inspects; made from the settings when None.
        publishers: made from the addresses when None.

    Raises:
        FlawscopeError: an address, a key or an optional part is missing; nothing was done.
    """

    def __init__(
        self,
        loaded: LoadedSettings,
        plan: WatchPlan,
        on_record: Callable[[AuditRecord], None],
        *,
        worker: InspectWorker | None = None,
        publishers: tuple[Publisher, ...] | None = None,
    ) -> None:
        if not plan.folder.is_dir():
            raise ConfigError(f"{plan.folder} is not a folder.", hint="Name the folder that pictures come into.")
        if plan.root == plan.out.resolve() or plan.root.is_relative_to(plan.out.resolve()):
            raise ConfigError("--out must not be the watched folder or hold it.", hint="Name another folder.")
        if len(set(plan.publish)) != len(plan.publish):
            raise ConfigError("--publish names an address twice.")
        self.vanished, self.waiting, self.refused = 0, 0, 0
        self._loaded, self._plan, self._on_record = loaded, plan, on_record
        self._worker = worker or InspectWorker(loaded, str(plan.out))
        self._publishers = publishers or tuple(publisher_for(text, loaded.settings) for text in plan.publish)
        self._traces = self._made_traces() if plan.traces else None
        self._metrics: Metrics | None = None
        self._settling = Settling(plan.settle_s)
        self._queue: deque[tuple[Arrival, float]] = deque()
        self._deliveries: list[Delivery] = []
        self._away: set[str] = set()
        self._links_told: set[Path] = set()
        self._notice: Callable[[str], None] = lambda text: None

    def run(self, stopped: Callable[[], bool], notice: Callable[[str], None] = lambda text: None) -> None:
        """Inspect what is there and what comes, until told to stop.

        Args:
            stopped: asked between pictures and at least four times a second.
            notice: told in words when everything is loaded, and when an address goes away and comes back; from several
                threads.

        Raises:
            FlawscopeError: nothing can be inspected, or the disk refuses; what is recorded stays and goes on later.
        """
        plan, self._notice = self._plan, notice
        with storage_errors(plan.out):
            plan.out.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(locked(plan.out))
            engine = stack.enter_context(LocalEngine(self._worker, 1, plan.limits, plan.product))
            basis = engine.bases([plan.product])[plan.product]
            if isinstance(basis, FlawscopeError):
                raise basis
            self._write_header()
            records = plan.out / RECORDS_NAME
            writer = stack.enter_context(RecordWriter(records))
            seen = stack.enter_context(Seen(plan.out, records))
            folder = WatchedFolder(plan.root, plan.out, plan.look_s)
            stack.callback(folder.close)
            stack.enter_context(self._publishing(records))
            notice(f"watching {plan.folder}, {folder.manner}; Ctrl-C ends it.")
            while not stopped():
                for delivery in self._deliveries:
                    delivery.check()
                folder.look(self._settling)
                self._tell_links(folder.links_to_nothing)
                self._queue.extend((arrival, time.monotonic()) for arrival in self._settling.complete(time.monotonic()))
                if self._queue:
                    self._take(engine, basis, writer, seen)
                else:
                    folder.wait()

    def _tell_links(self, links: set[Path]) -> None:
        """Say once of each link that nothing can be inspected; again when its file has come and gone."""
        for path in sorted(links - self._links_told):
            self._notice(f"{spelt_out(str(path))} is a link to nothing; it is inspected when its file is there.")
        self._links_told = set(links)

    def _take(self, engine: LocalEngine, basis: Basis, writer: RecordWriter, seen: Seen) -> None:
        """Deal with the first complete picture."""
        arrival = self._queue[0][0]
        if self._settling.is_current(arrival):
            record, was_read = self._inspected(arrival, engine, basis, seen)
            if record is not None:
                writer.append([record])
                seen.catch_up()
                self._told(record)
            if was_read and _signature_of(arrival.path) == arrival.signature:
                seen.remember(spelt_out(str(arrival.path)), arrival.signature)
        self._queue.popleft()

    def _inspected(
        self, arrival: Arrival, engine: LocalEngine, basis: Basis, seen: Seen
    ) -> tuple[AuditRecord | None, bool]:
        """The record of a picture, None when it has one or is gone; and whether a record of its bytes is there.

        Raises:
            StorageError: the disk refused the record's pictures.
        """
        path, image = str(arrival.path), spelt_out(str(arrival.path))
        if seen.has_file(image, arrival.signature):
            return None, True
        sha256 = content_sha256(path)
        if (sha256 is None and self._is_gone(arrival)) or seen.has_picture(image, sha256):
            return None, sha256 is not None  # what cannot be read yet is asked for again by the next watch
        line = self._line(seen.number + 1, arrival.path)
        for _, done in engine.run(iter([(0, Job(line, path), basis)])):
            record = AuditRecord.model_validate_json(done.data)
        if record.error is not None and record.error.kind == StorageError.code:
            raise StorageError(record.error.message)  # a full disk is no property of the picture
        # It may have been deleted or written again while it was inspected: the record is of what was inspected.
        if record.sha256 is None and self._is_gone(arrival):
            return None, False
        known = record.sha256 != sha256 and seen.has_picture(image, record.sha256)
        return None if known else record, record.sha256 is not None

    def _is_gone(self, arrival: Arrival) -> bool:
        if arrival.path.exists():
            return False
        self.vanished += 1
        self._settling.gone(arrival.path)
        return True

    def _line(self, number: int, path: Path) -> WorklistLine:
        pattern = self._plan.name_pattern
        found = pattern.search(spelt_out(path.relative_to(self._plan.root).as_posix())) if pattern else None
        named = {name: value.strip() or None for name, value in (found.groupdict() if found else {}).items() if value}
        return WorklistLine(
            number=number,
            image=spelt_out(str(path)),
            product=self._plan.product,
            serial=named.get("serial"),
            lot=named.get("lot"),
            station=named.get("station"),
        )

    def _told(self, record: AuditRecord) -> None:
        if self._metrics is not None:
            self._metrics.inspected(record)
        if self._traces is not None:
            self._traces.inspected(record)
        for delivery in self._deliveries:
            delivery.recorded()
        self._on_record(record)

    # --- telling others -----------------------------------------------------------------------------------------------

    @contextmanager
    def _publishing(self, records: Path) -> Iterator[None]:
        """Delivery, metrics and traces while the block runs; at its end what is due is still delivered for a while."""
        with ExitStack() as stack:
            if self._traces is not None:
                stack.callback(self._traces.close)
            outbox = stack.enter_context(Outbox(self._plan.out)) if self._publishers else None
            if self._plan.metrics_port is not None:
                self._metrics = self._made_metrics(self._plan.metrics_port, outbox)
                stack.callback(self._metrics.close)
            if outbox is not None:
                stack.callback(self._count_left, outbox)
                self._deliveries = [
                    Delivery(outbox, records, publisher, on_change=self._attempted) for publisher in self._publishers
                ]
                for delivery in self._deliveries:
                    delivery.start()
                    stack.callback(delivery.stop, DRAIN_S)
            yield

    def _attempted(self, destination: str, outcome: Outcome) -> None:
        if self._metrics is not None:
            self._metrics.attempted(destination, outcome.kind)
        away = any(delivery.away for delivery in self._deliveries if delivery.destination == destination)
        if away and destination not in self._away:
            self._away.add(destination)
            self._notice(f"{destination} takes no verdicts now ({outcome.problem}); they wait, and inspection goes on.")
        elif not away and destination in self._away:
            self._away.remove(destination)
            self._notice(f"{destination} takes verdicts again.")

    def _count_left(self, outbox: Outbox) -> None:
        depths = [outbox.depth(publisher.destination) for publisher in self._publishers]
        self.waiting, self.refused = sum(depth.pending for depth in depths), sum(depth.dead for depth in depths)

    def _made_traces(self) -> Traces:
        from .telemetry import Traces

        return Traces()

    def _made_metrics(self, port: int, outbox: Outbox | None) -> Metrics:
        from .telemetry import Metrics, Waiting

        def waiting() -> Waiting:
            first = next(iter(self._queue.copy()), None)
            age_s = time.monotonic() - first[1] if first else 0.0
            depths = {p.destination: outbox.depth(p.destination) for p in self._publishers} if outbox else {}
            return Waiting(len(self._queue), age_s, depths)

        return Metrics(port, waiting)

    # --- the folder of the records ------------------------------------------------------------------------------------

    def _write_header(self) -> None:
        """``audit.json``, so that pages, exports and queues read this folder as they read an audit's."""
        plan = self._plan
        whose = hashlib.sha256(f"watch {spelt_out(str(plan.root))}".encode()).hexdigest()
        header = read_header(plan.out)
        if header is not None and header.worklist_sha256 != whose:
            raise ConfigError(
                f"{plan.out} belongs to an audit or to another watched folder.", hint="Give another folder by --out."
            )
        values = self._loaded.settings.model_dump(mode="json", exclude=set(SECRETS))
        fresh = AuditHeader(
            flawscope=own_version(),
            started=header.started if header is not None else now(),
            product=plan.product,
            settings={key: {"value": value, "origin": self._loaded.origins[key]} for key, value in values.items()},
            lines=0,
            worklist_sha256=whose,
        )
        write_json_atomically(plan.out / HEADER_NAME, fresh.model_dump(mode="json"))


def _signature_of(path: Path) -> Signature | None:
    try:
        return Signature.of(path.stat())
    except OSError:
        return None
