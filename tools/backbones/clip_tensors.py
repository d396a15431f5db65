"""Reading checkpoints: safetensors, torch's own files (tensors only), and OpenAI's TorchScript programs."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

from ...agent.errors import WeightsError
from ..weights import published_by_sha256

_DAMAGE = (
    RuntimeError,
    pickle.UnpicklingError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    AttributeError,
    struct.error,
)
"""What torch's readers raise on files that are cut off or not theirs."""


def read_tensors(path: Path, sha256: str) -> dict[str, Any]:
    """The checkpoint's tensors by name, without running any code that came with them.

    Args:
        path: .safetensors, a file of ``torch.save`` (a state dict, or a training checkpoint with one), or a published
            TorchScript program.
        sha256: of the file.

    Raises:
        WeightsError: the file is damaged, holds something else, or is an unknown program.
    """
    import torch
    from safetensors import SafetensorError

    damaged = "Fetch the file again, or check it: flawscope models verify."
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            loaded: Any = load_file(path)
        elif _is_torchscript(path):
            loaded = _read_torchscript(path, sha256)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # what it warns of, it refuses next
                loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (*_DAMAGE, SafetensorError) as error:
        reason = " ".join(str(error).split())[:160]
        raise WeightsError(f"cannot read the CLIP weights {path}: {reason}", hint=damaged) from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds no tensors by name.", hint=damaged)
    state = {key.removeprefix("module."): value for key, value in state.items()}
    for key in ("input_resolution", "context_length", "vocab_size", "attn_mask"):  # no weights
        state.pop(key, None)
    return state


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _read_torchscript(path: Path, sha256: str) -> dict[str, Any]:
    """OpenAI published programs, not tensors; a program is only opened when it is the published one."""
    import torch

    if published_by_sha256(sha256) is None:
        raise WeightsError(
            f"{path} is a TorchScript program whose sha256 ({sha256[:12]}…) is not a published one.",
            hint="Fetch the published file, or save the weights as .safetensors.",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch wants new programs to be saved otherwise
        warnings.simplefilter("ignore", DeprecationWarning)
        program = torch.jit.load(path, map_location="cpu")
    return dict(program.state_dict())
