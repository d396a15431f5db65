"""How the mini's training runs: its configuration, what each step is about, and how fast it learns."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..agent.errors import ConfigError
from .mini_model import MiniShape
from .mini_packing import cosine_rate
from .questions import TASKS, Task

DETECTION: Task = "Anomaly Detection"
ORDER: tuple[Task, ...] = (
    "Defect Analysis",
    "Object Analysis",
    "Defect Description",
    "Object Classification",
    "Anomaly Detection",
    "Defect Classification",
    "Defect Localization",
)
HARD: tuple[Task, ...] = ("Defect Description", "Defect Localization", "Defect Analysis", "Defect Classification")
"""Subtasks that are learnt last."""


@dataclass(frozen=True)
class MiniConfig:
    """How the mini is trained; all of it decides the result.

    Attributes:
        shape: of the model.
        steps: of the optimiser.
        minutes: the schedule moves on with the clock where that is ahead of the steps, so that a run ends after so
            long; its result is then no longer a matter of the seed alone. None for steps alone.
        packs: prompts of each batch.
        endings: questions of each prompt.
        learning_rate: peak.
        judge_rate: times that for the heads that exist in training alone: what they say must be loud before anything
            can be learnt from it.
        weight_decay: decoupled (AdamW).
        warm_up: share of each of the two parts of the run.
        reports_from: share of the run after which its second part begins, in which reports are learnt beside questions
            and the rate rises and falls once more.
        sure_until: share of the first part in which evidence is strong and right; doubt grows over the fifth behind it.
        shown_from: share of the first part after which simulated prompts may show pictures.
        real_from: share of the first part after which labelled pictures are asked about.
        reports_rate: peak of the second part.
        option_loss: weight of telling right options from wrong ones before the answer is due.
        words_loss: weight of the answer among all words, beside that among the letters of the options.
        seed: of everything.
        workers: processes that share each step's batches; their number changes the result by rounding alone.
        checkpoint_every: steps between checkpoints.
    """

    shape: MiniShape = MiniShape()  # noqa: RUF009  # frozen
    steps: int = 750
    minutes: float | None = None
    packs: int = 3
    endings: int = 5
    learning_rate: float = 4e-4
    judge_rate: float = 20.0
    weight_decay: float = 0.05
    warm_up: float = 0.04
    reports_from: float = 0.5
    sure_until: float = 0.3
    shown_from: float = 0.3
    real_from: float = 0.5
    reports_rate: float = 8e-4
    option_loss: float = 0.5
    words_loss: float = 0.1
    seed: int = 0
    workers: int = 2
    checkpoint_every: int = 25

    def __post_init__(self) -> None:
        if min(self.steps, self.packs, self.endings, self.workers, self.checkpoint_every) < 1:
            raise ConfigError("steps, packs, endings, workers and checkpoint_every must be positive.")
        if not 0.0 < self.reports_from <= 1.0:
            raise ConfigError("reports_from must lie in (0, 1].")


def identity_of(config: MiniConfig) -> dict[str, Any]:
    """The configuration as plain values, for fingerprint and card."""
    return dataclasses.asdict(config)


@dataclass(frozen=True)
class Batchwork:
    """One batch of a step: of which kind, about which subtask."""

    kind: str
    task: Task


def batches_of(config: MiniConfig, step: int, share: float, real: bool) -> list[Batchwork]:
    """The batches of a step, such that even and odd ones are about as long.

    In the first part every subtask simulated, one of the harder ones twice, and real pictures once those are due; in
    the second, whose steps are shorter, reports with and without pages, and a few questions lest they be forgotten:
    whether there is a defect in every step, since that is lost first, the others in turn.
    """
    if share >= config.reports_from:
        work = [Batchwork(kind, DETECTION) for kind in ("report", "bare report")]
        others = [task for task in ORDER if task != DETECTION]
        work += [Batchwork("simulated", DETECTION)]
        work += [Batchwork("simulated", others[(2 * step + i) % len(others)]) for i in range(2)]
        return work + [Batchwork("real", TASKS[step % len(TASKS)])] * real
    work = [Batchwork("simulated", task) for task in ORDER]
    work.append(Batchwork("simulated", HARD[step % len(HARD)]))
    if real and asked_share(config, share) >= config.real_from:
        work += [Batchwork("real", TASKS[(3 * step + i) % len(TASKS)]) for i in range(2)]
    return work


def asked_share(config: MiniConfig, share: float) -> float:
    """How far the run's first part is, in [0, 1]."""
    return min(1.0, share / config.reports_from)


def doubt_at(config: MiniConfig, share: float) -> float:
    """Share of made-up cases whose evidence may be weak or wrong: in each part none at first, in the end all."""
    if share < config.reports_from:
        return float(np.clip((asked_share(config, share) - config.sure_until) / 0.2, 0.0, 1.0))
    part = (share - config.reports_from) / max(1.0 - config.reports_from, 1e-9)
    return float(np.clip((part - 0.35) / 0.3, 0.0, 1.0))


def rate_at(config: MiniConfig, share: float) -> float:
    """Learning rate: in each part of the run it rises to its peak and falls to nearly nothing."""
    if share < config.reports_from:
        return config.learning_rate * cosine_rate(asked_share(config, share), config.warm_up)
    part = (share - config.reports_from) / (1.0 - config.reports_from)
    return config.reports_rate * cosine_rate(part, config.warm_up)
