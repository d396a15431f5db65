"""One question to a chat server: sent, waited for, retried, and read.

The key goes to the configured server and nowhere else: redirects are not followed, a proxy of the environment is used
over https alone, where it sees no more than the server's name, and the key is taken out of whatever the server says
before that is shown (`reading`). Answers are read piece by piece and requests are cut off when their time is over, so
that neither an answer's size nor a server that trickles can hold the caller.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import httpx

from ..errors import EndpointError
from .connecting import connect_in_time
from .deadline import cut_off_after
from .endpoint import Endpoint
from .messages import ChatMessage, ChatReply, parse_reply
from .reading import AnswerReader
from .retrying import UNSUPPORTED, wait_s
from .streaming import Shown

OLD_LIMIT, NEW_LIMIT = "max_tokens", "max_completion_tokens"
"""Names of the answer's length: every engine knows the old one, some hosted models refuse it and name the new one."""
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
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
        self._reader = AnswerReader(endpoint)
        self._limit_name = OLD_LIMIT
        self._streams = True
        headers = {
            "Accept": "application/json, text/event-stream",
            "Accept-Encoding": "identity",
            "User-Agent": "flawscope",
        }
        if endpoint.api_key is not None:
            headers["Authorization"] = f"Bearer {endpoint.api_key.get_secret_value()}"
        try:
            self._http = httpx.Client(headers=headers, follow_redirects=False, mounts=_DIRECT, limits=_ONE_EACH)
        except (ImportError, ValueError, OSError, httpx.InvalidURL):  # what they say may hold a proxy's password
            raise EndpointError(
                "no connection to a language model can be made with this environment.",
                hint="Check HTTPS_PROXY, ALL_PROXY (http:// or https://, not socks) and SSL_CERT_FILE.",
            ) from None
        connect_in_time(self._http)
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
        seed: int | None = None,
        response_format: dict[str, Any] | None = None,
        top_logprobs: int | None = None,
        tools: Sequence[dict[str, Any]] = (),
        on_text: Callable[[str], None] | None = None,
        retries: int | None = None,
        deadline: float | None = None,
    ) -> ChatReply:
        """Ask once, and again after failures that may pass; after a piece was shown they no longer may.

        Args:
            messages: the conversation.
            max_tokens: the answer's length at most.
            temperature: None for the server's own.
            seed: of its sampling; None for the server's own.
            response_format: the protocol's, such as ``{"type": "json_object"}``.
            tools: that the model may call, as the protocol describes them; not together with ``on_text``.
            top_logprobs: ask for the log-probabilities of so many tokens at each place.
            on_text: sees the answer grow; all of it at once where the server does not stream.
            retries: None for the endpoint's.
            deadline: of ``time.monotonic()``, where several questions share their time; None: the endpoint's from now.

        Raises:
            EndpointError: no usable answer in that time.
        """
        body: dict[str, Any] = {
            "model": self.endpoint.model,
            "messages": [message.wire() for message in messages],
            self._limit_name: max_tokens,
        }
        given = {"temperature": temperature, "seed": seed, "response_format": response_format}
        body |= {name: value for name, value in given.items() if value is not None}
        if top_logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": top_logprobs}
        if tools:
            body["tools"] = list(tools)
        if on_text is not None and self._streams:
            body |= STREAM
        shown = None if on_text is None else Shown(on_text)
        end = time.monotonic() + self.endpoint.timeout_s if deadline is None else deadline
        reply = self._answered(body, shown, self.endpoint.retries if retries is None else retries, end)
        if shown is not None:
            shown.finish(reply.text)
            self._streams = "stream" in body
        return reply

    def _answered(self, body: dict[str, Any], shown: Shown | None, retries: int, deadline: float) -> ChatReply:
        """The answer of the first try that succeeds; takes out of the body what the server does not know."""
        attempt = 0
        while True:
            if shown is not None:
                shown.begin()
            try:
                answer = self._try(body, deadline, None if shown is None else shown.add)
                return parse_reply(answer, self.endpoint.model, attempt + 1)
            except EndpointError as error:
                over = shown is not None and bool(shown.text)  # what was shown cannot be taken back
                if not over and self._simplified(body, error):
                    continue
                wait = wait_s(attempt, error.retry_after, datetime.now(UTC), self._random.random())
                in_time = time.monotonic() + wait < deadline
                if over or not error.retryable or attempt >= retries or not in_time:
                    raise _given_up(error, attempt + 1, wait if error.retry_after and not in_time else None) from None
            self._sleep(wait)
            attempt += 1

    def _simplified(self, body: dict[str, Any], error: EndpointError) -> bool:
        """Whether the question can be asked in another way after this refusal."""
        if error.status == 400 and NEW_LIMIT in error.message and OLD_LIMIT in body:
            self._limit_name = NEW_LIMIT
            body[NEW_LIMIT] = body.pop(OLD_LIMIT)
            return True
        if error.status in UNSUPPORTED and "stream" in body:
            for name in STREAM:
                del body[name]
            return True
        return False

    def _try(self, body: dict[str, Any], deadline: float, on_piece: Callable[[str], None] | None) -> Any:
        """The decoded answer to one request."""
        left = deadline - time.monotonic()
        if left <= 0 or not self._slots.acquire(timeout=left):
            raise EndpointError(
                f"no answer from the language model within {self.endpoint.timeout_s:g} s.",
                hint="Raise llm_timeout_s, or llm_concurrency if many ask at once.",
            )
        try:
            return self._post(body, deadline, on_piece)
        finally:
            self._slots.release()

    def _post(self, body: dict[str, Any], deadline: float, on_piece: Callable[[str], None] | None) -> Any:
        left = max(deadline - time.monotonic(), 0.001)
        url = f"{self.endpoint.base_url}/chat/completions"
        answering = False
        with cut_off_after(left) as (trace, over):
            traced = {"trace": trace}
            try:
                with self._http.stream("POST", url, json=body, timeout=left, extensions=traced) as response:
                    answering = True
                    return self._reader.read(response, deadline, on_piece)
            except httpx.ConnectTimeout:
                raise EndpointError(
                    f"the language-model server at {self._reader.host} cannot be reached.",
                    hint="Check llm_base_url.",
                    retryable=True,
                ) from None
            except httpx.TimeoutException:
                raise self._reader.late() from None
            except httpx.HTTPError as error:
                raise self._reader.late() if over.is_set() else self._reader.broken(error) from None
            except (httpx.InvalidURL, UnicodeError):
                if answering:  # whoever is shown the answer cannot write it
                    raise
                raise EndpointError(
                    f"there can be no language-model server at {self._reader.shown(self._reader.host)}.",
                    hint="Check llm_base_url.",
                ) from None


def _given_up(error: EndpointError, tries: int, asked_wait_s: float | None) -> EndpointError:
    """The last failure, with what was done about it."""
    if asked_wait_s is not None:
        error.hint = f"It asks to wait {asked_wait_s:.0f} s, longer than llm_timeout_s allows."
    elif tries > 1:
        error.message = f"{error.message} It was asked {tries} times."
    return error
