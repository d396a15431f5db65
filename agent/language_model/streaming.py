"""An answer that comes as events: the pieces put together, and shown as they come.

Events are lines ``data: {…}`` (server-sent events) that hold what is new; the last one is ``data: [DONE]``, which some
servers leave out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from ..errors import EndpointError
from .messages import without_thoughts

THOUGHTS = "<think>"


class _Delta(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    delta: _Delta = _Delta()
    finish_reason: str | None = None
    logprobs: Any = None


class _Event(BaseModel):
    choices: list[_Choice] = []
    model: str | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


class EventReader:
    """Puts the events of one answer together.

    Attributes:
        done: the server said that it is at its end.
        error: what it said when it failed in between; None when it did not.
        status: that failure's, where it named one.

    Args:
        on_piece: sees each further piece of the raw text.
    """

    def __init__(self, on_piece: Callable[[str], None] | None = None) -> None:
        self.done = False
        self.error: str | None = None
        self.status: int | None = None
        self._on_piece = on_piece
        self._rest = b""
        self._text: list[str] = []
        self._refusal = ""
        self._tokens: list[Any] = []
        self._finish: str | None = None
        self._model: str | None = None
        self._usage: dict[str, Any] | None = None

    @property
    def whole(self) -> bool:
        """Whether the answer came to its end."""
        return self.done or self._finish is not None

    def feed(self, piece: bytes) -> None:
        """Take what came.

        Raises:
            EndpointError: an event is of another protocol.
        """
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._take(line.removeprefix(b"data:").strip())

    def completion(self) -> dict[str, Any]:
        """The answer as the protocol writes it when it comes at once."""
        message = {"content": "".join(self._text), "refusal": self._refusal or None}
        logprobs = {"content": self._tokens} if self._tokens else None
        choice = {"message": message, "finish_reason": self._finish, "logprobs": logprobs}
        return {"model": self._model, "usage": self._usage, "choices": [choice]}

    def _take(self, data: bytes) -> None:
        if data == b"[DONE]":
            self.done = True
            return
        try:
            event = _Event.model_validate(json.loads(data))
        except (ValueError, RecursionError):  # pydantic's is a ValueError too
            raise EndpointError(
                "the language-model server's stream has an event that is none.", retryable=True
            ) from None
        if event.error is not None:
            self._failed(event.error)
            return
        self._model = event.model or self._model
        self._usage = event.usage or self._usage
        for choice in event.choices[:1]:
            self._finish = choice.finish_reason or self._finish
            self._refusal += choice.delta.refusal or ""
            if isinstance(choice.logprobs, dict) and isinstance(choice.logprobs.get("content"), list):
                self._tokens += choice.logprobs["content"]
            if choice.delta.content:
                self._text.append(choice.delta.content)
                if self._on_piece is not None:
                    self._on_piece(choice.delta.content)

    def _failed(self, error: Any) -> None:
        found = error if isinstance(error, dict) else {"message": error}
        code = found.get("code")
        self.error = str(found.get("message") or "")
        self.status = code if isinstance(code, int) and 400 <= code < 600 else None


class Shown:
    """Shows an answer as it grows: without the thoughts before it and the blanks around it.

    Attributes:
        text: what was shown.

    Args:
        on_text: sees each further piece.
    """

    def __init__(self, on_text: Callable[[str], None]) -> None:
        self.text = ""
        self._on_text = on_text
        self._raw = ""

    def begin(self) -> None:
        """Forget an answer of which nothing was shown."""
        self._raw = ""

    def add(self, piece: str) -> None:
        """Take a further piece of the raw text."""
        self._raw += piece
        start = self._raw.lstrip()
        if len(start) < len(THOUGHTS) and THOUGHTS.startswith(start):
            return  # thoughts may be beginning
        self.finish(without_thoughts(self._raw))

    def finish(self, text: str) -> None:
        """Show what is new in the answer so far.

        An answer that turns out to have been thoughts (some templates open them in the prompt) begins anew.
        """
        new = text.removeprefix(self.text) if text.startswith(self.text) else text
        if new:
            self.text = text
            self._on_text(new)
