"""A Milvus server of our own for a while: ``milvus-lite server`` on this machine, for measurements and tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..agent.errors import BackendError

START_S = 60.0
STOP_S = 10.0
ATTEMPTS = 3
"""Between choosing a free port and listening on it another program may take it."""


@dataclass(frozen=True)
class LiteServer:
    """A running server.

    Attributes:
        process: to stop, kill or halt it.
        port: on 127.0.0.1.
    """

    process: subprocess.Popen[bytes]
    port: int

    @property
    def uri(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def halt(self) -> None:
        """Stop it where it stands, until SIGCONT. A signal alone is not enough: a busy machine stops a process late."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def lite_server(folder: Path, port: int | None = None) -> Iterator[LiteServer]:
    """Run a server until the end of the block.

    Args:
        folder: its data, made when it is missing; one server at a time.
        port: to listen on; None for a free one.

    Raises:
        BackendError: it does not start.
    """
    server = _start(folder, port)
    try:
        yield server
    finally:
        server.process.kill()  # also ends a halted one; what it acknowledged is in its log
        server.process.wait(timeout=STOP_S)


def _start(folder: Path, port: int | None) -> LiteServer:
    for _ in range(ATTEMPTS):
        chosen = port or free_port()
        command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(folder), "--host", "127.0.0.1"]
        process = subprocess.Popen(
            [*command, "--port", str(chosen)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if _listens(process, chosen):
            return LiteServer(process, chosen)
        process.kill()
        process.wait(timeout=STOP_S)
    raise BackendError("milvus-lite server does not start.", hint=f"Is {folder} in use by another one?")


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.05)
    return False
