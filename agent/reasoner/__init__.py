"""Reasoners by name. Adding one is a file in this folder and a line in ``REASONERS``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .base import DraftReport, EvidenceBundle, Reasoner, ReasonerReply, RetrievedDocument

if TYPE_CHECKING:
    from ..settings import LoadedSettings
    from ..vision_language import OnText
    from ..vision_language.latent import NormalImages

__all__ = [
    "REASONERS",
    "DraftReport",
    "EvidenceBundle",
    "Reasoner",
    "ReasonerReply",
    "RetrievedDocument",
    "load_reasoner",
]


def _evidence(loaded: LoadedSettings, on_text: OnText | None) -> Reasoner:
    from .evidence import EvidenceReasoner

    return EvidenceReasoner()


def _model(name: str) -> Callable[[LoadedSettings, OnText | None], Reasoner]:
    """A vision-language model of that name as a reasoner."""

    def load(loaded: LoadedSettings, on_text: OnText | None) -> Reasoner:
        from ..vision_language.loading import load_model
        from .model_reasoner import ModelReasoner

        if loaded.settings.latent and name != "qwen_vl":
            raise ConfigError(
                f"latent reasoning needs a model in this process, which {name} is not.",
                hint="Unset latent, or set reasoner to qwen_vl.",
            )
        normals = _normals(loaded) if loaded.settings.latent else None
        model, max_tokens = load_model(loaded, name), loaded.settings.vlm_max_tokens
        if loaded.settings.latent:
            from ..vision_language.qwen import QwenModel
            from .latent_reasoner import LatentModelReasoner

            if isinstance(model, QwenModel):  # in tests another model may stand for it
                return LatentModelReasoner(model, normals=normals, name=name, max_tokens=max_tokens, on_text=on_text)
        return ModelReasoner(model, name=name, max_tokens=max_tokens, on_text=on_text)

    return load


def _normals(loaded: LoadedSettings) -> NormalImages | None:
    """What latent reasoning did to good parts, by the file that the settings name; None when they name none."""
    from ..vision_language.latent import LatentSettings
    from ..vision_language.latent.normals import load_normals
    from ..vision_language.loading import weights_identity

    path = loaded.settings.latent_normals
    weights = "" if path is None else weights_identity(loaded)
    if path is None or not weights:  # a checkpoint that is not there is told when it is loaded
        return None
    return load_normals(path.expanduser(), weights=weights, settings=LatentSettings())


REASONERS: dict[str, Callable[[LoadedSettings, OnText | None], Reasoner]] = {
    "evidence": _evidence,
    "qwen_vl": _model("qwen_vl"),
    "openai_api": _model("openai_api"),
}


def load_reasoner(loaded: LoadedSettings, *, on_text: OnText | None = None) -> Reasoner:
    """Make the reasoner that the settings name.

    Args:
        loaded: the settings.
        on_text: sees a model's answer grow.

    Raises:
        ConfigError: no reasoner of that name.
        FlawscopeError: the model behind it cannot be loaded; see ``vision_language.loading.load_model``.
    """
    try:
        load = REASONERS[loaded.settings.reasoner]
    except KeyError:
        known = ", ".join(sorted(REASONERS))
        raise ConfigError(f"unknown reasoner {loaded.settings.reasoner!r}.", hint=f"Known: {known}.") from None
    return load(loaded, on_text)
