"""The head on top of reference comparison, as a torch module; ``tools.ad_expert.reference_head`` runs its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from ..tools.ad_expert.hsp import HierarchicalSparsePrompts
from ..tools.ad_expert.hsp_features import FeatureSparsePrompts
from ..tools.ad_expert.reference_head import ReferenceHead, input_width
from ..tools.ad_expert.sparse_prompt import HspLoss

Prompt = Literal["none", "sparse", "dense"]
PROMPT_DIM, PROMPT_ATOMS = 32, 64
FIRST_SPREADS = 4.0
"""An untrained head puts even odds on a patch so many standard deviations from where good patches lie."""
SPARSE_RHOS = (0.05, 0.1, 0.15, 0.2)


@dataclass(frozen=True)
class HeadBatch:
    """Pictures of one grid size.

    Attributes:
        values: float32 (B, N, F).
        residuals: per layer float32 (B, N, D_l).
        distances: float32 (B, N).
    """

    values: torch.Tensor
    residuals: tuple[torch.Tensor, ...]
    distances: torch.Tensor


class TorchReferenceHead(nn.Module):  # type: ignore[misc]
    """Standardised inputs, perhaps a sparse prompt, one hidden layer, one logit a patch.

    The last layer starts at zero and the standardised score of the untrained expert passes by it, so that an untrained
    head ranks patches exactly as the expert does.

    Args:
        layer_dims: widths of the backbone's layers, shallow to deep.
        hidden: width of the hidden layer.
        channels: see ``head_inputs``.
        prompt: ``sparse`` for HSP, ``dense`` for the same parameters with lambda 0, or ``none``.
        centre: (F,) mean of the inputs over training patches.
        scale: (F,) their spread.
    """

    def __init__(
        self,
        layer_dims: Sequence[int],
        *,
        hidden: int = 32,
        channels: bool = False,
        prompt: Prompt = "none",
        centre: torch.Tensor | None = None,
        scale: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        width = input_width(layer_dims, channels=channels)
        self.layer_dims = tuple(layer_dims)
        self.register_buffer("centre", torch.zeros(width) if centre is None else centre)
        self.register_buffer("scale", torch.ones(width) if scale is None else scale)
        self.first = nn.Linear(width, hidden)
        self.last = nn.Linear(hidden, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.constant_(self.last.bias, -FIRST_SPREADS)
        self.skip = nn.Parameter(torch.ones(1))
        self.prompt: FeatureSparsePrompts | None = None
        if prompt != "none":
            rhos = SPARSE_RHOS[-len(layer_dims) :] if prompt == "sparse" else [0.0] * len(layer_dims)
            hsp = HierarchicalSparsePrompts(layer_dims, dim=PROMPT_DIM, atoms=PROMPT_ATOMS, rhos=rhos)
            for unused in hsp.significance.parameters():  # the distance to good parts is the significance
                unused.requires_grad_(False)
            self.prompt = FeatureSparsePrompts(hsp, width)

    def forward(self, batch: HeadBatch) -> tuple[torch.Tensor, HspLoss | None, torch.Tensor | None]:
        """Judge pictures.

        Returns:
            Logits (B, N); the prompts' loss and the mean share of atoms in use, None without prompts.
        """
        values, loss, support = (batch.values - self.centre) / self.scale, None, None
        if self.prompt is not None:
            significance = [batch.distances] * len(batch.residuals)
            values, run = self.prompt(values, batch.residuals, significance)
            loss = run.loss()
            support = torch.stack([(code.codes.detach() != 0).float().mean() for code in run.codes]).mean()
        passed = self.skip * batch.values[..., len(self.layer_dims) - 1]
        logits = self.last(nn.functional.silu(self.first(values)))[..., 0] + passed
        return logits.float(), loss, support

    def after_step(self) -> None:
        """Unit length for the dictionaries' atoms."""
        if self.prompt is not None:
            self.prompt.hsp.normalise_atoms()


def export_head(state: Mapping[str, torch.Tensor], config: dict[str, Any]) -> ReferenceHead:
    """The same weights for inference without torch.

    Args:
        state: of a ``TorchReferenceHead``.
        config: see ``ReferenceHead``.
    """
    return ReferenceHead({name: value.detach().cpu().numpy() for name, value in state.items()}, config)
