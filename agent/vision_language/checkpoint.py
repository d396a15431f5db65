"""Load a Qwen2.5-VL checkpoint from a folder: safetensors only, every weight present, nothing from the network."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import BackendError, ConfigError, MissingExtraError, WeightsError
from .memory import MAX_PICTURES, MAX_PROMPT, Bounds, allowed_bytes, token_cost

COMPUTED = ("rotary_emb.inv_freq", "rotary_pos_emb.inv_freq")
"""End the names of numbers that some save beside the weights and that follow from the config."""
MODEL_TYPE = "qwen2_5_vl"
Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "bfloat16"]
HEADROOM = 1.25
"""Memory that must be free, as a multiple of the weights: activations, the prefix cache and the pictures need some."""
FOUR_BIT_SHARE = 0.32
"""Of 16-bit weights that remain after 4-bit quantisation, scales and the unquantised embedding included."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A loaded model with its processor.

    Attributes:
        folder: where it came from.
        model: ``Qwen2_5_VLForConditionalGeneration``, in eval mode, without gradients for its weights.
        processor: its ``Qwen2_5_VLProcessor``.
        device: where the model lies.
        parameters: how many.
        laboratory: what the config says of a model that is no product, such as the mini checkpoint; empty for others.
        adapter: folder of the LoRA adapter that was put into it; None for the checkpoint as it is.
        bounds: what one question may take.
        lock: held by whoever runs the model.
        features: merged features of pictures that were looked at, latest last; shared like the model.
    """

    folder: Path
    model: Any
    processor: Any
    device: str
    parameters: int
    laboratory: dict[str, Any]
    adapter: Path | None = None
    bounds: Bounds = field(default_factory=Bounds)
    lock: Any = field(default_factory=threading.RLock)
    features: OrderedDict[str, Any] = field(default_factory=OrderedDict)


def check_folder(folder: Path) -> dict[str, Any]:
    """Look at a checkpoint without loading it.

    Args:
        folder: with config.json and safetensors.

    Returns:
        Its config.

    Raises:
        WeightsError: it is not there, incomplete, or only holds pickled weights.
        ConfigError: it is a model of another kind.
    """
    if not folder.is_dir():
        raise WeightsError(
            f"no Qwen2.5-VL checkpoint in {folder}.",
            hint="Run: flawscope models pull qwen2.5-vl-7b (or -3b), or set vlm_weights to a checkpoint's folder.",
        )
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = config.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"{folder / 'config.json'} cannot be read.", hint="Fetch the checkpoint again.") from error
    if kind != MODEL_TYPE:
        raise ConfigError(
            f"{folder} holds a model of the kind {str(kind)[:40]!r}, not {MODEL_TYPE!r}.",
            hint="Serve other models and use --profile served (docs/serving.md).",
        )
    shards = _shards(folder)
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing or not shards:
        what = f"lacks {', '.join(missing[:3])}" if missing else "has no .safetensors file"
        raise WeightsError(
            f"the checkpoint in {folder} {what}.", hint="Fetch it again; pickled weights (.bin, .pt) are not loaded."
        )
    return config


def _shards(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise WeightsError(f"{index} cannot be read.", hint="Fetch the checkpoint again.") from error
    return [folder / Path(str(name)).name for name in sorted(names)]


def load_checkpoint(
    folder: Path,
    *,
    device: Device = "auto",
    dtype: Dtype = "auto",
    four_bit: bool = False,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    adapter: Path | None = None,
    memory: float | None = None,
    max_pictures: int = MAX_PICTURES,
    max_prompt: int = MAX_PROMPT,
) -> Checkpoint:
    """Load a checkpoint.

    Args:
        folder: a Qwen2.5-VL checkpoint as transformers saves it.
        device: ``auto`` takes CUDA where there is one.
        dtype: ``auto`` is bfloat16 on CUDA and float32 on the CPU, where bfloat16 is slower than it saves.
        four_bit: quantise the weights while loading (CUDA only).
        min_pixels: of a picture inside the model, smaller ones are enlarged; None for the checkpoint's own.
        max_pixels: larger ones are reduced; None for the checkpoint's own.
        adapter: folder of a LoRA adapter that is put into it, for comparison; None for none.
        memory: that weights and questions may take together: a share of the device's up to 1, bytes above; None for
            what is free now.
        max_pictures: of one question.
        max_prompt: tokens of one question, pictures included.

    Raises:
        WeightsError: the checkpoint is absent, damaged, or leaves weights at random values.
        ConfigError: another kind of model, one with further parts, or 4 bits without CUDA.
        MissingExtraError: transformers, torch or bitsandbytes is not installed.
        BackendError: there is not enough memory.
    """
    config = check_folder(folder)
    try:
        import torch
        from safetensors import SafetensorError
        from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration
        from transformers.utils import logging
    except ImportError as error:
        raise MissingExtraError("a vision-language model in this process", "vlm") from error
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if where == "cuda" and not torch.cuda.is_available():
        raise ConfigError("vlm_device is cuda, but this machine has no usable CUDA device.", hint="Set it to auto.")
    kind = {"auto": torch.bfloat16 if where == "cuda" else torch.float32}.get(dtype) or getattr(torch, dtype)
    allowed = allowed_bytes(memory, where)
    _check_memory(folder, where, 4 if kind is torch.float32 else 2, four_bit, allowed)
    logging.disable_progress_bar()
    options = _quantisation(where) if four_bit else {"dtype": kind}
    try:
        model, report = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **options
        )
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    except torch.OutOfMemoryError as error:
        raise _no_memory(folder, where) from error
    except (
        OSError,
        ValueError,
        RuntimeError,
        KeyError,
        TypeError,
        SafetensorError,
    ) as error:  # what a damaged checkpoint raises
        said = " ".join(str(error).split())[:200]
        raise WeightsError(f"the checkpoint in {folder} cannot be loaded: {said}.", hint="Fetch it again.") from error
    absent = sorted(str(key) for key in report["missing_keys"]) + [
        str(key) for key in report.get("mismatched_keys", ())
    ]
    if absent:
        raise WeightsError(
            f"the checkpoint in {folder} leaves {len(absent)} weights at random values, such as {str(absent[0])[:80]}.",
            hint="Fetch it again; an answer of random weights would be worse than none.",
        )
    foreign = sorted(str(key) for key in report["unexpected_keys"] if not str(key).endswith(COMPUTED))
    if foreign:
        raise ConfigError(
            f"the checkpoint in {folder} has {len(foreign)} weights that Qwen2.5-VL has no place for, such as"
            f" {foreign[0][:80]}.",
            hint="It is another model, whose own code this one does not run: serve it and use --profile served.",
        )
    if not four_bit:
        model = model.to(where)
    model.eval().requires_grad_(False)
    _bound_pictures(processor, min_pixels, max_pixels)
    count = sum(p.numel() for p in model.parameters())
    if adapter is not None:
        from .adapter import add_adapter
        from .identity import checkpoint_sha256

        add_adapter(model, adapter, checkpoint_sha256(folder))
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    left = None if allowed is None else max(0, allowed - weights)
    cost = token_cost(model.config.get_text_config(), 4 if kind is torch.float32 else 2)
    bounds = Bounds(max_pictures, max_prompt, left, None if left is None else cost)
    laboratory = dict(config.get("flawscope") or {})
    return Checkpoint(folder, model, processor, where, count, laboratory, adapter, bounds)


def _quantisation(where: str) -> dict[str, Any]:
    import importlib.util

    if where != "cuda":
        raise ConfigError("vlm_4bit needs CUDA.", hint="Unset it, or serve a quantised model (docs/serving.md).")
    if importlib.util.find_spec("bitsandbytes") is None or importlib.util.find_spec("accelerate") is None:
        raise MissingExtraError("4-bit weights", "quantised")
    import torch
    from transformers import BitsAndBytesConfig

    bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    return {"quantization_config": bits, "device_map": {"": "cuda"}, "dtype": torch.bfloat16}


def _check_memory(folder: Path, where: str, bytes_each: int, four_bit: bool, allowed: int | None) -> None:
    """Refuse before loading what cannot fit: a machine that swaps is a machine that hangs."""
    stored = sum(shard.stat().st_size for shard in _shards(folder))  # 16-bit in every published checkpoint
    needed = HEADROOM * stored * (FOUR_BIT_SHARE if four_bit else bytes_each / 2)
    if allowed is not None and needed > allowed:
        raise BackendError(
            f"the checkpoint in {folder} needs about {needed / 2**30:.1f} GiB on {where}, {allowed / 2**30:.1f} GiB are"
            " free or allowed.",
            hint="Raise vlm_memory if it is set, use a smaller checkpoint, vlm_4bit on CUDA, or a server (--profile"
            " served).",
        )


def _no_memory(folder: Path, where: str) -> BackendError:
    return BackendError(
        f"the checkpoint in {folder} does not fit into the memory of {where}.",
        hint="Use a smaller checkpoint, vlm_4bit on CUDA, or a server (--profile served).",
    )


def _bound_pictures(processor: Any, min_pixels: int | None, max_pixels: int | None) -> None:
    size = dict(processor.image_processor.size)
    if min_pixels is not None:
        size["shortest_edge"] = min_pixels
    if max_pixels is not None:
        size["longest_edge"] = max_pixels
    size["shortest_edge"] = min(size["shortest_edge"], size["longest_edge"])
    processor.image_processor.size = type(processor.image_processor.size)(**size)
