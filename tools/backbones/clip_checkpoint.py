"""From settings to a CLIP model in memory: which file, is it the right one, does it fit to the letter.

Two halves. ``find_checkpoint`` looks at paths only and imports nothing heavy, so that missing weights are told at once.
``load_checkpoint`` reads the file. There is no way past it to a model of random weights: the model is made without
storage, every tensor must come from the file, and a tensor too few or too many ends it.

The activation deserves the trouble taken here: OpenAI trained with QuickGELU, x * sigmoid(1.702 x), most others with
GELU, and a checkpoint fits both without an error, only its features are slightly wrong.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...agent.errors import ConfigError, MissingExtraError, WeightsError
from ..weights import clip_weights_for, published_by_sha256, sha256_of
from ..weights.catalogue import QUICKGELU_SUFFIX
from ..weights.files import by_hand
from .clip_tensors import read_tensors

CONFIG_NAME = "open_clip_config.json"
WEIGHTS_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pt")
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Checkpoint:
    """Where a CLIP model lies.

    Attributes:
        file: its tensors.
        model_name: open_clip architecture; what the user calls it when a config describes it.
        config: the ``open_clip_config.json`` beside the file; it decides architecture, activation and normalisation.
    """

    file: Path
    model_name: str
    config: Path | None = None


@dataclass(frozen=True)
class LoadedClip:
    """A CLIP model with what belongs to its weights.

    Attributes:
        model: ``open_clip.model.CLIP`` on the CPU, float32, frozen, in evaluation mode.
        tokenizer: the open_clip tokenizer of its context length.
        mean: of the training pixels in [0, 1], per channel.
        std: likewise.
        sha256: of the file.
        model_name: architecture.
    """

    model: Any
    tokenizer: Any
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str
    model_name: str


def find_checkpoint(weights: Path | None, model_name: str, home_models: Path) -> Checkpoint:
    """Decide which file will be read; nothing is downloaded.

    Args:
        weights: a checkpoint (.pt, .bin, .safetensors) or a folder in open_clip's local form; None for the home's own.
        model_name: open_clip architecture with its activation, such as ``ViT-L-14-336-quickgelu``.
        home_models: the home's folder of models.

    Raises:
        WeightsError: it is not there; the message names the file to fetch, its origin and its place.
    """
    if weights is not None:
        path = weights.expanduser()
        if path.is_dir():
            return _in_folder(path)
        if path.is_file():
            config = path.parent / CONFIG_NAME
            described = config.is_file()
            return Checkpoint(path, path.parent.name if described else model_name, config if described else None)
        raise WeightsError(f"there are no CLIP weights at {path}.", hint="Correct the setting clip_weights.")
    entry = clip_weights_for(model_name)
    if entry is not None:
        file = entry.files[0]
        path = entry.path(file, home_models)
        if path.is_file():
            return Checkpoint(path, model_name)
        raise WeightsError(
            f"the CLIP weights for {model_name} are not here.",
            hint=f"Run: flawscope models pull {entry.name}. Or: {by_hand(entry, file, home_models)}",
        )
    other = model_name.removesuffix(QUICKGELU_SUFFIX)
    sibling = other if other != model_name else model_name + QUICKGELU_SUFFIX
    hint = "Give a checkpoint by the setting clip_weights."
    if clip_weights_for(sibling) is not None:
        hint = f"The catalogue has weights for {sibling}, which was trained with another activation. Or: {hint}"
    raise WeightsError(f"the catalogue has no CLIP weights for {model_name}.", hint=hint)


def _in_folder(folder: Path) -> Checkpoint:
    config = folder / CONFIG_NAME
    if not config.is_file():
        raise WeightsError(f"{folder} has no {CONFIG_NAME}.", hint="Give the weights file itself, or such a folder.")
    for name in WEIGHTS_NAMES:
        if (folder / name).is_file():
            return Checkpoint(folder / name, folder.name, config)
    raise WeightsError(f"{folder} has no weights.", hint=f"It should hold one of: {', '.join(WEIGHTS_NAMES)}.")


def load_checkpoint(checkpoint: Checkpoint) -> LoadedClip:
    """Read the model.

    Raises:
        MissingExtraError: torch or open_clip is not installed.
        ConfigError: open_clip knows no such architecture, or it is not a plain pair of transformers.
        WeightsError: the file is damaged, does not fit the architecture, or was trained with another activation.
    """
    try:
        import open_clip
        import safetensors  # noqa: F401 (needed further down)
        import torch
    except ImportError as error:
        raise MissingExtraError("The CLIP backbone", "clip") from error

    sha256 = sha256_of(checkpoint.file)
    described = _read_config(checkpoint.config) if checkpoint.config is not None else {}
    config = described.get("model_cfg", described) or _architecture(checkpoint.model_name)
    _require_plain(config, checkpoint.model_name)
    published = {} if described else _published_settings(checkpoint)
    _require_activation(checkpoint, bool(config.get("quick_gelu", False)), sha256, published)
    pixels = {**published, **described.get("preprocess_cfg", {})}

    state = read_tensors(checkpoint.file, sha256)
    with torch.device("meta"):
        model = open_clip.model.CLIP(**{key: value for key, value in config.items() if key != "custom_text"})
    _require_same_grid(checkpoint, model, state)
    try:
        # Copied: tensors that are mapped from a file lie at any address, and sums are rounded differently there.
        own = {key: state.pop(key).to(torch.float32, copy=True) for key in list(state)}
        model.load_state_dict(own, strict=True, assign=True)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise WeightsError(
            f"{checkpoint.file} does not fit {checkpoint.model_name}: {' '.join(lines[1:2])[:200]}",
            hint="Set clip_model to the architecture of these weights.",
        ) from error
    length = model.context_length
    causal = torch.full((length, length), float("-inf")).triu_(1)
    model.register_buffer("attn_mask", causal, persistent=False)  # it is computed, not stored
    model.requires_grad_(False)
    return LoadedClip(
        model=model.eval(),
        tokenizer=open_clip.SimpleTokenizer(context_length=length),
        mean=tuple(pixels.get("mean") or OPENAI_MEAN),
        std=tuple(pixels.get("std") or OPENAI_STD),
        sha256=sha256,
        model_name=checkpoint.model_name,
    )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot read {path}: {error}.") from error
    if not isinstance(config, dict) or "vision_cfg" not in config.get("model_cfg", config):
        raise WeightsError(f"{path} does not describe an open_clip model.")
    return config


def _architecture(model_name: str) -> dict[str, Any]:
    import open_clip

    if model_name not in open_clip.list_models():
        from difflib import get_close_matches

        close = get_close_matches(model_name, open_clip.list_models(), n=1)
        raise ConfigError(
            f"open_clip knows no model {model_name!r}.", hint=f"Did you mean {close[0]}?" if close else None
        )
    config: dict[str, Any] = open_clip.get_model_config(model_name)
    return config


def _require_plain(config: dict[str, Any], model_name: str) -> None:
    """The towers are run block by block, so only the plain form of CLIP can be used."""
    vision, text = config["vision_cfg"], config.get("text_cfg", {})
    special = {"timm_model_name", "attentional_pool", "final_ln_after_pool", "block_type", "qk_norm"} | {
        "hf_model_name", "hf_tokenizer_name", "embed_cls", "no_causal_mask", "proj_bias", "tokenizer_kwargs"
    }  # fmt: skip
    unusual = sorted(key for part in (vision, text) for key in special if part.get(key))
    pools = vision.get("pool_type", "tok") != "tok" or text.get("pool_type", "argmax") != "argmax"
    depth = vision.get("layers", 12)
    if unusual or pools or config.get("custom_text") or "multimodal_cfg" in config or not isinstance(depth, int):
        what = ", ".join(unusual) or "other towers or pooling"
        raise ConfigError(
            f"the CLIP model {model_name} cannot be used: its towers are not plain transformers ({what}).",
            hint="Use a ViT model of OpenAI's form, such as ViT-L-14-336-quickgelu.",
        )
    if depth < 4:
        raise ConfigError(f"the CLIP model {model_name} has {depth} blocks; four stages need at least 4.")


def _published_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """What open_clip knows of published weights for this architecture: by a tag in the file's name, or all alike."""
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    base = checkpoint.model_name.removesuffix(QUICKGELU_SUFFIX)
    tags = {tag: get_pretrained_cfg(base, tag) for tag in list_pretrained_tags_by_model(base)}
    named = [tag for tag in tags if tag in checkpoint.file.name.lower().replace("-", "_")]
    if named:
        tag = tags[max(named, key=len)]
        return {**tag, "quick_gelu": bool(tag.get("quick_gelu"))}
    activations = {bool(tag.get("quick_gelu")) for tag in tags.values()}
    return {"quick_gelu": activations.pop()} if len(activations) == 1 else {}


