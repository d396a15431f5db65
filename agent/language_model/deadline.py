"""An end to a request that counts from its beginning.

A client's own time limits begin anew with every piece that arrives, so that a server which sends one letter now and
then, of its headers even, is waited for as long as it likes. And none of them covers the look-up of the server's name,
which the system answers in its own time.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx

Trace = Callable[[str, dict[str, Any]], None]


@contextmanager
def cut_off_after(seconds: float) -> Iterator[tuple[Trace, threading.Event]]:
    """Shut the sockets of one request when its time is over.

    Args:
        seconds: from now.

    Raises:
        httpx.ConnectTimeout: inside the request, when a name is not found out in time.

    Yields:
        What the request takes as its ``trace`` extension, and whether the time was over. The request must not use a
        connection of an earlier one, since only new ones are traced.
    """
    over, sockets = threading.Event(), list[socket.socket]()
    end = time.monotonic() + seconds

    def trace(name: str, info: dict[str, Any]) -> None:
        if name.endswith("connect_tcp.started"):  # a proxy's name, where there is one
            look_up(info["host"], info["port"], 0.5 * (end - time.monotonic()))  # whoever connects looks up once more
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


def look_up(host: str, port: int, seconds: float) -> None:
    """See whether a name's addresses come in time.

    The system's look-up cannot be called off, so a thread waits for it, and is left behind when it takes too long.

    Args:
        host: name or address.
        port: any.
        seconds: at most.

    Raises:
        httpx.ConnectTimeout: nothing was answered in time. That there is no such name is left to the connection to say.
    """

    def ask() -> None:
        with suppress(OSError, UnicodeError):
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(max(0.0, seconds))
    if asking.is_alive():
        raise httpx.ConnectTimeout(f"{host} was not found in time")
