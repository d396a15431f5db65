"""CLIP's trained prompts as torch modules, and prompts that depend on the picture put to use.

Sparse prompts (HSP, ADSeeker, arXiv 2508.03088) stand among the patch tokens of the image tower and move the learnt
vectors of the abnormal text prompt, so a picture is seen and its words are embedded anew each time: one more pass of
the image tower and one of the text tower a picture. Dense prompts, of the same size with lambda 0, are used alike.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ...agent.errors import BackendError
from ..array_files import ARRAY_DAMAGE
from ..backbones import VisualFeatures
from ..backbones.clip import ClipBackbone
from ..backbones.clip_tower import text_forward, vision_forward
from .hsp import HierarchicalSparsePrompts
from .hsp_clip import ClipRun, ClipSparsePrompts
from .learned_prompts import LearnedPrompts
from .text_anchors import GENERIC, TextAnchors
from .trained_prompts import PromptFile, damaged

STAGES = 4


@dataclass(frozen=True)
class PromptedLook:
    """A picture through the image tower with its prompts, as tensors.

    Attributes:
        patch_tokens: per layer (1, N, D), unit length.
        global_features: (1, D), unit length.
        grid: (h, w).
        run: the codes of the stages.
        text_offset: (1, C), what the picture adds to the learnt vectors of the abnormal text prompt.
    """

    patch_tokens: tuple[torch.Tensor, ...]
    global_features: torch.Tensor
    grid: tuple[int, int]
    run: ClipRun
    text_offset: torch.Tensor


class ClipPrompts(nn.Module):  # type: ignore[misc]
    """Text prompts, perhaps with HSP; CLIP itself is no part of it, so its weights are in no file of these.

    Args:
        backbone: CLIP, for the widths of its towers and its tokenizer.
        prompt: ``none``, ``sparse`` (HSP), ``lista`` (HSP with learnt iterations) or ``dense`` (as large as ``sparse``,
            lambda 0).
        hsp_dim: width of the sparse prompts.
        hsp_atoms: atoms a stage.
        n_ctx: learnt vectors of each text prompt.
    """

    def __init__(self, backbone: ClipBackbone, *, prompt: str, hsp_dim: int, hsp_atoms: int, n_ctx: int) -> None:
        super().__init__()
        text_width = backbone.model.token_embedding.weight.shape[1]
        width = backbone.model.visual.class_embedding.shape[0]
        self.text = LearnedPrompts(backbone.token_ids, text_width, n_ctx=n_ctx)
        self.sparse: ClipSparsePrompts | None = None
        if prompt != "none":
            core = HierarchicalSparsePrompts(
                [width] * STAGES,
                dim=hsp_dim,
                atoms=hsp_atoms,
                rhos=[0.0] * STAGES if prompt == "dense" else None,
                solver="lista" if prompt == "lista" else "ista",
            )
            self.sparse = ClipSparsePrompts(core, width=width, text_width=text_width)

    def anchors(self, backbone: ClipBackbone, offset: torch.Tensor | None) -> torch.Tensor:
        """Normal and abnormal text feature, (2, D), unit length; ``offset`` (1, C) is a picture's."""
        normal, abnormal = self.text(partial(text_forward, backbone.model), offset)
        return torch.stack([normal[0], abnormal[0]])

    def see(self, backbone: ClipBackbone, rgb: NDArray[np.uint8]) -> PromptedLook:
        """Run the image tower on one picture with its sparse prompts.

        Args:
            backbone: the one that the prompts are for.
            rgb: uint8 (H, W, 3).
        """
        assert self.sparse is not None  # noqa: S101 - without HSP the picture needs no pass of its own
        pixels, valid, grid = backbone.letterbox(rgb[None])
        run = self.sparse.start()
        seen = vision_forward(backbone.model.visual, pixels, layers=backbone.layers, valid=valid, stage_prompts=run)
        return PromptedLook(seen.patch_tokens, seen.global_features, grid, run, self.sparse.text_offset(run.prompt))


class PicturePrompts:
    """Trained prompts that depend on the picture.

    Args:
        modules: trained; put into evaluation mode.
        backbone: CLIP with the weights that they were trained on.
        kind: ``sparse``, ``dense`` or ``lista``.
        sha256: of their file.
    """

    def __init__(self, modules: ClipPrompts, backbone: ClipBackbone, kind: str, sha256: str) -> None:
        self.modules = modules.to(backbone.device).eval()
        self.backbone = backbone
        self.kind = kind
        self.sha256 = sha256

    def see(self, rgb: NDArray[np.uint8]) -> tuple[VisualFeatures, TextAnchors]:
        """What a picture looks like with its prompts, and the words that it is compared with.

        Args:
            rgb: uint8 (H, W, 3).

        Raises:
            BackendError: the prompts lead to something that is not finite.
        """
        with torch.inference_mode():
            seen = self.modules.see(self.backbone, rgb)
            words = self.modules.anchors(self.backbone, seen.text_offset).float().cpu().numpy()
        layers = tuple(layer.float().cpu().numpy() for layer in seen.patch_tokens)
        features = VisualFeatures(layers, seen.global_features.float().cpu().numpy(), seen.grid)
        return features, TextAnchors(words[0], words[1:], (GENERIC,), self.sha256)


def load_picture_prompts(file: PromptFile, backbone: ClipBackbone) -> PicturePrompts:
    """Read prompts that depend on the picture.

    Args:
        file: checked by ``trained_prompts.read_header``.
        backbone: CLIP with the weights that they were made for.

    Raises:
        WeightsError: the file is damaged, or does not fit the backbone.
    """
    try:
        sha256 = hashlib.sha256(file.path.read_bytes()).hexdigest()
        state = {k: v for k, v in load_file(file.path).items() if k.split(".")[0] in ("text", "sparse")}
        sizes = {name: int(file.config[name]) for name in ("hsp_dim", "hsp_atoms", "n_ctx")}
        modules = ClipPrompts(backbone, prompt=file.prompt, **sizes)
        words = {name: value.cpu().clone() for name, value in modules.text.named_buffers(prefix="text")}
        modules.load_state_dict(state)
        if not all(torch.equal(state[name], value) for name, value in words.items()):
            raise ValueError("their words are not those that this tokenizer makes")
        _check_values(modules, file.prompt)
    except (*ARRAY_DAMAGE, SafetensorError, BackendError) as error:
        raise damaged(file.path, error) from error
    return PicturePrompts(modules, backbone, file.prompt, sha256)


def _check_values(modules: ClipPrompts, kind: str) -> None:
    """Refuse weights that no training leaves behind.

    Raises:
        ValueError: some are not finite, or the lambdas are not those of the kind.
    """
    if not all(bool(torch.isfinite(value).all()) for value in modules.state_dict().values()):
        raise ValueError("not finite")
    assert modules.sparse is not None  # noqa: S101 - the file's prompts depend on the picture
    rhos = modules.sparse.hsp.rhos
    if not all(0 <= rho < 1 for rho in rhos) or (not any(rhos)) != (kind == "dense"):
        raise ValueError(f"lambdas {rhos} in {kind} prompts")
