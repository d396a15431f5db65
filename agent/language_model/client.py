"""One question to a chat server: sent, waited for, retried, and read.

The key goes to the configured server and nowhere else: redirects are not followed, a proxy of the environment is used
over https alone, where it sees no more than the server's name, and the key is taken out of whatever the server says
before that is shown. Answers are read piece by piece and requests are cut off when their time is over, so that neither
an answer's size nor a server that trickles can hold the caller.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from ..errors import EndpointError
from .deadline import cut_off_after
from .endpoint import Endpoint
from .messages import ChatMessage, ChatReply, parse_reply
from .retrying import PASSING, wait_s

MAX_REPLY_BYTES = 8_000_000
MAX_ERROR_BYTES = 20_000
CONNECT_S = 10.0
OLD_LIMIT, NEW_LIMIT = "max_tokens", "max_completion_tokens"
"""Names of the answer's length: every engine knows the old one, some hosted models refuse it and name the new one."""
_DIRECT: dict[str, None] = dict.fromkeys(("http://", "all://localhost", "all://127.0.0.1", "all://[::1]"))
"""Asked without a proxy: it could read a key that goes by http, and this machine's own addresses it cannot reach."""
_ONE_EACH = httpx.Limits(max_connections=None, max_keepalive_connections=0)
"""A connection for each question, see `cut_off_after`; beside an answer's time that costs nothing."""


