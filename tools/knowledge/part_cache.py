"""Features of pictures, computed once for each picture and backbone and kept on disk; any file may be deleted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...agent.home import write_atomically
from ..array_files import ARRAY_DAMAGE
from ..backbones import Backbone
from .joint import PictureFeatures


@dataclass(frozen=True)
class PartCache:
    """Features by content.

    Attributes:
        folder: made when first written.
        backbone: that pictures are embedded with.
    """

    folder: Path
    backbone: Backbone

    def part(self, identity: str, read: Callable[[], NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Image part of a picture as a whole, float32 (D,); see ``features``."""
        return self._kept(identity, read, ("part",)).part

    def features(self, identity: str, read: Callable[[], NDArray[np.uint8]]) -> PictureFeatures:
        """Features of a picture as a whole.

        Args:
            identity: what tells the picture from any other, such as the hash of its file.
            read: gives the picture, uint8 (H, W, 3); called when its features are not there or cannot be read.

        Raises:
            StorageError: the disk refuses.
        """
        return self._kept(identity, read, ("part", "joint") if self.backbone.has_text else ("part",))

    def _kept(self, identity: str, read: Callable[[], NDArray[np.uint8]], wanted: tuple[str, ...]) -> PictureFeatures:
        from ..views import encode

        seen_by = f"{identity} {self.backbone.weights_sha256} {self.backbone.image_size_px}"
        name = hashlib.sha256(seen_by.encode()).hexdigest()
        path = self.folder / name[:2] / f"{name}.npz"
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
                found = {name: np.asarray(kept[name], np.float32) for name in wanted}
                return PictureFeatures(found["part"], found.get("joint"))
        except FileNotFoundError:
            pass
        except ARRAY_DAMAGE:  # damage costs one forward pass
            path.unlink(missing_ok=True)
        seen = PictureFeatures.of(encode(self.backbone, None, read()), self.backbone)
        arrays: dict[str, Any] = {"part": seen.part} if seen.joint is None else {"part": seen.part, "joint": seen.joint}

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez(file, **arrays)

        write_atomically(path, write)
        return seen
