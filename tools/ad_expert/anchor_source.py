"""Which text anchors an inspection uses, by its settings."""

from __future__ import annotations

from ...agent.home import Home
from ..backbones import Backbone
from .prompt_ensemble import ensemble_anchors
from .text_anchors import TextAnchors


def configured_anchors(backbone: Backbone, home: Home) -> TextAnchors | None:
    """The anchors for a backbone: the generic prompt ensemble, kept in the home between runs.

    Returns:
        None for a backbone without a text tower.

    Raises:
        StorageError: the anchors cannot be kept.
    """
    return ensemble_anchors(backbone, folder=home.anchors) if backbone.has_text else None
