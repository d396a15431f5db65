"""Checkpoints of vision-language models that nobody publishes: built or fine-tuned here, among the home's models."""

from __future__ import annotations

import json
from pathlib import Path

from .catalogue import CATALOGUE, Weights, WeightsFile

QWEN_VL = "qwen2_5_vl"


def local_checkpoints(models: Path) -> dict[str, Weights]:
    """The folders below the home's models that hold a Qwen2.5-VL checkpoint and are in no catalogue, by name.

    Args:
        models: the home's folder of models, which need not be there.
    """
    found = {}
    for config in sorted(models.glob("*/config.json")):
        folder = config.parent
        if folder.name in CATALOGUE:
            continue
        try:
            said = json.loads(config.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # whatever it is, it is no checkpoint of ours
        if not isinstance(said, dict) or said.get("model_type") != QWEN_VL:
            continue
        shards = sorted(folder.glob("*.safetensors"))
        marked = said.get("flawscope")
        laboratory = isinstance(marked, dict) and bool(marked.get("laboratory"))
        found[folder.name] = Weights(
            name=folder.name,
            purpose="reasoner (laboratory animal)" if laboratory else "reasoner",
            licence="see its card",
            size_mb=round(sum(shard.stat().st_size for shard in shards) / 1e6),
            files=tuple(WeightsFile(file.name, "") for file in (*shards, config)),
        )
    return found
