"""Prior tokens, E_c of ADSeeker (arXiv 2508.03088): what the AD Expert found, as vectors among a prompt's embeddings.

Tokenizers belong to one backbone, whose patch tokens they read, and to one language model, in whose embedding space
they write; with any other of either their vectors would be noise, so files say what they were made for. When they are
off the tokens are left out of the prompt: vectors of zeros would still take attention.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from ...tools.ad_expert.evidence_tokens import LOC_TOKENS, EvidenceTokenizer, rescale_to
from ..errors import WeightsError
from .identity import checkpoint_sha256
from .messages import Slot

if TYPE_CHECKING:
    from ...tools.backbones import VisualFeatures
    from .qwen import QwenModel

FORMAT = "flawscope-prior-tokens-1"
TOKENS_FILE = "tokens.safetensors"
PRIOR_TOKENS = LOC_TOKENS + 8
"""Nine Loc and eight Vis tokens."""
_REMEDY = "Train them for it: flawscope train tokens."


@dataclass(frozen=True, eq=False)
class PriorTokens:
    """Trained tokenizers, ready for one language model.

    Attributes:
        tokenizer: Loc and Vis, in eval mode on the CPU.
        median_row_norm: length that the model's own embeddings have.
        sha256: of the file.
    """

    tokenizer: EvidenceTokenizer
    median_row_norm: float
    sha256: str = ""

    def vectors(
        self,
        anomaly_map: NDArray[np.float32],
        patch_tokens: NDArray[np.float32],
        grid: tuple[int, int],
        valid: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.float32]:
        """E_c of a picture, as long as the model's own embeddings.

        Args:
            anomaly_map: (H, W), calibrated to [0, 1].
            patch_tokens: (N, D) of `patch_input`.
            grid: (h, w) of the patch tokens, covering the same picture as the map.
            valid: (N,), False for patches of padding; None: all count.

        Returns:
            float32 (17, d).

        Raises:
            ValueError: the map is not calibrated, or the shapes do not fit.
        """
        if anomaly_map.ndim != 2 or not (anomaly_map.min() >= 0.0 and anomaly_map.max() <= 1.0):
            raise ValueError("prior tokens take a map (H, W) that is calibrated to [0, 1]")
        with torch.no_grad():
            tokens = self.tokenizer(
                torch.from_numpy(np.ascontiguousarray(anomaly_map, np.float32))[None],
                torch.from_numpy(np.ascontiguousarray(patch_tokens, np.float32))[None],
                grid,
                None if valid is None else torch.from_numpy(np.ascontiguousarray(valid))[None],
            )
            scaled: NDArray[np.float32] = rescale_to(tokens, self.median_row_norm)[0].numpy()
        return scaled

    def slot(self, anomaly_map: NDArray[np.float32], features: VisualFeatures) -> Slot:
        """The filled place for a prompt.

        Args:
            anomaly_map: (H, W), calibrated to [0, 1].
            features: of the same picture, by the backbone that the tokenizers were trained on.
        """
        vectors = self.vectors(anomaly_map, patch_input(features), features.grid)
        return Slot("prior", PRIOR_TOKENS, vectors)


def patch_input(features: VisualFeatures) -> NDArray[np.float32]:
    """What the Vis tokenizer reads: the deepest layer, each patch brought to a root mean square of 1.

    Backbones differ in scale by orders of magnitude, and the tokenizer's first weights are drawn for values around 1.

    Args:
        features: of one or more pictures; the first is used.

    Returns:
        float32 (N, D).
    """
    tokens = features.patch_tokens[-1][0]
    rms = np.sqrt(np.mean(np.square(tokens, dtype=np.float32), axis=1, keepdims=True))
    return np.asarray(tokens / np.maximum(rms, 1e-6), np.float32)


def load_prior_tokens(path: Path, model: QwenModel, backbone_sha256: str) -> PriorTokens:
    """Read trained tokenizers.

    Args:
        path: ``tokens.safetensors`` of ``flawscope train tokens``.
        model: whose prompts they will stand in.
        backbone_sha256: of the backbone whose features they will read.

    Raises:
        WeightsError: there is no such file, it is damaged, of another kind or untrained, or it was made for another
            backbone or language model.
    """
    path = path.expanduser()
    if not path.is_file():
        raise WeightsError(f"there is no file of prior tokens at {path}.", hint=f"Name a {TOKENS_FILE}. {_REMEDY}")
    try:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"the prior tokens {path} cannot be read.", hint=_REMEDY) from error
    if header.get("format") != FORMAT:
        raise WeightsError(f"{path} holds no prior tokens.", hint=f"Name a {TOKENS_FILE}. {_REMEDY}")
    if not header.get("steps", "").isdigit() or int(header["steps"]) < 1:
        raise WeightsError(f"the prior tokens {path} are untrained.", hint=_REMEDY)
    if header.get("backbone_sha256") != backbone_sha256:
        raise WeightsError(
            f"the prior tokens {path} were made for the backbone {header.get('backbone', '?')[:40]} of other weights.",
            hint="Give the backbone that they were trained with, or train them again.",
        )
    if header.get("model_sha256") != checkpoint_sha256(model.checkpoint.folder):
        raise WeightsError(
            f"the prior tokens {path} were made for the language model {header.get('model', '?')[:40]} of width"
            f" {header.get('width', '?')[:8]}, not for {model.name} of width {model.width}.",
            hint=_REMEDY,
        )
    if model.checkpoint.adapter is not None:
        raise WeightsError(
            f"the prior tokens {path} were made for {model.name} without the adapter {model.checkpoint.adapter.name}.",
            hint="Use one of the two: unset vlm_adapter or prior_tokens.",
        )
    try:
        tokenizer = EvidenceTokenizer(int(header["patch_dim"]), int(header["width"]))
        tokenizer.load_state_dict(state)
    except (KeyError, ValueError, RuntimeError) as error:
        raise WeightsError(f"the prior tokens {path} are damaged.", hint=_REMEDY) from error
    if tokenizer.loc.to_tokens.out_features != model.width or not all(
        bool(torch.isfinite(value).all()) for value in state.values()
    ):
        raise WeightsError(f"the prior tokens {path} are damaged.", hint=_REMEDY)
    return PriorTokens(tokenizer.eval().requires_grad_(False), model.median_row_norm, sha256)
