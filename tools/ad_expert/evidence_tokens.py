"""E_c = {Loc, Vis}: what the AD Expert found, as tokens for the reasoner's language model.

ADSeeker (arXiv 2508.03088) hands its reasoner a localisation and a visual part and gives neither sizes nor networks.
Loc is built as Myriad's expert tokenizer is described (arXiv 2310.19070: 3x3 convolutions, ReLU and max-pooling over
the map), Vis as the significance pooling of Anomaly-OV (Xu et al., 2025) whose pooled tokens look once more at all
patches.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import nn
from torch.nn import functional

from .unrolled_ista import full_precision

LOC_SIDE = 96
LOC_TOKENS = 9
VIS_TILES = 2
"""Tiles along a side that significance is pooled in."""
EMPTY_TILE = 1e-6
"""Added to the summed significance of a tile, which is zero where nothing is abnormal."""


def loc_input(anomaly_map: torch.Tensor) -> torch.Tensor:
    """Two views of a calibrated map: its mean and its local maximum, on a fixed grid.

    The maximum keeps a defect of a few pixels that the mean over a cell would lose.

    Args:
        anomaly_map: (B, H, W), calibrated to [0, 1].

    Returns:
        (B, 2, 96, 96).
    """
    maps = anomaly_map[:, None]
    mean = functional.adaptive_avg_pool2d(maps, LOC_SIDE)
    peak = functional.max_pool2d(functional.adaptive_max_pool2d(maps, LOC_SIDE), 3, stride=1, padding=1)
    return torch.cat([mean, peak], dim=1)


class LocTokenizer(nn.Module):  # type: ignore[misc]
    """Where: five blocks of 3x3 convolution, ReLU and 2x2 max-pooling, then one token for each cell of a 3x3 grid.

    Args:
        dim: d, width of the language model (2048 for Qwen2.5-VL-3B, 3584 for 7B).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        widths = (2, 16, 32, 64, 128, 256)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(narrow, wide, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
                for narrow, wide in itertools.pairwise(widths)
            )
        )
        self.to_tokens = nn.Linear(widths[-1], dim)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Tokens (B, 9, d) in raster order, of maps (B, 2, 96, 96) from ``loc_input``."""
        if maps.shape[1:] != (2, LOC_SIDE, LOC_SIDE):
            raise ValueError(f"maps (B, 2, {LOC_SIDE}, {LOC_SIDE}) expected, got {tuple(maps.shape)}")
        grid = functional.adaptive_avg_pool2d(self.blocks(maps), 3)
        return self.to_tokens(grid.flatten(2).transpose(1, 2))


def significance_pool(patch_tokens: torch.Tensor, significance: torch.Tensor) -> torch.Tensor:
    """Mean of the tokens of each quarter of the picture, weighted by significance.

    Args:
        patch_tokens: (B, N, D), N = h * w in raster order.
        significance: (B, h, w), at least 0.

    Returns:
        (B, 4, D); zero where a quarter has no significance.
    """
    weighted = (patch_tokens * significance.flatten(1)[..., None]).transpose(1, 2).unflatten(2, significance.shape[1:])
    summed = functional.adaptive_avg_pool2d(weighted, VIS_TILES)
    weight = functional.adaptive_avg_pool2d(significance[:, None], VIS_TILES) + EMPTY_TILE
    return (summed / weight).flatten(2).transpose(1, 2)


class VisTokenizer(nn.Module):  # type: ignore[misc]
    """What: pooled and learnt queries look at all patches once, by attention of one head whose values are the tokens.

    Args:
        patch_dim: D, width of the patch tokens.
        dim: d, width of the language model.
        queries: learnt queries beside the four pooled ones.
        attention_dim: width of queries and keys.
    """

    def __init__(self, patch_dim: int, dim: int, *, queries: int = 4, attention_dim: int = 512) -> None:
        super().__init__()
        self.queries = nn.Parameter(0.02 * torch.randn(queries, patch_dim))
        self.to_query = nn.Linear(patch_dim, attention_dim)
        self.to_key = nn.Linear(patch_dim, attention_dim)
        self.mlp = nn.Sequential(nn.Linear(patch_dim, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(
        self, patch_tokens: torch.Tensor, significance: torch.Tensor, valid: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Tokens of a picture.

        Args:
            patch_tokens: (B, N, D), N = h * w in raster order.
            significance: (B, h, w), the anomaly map on the patch grid, at least 0.
            valid: bool (B, N), False for patches of padding, which count for nothing; None: all count.

        Returns:
            (B, 4 + queries, d).
        """
        if significance.flatten(1).shape != patch_tokens.shape[:2]:
            raise ValueError(
                f"significance {tuple(significance.shape)} does not cover patch tokens {tuple(patch_tokens.shape)}"
            )
        if valid is not None:
            significance = significance * valid.view_as(significance)
        pooled = significance_pool(patch_tokens, significance)
        asked = torch.cat([pooled, self.queries.expand(len(pooled), -1, -1).to(pooled.dtype)], dim=1)
        query, key = self.to_query(asked), self.to_key(patch_tokens)
        logits = query @ key.transpose(1, 2) / math.sqrt(key.shape[-1])
        if valid is not None:
            logits = logits.masked_fill(~valid[:, None], float("-inf"))
        return self.mlp(logits.softmax(dim=-1) @ patch_tokens)


class EvidenceTokenizer(nn.Module):  # type: ignore[misc]
    """Loc and Vis tokens of a picture, side by side.

    Args:
        patch_dim: D, width of the patch tokens.
        dim: d, width of the language model.
    """

    def __init__(self, patch_dim: int, dim: int) -> None:
        super().__init__()
        self.loc = LocTokenizer(dim)
        self.vis = VisTokenizer(patch_dim, dim)

    def forward(
        self,
        anomaly_map: torch.Tensor,
        patch_tokens: torch.Tensor,
        grid: tuple[int, int],
        valid: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """E_c of a picture.

        Args:
            anomaly_map: (B, H, W), calibrated to [0, 1].
            patch_tokens: (B, N, D).
            grid: (h, w) of the patch tokens, covering the same picture as the map.
            valid: bool (B, N), False for patches of padding.

        Returns:
            (B, 17, d): nine Loc tokens, then eight Vis tokens.
        """
        significance = functional.adaptive_avg_pool2d(anomaly_map[:, None], grid)[:, 0]
        return torch.cat([self.loc(loc_input(anomaly_map)), self.vis(patch_tokens, significance, valid)], dim=1)


def rescale_to(tokens: torch.Tensor, median_row_norm: float) -> torch.Tensor:
    """Bring tokens to the length of the language model's own embeddings, or it takes them for noise or for shouting.

    One factor a picture, so that its tokens keep their lengths relative to each other.

    Args:
        tokens: (B, T, d).
        median_row_norm: median Euclidean norm of the rows of the model's token embedding.

    Returns:
        (B, T, d), the root mean square of the token norms equal to ``median_row_norm``; tokens of zeros stay zero.
    """
    with full_precision(tokens):
        rows = tokens.float() if tokens.dtype in (torch.float16, torch.bfloat16) else tokens
        rms = rows.square().sum(dim=2).mean(dim=1).sqrt().clamp_min(1e-12)
        return (rows * (median_row_norm / rms)[:, None, None]).to(tokens.dtype)
