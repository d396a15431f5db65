"""Reasoners by name. Adding one is a file in this folder and a line in ``REASONERS``."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ConfigError
from .base import DraftReport, EvidenceBundle, Reasoner, ReasonerReply, RetrievedDocument

__all__ = [
    "REASONERS",
    "DraftReport",
    "EvidenceBundle",
    "Reasoner",
    "ReasonerReply",
    "RetrievedDocument",
    "load_reasoner",
]


def _evidence() -> Reasoner:
    from .evidence import EvidenceReasoner

    return EvidenceReasoner()


REASONERS: dict[str, Callable[[], Reasoner]] = {"evidence": _evidence}


def load_reasoner(name: str) -> Reasoner:
    """Make a reasoner.

    Raises:
        ConfigError: no reasoner of that name.
    """
    try:
        return REASONERS[name]()
    except KeyError:
        raise ConfigError(f"unknown reasoner {name!r}.", hint=f"Known: {', '.join(sorted(REASONERS))}.") from None
