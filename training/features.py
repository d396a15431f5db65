"""Features of a frozen backbone, computed once per picture and kept on disk.

A file's name is the hash of all that decides its content: the pixels as the backbone is shown them, and its weights.
It is written atomically, so that a run that is killed leaves whole files only. Numbers are kept as float16; what is
read back is therefore the same whether a picture was just computed or found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..agent.home import write_atomically
from ..tools.ad_expert.expert import ExpertConfig, prepare
from ..tools.ad_expert.reference_head import HeadMemory, fit_memory
from ..tools.ad_expert.reference_views import fit_references
from ..tools.array_files import ARRAY_DAMAGE
from ..tools.backbones import Backbone, VisualFeatures


@dataclass(frozen=True)
class FeatureCache:
    """Features by content.

    Attributes:
        folder: where files are kept; made when first written.
        backbone: the frozen one.
        config: how pictures are prepared for it.
    """

    folder: Path
    backbone: Backbone
    config: ExpertConfig

    def key(self, prepared: NDArray[np.uint8]) -> str:
        """Hash of the pixels that the backbone is shown, and of the backbone."""
        digest = hashlib.sha256(f"{self.backbone.weights_sha256} {prepared.shape}".encode())
        digest.update(np.ascontiguousarray(prepared).tobytes())
        return digest.hexdigest()

    def remember(self, pictures: Sequence[NDArray[np.uint8]]) -> HeadMemory:
        """The memory of references, uint8 (H, W, 3) each.

        Raises:
            ProductError: there are fewer than two.
        """
        prepared = [prepare(rgb, self.config) for rgb in pictures]
        features = [self.features(rgb) for rgb in pictures]
        return fit_memory(fit_references(prepared, features, self.backbone, self.config), features)

    def features(self, rgb: NDArray[np.uint8]) -> VisualFeatures:
        """Features of a picture, uint8 (H, W, 3); computed when they are not there, or cannot be read."""
        prepared = prepare(rgb, self.config)
        name = self.key(prepared)
        path = self.folder / name[:2] / f"{name}.npz"
        try:
            return _read(path)
        except FileNotFoundError:
            pass
        except ARRAY_DAMAGE:  # a damaged file costs one forward pass, no more
            path.unlink(missing_ok=True)
        found = self.backbone.encode_image(prepared[None])

        def write(temporary: Path) -> None:
            layers = {f"layer{i}": tokens[0].astype(np.float16) for i, tokens in enumerate(found.patch_tokens)}
            with temporary.open("wb") as file:
                np.savez(file, grid=np.array(found.grid), whole=found.global_features.astype(np.float16), **layers)

        write_atomically(path, write)
        return _read(path)


def _read(path: Path) -> VisualFeatures:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        count = sum(name.startswith("layer") for name in archive.files)
        layers = tuple(archive[f"layer{i}"][None].astype(np.float32) for i in range(count))
        grid = archive["grid"]
        return VisualFeatures(layers, archive["whole"].astype(np.float32), (int(grid[0]), int(grid[1])))
