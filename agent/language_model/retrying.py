"""When to ask again, and how long to wait before."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses that may be gone at the next try."""
UNSUPPORTED = frozenset({400, 404, 415, 422, 501})
"""Statuses that servers answer when they do not know something that they are asked for, such as a format."""
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
LONGEST_ASKED_S = 1e6
"""Nobody waits for eleven days: what a server asks for beyond that is as good as for ever, and fits into a line."""


def wait_s(attempt: int, retry_after: str | None, now: datetime, jitter: float) -> float:
    """Seconds to wait before the next try.

    Args:
        attempt: 0 after the first failure.
        retry_after: the server's header, which is obeyed however long; None or unreadable to double the wait each time.
        now: with a time zone.
        jitter: in [0, 1); spreads clients that failed together over half of the wait.
    """
    asked = retry_after_s(retry_after, now)
    if asked is not None:
        return asked
    return float(min(FIRST_WAIT_S * 2.0**attempt, LONGEST_WAIT_S)) * (1.0 - 0.5 * jitter)


def retry_after_s(header: str | None, now: datetime) -> float | None:
    """Seconds that a ``Retry-After`` asks for (RFC 9110, section 10.2.3: seconds or a date); None for neither."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            date = parsedate_to_datetime(header)
        except (ValueError, OverflowError):  # a year too long for a number
            return None
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now.timestamp()
    return min(max(0.0, seconds), LONGEST_ASKED_S) if math.isfinite(seconds) else None