class ChatClient:
    """Asks one server; may be shared by threads.

    Args:
        endpoint: which.
        sleep: waits between tries.

    Raises:
        EndpointError: the environment's proxies or certificates cannot be used.
    """

    def __init__(self, endpoint: Endpoint, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.endpoint = endpoint
        self._sleep = sleep
        self._slots = threading.BoundedSemaphore(endpoint.concurrency)
        self._limit_name = OLD_LIMIT
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "flawscope"}
        if endpoint.api_key is not None:
            headers["Authorization"] = f"Bearer {endpoint.api_key.get_secret_value()}"
        try:
            self._http = httpx.Client(headers=headers, follow_redirects=False, mounts=_DIRECT, limits=_ONE_EACH)
        except (ImportError, ValueError, OSError, httpx.InvalidURL):  # what they say may hold a proxy's password
            raise EndpointError(
                "no connection to a language model can be made with this environment.",
                hint="Check HTTPS_PROXY, ALL_PROXY (http:// or https://, not socks) and SSL_CERT_FILE.",
            ) from None
        self._random = random.Random()  # noqa: S311  # spreads retries, guards nothing

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def complete(
        self,
        messages: Sequence[ChatMessage],
        *,
        max_tokens: int = 1024,
        temperature: float | None = None,
        response_format: dict[str, Any] | None = None,
        top_logprobs: int | None = None,
        retries: int | None = None,
    ) -> ChatReply:
        """Ask once, and again after failures that may pass.

        Args:
            messages: the conversation.
            max_tokens: the answer's length at most.
            temperature: None for the server's own.
            response_format: the protocol's, such as ``{"type": "json_object"}``.
            top_logprobs: ask for the log-probabilities of so many tokens at each place.
            retries: None for the endpoint's.

        Raises:
            EndpointError: no usable answer within the endpoint's time.
        """
        body: dict[str, Any] = {
            "model": self.endpoint.model,
            "messages": [message.wire() for message in messages],
            self._limit_name: max_tokens,
        }
        if temperature is not None:
            body["temperature"] = temperature
        if response_format is not None:
            body["response_format"] = response_format
        if top_logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": top_logprobs}
        deadline = time.monotonic() + self.endpoint.timeout_s
        allowed = self.endpoint.retries if retries is None else retries
        attempt = 0
        while True:
            try:
                return parse_reply(self._try(body, deadline), self.endpoint.model, attempt + 1)
            except EndpointError as error:
                if error.status == 400 and NEW_LIMIT in error.message and body.pop(OLD_LIMIT, None) is not None:
                    self._limit_name = NEW_LIMIT
                    body[NEW_LIMIT] = max_tokens
                    continue
                wait = wait_s(attempt, error.retry_after, datetime.now(UTC), self._random.random())
                in_time = time.monotonic() + wait < deadline
                if not error.retryable or attempt >= allowed or not in_time:
                    raise _given_up(error, attempt + 1, wait if error.retry_after and not in_time else None) from None
            self._sleep(wait)
            attempt += 1

    def _try(self, body: dict[str, Any], deadline: float) -> Any:
        """The decoded answer to one request."""
        left = deadline - time.monotonic()
        if left <= 0 or not self._slots.acquire(timeout=left):
            raise EndpointError(
                f"no answer from the language model within {self.endpoint.timeout_s:g} s.",
                hint="Raise llm_timeout_s, or llm_concurrency if many ask at once.",
            )
        try:
            return self._post(body, deadline)
        finally:
            self._slots.release()

    def _post(self, body: dict[str, Any], deadline: float) -> Any:
        left = max(deadline - time.monotonic(), 0.001)
        timeout = httpx.Timeout(left, connect=min(CONNECT_S, left))
        url = f"{self.endpoint.base_url}/chat/completions"
        with cut_off_after(left) as (trace, over):
            traced = {"trace": trace}
            try:
                with self._http.stream("POST", url, json=body, timeout=timeout, extensions=traced) as response:
                    return self._read(response, deadline)
            except httpx.ConnectTimeout:
                raise EndpointError(
                    f"the language-model server at {self._host} cannot be reached.",
                    hint="Check llm_base_url.",
                    retryable=True,
                ) from None
            except httpx.TimeoutException:
                raise self._late() from None
            except httpx.HTTPError as error:
                raise self._late() if over.is_set() else self._broken(error) from None
            except (httpx.InvalidURL, UnicodeError):
                raise EndpointError(
                    f"there can be no language-model server at {self._shown(self._host)}.", hint="Check llm_base_url."
                ) from None

    def _late(self) -> EndpointError:
        return EndpointError(
            f"the language-model server at {self._host} gave no whole answer within {self.endpoint.timeout_s:g} s.",
            hint="Raise llm_timeout_s or use a smaller model.",
        )

    def _broken(self, error: httpx.HTTPError) -> EndpointError:
        return EndpointError(
            f"the language-model server at {self._host} failed: {self._shown(str(error)) or type(error).__name__}.",
            hint="Check that it runs and that llm_base_url is right.",
            retryable=True,
        )

    def _read(self, response: httpx.Response, deadline: float) -> Any:
        status = response.status_code
        if 300 <= status < 400:
            try:
                host = urlsplit(response.headers.get("location", "")).hostname or "elsewhere"
            except ValueError:
                host = "elsewhere"
            raise EndpointError(
                f"the language-model server at {self._host} redirects to {self._shown(host)}; that is not followed.",
                hint="Set llm_base_url to where it really is.",
                status=status,
            )
        if status != httpx.codes.OK:
            raise self._refused(response, status, deadline)
        blob = self._bytes(response, MAX_REPLY_BYTES, deadline)
        if len(blob) > MAX_REPLY_BYTES:
            raise EndpointError(f"the language-model server's answer is larger than {MAX_REPLY_BYTES} bytes.")
        try:
            return json.loads(blob)
        except (ValueError, RecursionError):
            raise EndpointError("the language-model server's answer is no whole JSON.", retryable=True) from None

    def _bytes(self, response: httpx.Response, limit: int, deadline: float) -> bytes:
        """At most a little more than ``limit`` bytes of the body."""
        if response.headers.get("content-encoding", "identity") != "identity":
            raise EndpointError("the language-model server compresses its answers although asked not to.")
        blob = bytearray()
        for piece in response.iter_raw():
            blob += piece
            if len(blob) > limit:
                break
            if time.monotonic() > deadline:
                raise self._late()
        if time.monotonic() > deadline:  # an answer without a length ends where it was cut off
            raise self._late()
        return bytes(blob)

    def _refused(self, response: httpx.Response, status: int, deadline: float) -> EndpointError:
        said = self._shown(_error_text(self._bytes(response, MAX_ERROR_BYTES, deadline)[:MAX_ERROR_BYTES]))
        hint = {
            401: "Check FLAWSCOPE_LLM_API_KEY.",
            403: "Check FLAWSCOPE_LLM_API_KEY.",
            404: "Check llm_model, and that llm_base_url ends as the server's documentation says, mostly in /v1.",
            413: "The question is too long for it.",
            429: "It is busy, or its quota is used up.",
        }.get(status)
        return EndpointError(
            f"the language-model server at {self._host} answered {status}{f': {said}' if said else ''}.",
            hint=hint,
            retryable=status in PASSING,
            status=status,
            retry_after=response.headers.get("retry-after"),
        )

    @property
    def _host(self) -> str:
        return urlsplit(self.endpoint.base_url).netloc

    def _shown(self, text: str) -> str:
        """What a server says, fit to be shown: without the key that some repeat, on one line, short."""
        key = self.endpoint.api_key
        if key is not None:
            text = text.replace(key.get_secret_value(), "***")
        return "".join(char if char.isprintable() else " " for char in " ".join(text.split()))[:200].rstrip(". ")


def _given_up(error: EndpointError, tries: int, asked_wait_s: float | None) -> EndpointError:
    """The last failure, with what was done about it."""
    if asked_wait_s is not None:
        error.hint = f"It asks to wait {asked_wait_s:.0f} s, longer than llm_timeout_s allows."
    elif tries > 1:
        error.message = f"{error.message} It was asked {tries} times."
    return error


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
