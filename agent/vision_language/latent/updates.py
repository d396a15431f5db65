"""How think tokens move: along the reward's own gradient, by evolution in a subspace, or as published."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from .settings import LatentSettings

DECAY = 0.95
"""Of exploration, each step (arXiv 2512.12623)."""
PUBLISHED_RATE = 1e-3
"""eta of the published step (arXiv 2512.12623); with sigma it is read in units of the tokens' root mean square."""

Evaluate = Callable[[torch.Tensor], float]
"""Reward of tokens (L, d), without gradients."""


class Update(Protocol):
    """Moves think tokens."""

    uses_gradient: bool

    def __call__(self, tokens: torch.Tensor, gradient: torch.Tensor | None, evaluate: Evaluate) -> torch.Tensor:
        """The next tokens.

        Args:
            tokens: float32 (L, d), as they are.
            gradient: float32 (L, d), of the reward; None for updates that use none.
            evaluate: reward of other tokens.
        """
        ...


class GradientUpdate:
    """Adam along the reward's gradient, with noise that fades where exploration is wanted.

    Args:
        initial: float32 (L, d), T0.
        settings: rate and noise.
        generator: of the noise.
    """

    uses_gradient = True

    def __init__(self, initial: torch.Tensor, settings: LatentSettings, generator: torch.Generator) -> None:
        self.unit = root_mean_square(initial)
        self.noise, self.generator = settings.noise * self.unit, generator
        self.moving = initial.detach().clone().requires_grad_(True)
        self.adam = torch.optim.Adam([self.moving], lr=settings.learning_rate * self.unit)

    def __call__(self, tokens: torch.Tensor, gradient: torch.Tensor | None, evaluate: Evaluate) -> torch.Tensor:
        """One step upwards."""
        if gradient is None:
            raise ValueError("the gradient step needs a gradient")
        with torch.no_grad():
            self.moving.copy_(tokens)
        self.moving.grad = -gradient
        self.adam.step()
        moved = self.moving.detach().clone()
        if self.noise > 0.0:
            self.noise *= DECAY
            moved += self.noise * _normal(moved.shape, self.generator, moved.device)
        return moved


class SubspaceEvolution:
    """Antithetic natural evolution strategies (Wierstra et al. 2014) in the directions that the prompt itself spans.

    Rewards count by rank, so that neither their scale nor a constant added to them moves anything.

    Args:
        initial: float32 (L, d), T0.
        settings: pairs, rank, sigma and rate.
        generator: of the directions.
        context: float (n, d), embeddings of question and picture.
    """

    uses_gradient = False

    def __init__(
        self, initial: torch.Tensor, settings: LatentSettings, generator: torch.Generator, context: torch.Tensor
    ) -> None:
        self.basis = principal_directions(context, settings.rank)
        # A step has the same root mean square a coordinate as one in the whole space would have.
        self.unit = root_mean_square(initial) * (initial.shape[1] / len(self.basis)) ** 0.5
        self.pairs, self.sigma, self.rate = settings.samples, settings.sigma, settings.learning_rate
        self.generator = generator

    def __call__(self, tokens: torch.Tensor, gradient: torch.Tensor | None, evaluate: Evaluate) -> torch.Tensor:
        """One step along the estimated gradient."""
        shape = (self.pairs, len(tokens), len(self.basis))
        draws = _normal(shape, self.generator, tokens.device)
        moves = self.sigma * self.unit * draws @ self.basis
        rewards = torch.tensor([[evaluate(tokens + move), evaluate(tokens - move)] for move in moves])
        worth = centred_ranks(rewards.reshape(-1)).reshape(-1, 2).to(tokens.device)
        slope = ((worth[:, 0] - worth[:, 1])[:, None, None] / 2 * draws).mean(dim=0) / self.sigma
        return tokens + self.rate * self.unit * slope @ self.basis


class OneSample:
    """The published step: one draw, its reward as the weight, no baseline (arXiv 2512.12623). An ablation.

    In thousands of dimensions it is mostly a random walk: any positive reward moves towards whatever was drawn.

    Args:
        initial: float32 (L, d), T0.
        settings: sigma.
        generator: of the draw.
    """

    uses_gradient = False

    def __init__(self, initial: torch.Tensor, settings: LatentSettings, generator: torch.Generator) -> None:
        self.unit, self.sigma, self.generator = root_mean_square(initial), settings.sigma, generator

    def __call__(self, tokens: torch.Tensor, gradient: torch.Tensor | None, evaluate: Evaluate) -> torch.Tensor:
        """T + eta R(T + xi) xi / sigma^2, the reward shifted by 1 as published (1 - H)."""
        draw = _normal(tokens.shape, self.generator, tokens.device)
        reward = 1.0 + evaluate(tokens + self.sigma * self.unit * draw)
        moved = tokens + PUBLISHED_RATE * self.unit * reward * draw / self.sigma
        self.sigma *= DECAY
        return moved


def root_mean_square(tokens: torch.Tensor) -> float:
    """Of all coordinates."""
    return float(tokens.detach().float().square().mean().sqrt())


def centred_ranks(rewards: torch.Tensor) -> torch.Tensor:
    """Ranks of (n,) rewards from -0.5 to 0.5; equal rewards share theirs, so a constant gives zeros."""
    above = (rewards[:, None] > rewards[None]).float().sum(dim=1)
    below = (rewards[:, None] < rewards[None]).float().sum(dim=1)
    return (above - below) / (2.0 * max(1, len(rewards) - 1))


def principal_directions(context: torch.Tensor, rank: int) -> torch.Tensor:
    """Orthonormal directions (r, d) in which the rows of (n, d) differ most, r at most the rank asked for."""
    centred = context.detach().float() - context.detach().float().mean(dim=0)
    _, spread, directions = torch.linalg.svd(centred, full_matrices=False)
    known = int((spread > 1e-5 * spread[0].clamp_min(1e-12)).sum())
    return directions[: max(1, min(rank, known))]


def project(tokens: torch.Tensor, initial: torch.Tensor, settings: LatentSettings) -> torch.Tensor:
    """Back into the ball around the initial tokens and below the longest row allowed.

    Args:
        tokens: float32 (L, d).
        initial: float32 (L, d), T0.
        settings: ``max_move`` and ``max_row_norm``.
    """
    longest = settings.max_row_norm * initial.norm(dim=1).max()
    rows = tokens.norm(dim=1, keepdim=True).clamp_min(1e-12)
    bounded = tokens * (longest / rows).clamp_max(1.0)
    move = bounded - initial
    room = settings.max_move * initial.norm()
    return initial + move * (room / move.norm().clamp_min(1e-12)).clamp_max(1.0)


def _normal(shape: tuple[int, ...] | torch.Size, generator: torch.Generator, device: torch.device) -> torch.Tensor:
    """Drawn on the CPU, so that a seed gives the same everywhere."""
    return torch.randn(shape, generator=generator).to(device)
