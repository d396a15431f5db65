"""Connections that are made in time: the name is looked up once, then its addresses share what is left.

The usual way gives the whole time to each address of a name, and sets none for the look-up, which the system answers in
its own time.
"""

from __future__ import annotations

import math
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

import httpcore
import httpx

CONNECT_S = 10.0
"""For one address, and for TLS: who does not answer in that time is not there."""


class InTime(httpcore.NetworkBackend):
    """Makes connections whose time counts from the look-up of the name to the end of TLS."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of a name that answers.

        Args:
            host: name or address.
            port: of it.
            timeout: seconds for all of it; None for as long as it takes.
            local_address: see ``httpcore``, as is what follows.
            socket_options: see there.

        Raises:
            httpcore.ConnectTimeout: nobody answered in time.
            httpcore.ConnectError: there is no such name, or nobody there.
            UnicodeError: no name can be written so.
        """
        end = math.inf if timeout is None else time.monotonic() + timeout
        failed: Exception = httpcore.ConnectTimeout(f"{host} did not answer in time")
        for address in addresses_of(host, port, timeout):
            left = min(CONNECT_S, end - time.monotonic())
            if left <= 0.0:
                break
            try:
                made = httpcore.SyncBackend().connect_tcp(address, port, left, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
            else:
                return _Stream(made, end)
        raise failed


class _Stream(httpcore.NetworkStream):
    """A connection that goes over to TLS in what is left of its time.

    Args:
        made: the connection.
        end: of ``time.monotonic()``.
    """

    def __init__(self, made: httpcore.NetworkStream, end: float) -> None:
        self._made, self._end = made, end

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._made.read(max_bytes, timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._made.write(buffer, timeout)

    def close(self) -> None:
        self._made.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = min(CONNECT_S, self._end - time.monotonic())
        if left <= 0.0:
            self.close()
            raise httpcore.ConnectTimeout("no time was left for TLS")
        return self._made.start_tls(ssl_context, server_hostname, left)

    def get_extra_info(self, info: str) -> Any:
        return self._made.get_extra_info(info)


def connect_in_time(client: httpx.Client) -> None:
    """Let a client make its connections so; httpx has no argument for that, only httpcore below it has.

    Args:
        client: that was just made, with its proxies.
    """
    for transport in (client._transport, *client._mounts.values()):
        if isinstance(transport, httpx.HTTPTransport):
            transport._pool._network_backend = InTime()


def addresses_of(host: str, port: int, seconds: float | None) -> list[str]:
    """The addresses of a name, in the order in which the system would try them.

    The system's look-up cannot be called off, so a thread waits for it, and is left behind when it takes too long.

    Args:
        host: name or address.
        port: any.
        seconds: at most; None for as long as it takes.

    Raises:
        httpcore.ConnectTimeout: nothing was answered in time.
        httpcore.ConnectError: there is no such name.
        UnicodeError: no name can be written so.
    """
    answer: Future[list[str]] = Future()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answer.set_result([str(address[0]) for *_, address in found])
        except (OSError, UnicodeError) as error:
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError:
        raise httpcore.ConnectTimeout(f"{host} was not found in time") from None
    except OSError as error:
        raise httpcore.ConnectError(error) from error
