"""One stage of the hierarchical sparse prompt: query, sparse code, reconstruction, and the loss on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from .unrolled_ista import Ista, Lista, full_precision

Solver = Literal["ista", "lista"]


@dataclass(frozen=True)
class SparseCode:
    """One stage's result.

    Attributes:
        query: E_q, (B, d).
        codes: P, (B, K).
        prompt: E_f = P E_l, (B, d).
        lambdas: weight of each row's L1 term, (B, 1).
        significance: (B, N) that chose the patches: logits of the stage's head, or the scores that were given; None in
            a first stage without.
    """

    query: torch.Tensor
    codes: torch.Tensor
    prompt: torch.Tensor
    lambdas: torch.Tensor
    significance: torch.Tensor | None = None

    @property
    def residual(self) -> torch.Tensor:
        """What the dictionary does not explain, (B, d)."""
        return self.query - self.prompt


@dataclass(frozen=True)
class HspLoss:
    """Equation 9 as shares of the query's energy, so that shrinking the query does not lower it.

    Means over stages and rows.

    Attributes:
        reconstruction: ``||E_q - P E_l||^2 / ||E_q||^2``, scalar.
        sparsity: ``2 lambda ||P||_1 / ||E_q||^2``, scalar.
    """

    reconstruction: torch.Tensor
    sparsity: torch.Tensor

    @property
    def total(self) -> torch.Tensor:
        """Their sum: 1 for the code zero, less for any better one."""
        return self.reconstruction + self.sparsity


def hsp_loss(codes: Sequence[SparseCode]) -> HspLoss:
    """Reconstruction and sparsity of the stages of one forward pass.

    Args:
        codes: one per stage, at least one.
    """
    if not codes:
        raise ValueError("no stage was coded")
    left, price = [], []
    for code in codes:
        energy = code.query.square().sum(dim=1).clamp_min(1e-12)
        left.append((code.residual.square().sum(dim=1) / energy).mean())
        price.append((2.0 * code.lambdas[:, 0] * code.codes.abs().sum(dim=1) / energy).mean())
    return HspLoss(torch.stack(left).mean(), torch.stack(price).mean())


class SparsePrompt(nn.Module):  # type: ignore[misc]
    """Linear map to a query, sparse code, reconstruction.

    Args:
        in_dim: width of the pooled features.
        dim: d, width of queries, atoms and prompts.
        atoms: K.
        rho: relative lambda; 0 is the dense prompt of the same size.
        solver: ``ista``, or ``lista`` for learnt iterations (``train_steps`` of them).
        train_steps: unrolled iterations in training.
        eval_steps: iterations in evaluation (ISTA only).
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        *,
        atoms: int = 64,
        rho: float = 0.1,
        solver: Solver = "ista",
        train_steps: int = 8,
        eval_steps: int = 100,
    ) -> None:
        super().__init__()
        self.query = nn.Linear(in_dim, dim)
        self.solver: Ista = (
            Lista(dim, atoms, rho=rho, steps=train_steps)
            if solver == "lista"
            else Ista(dim, atoms, rho=rho, train_steps=train_steps, eval_steps=eval_steps)
        )

    def forward(self, pooled: torch.Tensor, carried: torch.Tensor | None = None) -> SparseCode:
        """Code pooled features.

        Args:
            pooled: (B, in_dim).
            carried: (B, d), the prompt of the stage before, added to the query.
        """
        with full_precision(pooled):
            query = self.query(pooled.to(self.query.weight.dtype))
            query = query if carried is None else query + carried
            codes = self.solver(query)
            return SparseCode(query, codes, codes @ self.solver.dictionary, self.solver.lambdas(query))
