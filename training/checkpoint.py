"""Checkpoints: everything that decides the rest of a run, in one safetensors file that is replaced atomically.

Weights, the optimiser's moments, the state of torch's random generators, and in the header the step and the history.
The order of the data is a function of seed and epoch, so that the step is all there is to its position.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..agent.errors import WeightsError
from ..agent.home import write_atomically


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        step: optimiser steps done.
        losses: mean training loss of each finished epoch.
        scores: held-out score of each finished epoch, higher is better; None where there is nothing to judge by.
        best_epoch: epoch of the best weights, 0 is the first.
    """

    step: int = 0
    losses: list[float] = field(default_factory=list)
    scores: list[float | None] = field(default_factory=list)
    best_epoch: int = -1
    epoch_loss: float = 0.0


def save_checkpoint(
    path: Path,
    module: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    best: Mapping[str, torch.Tensor],
    progress: Progress,
    fingerprint: str,
) -> None:
    """Write a checkpoint; a reader finds the old one or the whole new one.

    Args:
        path: the file.
        module: its state is stored.
        optimiser: its per-parameter tensors are stored.
        best: state of the best epoch so far, empty before the first.
        progress: stored in the header.
        fingerprint: of configuration and data; ``load_checkpoint`` refuses another one.

    Raises:
        StorageError: the disk refuses.
    """
    tensors = {f"module.{name}": value for name, value in module.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    for index, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in moments.items()}
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    header = {"fingerprint": fingerprint, "progress": json.dumps(asdict(progress))}
    write_tensors(path, tensors, header)


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], header: Mapping[str, str]) -> None:
    """Write tensors as safetensors; a reader finds the old file or the whole new one.

    Args:
        path: the file.
        tensors: by name; they may share memory, which the format does not allow.
        header: of the file.

    Raises:
        StorageError: the disk refuses.
    """
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    write_atomically(path, lambda temporary: save_file(plain, temporary, dict(header)))


def load_checkpoint(
    path: Path, module: torch.nn.Module, optimiser: torch.optim.Optimizer, fingerprint: str
) -> tuple[Progress, dict[str, torch.Tensor]]:
    """Continue where a checkpoint stands; torch's random state is set too.

    Returns:
        The progress and the best state.

    Raises:
        WeightsError: the file is damaged, or was written by a run with other data or another configuration.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"the checkpoint {path} is damaged.", hint="Train without --resume.") from error
    if header.get("fingerprint") != fingerprint:
        raise WeightsError(
            f"the checkpoint {path} belongs to a run with other data or settings.", hint="Give another --out."
        )
    module.load_state_dict(_part(tensors, "module."))
    state: dict[int, dict[str, Any]] = {}
    for name, value in _part(tensors, "optimiser.").items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    torch.set_rng_state(tensors["random.cpu"])
    if torch.cuda.is_available() and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"])
    return Progress(**json.loads(header["progress"])), _part(tensors, "best.")


def state_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """Hash of names, shapes and bytes of a state, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _part(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
