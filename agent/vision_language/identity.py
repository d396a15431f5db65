"""Which weights a checkpoint holds: what was trained for one must not meet another."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..errors import WeightsError
from .adapter import CONFIG_FILE

_BLOCKS, _BLOCK_BYTES = 256, 4096


def adapter_sha256(folder: Path) -> str:
    """Which adapter a folder holds: its weights as `checkpoint_sha256` tells them, and how strongly they are applied.

    Args:
        folder: with its weights and its configuration.

    Raises:
        WeightsError: one is missing or cannot be read.
    """
    weights = checkpoint_sha256(folder)
    try:
        config = (folder / CONFIG_FILE).read_bytes()
    except OSError as error:
        raise WeightsError(f"{folder / CONFIG_FILE} cannot be read.", hint="Train the adapter again.") from error
    return hashlib.sha256(weights.encode() + config).hexdigest()


def checkpoint_sha256(folder: Path) -> str:
    """Which weights a checkpoint holds, from even samples of its files: all of them would take a minute at 7B.

    Args:
        folder: with safetensors.

    Returns:
        Hash over the names, sizes and at most 256 blocks of each file; fine-tuning changes nearly every block.

    Raises:
        WeightsError: there are none, or they cannot be read.
    """
    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        raise WeightsError(f"the checkpoint in {folder} has no .safetensors file.", hint="Fetch it again.")
    digest = hashlib.sha256()
    try:
        for shard in shards:
            size = shard.stat().st_size
            digest.update(f"{shard.name} {size} ".encode())
            with shard.open("rb") as file:
                for index in range(_BLOCKS):
                    file.seek(index * max(0, size - _BLOCK_BYTES) // (_BLOCKS - 1))
                    digest.update(file.read(_BLOCK_BYTES))
    except OSError as error:
        raise WeightsError(f"the checkpoint in {folder} cannot be read.", hint="Check the disk.") from error
    return digest.hexdigest()
