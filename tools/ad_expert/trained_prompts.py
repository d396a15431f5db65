"""Text anchors from a file that ``flawscope train expert`` wrote for CLIP: object-agnostic prompts, already embedded.

Prompts after AnomalyCLIP (Zhou et al., ICLR 2024) do not depend on the picture, so the file carries the two anchors
that they end in and no text tower is run. Sparse prompts (ADSeeker, arXiv 2508.03088) depend on it: their files have
none.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ...agent.errors import BackendError, MissingExtraError, WeightsError
from .text_anchors import GENERIC, TextAnchors

FORMAT = "flawscope-clip-prompts-1"
NORMAL, ABNORMAL, MADE_FOR = "anchors.normal", "anchors.abnormal", "backbone_sha256"
"""Names in the file: the anchors, float32 (1, D), and in its header the hash of the backbone's weights."""
_REMEDY = "Train them again: flawscope train expert."


def load_trained_prompts(path: Path, weights_sha256: str) -> TextAnchors:
    """Read the anchors of trained prompts.

    Args:
        path: ``prompts.safetensors``.
        weights_sha256: of the backbone that pictures will be embedded with.

    Returns:
        The two anchors; ``prompts_sha256`` is the hash of the file.

    Raises:
        MissingExtraError: safetensors is not installed.
        WeightsError: there is no such file, it is damaged or of another kind, its prompts depend on the picture, or
            they were made for other weights.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise MissingExtraError("Trained prompts", "clip") from error

    path = path.expanduser()
    if not path.is_file():
        raise WeightsError(f"there is no file of trained prompts at {path}.", hint="Name a prompts.safetensors.")
    try:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        with safe_open(path, framework="np") as file:
            header, names = file.metadata() or {}, set(file.keys())
            if header.get("format") != FORMAT or not names >= {NORMAL, ABNORMAL}:
                raise WeightsError(f"{path} holds no trained anchors.", hint="Train with --prompt none.")
            normal, abnormal = file.get_tensor(NORMAL), file.get_tensor(ABNORMAL)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"the trained prompts {path} cannot be read.", hint=_REMEDY) from error
    if header.get(MADE_FOR) != weights_sha256:
        raise WeightsError(
            f"the trained prompts {path} were made for other weights (sha256 {str(header.get(MADE_FOR))[:12]}…)"
            f" than these ({weights_sha256[:12]}…).",
            hint="Give the weights that they were trained with, or train them again.",
        )
    try:
        return TextAnchors(normal.reshape(-1), abnormal, (GENERIC,), sha256)
    except BackendError as error:
        raise WeightsError(f"the trained prompts {path} are damaged: {error.message}", hint=_REMEDY) from error
