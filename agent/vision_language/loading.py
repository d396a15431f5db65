"""Vision-language models by name, as the settings describe them. Adding one is a file here and a line in ``MODELS``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..errors import ConfigError, WeightsError
from ..settings import LoadedSettings
from .base import VisionLanguageModel
from .identity import adapter_sha256, checkpoint_sha256

ANSWERS_DEPEND_ON = (
    "vlm_4bit",
    "vlm_dtype",
    "vlm_min_pixels",
    "vlm_max_pixels",
    "vlm_max_pictures",
    "vlm_max_prompt",
)
"""Settings under which one checkpoint gives other answers: its numbers, and what it is shown."""


def checkpoint_folder(loaded: LoadedSettings) -> Path:
    """Where the local checkpoint is: the folder that was set, else the one of ``vlm_model`` among the home's models."""
    settings = loaded.settings
    return (
        loaded.home.models / settings.vlm_model if settings.vlm_weights is None else settings.vlm_weights.expanduser()
    )


def weights_identity(loaded: LoadedSettings) -> str:
    """What tells a model from another of its name: what was measured with one says nothing of another.

    Returns:
        For a local checkpoint hashes of its weights and of an adapter's with the settings that change its answers, for
        a model behind a server its address. Empty for a reasoner without a model, and for weights that are not there
        or cannot be read, which whoever loads them says.
    """
    settings = loaded.settings
    if settings.reasoner == "openai_api":
        return f"at {settings.llm_base_url}, vlm_max_pixels {settings.vlm_max_pixels}"
    if settings.reasoner != "qwen_vl":
        return ""
    try:
        parts = [f"checkpoint {checkpoint_sha256(checkpoint_folder(loaded))}"]
        parts += [f"{name} {getattr(settings, name)}" for name in ANSWERS_DEPEND_ON]
        if settings.vlm_adapter is not None:
            parts.append(f"adapter {adapter_sha256(settings.vlm_adapter.expanduser())}")
    except WeightsError:
        return ""
    return ", ".join(parts)


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
