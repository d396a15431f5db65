"""The Backbone contract: pictures in, patch tokens out.

A backbone owns its weights and the preprocessing that belongs to them. It never sees files; `tools.imaging` decodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class VisualFeatures:
    """What a backbone sees in a batch of pictures of one size.

    Attributes:
        patch_tokens: one float32 array (B, N, D_l) per layer, shallow to deep; N = h * w in raster order.
        global_features: float32 (B, D), one vector per picture.
        grid: (h, w), the patch grid shared by all layers.
    """

    patch_tokens: tuple[NDArray[np.float32], ...]
    global_features: NDArray[np.float32]
    grid: tuple[int, int]


@runtime_checkable
class Backbone(Protocol):
    """A frozen feature extractor.

    Attributes:
        name: registry name.
        weights_sha256: hash of the weights, recorded in every report.
        has_text: whether ``encode_text`` works, and patch tokens and global features lie in its space.
    """

    name: str
    weights_sha256: str
    has_text: bool

    @property
    def image_size_px(self) -> int | None:
        """Side of the square canvas that pictures are fitted into; None when they are seen at the size given."""
        ...

    def encode_image(self, batch: NDArray[np.uint8]) -> VisualFeatures:
        """Extract features.

        Args:
            batch: uint8 RGB (B, H, W, 3), all of one size; any H, W of at least 32 px.

        Returns:
            Features whose grid covers the whole picture, edge to edge.

        Raises:
            BackendError: the batch has the wrong shape or dtype, or the runtime failed.
        """
        ...

    def encode_text(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Embed prompts, float32 (len(prompts), D), unit norm.

        Raises:
            BackendError: the backbone has no text tower.
        """
        ...
