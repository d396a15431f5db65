"""Backbones by name. Adding one is a file in this folder and a line in ``BACKBONES``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ...agent.errors import ConfigError
from .base import Backbone, VisualFeatures

if TYPE_CHECKING:
    from ...agent.settings import LoadedSettings

__all__ = ["BACKBONES", "Backbone", "VisualFeatures", "load_backbone"]


def _efficientnet_lite2(loaded: LoadedSettings) -> Backbone:
    from .onnx_lite import EfficientNetLite2

    return EfficientNetLite2()


def _clip(loaded: LoadedSettings) -> Backbone:
    from .clip import load_clip

    settings = loaded.settings
    return load_clip(
        settings.clip_weights,
        settings.clip_model,
        image_size_px=settings.clip_image_size_px,
        home_models=loaded.home.models,
    )


BACKBONES: dict[str, Callable[[LoadedSettings], Backbone]] = {
    "efficientnet-lite2": _efficientnet_lite2,
    "clip": _clip,
}


def load_backbone(name: str, loaded: LoadedSettings | None = None) -> Backbone:
    """Load a backbone.

    Args:
        name: registry name.
        loaded: the settings it reads (weights, model, size); the user's own when not given.

    Raises:
        ConfigError: no backbone of that name, or one of its settings makes no sense.
        WeightsError: its weights are missing or damaged.
        MissingExtraError: it needs an optional dependency.
    """
    try:
        loader = BACKBONES[name]
    except KeyError:
        raise ConfigError(f"unknown backbone {name!r}.", hint=f"Known: {', '.join(sorted(BACKBONES))}.") from None
    if loaded is None:
        from ...agent.settings import load_settings

        loaded = load_settings()
    return loader(loaded)
