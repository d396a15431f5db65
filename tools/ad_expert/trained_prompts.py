"""Files of prompts that ``flawscope train expert`` wrote for CLIP.

Prompts after AnomalyCLIP (Zhou et al., ICLR 2024) do not depend on the picture, so the file carries the two anchors
that they end in and no text tower is run. Sparse prompts (ADSeeker, arXiv 2508.03088) depend on it: their files hold
the modules that ``picture_prompts`` runs on every picture.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ...agent.errors import BackendError, MissingExtraError, WeightsError
from ..array_files import ARRAY_DAMAGE
from ..backbones import Backbone
from .text_anchors import GENERIC, TextAnchors

FORMAT = "flawscope-clip-prompts-1"
NORMAL, ABNORMAL, MADE_FOR = "anchors.normal", "anchors.abnormal", "backbone_sha256"
"""Names in the file: the anchors, float32 (1, D), and in its header the hash of the backbone's weights."""
REMEDY = "Train them again: flawscope train expert."
Prompt = Literal["none", "sparse", "dense", "lista"]
"""What the image tower is given besides: nothing, or prompts that depend on the picture."""


@dataclass(frozen=True)
class PromptFile:
    """A file whose header is that of trained prompts for these weights.

    Attributes:
        path: of the file.
        config: of the run that made it.
        prompt: their kind.
    """

    path: Path
    config: Mapping[str, Any]
    prompt: Prompt

    @property
    def of_each_picture(self) -> bool:
        """Whether the words depend on the picture."""
        return self.prompt != "none"


def read_header(path: Path, weights_sha256: str) -> PromptFile:
    """What kind of prompts a file holds.

    Args:
        path: ``prompts.safetensors``.
        weights_sha256: of the backbone that pictures will be embedded with.

    Raises:
        MissingExtraError: safetensors is not installed.
        WeightsError: there is no such file, it is damaged or of another kind, or made for other weights.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise MissingExtraError("Trained prompts", "clip") from error

    path = path.expanduser()
    if not path.is_file():
        raise WeightsError(f"there is no file of trained prompts at {path}.", hint="Name a prompts.safetensors.")
    try:
        with safe_open(path, framework="np") as file:
            header = file.metadata() or {}
        config = json.loads(header.get("config", "null"))
    except (*ARRAY_DAMAGE, SafetensorError) as error:
        raise WeightsError(f"the trained prompts {path} cannot be read.", hint=REMEDY) from error
    if header.get("format") != FORMAT or not isinstance(config, dict):
        raise WeightsError(f"{path} holds no trained prompts.", hint="Name a prompts.safetensors of train expert.")
    if header.get(MADE_FOR) != weights_sha256:
        raise WeightsError(
            f"the trained prompts {path} were made for other weights (sha256 {str(header.get(MADE_FOR))[:12]}…)"
            f" than these ({weights_sha256[:12]}…).",
            hint="Give the weights that they were trained with, or train them again.",
        )
    kinds: tuple[Prompt, ...] = get_args(Prompt)
    for kind in kinds:
        if config.get("prompt") == kind:
            return PromptFile(path, config, kind)
    raise WeightsError(
        f"the trained prompts {path} are damaged: {str(config.get('prompt'))[:40]!r} is none of the kinds"
        f" {', '.join(kinds)}.",
        hint=REMEDY,
    )


def load_trained_prompts(path: Path, backbone: Backbone) -> TextAnchors:
    """Read the anchors of trained prompts that do not depend on the picture.

    Args:
        path: ``prompts.safetensors``.
        backbone: with a text tower, the one that pictures will be embedded with.

    Returns:
        The two anchors; ``prompts_sha256`` is the hash of the file.

    Raises:
        MissingExtraError: safetensors is not installed.
        WeightsError: there is no such file, it is damaged or of another kind, its prompts depend on the picture, or
            they were made for other weights.
    """
    file = read_header(path, backbone.weights_sha256)
    if file.of_each_picture:
        raise WeightsError(
            f"{file.path} holds no trained anchors: its prompts depend on the picture, and serve where there are"
            " no references.",
            hint="Leave trained_prompts empty here, or train with --prompt none.",
        )
    from safetensors import SafetensorError, safe_open

    wanted = (1, backbone.encode_text(()).shape[1])
    try:
        sha256 = hashlib.sha256(file.path.read_bytes()).hexdigest()
        with safe_open(file.path, framework="np") as tensors:
            normal, abnormal = tensors.get_tensor(NORMAL), tensors.get_tensor(ABNORMAL)
        if not normal.shape == abnormal.shape == wanted:
            raise ValueError(f"anchors of shapes {normal.shape} and {abnormal.shape} where {wanted} are expected")
        if not normal.dtype == abnormal.dtype == np.float32:  # NumPy knows bfloat16 where some library has taught it
            raise ValueError(f"anchors of {normal.dtype} and {abnormal.dtype} where float32 is expected")
        return TextAnchors(normal[0], abnormal, (GENERIC,), sha256)
    except (*ARRAY_DAMAGE, SafetensorError, BackendError) as error:
        raise damaged(file.path, error) from error


def damaged(path: Path, reason: Exception) -> WeightsError:
    """What is said of a file whose header is whole and whose tensors are not; one line, whatever the reason says."""
    return WeightsError(f"the trained prompts {path} are damaged: {' '.join(str(reason).split())[:160]}", hint=REMEDY)
