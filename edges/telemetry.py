"""Metrics for Prometheus and traces for OpenTelemetry, both optional: who does not ask for them imports neither.

Metrics are served on this machine's loopback address alone. Traces go where the usual ``OTEL_EXPORTER_OTLP_*``
variables say; a collector that is away costs the traces and nothing else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..agent.errors import ConfigError, MissingExtraError
from .outbox import Depth

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from ..audits.records import AuditRecord

BUCKETS_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
LOOPBACK = "127.0.0.1"
EXPORT_TIMEOUT_S = 3


@contextmanager
def _telemetry_extra(what: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(what, "telemetry") from error


@dataclass(frozen=True)
class Waiting:
    """What waits when metrics are asked for.

    Attributes:
        pictures: complete and not inspected.
        oldest_s: how long the oldest of them has waited, 0 without one.
        outbox: by destination.
    """

    pictures: int
    oldest_s: float
    outbox: Mapping[str, Depth]


class Metrics:
    """The endpoint ``http://127.0.0.1:PORT/metrics``.

    Args:
        port: to listen on; 0 for any.
        waiting: asked at each scrape, from another thread.

    Raises:
        MissingExtraError: the library is not installed.
        ConfigError: the port is taken.
    """

    def __init__(self, port: int, waiting: Callable[[], Waiting]) -> None:
        with _telemetry_extra("A metrics endpoint"):
            from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
        registry = CollectorRegistry()
        self._inspections = Counter(
            "flawscope_inspections", "Inspected pictures.", ("product", "verdict"), registry=registry
        )
        self._errors = Counter("flawscope_errors", "Pictures without a judgement.", ("kind",), registry=registry)
        self._attempts = Counter(
            "flawscope_deliveries", "Attempts to deliver a verdict.", ("destination", "outcome"), registry=registry
        )
        self._seconds = Histogram(
            "flawscope_inspection_seconds", "Time of an inspection.", ("product",), buckets=BUCKETS_S, registry=registry
        )
        registry.register(_Gauges(waiting))
        try:
            self._server, self._thread = start_http_server(port, addr=LOOPBACK, registry=registry)
        except OSError as error:
            raise ConfigError(
                f"the port {port} cannot be used for metrics: {error.strerror or error}.", hint="Choose another."
            ) from error
        self.port = int(self._server.server_port)

    def inspected(self, record: AuditRecord) -> None:
        """A picture was inspected."""
        product = record.line.product or ""
        self._inspections.labels(product, record.verdict.value).inc()
        if record.error is not None:
            self._errors.labels(record.error.kind).inc()
        if record.timing.seconds is not None:
            self._seconds.labels(product).observe(record.timing.seconds)

    def attempted(self, destination: str, outcome: str) -> None:
        """A delivery was tried."""
        self._attempts.labels(destination, outcome).inc()

    def close(self) -> None:
        """End listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Gauges:
    """What is counted when it is asked for, rather than whenever it changes."""

    def __init__(self, waiting: Callable[[], Waiting]) -> None:
        self._waiting = waiting

    def collect(self) -> Iterator[Any]:
        """Of prometheus_client's collectors."""
        from prometheus_client.core import GaugeMetricFamily

        now, seen = time.time(), self._waiting()
        yield GaugeMetricFamily("flawscope_queue_pictures", "Complete pictures to be inspected.", seen.pictures)
        yield GaugeMetricFamily("flawscope_queue_age_seconds", "Wait of the oldest of them.", seen.oldest_s)
        depth = GaugeMetricFamily("flawscope_outbox_messages", "Messages.", labels=("destination", "state"))
        age = GaugeMetricFamily("flawscope_outbox_age_seconds", "Age of the oldest pending.", labels=("destination",))
        for destination, found in seen.outbox.items():
            depth.add_metric((destination, "pending"), found.pending)
            depth.add_metric((destination, "dead"), found.dead)
            age.add_metric((destination,), 0.0 if found.oldest is None else max(0.0, now - found.oldest))
        yield depth
        yield age


@dataclass(frozen=True)
class StepSpan:
    """When a step of the graph ran; nanoseconds since the epoch."""

    name: str
    begun_ns: int
    ended_ns: int
    note: str


def step_spans(record: AuditRecord, begun_ns: int) -> list[StepSpan]:
    """When each step of an inspection ran: one behind the other, as a worker takes them.

    Args:
        record: its report's trace knows how long each step took.
        begun_ns: of the inspection.
    """
    spans: list[StepSpan] = []
    for step in (record.report or {}).get("trace", ()):
        ended_ns = begun_ns + round(step["seconds"] * 1e9)
        spans.append(StepSpan(step["action"], begun_ns, ended_ns, step["note"]))
        begun_ns = ended_ns
    return spans


class Traces:
    """A span for each inspection and, below it, one for each step of the graph.

    Args:
        exporter: where spans go; OTLP over HTTP, as the ``OTEL_EXPORTER_OTLP_*`` variables say, when None.

    Raises:
        MissingExtraError: the library is not installed.
    """

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        with _telemetry_extra("Traces"):
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # a collector that is away is no news each second
        self._provider = TracerProvider(resource=Resource.create({"service.name": "flawscope"}), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter(timeout=EXPORT_TIMEOUT_S)))
        self._tracer = self._provider.get_tracer("flawscope")

    def inspected(self, record: AuditRecord) -> None:
        """An inspection has just ended."""
        from opentelemetry.trace import Status, StatusCode, set_span_in_context

        ended_ns = time.time_ns()
        begun_ns = ended_ns - round((record.timing.seconds or 0.0) * 1e9)
        told: dict[str, str | float | None] = {
            "flawscope.image": record.line.image,
            "flawscope.record": record.id,
            "flawscope.verdict": record.verdict.value,
            "flawscope.product": record.line.product,
            "flawscope.image_score": record.image_score,
            "flawscope.probability": record.probability,
        }
        known = {name: value for name, value in told.items() if value is not None}
        whole = self._tracer.start_span("inspection", start_time=begun_ns, attributes=known)
        if record.error is not None:
            whole.set_status(Status(StatusCode.ERROR, record.error.kind))
        inside = set_span_in_context(whole)
        for step in step_spans(record, begun_ns):
            attributes = {"flawscope.note": step.note} if step.note else None
            span = self._tracer.start_span(step.name, inside, start_time=step.begun_ns, attributes=attributes)
            span.end(step.ended_ns)
        whole.end(ended_ns)

    def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        self._provider.shutdown()
