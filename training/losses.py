"""Losses of dense anomaly detection. All take probabilities; all are means, so that picture sizes do not weigh."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

FOCAL_GAMMA = 2.0
PROBABILITY_FLOOR = 1e-5
DICE_SMOOTH = 1.0
MAP_WEIGHT = 4.0
HSP_WEIGHT = 0.1


def focal_loss(probability: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """-(1 - p_t)^2 log p_t, mean over all elements (Lin et al. 2017), p_t of the true class and at least 1e-5.

    Args:
        probability: of being defective, any shape.
        target: 0 or 1, the same shape.
    """
    true = torch.where(target > 0.5, probability, 1.0 - probability).clamp(PROBABILITY_FLOOR, 1.0)
    return (-((1.0 - true) ** FOCAL_GAMMA) * true.log()).mean()


def dice_loss(probability: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 - (2 sum(p g) + 1) / (sum p + sum g + 1) per picture, mean over pictures (Milletari et al. 2016).

    Args:
        probability: (B, ...).
        target: 0 or 1, the same shape.
    """
    p, g = probability.flatten(1), target.flatten(1).to(probability.dtype)
    overlap = (2.0 * (p * g).sum(1) + DICE_SMOOTH) / (p.sum(1) + g.sum(1) + DICE_SMOOTH)
    return (1.0 - overlap).mean()


def map_loss(normal: torch.Tensor, abnormal: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Focal loss, and dice loss of either class, of one layer's map (AnomalyCLIP, Zhou et al. 2024, equation 2).

    Args:
        normal: (B, H, W) probability of the normal state; with ``abnormal`` it sums to one.
        abnormal: (B, H, W).
        mask: (B, H, W), 1 where defective.
    """
    return focal_loss(abnormal, mask) + dice_loss(abnormal, mask) + dice_loss(normal, 1 - mask)


def zero_shot_loss(
    image_logits: torch.Tensor,
    labels: torch.Tensor,
    maps: Sequence[tuple[torch.Tensor, torch.Tensor]],
    masks: torch.Tensor,
    hsp: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross-entropy of the pictures + 4 sum over layers of ``map_loss`` + 0.1 of the sparse prompts' loss.

    Args:
        image_logits: (B, 2), normal and abnormal.
        labels: int64 (B,), 1 for defective.
        maps: per layer (normal, abnormal), (B, H, W) each.
        masks: (B, H, W), 1 where defective.
        hsp: ``HspLoss.total``, or None without sparse prompts.
    """
    loss = functional.cross_entropy(image_logits, labels)
    loss = loss + MAP_WEIGHT * torch.stack([map_loss(*pair, masks) for pair in maps]).sum()
    return loss if hsp is None else loss + HSP_WEIGHT * hsp
