"""Records without inspections, and a webhook's receiver that fails half the time, as real ones do."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import random
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from flawscope.agent.errors import ProductError
from flawscope.agent.schemas import Verdict
from flawscope.audits.records import AuditRecord, RecordError, Timing, WorklistLine
from flawscope.audits.worker import Basis, Done, InspectWorker, failed
from flawscope.audits.worklist import Job, record_id

FEW = frozenset({"general.scratch", "general.crack", "general.hole", "general.stain", "general.dent", "textile.good"})
KEY = base64.b64encode(bytes(range(32))).decode()


def record(number: int, serial: str | None = None, image: str | None = None) -> AuditRecord:
    """A record of an OK part."""
    name = image or f"{serial or number}-{number}.png"
    return AuditRecord(
        id=hashlib.sha256(f"{number} {name}".encode()).hexdigest()[:32],
        line=WorklistLine(number=number, image=name, product="plate", serial=serial),
        sha256=hashlib.sha256(name.encode()).hexdigest(),
        verdict=Verdict.OK,
        settings_sha256="0" * 64,
        timing=Timing(seconds=0.1, finished="2026-01-01T00:00:00Z"),
    )


@dataclass
class Receiver:
    """A real HTTP server on a free loopback port.

    Attributes:
        faults: what to answer with instead of 200, drawn for each request; empty for a healthy server.
        share: of requests that fail.
        accepted: messages taken, in order; a hanging server may take one and never say so.
        keys: the idempotency keys of those.
        forged: requests whose signature was wrong.
        failed: how often each fault was shown.
    """

    faults: tuple[str, ...] = ()
    share: float = 0.5
    hang_s: float = 1.0
    seed: int = 0
    accepted: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    forged: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    headers: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._lock = threading.Lock()
        self._over = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # the client went away while this hung

        self.server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/verdicts"

    def close(self) -> None:
        self._over.set()
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    def answer(self, request: Any) -> None:
        body = request.rfile.read(int(request.headers["content-length"]))
        with self._lock:
            fault = self._chance.choice(self.faults) if self.faults and self._chance.random() < self.share else ""
            if fault:
                self.failed[fault] = self.failed.get(fault, 0) + 1
            self.headers.append({name.lower(): value for name, value in request.headers.items()})
            if not self._signed(request, body):
                self.forged += 1
            elif fault in ("", "hang after"):
                self.accepted.append(json.loads(body))
                self.keys.append(request.headers["idempotency-key"])
        if fault.startswith("hang"):
            self._over.wait(self.hang_s)
            request.close_connection = True
        elif fault == "reset":
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.connection.close()
            request.close_connection = True
        else:
            status, _, value = fault.partition(" ")
            request.send_response(int(status or 200))
            if value:
                request.send_header("Location" if status.startswith("3") else "Retry-After", value)
            request.send_header("Content-Length", "0")
            request.end_headers()

    def _signed(self, request: Any, body: bytes) -> bool:
        key, stamp = request.headers["webhook-id"], request.headers["webhook-timestamp"]
        digest = hmac.new(base64.b64decode(KEY), f"{key}.{stamp}.".encode() + body, hashlib.sha256).digest()
        said = request.headers["webhook-signature"].removeprefix("v1,")
        return hmac.compare_digest(base64.b64encode(digest).decode(), said) and abs(time.time() - int(stamp)) < 300


def in_order(messages: list[dict[str, Any]]) -> bool:
    """Whether each part's messages came in the order of their records; a repetition may follow its original.

    It may follow later ones too: an answer that was given up, or a killed sender, leaves a request behind that a busy
    receiver takes up late.
    """
    last: dict[str, int] = {}
    firsts = {message["idempotency_key"]: message for message in reversed(messages)}
    for message in (message for message in messages if message is firsts[message["idempotency_key"]]):
        if message["sequence"] < last.get(message["part"], 0):
            return False
        last[message["part"]] = message["sequence"]
    return True


class ToyWorker:
    """Inspects without a model: bytes with ``bad`` in them are NG; ``slow`` ones take a moment, ``crash`` ends it."""

    threads = 1

    def prepare(self, product: str | None) -> None:
        if product != "plate":
            raise ProductError(f"no product {product!r}.")

    def basis(self, product: str | None) -> Basis:
        return Basis("0" * 64, {"product": product})

    def __call__(self, job: Job, basis: Basis) -> Done:
        begun = time.perf_counter()
        try:
            data = Path(job.path).read_bytes()
        except OSError:
            error = RecordError(kind="input", message="it is gone.", exit_code=4)
            return Done.of(failed(job, basis, error, 0.0))
        if b"slow" in data:
            time.sleep(0.03)
        if b"crash" in data:
            os._exit(3)
        sha256 = hashlib.sha256(data).hexdigest()
        return Done.of(
            AuditRecord(
                id=record_id(job.identity, sha256, basis.settings_sha256),
                line=job.line,
                sha256=sha256,
                verdict=Verdict.NG if b"bad" in data else Verdict.OK,
                settings_sha256=basis.settings_sha256,
                report={"trace": [{"action": "see", "seconds": 0.01, "note": ""}]},
                timing=Timing(seconds=time.perf_counter() - begun, finished="2026-01-01T00:00:00+00:00"),
            )
        )


class CheapWorker(InspectWorker):
    """The real one with the cheap backbone, which it registers in its own process."""

    def __reduce__(self) -> tuple[Any, ...]:
        return CheapWorker, (self.loaded, self.out, self.pictures, self.threads)

    def prepare(self, product: str | None) -> None:
        from fakes import PatchStatistics

        from flawscope.tools.backbones import BACKBONES
        from flawscope.tools.knowledge import builder, schema

        few = tuple(page for page in schema.load_documents() if page.doc_id in FEW)
        builder.load_documents = lambda: few
        BACKBONES["patch-statistics"] = PatchStatistics
        super().prepare(product)
