"""What comes back over the wire: read piece by piece, within its size and time, failures named.

Whatever a server says is untrusted: the key, which some repeat, is taken out before anything of it is shown.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from ..errors import EndpointError
from .endpoint import Endpoint
from .retrying import PASSING
from .streaming import EventReader

MAX_REPLY_BYTES = 8_000_000
MAX_ERROR_BYTES = 20_000


@dataclass(frozen=True)
class AnswerReader:
    """Reads the answers of one endpoint.

    Attributes:
        endpoint: which.
    """

    endpoint: Endpoint

    @property
    def host(self) -> str:
        """The server's name and port."""
        return urlsplit(self.endpoint.base_url).netloc

    def read(self, response: httpx.Response, deadline: float, on_piece: Callable[[str], None] | None) -> Any:
        """The decoded answer; a stream of events is put together into the answer that it stands for.

        Args:
            response: under way.
            deadline: of ``time.monotonic()``.
            on_piece: sees the raw text of a stream grow.

        Raises:
            EndpointError: it is refused, redirected, late, too large, broken or of another protocol.
        """
        status = response.status_code
        if 300 <= status < 400:
            raise self._redirected(response, status)
        if status != httpx.codes.OK:
            raise self._refused(response, status, deadline)
        if response.headers.get("content-type", "").split(";")[0].strip().lower() == "text/event-stream":
            return self._events(response, deadline, on_piece)
        blob = self._bytes(response, MAX_REPLY_BYTES, deadline)
        if len(blob) > MAX_REPLY_BYTES:
            raise _too_large()
        try:
            return json.loads(blob)
        except (ValueError, RecursionError):
            raise EndpointError("the language-model server's answer is no whole JSON.", retryable=True) from None

    def late(self) -> EndpointError:
        """There was no whole answer in time."""
        return EndpointError(
            f"the language-model server at {self.host} gave no whole answer within {self.endpoint.timeout_s:g} s.",
            hint="Raise llm_timeout_s or use a smaller model.",
        )

    def broken(self, error: httpx.HTTPError) -> EndpointError:
        """The connection failed."""
        return EndpointError(
            f"the language-model server at {self.host} failed: {self.shown(str(error)) or type(error).__name__}.",
            hint="Check that it runs and that llm_base_url is right.",
            retryable=True,
        )

    def shown(self, text: str) -> str:
        """What a server says, fit to be shown: without the key, on one line, short."""
        key = self.endpoint.api_key
        if key is not None:
            text = text.replace(key.get_secret_value(), "***")
        return "".join(char if char.isprintable() else " " for char in " ".join(text.split()))[:200].rstrip(". ")

    def _events(self, response: httpx.Response, deadline: float, on_piece: Callable[[str], None] | None) -> Any:
        events, size = EventReader(on_piece), 0
        for piece in self._pieces(response, deadline):
            size += len(piece)
            if size > MAX_REPLY_BYTES:
                raise _too_large()
            events.feed(piece)
            if events.error is not None:
                raise self._said(events.error, events.status or response.status_code, events.status)
            if events.done:
                break
        if not events.whole:
            raise EndpointError(
                f"the language-model server at {self.host} broke off in the middle of its answer.", retryable=True
            )
        return events.completion()

    def _bytes(self, response: httpx.Response, limit: int, deadline: float) -> bytes:
        """At most a little more than ``limit`` bytes of the body."""
        blob = bytearray()
        for piece in self._pieces(response, deadline):
            blob += piece
            if len(blob) > limit:
                break
        return bytes(blob)

    def _pieces(self, response: httpx.Response, deadline: float) -> Iterator[bytes]:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise EndpointError("the language-model server compresses its answers although asked not to.")
        for piece in response.iter_raw():
            yield piece
            if time.monotonic() > deadline:
                raise self.late()
        if time.monotonic() > deadline:  # an answer without a length ends where it was cut off
            raise self.late()

    def _redirected(self, response: httpx.Response, status: int) -> EndpointError:
        try:
            host = urlsplit(response.headers.get("location", "")).hostname or "elsewhere"
        except ValueError:
            host = "elsewhere"
        return EndpointError(
            f"the language-model server at {self.host} redirects to {self.shown(host)}; that is not followed.",
            hint="Set llm_base_url to where it really is.",
            status=status,
        )

    def _refused(self, response: httpx.Response, status: int, deadline: float) -> EndpointError:
        said = _error_text(self._bytes(response, MAX_ERROR_BYTES, deadline)[:MAX_ERROR_BYTES])
        return self._said(said, status, status, response.headers.get("retry-after"))

    def _said(self, text: str, shown: int, status: int | None, retry_after: str | None = None) -> EndpointError:
        """The error that a server answered with; one in the middle of a stream may pass, whatever it is."""
        hint = {
            401: "Check FLAWSCOPE_LLM_API_KEY.",
            403: "Check FLAWSCOPE_LLM_API_KEY.",
            404: "Check llm_model, and that llm_base_url ends as the server's documentation says, mostly in /v1.",
            413: "The question is too long for it.",
            429: "It is busy, or its quota is used up.",
        }.get(shown)
        said = self.shown(text)
        return EndpointError(
            f"the language-model server at {self.host} answered {shown}{f': {said}' if said else ''}.",
            hint=hint,
            retryable=status is None or status in PASSING,
            status=status,
            retry_after=retry_after,
        )


def _too_large() -> EndpointError:
    return EndpointError(f"the language-model server's answer is larger than {MAX_REPLY_BYTES} bytes.")


def _error_text(blob: bytes) -> str:
    """The message of an error's body, whichever of the usual forms it has."""
    text = blob.decode("utf-8", "replace")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return "" if text.lstrip().startswith("<") else text  # a proxy's web page says nothing in 200 letters
    found = body.get("error", body.get("message", body.get("detail", ""))) if isinstance(body, dict) else body
    if isinstance(found, dict):
        found = found.get("message", "")
    return found if isinstance(found, str) else ""
