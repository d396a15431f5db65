"""What latent reasoning tells: the answers with and without it, why, and every step on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..base import LetterAnswer


@dataclass(frozen=True, eq=False)
class Thought:
    """Think tokens and patches as they stood at the best reward.

    Attributes:
        tokens: float32 (L, d).
        patches: indices into the query picture's merged features, in the order of injection.
        positions: whether patches are read at text places or at their own in the picture.
    """

    tokens: NDArray[np.float32]
    patches: tuple[int, ...]
    positions: str = "text"


@dataclass(frozen=True)
class SearchStep:
    """One step.

    Attributes:
        step: from 1.
        reward: of the think tokens as the step found them, with the patches that it kept.
        best: highest reward so far.
        entropy: normalised, of the options.
        mass: share of the probability on the options.
        letter: the likeliest option.
        injected: patches that this step added.
        offered: patches that it tried.
        moved: length of the move from the initial tokens, as a share of theirs.
        seconds: since the search began.
    """

    step: int
    reward: float
    best: float
    entropy: float
    mass: float
    letter: str
    injected: tuple[int, ...]
    offered: tuple[int, ...]
    moved: float
    seconds: float


@dataclass(frozen=True, eq=False)
class LatentOutcome:
    """The answer, and how it came about.

    Attributes:
        base: the answer without think tokens, that of `QwenModel.choose`.
        proposal: what the think tokens say, before the guards; its probabilities are sharper than they should be, as
            it was sharpness that was rewarded. None when nothing was proposed.
        final: the base's, or when accepted the proposal's letter with the base's probabilities: entropy is never
            reported from an answer that was optimised for low entropy.
        accepted: whether the proposal is the final answer.
        why: in a few words.
        uncertainty: normalised entropy of the base; halfway from there to 1 when guards refused a proposal.
        guards: what each guard that was asked said.
        steps: of the search.
        thought: of the best reward; None when nothing was inserted.
        initial_reward: R0, of the tokens as they began; None without them.
        best_reward: of the thought.
        patch_cells: row and column of each injected patch in the grid of merged features.
        grid: rows and columns of that grid.
        seconds: of everything after the base answer.
        positions: token positions computed after the base answer, forward passes with gradients counted three times.
        prompt_positions: tokens of the prompt, what asking once costs.
        cut: whether time or memory ended it before the guards had decided.
    """

    base: LetterAnswer
    proposal: LetterAnswer | None
    final: LetterAnswer
    accepted: bool
    why: str
    uncertainty: float
    guards: Mapping[str, bool] = field(default_factory=dict)
    steps: tuple[SearchStep, ...] = ()
    thought: Thought | None = None
    initial_reward: float | None = None
    best_reward: float | None = None
    patch_cells: tuple[tuple[int, int], ...] = ()
    grid: tuple[int, int] | None = None
    seconds: float = 0.0
    positions: int = 0
    prompt_positions: int = 0
    cut: bool = False

    @property
    def flipped(self) -> bool:
        """Whether the final answer is another than the base's."""
        return self.final.letter != self.base.letter
