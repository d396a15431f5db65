"""Verdicts as signed HTTP requests, by the conventions of Standard Webhooks.

Each request is a POST of the message with the headers ``webhook-id`` (the idempotency key, ``Idempotency-Key`` too),
``webhook-timestamp`` (seconds since the epoch) and ``webhook-signature``: ``v1,`` and the base64 of HMAC-SHA256 over
``id.timestamp.body``. A receiver that checks it, and refuses old timestamps, knows who sent what and that it is not a
recording (standardwebhooks.com, "Signature scheme").
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import httpx

from ..agent.errors import ConfigError
from .destination import DELIVERED, Address, Outcome, tls_context
from .outbox import Message

if TYPE_CHECKING:
    from ..agent.settings import Settings

ABOUT_THE_MESSAGE = frozenset({400, 413, 414, 415, 422, 431})
"""Answers that say that this message will never do; every other failure may be the server's and is tried again."""
LONGEST_WAIT_S = 3600.0
KEY_BYTES = (24, 64)
LANES = 4


def signing_key(text: str) -> bytes:
    """The bytes of a key in the notation of Standard Webhooks: base64, with ``whsec_`` before it or without.

    Raises:
        ConfigError: it is none; what it is is not repeated.
    """
    try:
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not KEY_BYTES[0] <= len(key) <= KEY_BYTES[1]:
        raise ConfigError(
            "FLAWSCOPE_WEBHOOK_KEY is not the base64 of 24 to 64 bytes.", hint="Make one: openssl rand -base64 32"
        )
    return key


def signature(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of ``webhook-signature``."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def asked_wait_s(value: str | None, now: datetime) -> float | None:
    """What a ``Retry-After`` header asks for: seconds or a date; None when it is missing or unreadable."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), LONGEST_WAIT_S)
    try:
        then = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # a year of thirty digits is the latter
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return min(max(0.0, (then - now).total_seconds()), LONGEST_WAIT_S)


class WebhookPublisher:
    """Sends each message as a signed request.

    Args:
        address: of the receiver; redirects are not followed, as a signed verdict is for this address alone.
        settings: with the key and the time that an answer may take.

    Raises:
        ConfigError: there is no usable key, or nothing can be called what the host is.
    """

    def __init__(self, address: Address, settings: Settings) -> None:
        if settings.webhook_key is None:
            raise ConfigError(
                "a webhook needs a key to sign with.", hint="Set FLAWSCOPE_WEBHOOK_KEY: openssl rand -base64 32"
            )
        self.destination = address.text
        self.lanes = LANES
        self._key = signing_key(settings.webhook_key.get_secret_value())
        self._timeout_s = settings.publish_timeout_s
        _refuse_unusable_host(address)
        verify = tls_context() if address.scheme == "https" else False
        once = httpx.Limits(max_connections=LANES, max_keepalive_connections=0)
        self._client = httpx.Client(timeout=settings.publish_timeout_s, verify=verify, limits=once)

    def send(self, message: Message) -> Outcome:
        """One attempt."""
        timestamp = int(time.time())
        headers = {
            "content-type": "application/json",
            "idempotency-key": message.key,
            "webhook-id": message.key,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self._key, message.key, timestamp, message.body),
        }
        try:
            status, asked = self._post(message.body, headers)
        except (httpx.HTTPError, httpx.StreamError) as error:
            return Outcome("later", f"{type(error).__name__}: no answer")
        if 200 <= status < 300:
            return DELIVERED
        if status in ABOUT_THE_MESSAGE:
            return Outcome("refused", f"HTTP {status}")
        return Outcome("later", f"HTTP {status}", asked_wait_s(asked, datetime.now(UTC)))

    def _post(self, body: bytes, headers: dict[str, str]) -> tuple[int, str | None]:
        """Status and Retry-After; the answer's body is not read, as nobody needs it and it may never end."""
        connections: list[Any] = []

        def connected(event: str, info: dict[str, Any]) -> None:
            if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
                connections.append(info["return_value"])

        # The client's own limit begins anew with every byte: who sends one now and then would be listened to for ever.
        limit = threading.Timer(self._timeout_s, _cut, [connections])
        limit.daemon = True
        limit.start()
        try:
            given: dict[str, Any] = {"content": body, "headers": headers, "extensions": {"trace": connected}}
            with self._client.stream("POST", self.destination, **given) as answer:
                return answer.status_code, answer.headers.get("retry-after")
        finally:
            limit.cancel()

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()


def _refuse_unusable_host(address: Address) -> None:
    """Say now what the client would raise at the first verdict: numbers that are no address, names that are no name."""
    try:
        _ = httpx.URL(address.text).host
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ConfigError(
            "--publish cannot use that address: it has no usable host.", hint="Check its host."
        ) from error


def _cut(connections: list[Any]) -> None:
    """End connections under whoever reads from them."""
    for connection in connections:
        with suppress(OSError):  # it has ended by itself
            connection.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
