"""Vision-language models by name, as the settings describe them. Adding one is a file here and a line in ``MODELS``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..errors import ConfigError
from ..settings import LoadedSettings
from .base import VisionLanguageModel


def checkpoint_folder(loaded: LoadedSettings) -> Path:
    """Where the local checkpoint is: the folder that was set, else the one of ``vlm_model`` among the home's models."""
    settings = loaded.settings
    return (
        loaded.home.models / settings.vlm_model if settings.vlm_weights is None else settings.vlm_weights.expanduser()
    )


def weights_identity(loaded: LoadedSettings) -> str:
    """What tells a local checkpoint from another of its name: its files and an adapter's, with sizes and times.

    Empty for a model behind a server, and for a checkpoint that is not there.
    """
    if loaded.settings.reasoner != "qwen_vl":
        return ""
    adapter = loaded.settings.vlm_adapter
    folders = [checkpoint_folder(loaded), *([] if adapter is None else [adapter.expanduser()])]
    files = [file for folder in folders for file in sorted(folder.glob("*.safetensors"))]
    return ", ".join(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files)


def _qwen_vl(loaded: LoadedSettings) -> VisionLanguageModel:
    from .sharing import shared_checkpoint

    settings = loaded.settings
    checkpoint = shared_checkpoint(
        checkpoint_folder(loaded),
        device=settings.vlm_device,
        dtype=settings.vlm_dtype,
        four_bit=settings.vlm_4bit,
        min_pixels=settings.vlm_min_pixels,
        max_pixels=settings.vlm_max_pixels,
        adapter=settings.vlm_adapter,
        memory=settings.vlm_memory,
        max_pictures=settings.vlm_max_pictures,
        max_prompt=settings.vlm_max_prompt,
    )
    from .qwen import QwenModel  # imports torch, whose absence the checkpoint has named by now

    return QwenModel(checkpoint)


def _openai_api(loaded: LoadedSettings) -> VisionLanguageModel:
    from ..language_model import ChatClient, configured_endpoint
    from .served import ServedModel

    return ServedModel(ChatClient(configured_endpoint(loaded.settings)), max_pixels=loaded.settings.vlm_max_pixels)


MODELS: dict[str, Callable[[LoadedSettings], VisionLanguageModel]] = {"qwen_vl": _qwen_vl, "openai_api": _openai_api}


def load_model(loaded: LoadedSettings, name: str | None = None) -> VisionLanguageModel:
    """Load a model; the weights of a local one are in memory once, however often this is called, until all closed it.

    Args:
        loaded: the settings.
        name: of ``MODELS``; the setting ``reasoner`` when None.

    Raises:
        ConfigError: no model of that name.
        WeightsError: its checkpoint is absent or damaged.
        MissingExtraError: what it runs on is not installed.
        BackendError: there is not enough memory, or its server is away.
    """
    name = loaded.settings.reasoner if name is None else name
    if name not in MODELS:
        raise ConfigError(
            f"no vision-language model is called {name!r}.",
            hint=f"Known: {', '.join(sorted(MODELS))}. Use --profile paper-3b or set reasoner.",
        )
    return MODELS[name](loaded)
