"""What latent reasoning is told: the search, its reward, its guards, its budget, and the controls it has to beat."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from ...errors import ConfigError

Arm = Literal["latent", "inject_only", "initial", "dummy", "random_direction", "self_consistency", "reask"]
"""What is run.

``latent`` is the search. The others are what it has to beat:
``inject_only`` injects patches behind think tokens that stay as they began; ``initial`` only inserts the think tokens;
``dummy`` inserts as many full stops; ``random_direction`` searches, then moves the think tokens as far as the search
did in a random direction; ``self_consistency`` spends the search's compute on other orders of the options;
``reask`` asks again in a second turn, at temperature 0.
"""
ARMS: tuple[Arm, ...] = get_args(Arm)
Update = Literal["gradient", "nes", "one_sample"]
Patches = Literal["attention", "expert", "both", "random"]
RewardPlace = Literal["answer", "think", "both"]
PatchPositions = Literal["text", "source"]
GUARD_DEFECTS = 0.01
"""Share of good pictures by which anomaly answers may rise."""
MOST_CUT = 0.05
"""Share of the searches about them that may be cut off for want of time or memory: those say nothing."""


@dataclass(frozen=True)
class LatentSettings:
    """Settings of latent reasoning; the defaults follow DMLR (arXiv 2512.12623) where it states a value that fits.

    Attributes:
        arm: the search or one of its controls.
        length: L, think tokens.
        steps: of the search, at most.
        update: direct gradient of the reward by Adam, natural evolution strategies in a subspace, or the published
            step from one sample, which is kept for ablations.
        learning_rate: in units of the initial tokens' root mean square.
        noise: exploration added after each gradient step, in the same unit; falls by 5% a step. 0 for none.
        patches: what chooses the picture's features that are injected; None for none.
        patches_per_step: at most.
        max_patches: of all steps together.
        patch_steps: steps at which patches are tried, from 1.
        patch_positions: whether an injected feature is read at a place of the text or at its own in the picture.
        reward_at: where entropy is rewarded: the answer, or the think tokens as published.
        evidence_weight: of the agreement with the expert.
        norm_weight: of the distance from the initial tokens.
        divergence_weight: of leaving the answer without think tokens by more than one nat.
        min_mass: share of the probability that must fall on the options.
        entropy_floor: normalised entropy below which nothing more is rewarded.
        max_move: length of the move from the initial tokens, as a share of their length.
        max_row_norm: of each token, as a multiple of the longest initial one.
        samples: antithetic pairs of a step of the evolution strategy.
        rank: dimensions of its subspace.
        sigma: its step of exploration, in units of the root mean square; also that of the published step.
        patience: steps without a better reward before it stops.
        max_flips: changes of the likeliest option before it stops.
        min_gain: of reward that counts as better.
        evidence_gain: by which the expert must prefer the new option to the old one.
        grounding_rise: of normalised entropy when the picture is blanked.
        dummy_check_share: of questions at which random tokens are tried against the result.
        wall_s: seconds, at most; 3 for 3B and 6 for 7B models, more on a CPU.
        memory_bytes: growth of memory, at most.
        seed: of everything drawn.
    """

    arm: Arm = "latent"
    length: int = 4
    steps: int = 8
    update: Update = "gradient"
    learning_rate: float = 0.02
    noise: float = 0.0
    patches: Patches | None = "both"
    patches_per_step: int = 2
    max_patches: int = 16
    patch_steps: tuple[int, ...] = (1, 3, 5)
    patch_positions: PatchPositions = "text"
    reward_at: RewardPlace = "answer"
    evidence_weight: float = 0.5
    norm_weight: float = 0.1
    divergence_weight: float = 0.2
    min_mass: float = 0.9
    entropy_floor: float = 0.05
    max_move: float = 0.5
    max_row_norm: float = 1.25
    samples: int = 8
    rank: int = 32
    sigma: float = 0.1
    patience: int = 3
    max_flips: int = 2
    min_gain: float = 1e-3
    evidence_gain: float = 0.2
    grounding_rise: float = 0.05
    dummy_check_share: float = 0.05
    wall_s: float = 6.0
    memory_bytes: int = 2 * 2**30
    seed: int = 0

    def __post_init__(self) -> None:
        if self.arm not in ARMS:
            raise ConfigError(f"no arm of latent reasoning is called {self.arm!r}.", hint=f"Known: {', '.join(ARMS)}.")
        counts = (self.length, self.patches_per_step, self.samples, self.rank)
        if min(counts) < 1 or self.steps < 0 or self.max_patches < 0:
            raise ConfigError("latent reasoning needs at least one think token, patch a step, sample and rank.")
        weights = (self.learning_rate, self.noise, self.evidence_weight, self.norm_weight, self.divergence_weight)
        if not all(math.isfinite(weight) and weight >= 0.0 for weight in weights) or not self.sigma > 0.0:
            raise ConfigError("weights and rates of latent reasoning are numbers of 0 and more, sigma is above 0.")
        if not (0.0 < self.min_mass <= 1.0 and 0.0 <= self.entropy_floor < 1.0):
            raise ConfigError("min_mass lies in (0, 1] and entropy_floor in [0, 1).")


@dataclass(frozen=True)
class NormalImages:
    """What the search did to pictures of good parts that were set aside for calibration (guard G5).

    Attributes:
        count: of pictures.
        base_alarms: how many the model called defective without it.
        latent_alarms: how many with it.
        cut: searches that ended for want of time or memory, whose answer is the one without.
    """

    count: int
    base_alarms: int
    latent_alarms: int
    cut: int = 0

    @property
    def measured(self) -> bool:
        """Whether nearly all searches came to their own end, so that their answers say what the search does."""
        return self.count > 0 and self.cut <= MOST_CUT * self.count

    @property
    def hold(self) -> bool:
        """Whether it made anomalies of good parts at most 1 point oftener; never when it was not measured."""
        return self.measured and self.latent_alarms - self.base_alarms <= GUARD_DEFECTS * self.count

    @property
    def sentence(self) -> str:
        """What was measured, in words."""
        alarms = f"{self.latent_alarms} of {self.count} times with it and {self.base_alarms} without"
        too_often = ", too often" if self.measured else f", but {self.cut} searches were cut off"
        return f"G5: good parts were called defective {alarms}{'' if self.hold else too_often}"
