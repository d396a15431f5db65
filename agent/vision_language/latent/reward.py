"""The reward of think tokens: certainty of the answer, bounded from all sides, so that nothing else is gained by it.

DMLR (arXiv 2512.12623) rewards low entropy at the think positions, where no text is ever said. Here the entropy is that
of the answer; a mass that leaves the options, a place far from real tokens, a distribution far from the one without
think tokens, and disagreement with the expert all cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from .settings import LatentSettings

LEAST_LOGP = -80.0
"""Log-probabilities below are as good as never; forbidden tokens stay finite, and so do gradients."""
TOP_THINK = 20
"""Likeliest tokens that the published entropy at the think positions is taken over."""


@dataclass(frozen=True, eq=False)
class Options:
    """Distribution over the options of a question.

    Attributes:
        shares: float32 (n,), adding up to 1.
        log_mass: float32 (), logarithm of the share of the whole probability that fell on them.
    """

    shares: torch.Tensor
    log_mass: torch.Tensor

    @property
    def entropy(self) -> torch.Tensor:
        """Normalised, in [0, 1]."""
        return normalised_entropy(self.shares)

    @property
    def mass(self) -> float:
        """Share of the whole probability on the options."""
        return min(1.0, float(self.log_mass.detach().exp()))


def option_shares(logits: torch.Tensor, ids: Sequence[Sequence[int]]) -> Options:
    """Distribution over options at the first place of the answer, differentiable and finite for any logits.

    Args:
        logits: float (V,), raw; some may be minus infinity.
        ids: for each option the tokens that say it.
    """
    logp = torch.log_softmax(logits.float(), dim=-1).clamp_min(LEAST_LOGP)
    each = torch.stack([torch.logsumexp(logp[list(tokens)], dim=0) for tokens in ids])
    return Options(each.softmax(dim=0), torch.logsumexp(each, dim=0).clamp_max(0.0))


def normalised_entropy(shares: torch.Tensor) -> torch.Tensor:
    """Entropy of (n,) shares divided by log n; 0 log 0 is 0, and so is its gradient."""
    safe = shares.clamp_min(torch.finfo(torch.float32).tiny)
    return -(shares * safe.log()).sum() / math.log(len(shares))


def top_entropy(logits: torch.Tensor, k: int = TOP_THINK) -> torch.Tensor:
    """Mean entropy of the k likeliest tokens at each place, divided by log k; never above that of all tokens.

    Args:
        logits: float (L, V), raw.
        k: tokens, three at least.
    """
    logp = torch.log_softmax(logits.float(), dim=-1)
    best = torch.topk(logp, min(k, logp.shape[-1]), dim=-1).values.clamp_min(LEAST_LOGP)
    return -(best.exp() * best).sum(dim=-1).mean() / math.log(best.shape[-1])


def divergence(shares: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """KL(shares || base) in nats, both (n,); finite where the base has 0."""
    tiny = torch.finfo(torch.float32).tiny
    return (shares * (shares.clamp_min(tiny).log() - base.clamp_min(tiny).log())).sum()


@dataclass(frozen=True, eq=False)
class Scored:
    """A reward and what it was made of.

    Attributes:
        total: R, differentiable.
        options: the distribution that was rewarded.
        entropy: normalised, of the options.
    """

    total: torch.Tensor
    options: Options
    entropy: float

    @property
    def value(self) -> float:
        """R as a number."""
        return float(self.total.detach())


class Reward:
    """R = -H + 0.5 min(0, log(m / m_min)) + agreement - distance - divergence.

    Args:
        letters: the options.
        ids: for each the tokens that say it.
        base: float32 (n,), distribution without think tokens.
        initial: float32 (L, d), T0.
        evidence: letter -> agreement with the expert in [-1, 1]; None for tasks in which it has no say.
        settings: weights.
    """

    def __init__(
        self,
        letters: Sequence[str],
        ids: Sequence[Sequence[int]],
        base: torch.Tensor,
        initial: torch.Tensor,
        evidence: Mapping[str, float] | None,
        settings: LatentSettings,
    ) -> None:
        self.letters, self.ids, self.settings = tuple(letters), ids, settings
        self.base, self.initial = base.detach(), initial.detach()
        agreement = [0.0 if evidence is None else evidence.get(letter, 0.0) for letter in letters]
        self.agreement = torch.tensor(agreement, device=base.device)

    @property
    def needs_think_logits(self) -> bool:
        """Whether scores at the think positions are asked for."""
        return self.settings.reward_at != "answer"

    def __call__(self, answer: torch.Tensor, think: torch.Tensor | None, tokens: torch.Tensor) -> Scored:
        """Score a pass.

        Args:
            answer: float (V,), raw logits of the first answer token.
            think: float (L, V), raw logits at the think positions; None when not asked for.
            tokens: float32 (L, d), T.
        """
        s = self.settings
        options = option_shares(answer, self.ids)
        entropy = options.entropy
        rewarded = entropy
        if s.reward_at != "answer":
            if think is None:
                raise ValueError("the reward at the think positions needs their logits")
            rewarded = top_entropy(think) if s.reward_at == "think" else (entropy + top_entropy(think)) / 2
        total = (
            -rewarded.clamp_min(s.entropy_floor)
            + 0.5 * (options.log_mass - math.log(s.min_mass)).clamp_max(0.0)
            + s.evidence_weight * (options.shares * self.agreement).sum()
            - s.norm_weight * (tokens - self.initial).square().sum() / self.initial.square().sum()
            - s.divergence_weight * (divergence(options.shares, self.base) - 1.0).clamp_min(0.0)
        )
        return Scored(total, options, float(entropy.detach()))
