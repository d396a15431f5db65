"""LoRA adapters on a local checkpoint, for comparing fine-tuning with evidence in the prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import MissingExtraError, WeightsError

FORMAT = "flawscope-lora-1"
ADAPTER_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"


def add_adapter(model: Any, folder: Path, model_sha256: str) -> None:
    """Put an adapter into a model, in place.

    Args:
        model: ``Qwen2_5_VLForConditionalGeneration``.
        folder: with ``adapter_model.safetensors`` and ``adapter_config.json``, of ``flawscope train lora`` or of PEFT.
        model_sha256: of the model's checkpoint; an adapter that names another one is refused.

    Raises:
        MissingExtraError: peft is not installed.
        WeightsError: there is no adapter, it is damaged, pickled, or does not fit the model.
    """
    folder = folder.expanduser()
    if not (folder / ADAPTER_FILE).is_file() or not (folder / CONFIG_FILE).is_file():
        raise WeightsError(f"no LoRA adapter in {folder}.", hint="Train one: flawscope train lora.")
    try:
        from peft import LoraConfig, inject_adapter_in_model
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise MissingExtraError("A LoRA adapter", "lora") from error
    damaged = WeightsError(f"the LoRA adapter in {folder} is damaged.", hint="Train it again, or fetch it again.")
    try:
        with safe_open(folder / ADAPTER_FILE, framework="pt") as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        kind = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")).get("peft_type")
    except (OSError, SafetensorError, ValueError, AttributeError) as error:
        raise damaged from error
    if header.get("model_sha256", model_sha256) != model_sha256:
        raise WeightsError(
            f"the LoRA adapter in {folder} was trained on {header.get('model', 'another checkpoint')[:40]}"
            " of other weights.",
            hint="Give the checkpoint that it was trained on.",
        )
    if kind != "LORA":
        raise WeightsError(f"the adapter in {folder} is no LoRA adapter.", hint="Only LoRA is taken.")
    try:
        inject_adapter_in_model(LoraConfig.from_pretrained(folder), model)
        places = {stored_name(name): value for name, value in model.named_parameters() if ".lora_" in name}
        if {name: value.shape for name, value in places.items()} != {n: v.shape for n, v in state.items()}:
            raise WeightsError(
                f"the LoRA adapter in {folder} does not fit this model.", hint="Give its own checkpoint."
            )
        for name, value in places.items():
            value.data.copy_(state[name])
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise damaged from error
    model.eval().requires_grad_(False)


def stored_name(parameter: str) -> str:
    """What PEFT calls a matrix of an adapter in its file.

    >>> stored_name("model.layers.0.q_proj.lora_A.default.weight")
    'base_model.model.model.layers.0.q_proj.lora_A.weight'
    """
    return f"base_model.model.{parameter.replace('.default.', '.')}"
