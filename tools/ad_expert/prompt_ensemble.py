"""The compositional prompt ensemble: states times photo templates, one text anchor per state of a part.

After WinCLIP (Jeong et al., CVPR 2023, section 4.1): sentences that differ in everything but the state of the part
average out what a photo is like and leave the direction from normal to abnormal. The sentences are in
``prompts/ensemble.yaml``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...agent.errors import BackendError, ConfigError
from ...agent.home import write_atomically
from ...prompts import FOLDER
from ..array_files import ARRAY_DAMAGE
from ..backbones import Backbone
from .text_anchors import GENERIC, TextAnchors, mean_direction

BATCH = 64
"""Prompts embedded at once; bounds the text tower's memory."""
CACHE_FORMAT = 1


@dataclass(frozen=True)
class PromptEnsemble:
    """A parsed ensemble file.

    Attributes:
        version: of the file.
        sha256: of the whole file.
        noun: what stands in for the part when its name is not known.
        normal: states of good parts, each with ``{noun}``.
        abnormal: states of bad parts, likewise.
        templates: sentences with ``{part}`` or ``{a_part}``.
    """

    version: str
    sha256: str
    noun: str
    normal: tuple[str, ...]
    abnormal: tuple[str, ...]
    templates: tuple[str, ...]

    def sentences(self, states: Sequence[str], noun: str | None = None) -> list[str]:
        """Every state in every template, states outermost.

        Args:
            states: with ``{noun}``.
            noun: the part's name; None for the ensemble's own word.
        """
        parts = [state.format(noun=noun or self.noun) for state in states]
        return [template.format(part=part, a_part=with_article(part)) for part in parts for template in self.templates]


def with_article(phrase: str) -> str:
    """``intact bolt`` -> ``an intact bolt``; by the first letter, as most names of parts go."""
    return f"{'an' if phrase[:1].lower() in 'aeiou' else 'a'} {phrase}"


@cache
def load_ensemble(name: str = "ensemble") -> PromptEnsemble:
    """Parse ``prompts/<name>.yaml``.

    Raises:
        ConfigError: there is no such file, or it is not an ensemble.
    """
    import yaml

    path = FOLDER / f"{name}.yaml"
    try:
        text = path.read_text(encoding="utf-8")
        content: dict[str, Any] = yaml.safe_load(text)
        ensemble = PromptEnsemble(
            version=str(content["version"]),
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            noun=str(content["noun"]),
            normal=tuple(map(str, content["normal"])),
            abnormal=tuple(map(str, content["abnormal"])),
            templates=tuple(map(str, content["templates"])),
        )
        for states in (ensemble.normal, ensemble.abnormal):
            if not ensemble.sentences(states):
                raise ConfigError(f"the prompt ensemble {path.name} lacks states or templates.")
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, IndexError) as error:
        raise ConfigError(f"the prompt ensemble {path.name} cannot be used: {error!r}.") from error
    return ensemble


def ensemble_anchors(
    backbone: Backbone, noun: str | None = None, *, folder: Path | None = None, ensemble: PromptEnsemble | None = None
) -> TextAnchors:
    """The generic anchors: one vector for all normal sentences, one for all abnormal ones.

    Args:
        backbone: one with a text tower.
        noun: the part's name, such as ``metal nut``; None for a word that fits any part.
        folder: where anchors are kept between runs, since a large text tower takes a minute over the ensemble on a
            CPU; None keeps nothing.
        ensemble: the shipped one when None.

    Raises:
        BackendError: the backbone has no text tower.
        StorageError: the anchors cannot be kept.
    """
    ensemble = ensemble or load_ensemble()
    states = (ensemble.sentences(ensemble.normal, noun), ensemble.sentences(ensemble.abnormal, noun))
    prompts_sha256 = prompt_set_hash(*states)
    path = None
    if folder is not None:
        key = hashlib.sha256(f"{CACHE_FORMAT}\n{backbone.weights_sha256}\n{prompts_sha256}".encode()).hexdigest()
        path = folder / f"{key[:32]}.npz"
        if (kept := _read(path, prompts_sha256)) is not None:
            return kept
    normal, abnormal = (embed_state(backbone, sentences) for sentences in states)
    anchors = TextAnchors(normal, abnormal[None], (GENERIC,), prompts_sha256)
    if path is not None:
        write_atomically(path, lambda temporary: _write(temporary, anchors))
    return anchors


def embed_state(backbone: Backbone, sentences: Sequence[str]) -> NDArray[np.float32]:
    """One anchor for sentences that say the same of a part, float32 (D,), unit length.

    Raises:
        BackendError: the backbone has no text tower.
    """
    if not backbone.has_text:
        raise BackendError(f"the backbone {backbone.name} has no text tower.", hint="Use the profile paper.")
    parts = [backbone.encode_text(sentences[start : start + BATCH]) for start in range(0, len(sentences), BATCH)]
    return mean_direction(np.concatenate(parts))


def prompt_set_hash(*states: Sequence[str]) -> str:
    """sha256 over the sentences of each state, in order."""
    return hashlib.sha256("\n\n".join("\n".join(sentences) for sentences in states).encode()).hexdigest()


def _read(path: Path, prompts_sha256: str) -> TextAnchors | None:
    """Anchors kept earlier; None when there are none, or the file is not whole and they must be made again."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return TextAnchors(arrays["normal"], arrays["abnormal"], (GENERIC,), prompts_sha256)
    except (*ARRAY_DAMAGE, BackendError):
        return None


def _write(path: Path, anchors: TextAnchors) -> None:
    with path.open("wb") as file:
        np.savez(file, normal=anchors.normal, abnormal=anchors.abnormal)
