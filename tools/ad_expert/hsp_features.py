"""HSP on the features of a frozen backbone: what a head reads is conditioned on the picture's prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from .hsp import HierarchicalSparsePrompts, PromptRun
from .unrolled_ista import full_precision


class FeatureSparsePrompts(nn.Module):  # type: ignore[misc]
    """HSP on features that a frozen backbone has already computed: each patch is told what the picture's prompt says.

    ``features + gate * Linear([E_f, residual])``, the same addition for every patch of a picture; the gate starts at
    zero. The residual is given too, since what the dictionary cannot say may be what is new. The pair is
    layer-normalised, so the scale of the backbone's features does not set the size of the first step.

    Args:
        hsp: the core.
        feature_dim: width of the patch features that the head reads.
    """

    def __init__(self, hsp: HierarchicalSparsePrompts, feature_dim: int) -> None:
        super().__init__()
        self.hsp = hsp
        self.to_features = nn.Linear(2 * hsp.dim, feature_dim)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(
        self,
        features: torch.Tensor,
        stages: Sequence[torch.Tensor],
        significance: Sequence[torch.Tensor | None] | None = None,
    ) -> tuple[torch.Tensor, PromptRun]:
        """Condition patch features.

        Args:
            features: (B, N, feature_dim), what the head reads.
            stages: per stage (B, N_s, D_s).
            significance: per stage (B, N_s) or None.

        Returns:
            Conditioned features of the same shape, and the run with its codes and loss.
        """
        run: PromptRun = self.hsp(stages, significance)
        with full_precision(features):
            added = self.gate * self.to_features(functional.layer_norm(run.conditioning, (2 * self.hsp.dim,)))
        return features + added[:, None].to(features.dtype), run
