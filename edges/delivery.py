"""Delivers what the outbox holds, beside the inspections and never in their way.

Each destination has a thread that takes the oldest message of each part, so that a part's verdicts arrive in order and
one part's trouble is no other's. What fails is tried again after a time that doubles, up to one minute, and that is
drawn at random, so that a hundred stations do not return to a restarted broker in step. When several attempts in a row
failed, whatever the part, the destination is taken for away: one message at a time tries it until one gets through. A
message that is refused, or grew older than a week on the way, becomes a dead letter.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from ..agent.errors import FlawscopeError
from .destination import Outcome, Publisher
from .outbox import Message, Outbox

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0
AWAY_AFTER = 4
"""Failures in a row from which on the destination is taken for away; one message that fails alone is not that many."""
LONGEST_AWAY_S = 30.0
LOOK_S = 5.0
"""A person may have changed the outbox from another process: it is looked at so often."""
GIVE_UP_S = 7 * 24 * 3600.0


def backoff_s(attempts: int, chance: float, longest_s: float) -> float:
    """How long to wait after a number of failures.

    Args:
        attempts: failures so far, at least 1.
        chance: drawn evenly from [0, 1).
        longest_s: at most.

    Returns:
        Between half of and the whole of FIRST_WAIT_S doubled with each further failure.
    """
    whole = min(longest_s, FIRST_WAIT_S * 2.0 ** min(attempts - 1, 30))
    return whole * (0.5 + 0.5 * chance)


class Delivery:
    """The thread of one destination.

    Args:
        outbox: what is delivered.
        records: the file that fills it.
        publisher: how.
        on_change: called with the destination after each attempt, None for nobody.
        give_up_s: age from which on a message that still fails becomes a dead letter.
    """

    def __init__(
        self,
        outbox: Outbox,
        records: Path,
        publisher: Publisher,
        *,
        on_change: Callable[[str, Outcome], None] | None = None,
        give_up_s: float = GIVE_UP_S,
    ) -> None:
        self.failure: FlawscopeError | None = None
        self._outbox, self._records, self._publisher = outbox, records, publisher
        self._on_change, self._give_up_s = on_change, give_up_s
        self._wake, self._stop_at = threading.Event(), float("inf")
        self._in_a_row, self._away_until = 0, 0.0
        outbox.begin(publisher.destination, records)
        self._thread = threading.Thread(target=self._run, name=f"deliver {publisher.destination}", daemon=True)

    @property
    def destination(self) -> str:
        """Its address."""
        return self._publisher.destination

    @property
    def away(self) -> bool:
        """Whether the destination is taken for away."""
        return self._in_a_row >= AWAY_AFTER

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def recorded(self) -> None:
        """There are new records."""
        self._wake.set()

    def stop(self, drain_s: float) -> None:
        """Deliver what is due for a while, then end; what is left stays in the outbox.

        Args:
            drain_s: how long; an attempt that was begun is waited for.
        """
        self._stop_at = time.monotonic() + drain_s
        self._wake.set()
        self._thread.join()
        self._publisher.close()

    def _run(self) -> None:
        try:
            with ThreadPoolExecutor(self._publisher.lanes) as pool:
                self._deliver(pool)
        except FlawscopeError as error:  # the disk: whoever inspects sees it and ends, rather than publish nothing
            self.failure = error

    def check(self) -> None:
        """Raise what ended the thread, if anything did."""
        if self.failure is not None:
            raise self.failure
        if not self._thread.is_alive():
            raise RuntimeError(f"the thread that delivers to {self._publisher.destination} ended")

    def _deliver(self, pool: ThreadPoolExecutor) -> None:
        sending: dict[Future[Outcome], Message] = {}
        while True:
            self._wake.clear()  # first: what happens from here on wakes the wait below
            for done in [attempt for attempt in sending if attempt.done()]:
                self._settle(sending.pop(done), done.result())
            stopping = self._stop_at < float("inf")
            if time.monotonic() < self._stop_at:
                self._outbox.fill(self._publisher.destination, self._records, time.time())
                for message in self._next(sending):
                    attempt = pool.submit(self._publisher.send, message)
                    sending[attempt] = message
                    attempt.add_done_callback(lambda _: self._wake.set())
            if stopping and not sending:
                return
            self._wake.wait(self._pause_s(sending))

    def _free(self, sending: Mapping[Future[Outcome], Message]) -> int:
        """How many more messages may be on their way now."""
        return (1 if self.away else self._publisher.lanes) - len(sending)

    def _next(self, sending: Mapping[Future[Outcome], Message]) -> list[Message]:
        free = self._free(sending)
        if free <= 0 or time.monotonic() < self._away_until:
            return []
        busy = {message.part for message in sending.values()}
        return self._outbox.due(self._publisher.destination, time.time(), busy, free)

    def _pause_s(self, sending: Mapping[Future[Outcome], Message]) -> float | None:
        """Until when nothing can be sent unless something happens; None until then."""
        if self._free(sending) <= 0:
            return None
        due = self._outbox.next_due(self._publisher.destination, {message.part for message in sending.values()})
        pause = LOOK_S if due is None else max(due - time.time(), self._away_until - time.monotonic(), 0.0)
        return min(pause, LOOK_S)

    def _settle(self, message: Message, outcome: Outcome) -> None:
        now, asked_s = time.time(), outcome.wait_s or 0.0
        if outcome.kind == "delivered":
            self._outbox.delivered(message)
        elif outcome.kind == "refused" or now - message.created > self._give_up_s:
            self._outbox.refused(message, outcome.problem)
        else:
            wait_s = backoff_s(message.attempts + 1, random.random(), LONGEST_WAIT_S)  # noqa: S311 - jitter
            self._outbox.failed(message, outcome.problem, now + max(wait_s, asked_s))
        self._in_a_row = self._in_a_row + 1 if outcome.kind == "later" else 0
        if self.away:
            chance = random.random()  # noqa: S311 - jitter
            asked_s = max(backoff_s(self._in_a_row - AWAY_AFTER + 1, chance, LONGEST_AWAY_S), asked_s)
        self._away_until = max(self._away_until, time.monotonic() + asked_s)
        if self._on_change is not None:
            self._on_change(self._publisher.destination, outcome)
