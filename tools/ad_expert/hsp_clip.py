"""HSP on CLIP: prompts among the patch tokens of the image tower, and an offset for the abnormal text prompt.

Both begin without effect. The text offset does so by a gate at zero. A gate cannot do it for the visual prompts: they
are prepended as tokens, and a token of zeros still takes its share of the attention, while the layer norm in front of
every attention undoes any small factor. So they stay out until ``open_visual`` lets them in, which a training run does
once the stages' heads and queries have been trained.
"""

from __future__ import annotations

import torch
from torch import nn

from .hsp import HierarchicalSparsePrompts, PromptRun
from .unrolled_ista import full_precision


class ClipRun(PromptRun):
    """One forward pass of the image tower: give it as ``stage_prompts``, then read codes, prompt and loss.

    Args:
        clip: the module.
        valid: bool (B, N), False for patches of padding.
    """

    def __init__(self, clip: ClipSparsePrompts, valid: torch.Tensor | None = None) -> None:
        super().__init__(clip.hsp, valid)
        self.clip = clip

    def __call__(self, stage: int, tokens: torch.Tensor) -> torch.Tensor | None:
        """Prompt tokens for a stage that is about to begin.

        Args:
            stage: 0, 1, 2, ... in order.
            tokens: (B, N, C) patch tokens at the start of the stage.

        Returns:
            (B, m, C) in the precision of ``tokens``; None while the visual prompts are closed.
        """
        if stage != len(self.codes):
            raise ValueError(f"stage {stage} after {len(self.codes)} stages: start a new run for every forward pass")
        prompt = self.encode(tokens).prompt
        return self.clip.visual_tokens(stage, prompt).to(tokens.dtype) if self.clip.visual_open else None


class ClipSparsePrompts(nn.Module):  # type: ignore[misc]
    """HSP with its ways into a CLIP model.

    Args:
        hsp: the core; its stage widths are ``width`` each.
        width: C of the image tower's tokens (1024 for ViT-L/14).
        text_width: C of the text tower's tokens (768 for ViT-L/14).
        tokens: m, prompt tokens per stage.
    """

    def __init__(
        self, hsp: HierarchicalSparsePrompts, *, width: int = 1024, text_width: int = 768, tokens: int = 4
    ) -> None:
        super().__init__()
        self.hsp = hsp
        self.tokens = tokens
        self.to_visual = nn.ModuleList(nn.Linear(hsp.dim, tokens * width) for _ in hsp.stages)
        self.to_text = nn.Linear(hsp.dim, text_width)
        self.text_gate = nn.Parameter(torch.zeros(()))
        self.register_buffer("visual_open", torch.tensor(False))

    def open_visual(self) -> None:
        """Let the visual prompts into the image tower from now on; saved with the weights."""
        self.visual_open.fill_(True)

    def start(self, valid: torch.Tensor | None = None) -> ClipRun:
        """What ``clip_tower.vision_forward`` of one batch takes as ``stage_prompts``.

        Args:
            valid: bool (B, N), as given to ``vision_forward`` for pictures of different shapes. A mask (N,) for the
                whole batch is not needed here: those patches never reach the stages.
        """
        return ClipRun(self, valid)

    def visual_tokens(self, stage: int, prompt: torch.Tensor) -> torch.Tensor:
        """(B, m, C) prompt tokens of a stage from its E_f (B, d)."""
        with full_precision(prompt):
            return self.to_visual[stage](prompt).unflatten(1, (self.tokens, -1))

    def text_offset(self, prompt: torch.Tensor) -> torch.Tensor:
        """What a picture adds to every learnable slot of its abnormal prompt, (B, text_width) from E_f (B, d)."""
        with full_precision(prompt):
            return self.text_gate * self.to_text(prompt)
