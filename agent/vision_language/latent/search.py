"""The search for think tokens: ascend the reward, try patches, keep the best, stop early."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from .outcome import SearchStep
from .patches import map_on_grid, patch_scores, pick
from .prompt import LatentPrompt
from .reward import Reward, Scored
from .settings import LatentSettings
from .updates import GradientUpdate, OneSample, SubspaceEvolution, Update, project

SAME = 1e-4
"""Two computations of one reward may differ by this, in 32 bits."""
SAME_16_BIT = 2e-2


class BudgetSpent(Exception):  # noqa: N818  # no error: the base answer stands
    """Time or memory is up."""


@dataclass
class Budget:
    """What the search may take.

    Args:
        settings: limits.
        device: of the model.
        clock: seconds.
    """

    settings: LatentSettings
    device: str
    clock: Callable[[], float]
    begun_s: float = field(init=False)
    used_bytes: int | None = field(init=False)

    def __post_init__(self) -> None:
        self.begun_s = self.clock()
        self.used_bytes = used_bytes(self.device)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return self.clock() - self.begun_s

    def check(self) -> None:
        """Go on, or stop.

        Raises:
            BudgetSpent: a limit is reached.
        """
        if self.seconds >= self.settings.wall_s:
            raise BudgetSpent(f"time is up ({self.settings.wall_s:g} s)")
        now = used_bytes(self.device)
        if now is not None and self.used_bytes is not None and now - self.used_bytes > self.settings.memory_bytes:
            raise BudgetSpent(f"memory is up ({self.settings.memory_bytes / 2**20:.0f} MiB)")


def used_bytes(device: str) -> int | None:
    """Memory in use: what torch holds on CUDA, the resident set on a CPU; None where it cannot be told."""
    if device == "cuda":
        return int(torch.cuda.memory_allocated())
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    import resource

    return pages * resource.getpagesize()


@dataclass(eq=False)
class Best:
    """The best place so far.

    Attributes:
        tokens: float32 (L, d).
        patches: indices.
        scored: its reward.
        reward: R.
    """

    tokens: torch.Tensor
    patches: tuple[int, ...]
    scored: Scored
    reward: float


class Search:
    """Searches for one question.

    Attributes:
        best: the best place; T0 without patches before `run`.
        initial_reward: R0.
        steps: what happened.

    Args:
        prompt: the question.
        reward: of its answers.
        initial: float32 (L, d), T0.
        anomaly_map: float (H, W) over the query picture, calibrated; None for none.
        settings: see there.
        budget: what may be taken.

    Raises:
        BudgetSpent: it was up at once.
    """

    def __init__(
        self,
        prompt: LatentPrompt,
        reward: Reward,
        initial: torch.Tensor,
        anomaly_map: NDArray[np.float32] | None,
        settings: LatentSettings,
        budget: Budget,
    ) -> None:
        self.prompt, self.reward, self.initial = prompt, reward, initial
        self.settings, self.budget = settings, budget
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.expert = None
        if anomaly_map is not None and prompt.grid is not None and float(anomaly_map.max(initial=0.0)) > 0.0:
            self.expert = map_on_grid(anomaly_map, prompt.grid)
        self._usual: torch.Tensor | None = None
        self.steps: list[SearchStep] = []
        budget.check()
        scored = self.score(initial, ())
        self.initial_reward = scored.value
        self.best = Best(initial, (), scored, self.initial_reward)

    def score(self, tokens: torch.Tensor, patches: tuple[int, ...], *, gradient: bool = False) -> Scored:
        """Reward of tokens and patches."""
        with torch.set_grad_enabled(gradient):
            seen = self.prompt.run(tokens, patches, think=self.reward.needs_think_logits)
            return self.reward(seen.answer, seen.think, tokens)

    def run(self) -> str:
        """Search.

        Returns:
            Why it ended.

        Raises:
            BudgetSpent: time or memory was up.
        """
        s = self.settings
        still = s.arm == "inject_only"
        update = None if still else self._update()
        gradient = update is not None and update.uses_gradient
        tokens, patches = self.initial, tuple[int, ...]()
        stale = flips = 0
        letter = self._letter(self.best.scored)
        for step in (t for t in range(1, s.steps + 1) if not still or t in s.patch_steps):
            self.budget.check()
            moving = tokens.detach().clone().requires_grad_(gradient)
            scored = self.score(moving, patches, gradient=gradient)
            if step == 1 and abs(scored.value - self.initial_reward) > self._same():
                return "the first step did not reproduce the reward it began with"
            offered = self._offered(step, moving, patches)
            injected: tuple[int, ...] = ()
            if offered:
                tried = self.score(moving.detach(), (*patches, *offered))
                if tried.value > scored.value + s.min_gain:
                    injected, patches = offered, (*patches, *offered)
                    scored = self.score(moving, patches, gradient=gradient) if gradient else tried
            value = scored.value
            better = value > self.best.reward + s.min_gain
            stale = 0 if better else stale + 1
            if better:
                self.best = Best(moving.detach(), patches, scored, value)
            before, letter = letter, self._letter(scored)
            flips += letter != before
            self._note(step, value, scored, injected, offered, moving)
            if stale >= s.patience or flips >= s.max_flips or scored.entropy < s.entropy_floor:
                return "no better reward" if stale >= s.patience else "certain" if flips < s.max_flips else "wavering"
            self.budget.check()  # the pass with gradients holds the most memory
            if update is not None and step < s.steps:
                slope = torch.autograd.grad(scored.total, moving)[0] if gradient else None
                moved = update(moving.detach(), slope, self._valued(patches))
                tokens = project(moved, self.initial, s)
        return "all steps done"

    def _valued(self, patches: tuple[int, ...]) -> Callable[[torch.Tensor], float]:
        return lambda tokens: self.score(tokens, patches).value

    def _update(self) -> Update:
        if self.settings.update == "gradient":
            return GradientUpdate(self.initial, self.settings, self.generator)
        if self.settings.update == "one_sample":
            return OneSample(self.initial, self.settings, self.generator)
        return SubspaceEvolution(self.initial, self.settings, self.generator, self.prompt.prompt_embeds[0])

    def _same(self) -> float:
        return SAME if self.prompt.suffix.dtype == torch.float32 else SAME_16_BIT

    def _letter(self, scored: Scored) -> str:
        return self.reward.letters[int(scored.options.shares.argmax())]

    def _offered(self, step: int, tokens: torch.Tensor, patches: tuple[int, ...]) -> tuple[int, ...]:
        """Patches to try at this step; none outside its steps, at the cap, or when nothing tells them apart."""
        s, grid = self.settings, self.prompt.grid
        room = min(s.patches_per_step, s.max_patches - len(patches))
        if s.patches is None or step not in s.patch_steps or grid is None or room < 1:
            return ()
        attention = None
        if s.patches in ("attention", "both"):
            if self._usual is None:
                self._usual = self.prompt.usual_attention()
            attention = self.prompt.attention(tokens, patches)
        scores = patch_scores(
            s.patches,
            attention=attention,
            usual=self._usual,
            expert=self.expert,
            seed=s.seed + step,
            count=grid[0] * grid[1],
        )
        return pick(scores, grid, room, patches)

    def _note(
        self,
        step: int,
        value: float,
        scored: Scored,
        injected: tuple[int, ...],
        offered: tuple[int, ...],
        tokens: torch.Tensor,
    ) -> None:
        moved = float((tokens.detach() - self.initial).norm() / self.initial.norm())
        self.steps.append(
            SearchStep(
                step=step,
                reward=value,
                best=self.best.reward,
                entropy=scored.entropy,
                mass=scored.options.mass,
                letter=self._letter(scored),
                injected=injected,
                offered=offered,
                moved=moved,
                seconds=self.budget.seconds,
            )
        )
