"""The mind: settings, report, reasoners, conversation; the public API.

    from flawscope.agent import Inspector

    with Inspector() as inspector:
        report = inspector.inspect("part.jpg", product="transistor")

The names below are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import (
        BackendError,
        ConfigError,
        EndpointError,
        FlawscopeError,
        InputError,
        KnowledgeError,
        KnowledgeLockedError,
        KnowledgeUnreachableError,
        MissingExtraError,
        ProductError,
        ReviewConflictError,
        StorageError,
        WeightsError,
    )
    from .inspector import Inspector
    from .schemas import InspectionReport, Verdict
    from .settings import Settings, load_settings

__all__ = [
    "BackendError",
    "ConfigError",
    "EndpointError",
    "FlawscopeError",
    "InputError",
    "InspectionReport",
    "Inspector",
    "KnowledgeError",
    "KnowledgeLockedError",
    "KnowledgeUnreachableError",
    "MissingExtraError",
    "ProductError",
    "ReviewConflictError",
    "Settings",
    "StorageError",
    "Verdict",
    "WeightsError",
    "load_settings",
]

_ELSEWHERE = {
    "Inspector": "inspector",
    "InspectionReport": "schemas",
    "Verdict": "schemas",
    "Settings": "settings",
    "load_settings": "settings",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_ELSEWHERE.get(name, 'errors')}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
