"""Which words an inspection compares pictures with, by what is configured and what was built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import ConfigError
from ...agent.home import Home
from ..backbones import Backbone, VisualFeatures
from .prompt_ensemble import ensemble_anchors
from .text_anchors import TextAnchors

if TYPE_CHECKING:
    from ...agent.settings import LoadedSettings
    from .picture_prompts import PicturePrompts
    from .type_centroids import TypeCentroids, TypeMatch


@dataclass(frozen=True)
class TypePrompts:
    """Words for the likely defect types of a picture.

    Attributes:
        centroids: what a first look is matched with.
        folder: where embedded prompts are kept.
        sha256: of the centroids.
        noun: the part's name; None for a word that fits any part.
    """

    centroids: TypeCentroids
    folder: Path
    sha256: str
    noun: str | None = None

    def choose(
        self, backbone: Backbone, features: VisualFeatures, patch_scores: NDArray[np.float32]
    ) -> tuple[TextAnchors, TypeMatch]:
        """Anchors for a second look at the first picture of a batch, and the types that they name (perhaps none).

        Args:
            backbone: the one that the centroids were made with.
            features: of the first look.
            patch_scores: float32 (h, w), of the first look.
        """
        from .type_prompts import anchors_of_picture

        return anchors_of_picture(backbone, self.centroids, features, patch_scores, noun=self.noun, folder=self.folder)


def configured_anchors(backbone: Backbone, loaded: LoadedSettings) -> TextAnchors | None:
    """The anchors of the first look: trained prompts where the settings name them, else the generic prompt ensemble.

    Args:
        backbone: any.
        loaded: the settings; the ensemble's anchors are kept in their home between runs.

    Returns:
        None for a backbone without a text tower.

    Raises:
        ConfigError: trained prompts for a backbone without a text tower.
        MissingExtraError: trained prompts need safetensors.
        StorageError: the anchors cannot be kept.
        WeightsError: the trained prompts are missing, damaged, made for other weights, or depend on the picture, so
            that there are no anchors to keep.
    """
    check_words(backbone, loaded)
    if not backbone.has_text:
        return None
    if loaded.settings.trained_prompts is not None:
        from .trained_prompts import load_trained_prompts

        return load_trained_prompts(loaded.settings.trained_prompts, backbone)
    return ensemble_anchors(backbone, folder=loaded.home.anchors)


def configured_picture_prompts(backbone: Backbone, loaded: LoadedSettings) -> PicturePrompts | None:
    """Trained prompts that depend on the picture, where the settings name such.

    Args:
        backbone: one with a text tower.
        loaded: the settings.

    Returns:
        None without trained prompts, and for those that do not depend on the picture.

    Raises:
        ConfigError: they depend on the picture, and the backbone is not CLIP.
        MissingExtraError: trained prompts need safetensors.
        WeightsError: the trained prompts are missing, damaged, or made for other weights.
    """
    if loaded.settings.trained_prompts is None:
        return None
    from .trained_prompts import read_header

    file = read_header(loaded.settings.trained_prompts, backbone.weights_sha256)
    if not file.of_each_picture:
        return None
    from ..backbones.clip import ClipBackbone
    from .picture_prompts import load_picture_prompts

    if not isinstance(backbone, ClipBackbone):
        raise ConfigError(f"prompts that depend on the picture are for CLIP, not for {backbone.name}.")
    return load_picture_prompts(file, backbone)


def check_words(backbone: Backbone, loaded: LoadedSettings) -> None:
    """Refuse words that the backbone could not be asked about.

    Raises:
        ConfigError: trained prompts for a backbone without a text tower.
    """
    if loaded.settings.trained_prompts is not None and not backbone.has_text:
        raise ConfigError(
            f"the setting trained_prompts ({loaded.origins['trained_prompts']}) is for CLIP; the backbone"
            f" {backbone.name} has no text tower.",
            hint="Use the profile paper, or leave trained_prompts empty.",
        )


def configured_type_prompts(backbone: Backbone, home: Home) -> TypePrompts | None:
    """The type-level prompts, where ``flawscope kb types build`` made centroids for this backbone.

    Returns:
        None without centroids: every picture is then compared with the generic anchors alone.

    Raises:
        KnowledgeError: the centroids are damaged.
    """
    from .type_store import load_centroids

    stored = load_centroids(home, backbone)
    return None if stored is None else TypePrompts(stored.centroids, home.anchors, str(stored.card["sha256"]))
