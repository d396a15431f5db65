"""The LangGraph graphs; the names below are public and stable (docs/embedding.md says what that means).

    from flawscope.graphs import build_inspection_graph

They are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .inspection import build_inspection_graph
    from .state import InspectionInput, InspectionOutput, InspectionState

__all__ = ["InspectionInput", "InspectionOutput", "InspectionState", "build_inspection_graph"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".inspection" if name.startswith("build_") else ".state", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
