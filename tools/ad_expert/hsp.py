"""HSP, the hierarchical sparse prompt: what a picture's abnormal patches share with a learnt dictionary.

At every stage of the backbone the significant patches are averaged and mapped to a query E_q, the query is coded
sparsely over the stage's dictionary E_l, and what the code reconstructs is the stage's prompt E_f = P E_l (ADSeeker,
arXiv 2508.03088, equations 8 and 9). What the code does not reach, the residual, is dropped as irrelevant.
``docs/hsp.md`` says where the paper is silent or misprinted and what was chosen.

``HierarchicalSparsePrompts`` is the core and knows no backbone. ``hsp_clip.ClipSparsePrompts`` and
``hsp_features.FeatureSparsePrompts`` put its prompts to use, each behind a gate that begins at zero: until trained,
nothing changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from .sparse_prompt import HspLoss, Solver, SparseCode, SparsePrompt, hsp_loss
from .unrolled_ista import full_precision

PROGRESSIVE_RHOS = (0.05, 0.1, 0.15, 0.2)
"""Stricter with depth. Shallow features mix texture, edges and defect, and what is dropped there is lost to every later
stage; deep features are few and semantic, and a defect type should need few atoms."""


@dataclass
class PromptRun:
    """One forward pass through the stages, in order, gathering their codes.

    Attributes:
        prompts: the module whose stages are run.
        valid: bool (B, N), False for patches of padding, which enter no query; None: all count.
        codes: of the stages so far.
    """

    prompts: HierarchicalSparsePrompts
    valid: torch.Tensor | None = None
    codes: list[SparseCode] = field(default_factory=list)

    def encode(self, tokens: torch.Tensor, significance: torch.Tensor | None = None) -> SparseCode:
        """Code the next stage.

        Args:
            tokens: (B, N, D) patch tokens of the stage.
            significance: (B, N), higher is more abnormal (an anomaly map on the patch grid, say); without it the
                stage's own head judges, and the first stage takes all patches.
        """
        carried = self.codes[-1].prompt if self.codes else None
        code = self.prompts.encode_stage(len(self.codes), tokens, significance, carried, self.valid)
        self.codes.append(code)
        return code

    @property
    def prompt(self) -> torch.Tensor:
        """E_f of the last stage so far, (B, d)."""
        return self.codes[-1].prompt

    @property
    def conditioning(self) -> torch.Tensor:
        """Prompt and residual of the last stage side by side, (B, 2 d)."""
        return torch.cat([self.codes[-1].prompt, self.codes[-1].residual], dim=1)

    def loss(self) -> HspLoss:
        """``hsp_loss`` of the stages so far."""
        return hsp_loss(self.codes)


class HierarchicalSparsePrompts(nn.Module):  # type: ignore[misc]
    """Sparse prompts at the stages of a backbone, each summed into the query of the next.

    Adding the prompt to the query is the paper's element-wise sum of prompt and tokens at the start of a stage: mean
    and linear map commute with it. Where a stage has a significance head, ``significance_logits`` gives its judgement
    for the loss that trains it (binary cross-entropy on the mask); the hard choice of patches passes no gradient to it.
    At the start the head says zero everywhere, so that all patches count.

    Args:
        stage_dims: width of the patch tokens of each stage, shallow to deep.
        dim: d, width of the prompts.
        atoms: K per stage.
        rhos: relative lambda per stage, not decreasing; None for ``PROGRESSIVE_RHOS`` (the last ones when there are
            fewer stages than four). All zero: the dense prompt of the same size.
        solver: see ``SparsePrompt``.
        train_steps: unrolled iterations in training.
        eval_steps: iterations in evaluation (ISTA only).
        top_share: share of the patches that makes a query, by significance.
    """

    def __init__(
        self,
        stage_dims: Sequence[int],
        *,
        dim: int = 768,
        atoms: int = 64,
        rhos: Sequence[float] | None = None,
        solver: Solver = "ista",
        train_steps: int = 8,
        eval_steps: int = 100,
        top_share: float = 0.2,
    ) -> None:
        super().__init__()
        if rhos is None:
            rhos = PROGRESSIVE_RHOS[-len(stage_dims) :]
        if not stage_dims or len(rhos) != len(stage_dims) or list(rhos) != sorted(rhos):
            raise ValueError(f"one rho a stage, not decreasing: got {list(rhos)} for {len(stage_dims)} stages")
        if not 0 < top_share <= 1:
            raise ValueError(f"top_share must be in (0, 1], got {top_share}")
        self.dim = dim
        self.top_share = top_share
        self.stages = nn.ModuleList(
            SparsePrompt(
                width, dim, atoms=atoms, rho=rho, solver=solver, train_steps=train_steps, eval_steps=eval_steps
            )
            for width, rho in zip(stage_dims, rhos, strict=True)
        )
        self.significance = nn.ModuleList(nn.Linear(width, 1) for width in stage_dims[1:])
        for head in self.significance:
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    @property
    def rhos(self) -> list[float]:
        """Relative lambda of each stage, as initialised or as loaded with the weights."""
        return [float(stage.solver.rho) for stage in self.stages]

    def start(self, valid: torch.Tensor | None = None) -> PromptRun:
        """A new forward pass; ``valid`` as in ``PromptRun``."""
        return PromptRun(self, valid)

    def forward(
        self, stages: Sequence[torch.Tensor], significance: Sequence[torch.Tensor | None] | None = None
    ) -> PromptRun:
        """All stages at once, for features that are already there.

        Args:
            stages: per stage (B, N_s, D_s).
            significance: per stage (B, N_s) or None, see ``PromptRun.encode``.
        """
        if len(stages) != len(self.stages):
            raise ValueError(f"{len(stages)} stages for prompts of {len(self.stages)}")
        run = self.start()
        for tokens, scores in zip(stages, significance or [None] * len(stages), strict=True):
            run.encode(tokens, scores)
        return run

    def significance_logits(self, stage: int, tokens: torch.Tensor) -> torch.Tensor | None:
        """How abnormal the stage's head finds each patch, (B, N) of tokens (B, N, D); None for the first stage."""
        if stage == 0:
            return None
        head = self.significance[stage - 1]
        with full_precision(tokens):
            return head(tokens.to(head.weight.dtype)).squeeze(-1)

    def encode_stage(
        self,
        stage: int,
        tokens: torch.Tensor,
        significance: torch.Tensor | None = None,
        carried: torch.Tensor | None = None,
        valid: torch.Tensor | None = None,
    ) -> SparseCode:
        """Code one stage; ``PromptRun`` calls this in order.

        Args:
            stage: 0 is the shallowest.
            tokens: (B, N, D).
            significance: (B, N), or None for the stage's own head.
            carried: (B, d), prompt of the stage before.
            valid: bool (B, N), False for padding.
        """
        if significance is None:
            significance = self.significance_logits(stage, tokens)
        with full_precision(tokens):
            rows = tokens.to(self.stages[stage].query.weight.dtype)
            scores = rows.new_zeros(rows.shape[:2]) if significance is None else significance
            pooled = top_mean(rows, scores, self.top_share, valid)
        code: SparseCode = self.stages[stage](pooled, carried)
        return SparseCode(code.query, code.codes, code.prompt, code.lambdas, significance)

    def normalise_atoms(self) -> None:
        """Unit length for the atoms of every stage; call it after each optimiser step."""
        for stage in self.stages:
            stage.solver.normalise_atoms()


def top_mean(
    tokens: torch.Tensor, scores: torch.Tensor, share: float, valid: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean of the tokens with the highest scores; ties at the boundary all count, so constant scores take everything.

    Args:
        tokens: (B, N, D).
        scores: (B, N), finite; no gradient passes through the choice.
        share: of the valid tokens, in (0, 1]; at least one.
        valid: bool (B, N), at least one True a row; None: all.

    Returns:
        (B, D).
    """
    valid = torch.ones_like(scores, dtype=torch.bool) if valid is None else valid
    scores = scores.detach().masked_fill(~valid, float("-inf"))
    last = (share * valid.sum(dim=1, keepdim=True).double()).round().long().clamp_min(1) - 1
    lowest = scores.sort(dim=1, descending=True).values.gather(1, last)
    chosen = ((scores >= lowest) & valid).to(tokens.dtype)
    return torch.einsum("bn,bnd->bd", chosen / chosen.sum(dim=1, keepdim=True), tokens)
