"""Backbones by name. Adding one is a file in this folder and a line in ``BACKBONES``."""

from __future__ import annotations

from collections.abc import Callable

from ...agent.errors import ConfigError
from .base import Backbone, VisualFeatures

__all__ = ["BACKBONES", "Backbone", "VisualFeatures", "load_backbone"]


def _efficientnet_lite2() -> Backbone:
    from .onnx_lite import EfficientNetLite2

    return EfficientNetLite2()


BACKBONES: dict[str, Callable[[], Backbone]] = {"efficientnet-lite2": _efficientnet_lite2}


def load_backbone(name: str) -> Backbone:
    """Load a backbone.

    Raises:
        ConfigError: no backbone of that name.
        WeightsError: its weights are missing or damaged.
        MissingExtraError: it needs an optional dependency.
    """
    try:
        loader = BACKBONES[name]
    except KeyError:
        raise ConfigError(f"unknown backbone {name!r}.", hint=f"Known: {', '.join(sorted(BACKBONES))}.") from None
    return loader()
