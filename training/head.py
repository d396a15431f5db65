"""The head on top of reference comparison, as a torch module; ``tools.ad_expert.reference_head`` runs its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from ..tools.ad_expert.hsp import HierarchicalSparsePrompts
from ..tools.ad_expert.hsp_features import FeatureSparsePrompts
from ..tools.ad_expert.reference_head import FIRST_SPREADS, ReferenceHead, picture_width
from ..tools.ad_expert.sparse_prompt import HspLoss

Prompt = Literal["none", "sparse", "dense"]
PROMPT_DIM, PROMPT_ATOMS = 32, 64
SPARSE_RHOS = (0.05, 0.1, 0.15, 0.2)


@dataclass(frozen=True)
class HeadBatch:
    """Pictures of one grid size; see ``HeadInputs``.

    Attributes:
        patches: float32 (B, N, 2 L + 1).
        picture: float32 (B, P).
        residuals: per layer float32 (B, N, D_l).
        distances: float32 (B, N).
    """

    patches: torch.Tensor
    picture: torch.Tensor
    residuals: tuple[torch.Tensor, ...]
    distances: torch.Tensor


class TorchReferenceHead(nn.Module):  # type: ignore[misc]
    """Weights of the distances, and a small network that moves all patches of a picture.

    At the start only the untrained expert's score counts and nothing is moved, so that an untrained head ranks patches
    exactly as the expert does.

    Args:
        layer_dims: widths of the backbone's layers, shallow to deep.
        hidden: width of the hidden layer.
        prompt: ``sparse`` for HSP, ``dense`` for the same parameters with lambda 0, or ``none``.
        centre: (P,) mean of the picture's numbers over training pictures.
        scale: (P,) their spread.
    """

    def __init__(
        self,
        layer_dims: Sequence[int],
        *,
        hidden: int = 8,
        prompt: Prompt = "none",
        centre: torch.Tensor | None = None,
        scale: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        width, layers = picture_width(len(layer_dims)), len(layer_dims)
        self.layer_dims = tuple(layer_dims)
        self.register_buffer("centre", torch.zeros(width) if centre is None else centre)
        self.register_buffer("scale", torch.ones(width) if scale is None else scale)
        self.gains = nn.Parameter(torch.eye(2 * layers + 1)[layers - 1].clone())
        self.first = nn.Linear(width, hidden)
        self.last = nn.Linear(hidden, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.prompt: FeatureSparsePrompts | None = None
        if prompt != "none":
            rhos = SPARSE_RHOS[-layers:] if prompt == "sparse" else [0.0] * layers
            hsp = HierarchicalSparsePrompts(layer_dims, dim=PROMPT_DIM, atoms=PROMPT_ATOMS, rhos=rhos)
            for unused in hsp.significance.parameters():  # the distance to good parts is the significance
                unused.requires_grad_(False)
            self.prompt = FeatureSparsePrompts(hsp, width)

    def forward(self, batch: HeadBatch) -> tuple[torch.Tensor, HspLoss | None]:
        """Judge pictures.

        Returns:
            Logits (B, N), and the prompts' loss, None without prompts.
        """
        picture, loss = ((batch.picture - self.centre) / self.scale)[:, None], None
        if self.prompt is not None:
            picture, run = self.prompt(picture, batch.residuals, [batch.distances] * len(batch.residuals))
            loss = run.loss()
        move = self.last(nn.functional.silu(self.first(picture)))[:, 0]
        return (batch.patches @ self.gains + move - FIRST_SPREADS).float(), loss

    def after_step(self) -> None:
        """No negative weight of a distance, unit length for the dictionaries' atoms."""
        with torch.no_grad():
            self.gains.clamp_(min=0.0)
        if self.prompt is not None:
            self.prompt.hsp.normalise_atoms()


def export_head(state: Mapping[str, torch.Tensor], config: dict[str, Any]) -> ReferenceHead:
    """The same weights for inference without torch.

    Args:
        state: of a ``TorchReferenceHead``.
        config: see ``ReferenceHead``.
    """
    return ReferenceHead({name: value.detach().cpu().numpy() for name, value in state.items()}, config)