def _require_activation(checkpoint: Checkpoint, quick_gelu: bool, sha256: str, published: dict[str, Any]) -> None:
    known = published_by_sha256(sha256)
    trained_with = known.quick_gelu if known is not None and known.clip_model else published.get("quick_gelu")
    if trained_with is None or bool(trained_with) == quick_gelu:
        return
    wanted, has = ("QuickGELU", "GELU") if trained_with else ("GELU", "QuickGELU")
    base = checkpoint.model_name.removesuffix(QUICKGELU_SUFFIX)
    remedy = f"Set clip_model to {base + QUICKGELU_SUFFIX if trained_with else base}."
    if checkpoint.config is not None:
        remedy = f"Correct quick_gelu in {checkpoint.config}."
    raise WeightsError(
        f"{checkpoint.file.name} was trained with {wanted}, but {checkpoint.model_name} computes {has}.", hint=remedy
    )


def _require_same_grid(checkpoint: Checkpoint, model: Any, state: dict[str, Any]) -> None:
    """Positions of another size would load after a silent resize elsewhere; here they mean the wrong model name."""
    positions = state.get("visual.positional_embedding")
    expected = model.visual.positional_embedding.shape[0] - 1
    if positions is not None and positions.shape[0] - 1 != expected:
        found, native = (round(count**0.5) for count in (positions.shape[0] - 1, expected))
        name = checkpoint.model_name
        raise WeightsError(
            f"{checkpoint.file} has positions for a {found}x{found} grid, {name} for {native}x{native}.",
            hint="Set clip_model to the architecture of these weights.",
        )
