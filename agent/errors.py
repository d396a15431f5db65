"""Every failure Flawscope can name, and the exit code the command line gives it.

    FlawscopeError                     never raised itself
    ├── ConfigError            2       settings, profiles, arguments
    │   └── ReviewConflictError 2      ... or a review that somebody else has changed meanwhile
    ├── InputError             4       an image that cannot be inspected
    ├── ProductError           5       an unknown, incomplete or damaged product
    ├── KnowledgeError         6       a knowledge base that is damaged or invalid
    │   ├── KnowledgeLockedError 6     ... or owned by another process
    │   └── KnowledgeUnreachableError 6  ... or on a server that is away
    ├── BackendError           7       a model, server or reasoner that failed
    │   └── EndpointError      7       ... or a language model's server, or an answer of it
    ├── MissingExtraError      8       an optional dependency that is not installed
    ├── WeightsError           9       weights that are missing or do not match their hash
    └── StorageError          10       a disk that is full, read-only or not writable

A message is one line that says what is wrong and what to do next. Codes 0, 1 and 3 are verdicts
(OK, NG, REVIEW) and 130 is an interruption by the user; no error uses them.
"""

from __future__ import annotations

from typing import ClassVar


class FlawscopeError(Exception):
    """Base of all errors raised on purpose.

    Attributes:
        exit_code: what the command line exits with when this error ends it.
        code: stable name of the error class in records and reports, such as ``input``.
    """

    exit_code: ClassVar[int] = 4
    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """One line: what is wrong, then what to do next."""
        text = " ".join(self.message.split())
        return f"{text} {' '.join(self.hint.split())}" if self.hint else text


class ConfigError(FlawscopeError):
    """Settings, profiles or arguments that make no sense."""

    exit_code = 2
    code = "config"


class ReviewConflictError(ConfigError):
    """Somebody else has decided, confirmed or undone since this reviewer looked."""

    code = "review_conflict"


class InputError(FlawscopeError):
    """An image that cannot be read or must not be inspected."""

    exit_code = 4
    code = "input"


class ProductError(FlawscopeError):
    """A product that is unknown, has too few references or is damaged on disk."""

    exit_code = 5
    code = "product"


class KnowledgeError(FlawscopeError):
    """A knowledge base that is damaged, or a document or vector that must not enter it."""

    exit_code = 6
    code = "knowledge"


class KnowledgeLockedError(KnowledgeError):
    """The knowledge base is open in another process (Milvus Lite has a single owner)."""

    code = "knowledge_locked"


class KnowledgeUnreachableError(KnowledgeError):
    """The knowledge base is on a Milvus server that is away or does not answer in time."""

    code = "knowledge_unreachable"


class BackendError(FlawscopeError):
    """A model, server or reasoner that failed; ``retryable`` when a second try may succeed."""

    exit_code = 7
    code = "backend"

    def __init__(self, message: str, *, hint: str | None = None, retryable: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.retryable = retryable


class EndpointError(BackendError):
    """The language-model server failed or gave an answer that cannot be used.

    Attributes:
        status: HTTP status, None when there was no answer.
        retry_after: what its ``Retry-After`` said, None when it said nothing.
    """

    code = "endpoint"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        retryable: bool = False,
        status: int | None = None,
        retry_after: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, retryable=retryable)
        self.status = status
        self.retry_after = retry_after


class MissingExtraError(FlawscopeError):
    """An optional dependency is needed; the message names the pip line."""

    exit_code = 8
    code = "missing_extra"

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional part.", hint=f"Install it: pip install 'flawscope[{extra}]'")


class WeightsError(FlawscopeError):
    """Weights are missing, damaged or randomly initialised."""

    exit_code = 9
    code = "weights"


class StorageError(FlawscopeError):
    """The disk refuses: full, read-only, no permission."""

    exit_code = 10
    code = "storage"
