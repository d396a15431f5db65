"""A CLIP whose weights are random numbers: how long it takes, and nothing else, can be learnt from it.

Published weights may not be at hand where times are measured, and the time of a forward pass does not depend on them.
Nothing outside ``bench expert`` comes here: the checkpoint is a temporary file, gone once it is loaded, and its hash is
in no catalogue. It is read by the loader that reads every checkpoint.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..agent.errors import MissingExtraError
from ..tools.ad_expert.text_anchors import GENERIC, TextAnchors

if TYPE_CHECKING:
    from ..tools.backbones.clip import ClipBackbone

ARCHITECTURE = "ViT-L-14-336-quickgelu"
LABEL = "random weights, timing only"


def require_clip() -> None:
    """Find out, without importing anything, whether CLIP could be loaded.

    Raises:
        MissingExtraError: torch, open_clip or safetensors is not installed.
    """
    if not all(importlib.util.find_spec(name) for name in ("torch", "open_clip", "safetensors")):
        raise MissingExtraError("Timing CLIP (leave it out with --clip off)", "clip")


def random_clip(model_cfg: dict[str, Any] | None = None) -> ClipBackbone:
    """Load a CLIP of random weights at the picture size of its architecture, on the CPU.

    Args:
        model_cfg: open_clip's description of the model; ViT-L/14 at 336 px when None.

    Raises:
        MissingExtraError: torch, open_clip or safetensors is not installed.
    """
    require_clip()
    import open_clip
    import torch
    from safetensors.torch import save_file

    from ..tools.backbones.clip import load_clip

    config = model_cfg or open_clip.get_model_config(ARCHITECTURE)
    with tempfile.TemporaryDirectory(prefix="flawscope-random-clip-") as name, torch.random.fork_rng():
        folder = Path(name)
        torch.manual_seed(0)
        state = open_clip.model.CLIP(**config).state_dict()
        halves = {key: value.half().contiguous() for key, value in state.items() if value.is_floating_point()}
        del state
        save_file(halves, folder / "open_clip_model.safetensors")
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}), encoding="utf-8")
        side: int = config["vision_cfg"]["image_size"]
        return load_clip(folder, ARCHITECTURE, image_size_px=side, home_models=folder, device="cpu")


def random_anchors(dim: int) -> TextAnchors:
    """Two random directions of the joint space in place of embedded sentences, as the cache would hand them out."""
    rows = np.random.default_rng(0).normal(size=(2, dim))
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return TextAnchors(unit[0], unit[1:], (GENERIC,))
