"""Test doubles that are public, so that integrators can test their graphs as we test ours."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError
from .base import DraftReport, EvidenceBundle, ReasonerReply


class ScriptedReasoner:
    """Answers from a queue: replies are returned, exceptions raised; an empty queue is an error.

    Attributes:
        seen: every bundle it was given, in order.
    """

    name = "scripted"

    def __init__(self, script: Iterable[ReasonerReply | Exception]) -> None:
        self.script = deque(script)
        self.seen: list[EvidenceBundle] = []

    def reason(
        self, evidence: EvidenceBundle, images: Sequence[NDArray[np.uint8]], schema: type[DraftReport]
    ) -> ReasonerReply:
        """Return the next scripted reply."""
        self.seen.append(evidence)
        if not self.script:
            raise BackendError("the scripted reasoner has no reply left.")
        reply = self.script.popleft()
        if isinstance(reply, Exception):
            raise reply
        return reply
