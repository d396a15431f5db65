"""Metrics scraped from the endpoint, spans at a real collector's door, and nothing of either when nobody asked."""

from __future__ import annotations

import gzip
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from edges_plant import record
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from flawscope.agent.errors import ConfigError, MissingExtraError
from flawscope.agent.schemas import Verdict
from flawscope.audits.records import RecordError
from flawscope.edges.folder import WatchedFolder
from flawscope.edges.outbox import Depth
from flawscope.edges.settling import Settling
from flawscope.edges.telemetry import Metrics, Traces, Waiting, step_spans

RUN = Path(__file__).parents[1] / "edges_run.py"
OPTIONAL = ("prometheus_client", "opentelemetry.sdk", "opentelemetry.exporter", "paho", "watchfiles")
TRACE = {"trace": [{"action": "see", "seconds": 0.25, "note": ""}, {"action": "reason", "seconds": 0.5, "note": "NG"}]}


class Collector:
    """Takes OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.changed = threading.Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                asked = ExportTraceServiceRequest.FromString(body)
                with collector.changed:
                    collector.spans += [s for r in asked.resource_spans for g in r.scope_spans for s in g.spans]
                    collector.changed.notify_all()
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    one = Collector()
    yield one
    one.close()


def _scraped(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


def _failed(number: int) -> Any:
    error = RecordError(kind="timeout", message="it took longer than 60 s.", exit_code=7)
    return record(number).model_copy(update={"verdict": Verdict.REVIEW, "error": error})


def test_metrics_count_inspections_errors_deliveries_and_what_waits() -> None:
    depths = {"mqtt://h/t": Depth(3, 1, time.time() - 60.0)}
    metrics = Metrics(0, lambda: Waiting(2, 1.5, depths))
    try:
        metrics.inspected(record(1))
        metrics.inspected(record(2))
        metrics.inspected(_failed(3))
        metrics.attempted("mqtt://h/t", "later")
        found = _scraped(metrics.port)
        with pytest.raises(ConfigError, match=f"port {metrics.port}"):
            Metrics(metrics.port, lambda: Waiting(0, 0.0, {}))
    finally:
        metrics.close()
    assert found['flawscope_inspections_total{product="plate",verdict="OK"}'] == 2
    assert found['flawscope_inspections_total{product="plate",verdict="REVIEW"}'] == 1
    assert found['flawscope_errors_total{kind="timeout"}'] == 1
    assert found['flawscope_inspection_seconds_count{product="plate"}'] == 3
    assert found['flawscope_inspection_seconds_bucket{le="0.1",product="plate"}'] == 3
    assert found['flawscope_deliveries_total{destination="mqtt://h/t",outcome="later"}'] == 1
    assert found['flawscope_outbox_messages{destination="mqtt://h/t",state="pending"}'] == 3
    assert found['flawscope_outbox_messages{destination="mqtt://h/t",state="dead"}'] == 1
    assert found['flawscope_outbox_age_seconds{destination="mqtt://h/t"}'] >= 60
    assert (found["flawscope_queue_pictures"], found["flawscope_queue_age_seconds"]) == (2, 1.5)


def test_the_endpoint_is_on_loopback_alone() -> None:
    metrics = Metrics(0, lambda: Waiting(0, 0.0, {}))
    assert metrics._server.server_address[0] == "127.0.0.1"
    metrics.close()


def test_steps_lie_one_behind_the_other() -> None:
    spans = step_spans(record(1).model_copy(update={"report": TRACE}), 1000)
    assert [(span.name, span.begun_ns, span.ended_ns) for span in spans] == [
        ("see", 1000, 250_001_000),
        ("reason", 250_001_000, 750_001_000),
    ]
    assert step_spans(record(1), 0) == []


def test_a_span_per_inspection_and_per_step_reaches_the_collector(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server.server_port}")
    traces = Traces()
    traces.inspected(record(1).model_copy(update={"report": TRACE}))
    traces.inspected(_failed(2))
    traces.close()
    by_name = {span.name: span for span in reversed(collector.spans)}
    assert sorted(span.name for span in collector.spans) == ["inspection", "inspection", "reason", "see"]
    whole = by_name["inspection"]
    told = {pair.key: pair.value.string_value for pair in whole.attributes}
    assert (told["flawscope.verdict"], told["flawscope.product"]) == ("OK", "plate")
    assert by_name["see"].parent_span_id == by_name["reason"].parent_span_id == whole.span_id
    assert by_name["reason"].end_time_unix_nano - by_name["reason"].start_time_unix_nano == 500_000_000
    assert [span.status.message for span in collector.spans if span.status.message] == ["timeout"]


def test_a_collector_that_is_away_costs_the_traces_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    traces = Traces()
    for number in range(100):
        traces.inspected(record(number + 1))
    traces.close()


@pytest.mark.parametrize(
    ("module", "make"), [("prometheus_client", lambda: Metrics(0, print)), ("opentelemetry.sdk.trace", Traces)]
)  # type: ignore[arg-type]
def test_without_the_extra_the_pip_line_is_named(module: str, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"flawscope\[telemetry\]"):
        make()


def _watched(folder: Path, *arguments: str) -> set[str]:
    """The modules that a watch of one picture has imported."""
    (folder / "in").mkdir()
    (folder / "in" / "a.png").write_bytes(b"good")
    command = [sys.executable, str(RUN), "watch", "in", "-p", "plate", "-o", "out", "--settle", "0.1", *arguments]
    environ = {"EDGES_MODULES": str(folder / "modules"), "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen(command, cwd=folder, env=environ, text=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("OK")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 0
    return set((folder / "modules").read_text().split())


def test_who_asks_for_nothing_optional_imports_nothing_optional(tmp_path: Path) -> None:
    found = _watched(tmp_path, "--poll", "0.05")
    assert "flawscope.edges.watch" in found
    assert [name for name in found if name.startswith(OPTIONAL)] == []


def test_being_told_of_changes(tmp_path: Path) -> None:
    """What the system tells only says where to look: a look through the folder comes every half minute anyway."""
    root = tmp_path / "in"
    root.mkdir()
    settling = Settling(0.2)
    folder = WatchedFolder(root, tmp_path / "out")
    try:
        assert folder.manner == "told of changes"
        folder.look(settling)
        (root / "lot").mkdir()
        (root / "lot" / "a.png").write_bytes(b"a")
        (root / "b.png.part").write_bytes(b"b")
        (root / "b.png.part").replace(root / "b.png")
        (root / ".hidden.png").write_bytes(b"x")
        found: set[str] = set()
        given_up = time.monotonic() + 120
        while len(found) < 2 and time.monotonic() < given_up:
            folder.wait()
            folder.look(settling)
            found |= {arrival.path.name for arrival in settling.complete(time.monotonic())}
        assert found == {"a.png", "b.png"}
        root.rename(tmp_path / "away")
        folder.look(settling)
        assert folder.manner == "looking every 1 s"
        root.mkdir()
        (root / "c.png").write_bytes(b"c")
        while "c.png" not in found and time.monotonic() < given_up:
            folder.wait()
            folder.look(settling)
            found |= {arrival.path.name for arrival in settling.complete(time.monotonic())}
        assert "c.png" in found
    finally:
        folder.close()
