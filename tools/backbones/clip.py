"""The CLIP backbone: pictures and prompts in one space, so that words can say what is wrong.

Notable: the picture is fitted into a square canvas, its sides rounded to whole patches. The canvas around it is never
computed, so a slim part costs less than a square one and the padding has no colour that could matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...agent.errors import BackendError
from .base import VisualFeatures
from .clip_checkpoint import LoadedClip, find_checkpoint, load_checkpoint

PROMPTS_AT_ONCE = 64
PROMPT_SETS_KEPT = 256


def load_clip(
    weights: Path | None, model_name: str, *, image_size_px: int, home_models: Path, device: str | None = None
) -> ClipBackbone:
    """Load the backbone from a file on this machine.

    Args:
        weights: a checkpoint, or a folder in open_clip's local form; None for the weights in the home.
        model_name: open_clip architecture with its activation.
        image_size_px: side of the canvas; rounded down to whole patches.
        home_models: the home's folder of models.
        device: torch device; None for CUDA where there is one.

    Raises:
        WeightsError: the weights are missing (told without loading anything), damaged, or do not fit.
        MissingExtraError: torch or open_clip is not installed.
        ConfigError: the architecture is unknown or cannot be used.
    """
    loaded = load_checkpoint(find_checkpoint(weights, model_name, home_models))
    return ClipBackbone(loaded, image_size_px=image_size_px, device=device)


def fit_grid(height: int, width: int, side: int) -> tuple[int, int]:
    """The patch grid (h, w) of a picture in a canvas of ``side`` patches: the longer side fills it, none is below 2."""
    scale = side / max(height, width)
    return max(2, round(height * scale)), max(2, round(width * scale))


class ClipBackbone:
    """CLIP's towers with dense tokens.

    Attributes:
        model: the open_clip module, frozen, for training code.
        model_name: its architecture.
        layers: blocks whose tokens are given, counted from 1.
        patch_px: side of a patch in model pixels.
        image_size_px: side of the canvas.
    """

    name = "clip"
    has_text = True

    def __init__(self, loaded: LoadedClip, *, image_size_px: int, device: str | None = None) -> None:
        import torch

        from .clip_tower import default_layers

        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.model: Any = loaded.model.to(self.device)
        self.model_name = loaded.model_name
        self.weights_sha256 = loaded.sha256
        self.layers: tuple[int, ...] = default_layers(len(self.model.visual.transformer.resblocks))
        self.patch_px: int = self.model.visual.patch_size[0]
        self._side = max(2, image_size_px // self.patch_px)
        self.image_size_px = self._side * self.patch_px
        self._tokenizer = loaded.tokenizer
        self._mean = torch.tensor(loaded.mean, device=self.device).reshape(1, 3, 1, 1)
        self._std = torch.tensor(loaded.std, device=self.device).reshape(1, 3, 1, 1)
        self._texts: dict[tuple[str, ...], NDArray[np.float32]] = {}

    def letterbox(self, batch: NDArray[np.uint8]) -> tuple[Any, Any, tuple[int, int]]:
        """Fit pictures into the canvas.

        Args:
            batch: uint8 RGB (B, H, W, 3).

        Returns:
            Normalised pixels, float32 tensor (B, 3, S, S), zero around the picture; which patches of the canvas show
            it, bool tensor (N,); and their grid (h, w).

        Raises:
            BackendError: the batch has the wrong shape or dtype.
        """
        import torch

        if batch.ndim != 4 or batch.shape[-1] != 3 or batch.dtype != np.uint8 or min(batch.shape[:3]) < 1:
            raise BackendError(f"expected uint8 pictures (B, H, W, 3), got {batch.dtype} {batch.shape}.")
        h, w = fit_grid(batch.shape[1], batch.shape[2], self._side)
        height, width = h * self.patch_px, w * self.patch_px
        if batch.shape[1:3] != (height, width):
            bicubic = Image.Resampling.BICUBIC  # what CLIP was trained on; it averages when it shrinks
            batch = np.stack([np.asarray(Image.fromarray(p).resize((width, height), bicubic)) for p in batch])
        picture = torch.tensor(batch, device=self.device).permute(0, 3, 1, 2).float() / 255.0
        top, left = (self._side - h) // 2, (self._side - w) // 2
        y, x = top * self.patch_px, left * self.patch_px
        pixels = picture.new_zeros(len(batch), 3, self.image_size_px, self.image_size_px)
        pixels[:, :, y : y + height, x : x + width] = (picture - self._mean) / self._std
        valid = torch.zeros(self._side, self._side, dtype=torch.bool, device=self.device)
        valid[top : top + h, left : left + w] = True
        return pixels, valid.flatten(), (h, w)

    def encode_image(self, batch: NDArray[np.uint8]) -> VisualFeatures:
        """Patch tokens of ``layers`` from the V-V path, float32 (B, N, D), and the class token's feature (B, D).

        All are in the space shared with text and of unit length. See ``Backbone.encode_image``.
        """
        import torch

        from .clip_tower import vision_forward

        pixels, valid, grid = self.letterbox(batch)
        # A CPU is busy with a single picture; of eight at once it only spills more out of its caches.
        at_once = 1 if self.device == "cpu" else len(batch)
        with torch.inference_mode():
            seen = [
                vision_forward(self.model.visual, part, layers=self.layers, valid=valid)
                for part in pixels.split(at_once)
            ]
            layers = [
                torch.cat(parts).cpu().numpy() for parts in zip(*(part.patch_tokens for part in seen), strict=True)
            ]
            whole = torch.cat([part.global_features for part in seen]).cpu().numpy()
        return VisualFeatures(patch_tokens=tuple(layers), global_features=whole, grid=grid)

    def encode_text(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Embed prompts, float32 (len(prompts), D), unit length; a set that was seen before costs nothing.

        Raises:
            BackendError: a prompt is longer than the text tower reads.
        """
        key = tuple(prompts)
        if key not in self._texts:
            if len(self._texts) >= PROMPT_SETS_KEPT:
                self._texts.pop(next(iter(self._texts)))
            features = self._embed_prompts(key)
            features.flags.writeable = False  # it is handed out again
            self._texts[key] = features
        return self._texts[key]

    def token_ids(self, prompts: Sequence[str]) -> Any:
        """Prompts as token ids, int64 tensor (len(prompts), context length).

        Raises:
            BackendError: a prompt is longer than the text tower reads.
        """
        room = self.model.context_length - 2  # start and end of text
        for prompt in prompts:
            if len(self._tokenizer.encode(prompt)) > room:
                raise BackendError(f"the prompt {prompt[:40]!r}… is longer than CLIP reads ({room} tokens).")
        return self._tokenizer(list(prompts)).to(self.device)

    def _embed_prompts(self, prompts: tuple[str, ...]) -> NDArray[np.float32]:
        import torch

        from .clip_tower import text_forward

        if not prompts:
            return np.zeros((0, self.model.visual.proj.shape[1]), np.float32)
        token_ids = self.token_ids(prompts)
        with torch.inference_mode():
            parts = [text_forward(self.model, part) for part in token_ids.split(PROMPTS_AT_ONCE)]
        features: NDArray[np.float32] = torch.cat(parts).cpu().numpy()
        return features
