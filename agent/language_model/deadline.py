"""An end to a request that counts from its beginning.

A client's own time limits begin anew with every piece that arrives, so that a server which sends one letter now and
then, of its headers even, is waited for as long as it likes.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

Trace = Callable[[str, dict[str, Any]], None]


@contextmanager
def cut_off_after(seconds: float) -> Iterator[tuple[Trace, threading.Event]]:
    """Shut the sockets of one request when its time is over.

    Args:
        seconds: from now.

    Yields:
        What the request takes as its ``trace`` extension, and whether the time was over. The request must not use a
        connection of an earlier one, since only new ones are traced.
    """
    over, sockets = threading.Event(), list[socket.socket]()

    def trace(name: str, info: dict[str, Any]) -> None:
        if name.endswith(("connect_tcp.complete", "start_tls.complete")):
            sockets.append(info["return_value"].get_extra_info("socket"))
            if over.is_set():
                cut()

    def cut() -> None:
        over.set()
        for one in sockets:
            with suppress(OSError):  # closed already, or handed on to TLS
                socket.socket.shutdown(one, socket.SHUT_RDWR)  # whoever reads or writes wakes up

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield trace, over
    finally:
        timer.cancel()
