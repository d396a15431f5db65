"""Builds a tiny CLIP of random weights in open_clip's local form: the real architecture, small enough for a test.

python tests/full/tiny_clip.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

MODEL_CFG: dict[str, Any] = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 48, "patch_size": 8, "layers": 8, "width": 64, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 12},
}


def tiny_config(layers: int = 8) -> dict[str, Any]:
    """MODEL_CFG with an image tower of so many blocks; ViT-L has 24."""
    return {**MODEL_CFG, "vision_cfg": {**MODEL_CFG["vision_cfg"], "layers": layers}}


def tiny_model(seed: int = 0, layers: int = 8) -> Any:
    """The model in memory, in evaluation mode; the same for the same seed."""
    import open_clip
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.model.CLIP(**tiny_config(layers))
        # Fresh biases and norms are zero and one; a checkpoint where they are not cannot hide that one was forgotten.
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or ".ln_" in f".{name}":
                parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def build_tiny_clip(folder: Path, seed: int = 0, layers: int = 8) -> Path:
    """Write config, ``open_clip_model.safetensors`` and ``open_clip_pytorch_model.pt``.

    Returns:
        The folder, which the setting clip_weights takes.
    """
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = tiny_model(seed, layers).state_dict()
    config = {"model_cfg": tiny_config(layers), "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2))
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "open_clip_model.safetensors")
    torch.save(state, folder / "open_clip_pytorch_model.pt")
    return folder


if __name__ == "__main__":
    print(build_tiny_clip(Path(sys.argv[1])))  # noqa: T201
