"""The training loop: deterministic by seed, resumable at any step, stopped by what the held-out products say.

The order of the data is drawn from (seed, epoch), the learning rate follows from the step, and everything else is in
the checkpoint, so a run that was killed ends in the weights that it would have had.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch

from ..agent.errors import ConfigError
from .checkpoint import Progress, load_checkpoint, save_checkpoint

CHECKPOINT = "checkpoint.safetensors"
Precision = Literal["fp32", "bf16"]
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class LoopConfig:
    """How the weights are fitted; all of it decides the result.

    Attributes:
        epochs: at most.
        batch: samples a step.
        learning_rate: peak; a cosine takes it to zero over all epochs.
        warm_up: share of all steps in which it rises to the peak, before the cosine.
        weight_decay: decoupled (AdamW).
        betas: of Adam.
        patience: epochs without a better held-out score before the end; 0 never stops early.
        seed: of weights, order and synthetic defects.
        precision: ``bf16`` runs the forward pass under autocast; losses and sparse codes stay in fp32.
        checkpoint_every: steps between checkpoints; one more is written after each epoch.
    """

    epochs: int = 12
    batch: int = 8
    learning_rate: float = 2e-3
    warm_up: float = 0.0
    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.999)
    patience: int = 4
    seed: int = 0
    precision: Precision = "fp32"
    checkpoint_every: int = 50

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch, self.checkpoint_every) < 1 or self.learning_rate <= 0 or self.patience < 0:
            raise ConfigError("epochs, batch and learning rate must be positive.")
        if not 0.0 <= self.warm_up < 1.0:
            raise ConfigError("the warm-up is a share of all steps, in [0, 1).")


class Task(Protocol):
    """What is trained.

    Attributes:
        module: trainable parameters have ``requires_grad``; its whole state is what a run produces.
        size: number of training samples.
    """

    module: torch.nn.Module
    size: int

    def loss(self, indices: Sequence[int]) -> torch.Tensor:
        """Scalar loss of a batch of samples."""
        ...

    def after_step(self) -> None:
        """What must hold after each optimiser step, such as unit rows of a dictionary."""
        ...

    def held_out_score(self) -> float | None:
        """How good the present weights are on products that are not trained on; None where there are none."""
        ...


@dataclass(frozen=True)
class Trained:
    """The end of a run.

    Attributes:
        state: weights of the best epoch, of the last one where nothing was held out.
        progress: losses and scores by epoch.
    """

    state: dict[str, torch.Tensor]
    progress: Progress


def fit(
    task: Task,
    config: LoopConfig,
    folder: Path,
    *,
    fingerprint: str,
    resume: bool = False,
    report: Report | None = None,
) -> Trained:
    """Fit a task.

    Args:
        task: built after ``seed_everything``.
        config: see there.
        folder: where the checkpoint lies.
        fingerprint: of data and configuration; a checkpoint of another run is refused.
        resume: continue from the folder's checkpoint when there is one.
        report: told (what, steps done, steps in all).

    Raises:
        ConfigError: there are fewer samples than one.
        WeightsError: the checkpoint does not belong to this run.
        StorageError: the disk refuses.
    """
    if task.size < 1:
        raise ConfigError("there is nothing to train on.")
    parameters = [parameter for parameter in task.module.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, config.learning_rate, betas=config.betas, weight_decay=config.weight_decay, foreach=False
    )
    path, progress = folder / CHECKPOINT, Progress()
    best: dict[str, torch.Tensor] = {}
    if resume and path.is_file():
        progress, best = load_checkpoint(path, task.module, optimiser, fingerprint)
    per_epoch = math.ceil(task.size / config.batch)
    total = config.epochs * per_epoch
    while progress.step < total and not _is_over(progress, config):
        epoch, position = divmod(progress.step, per_epoch)
        order = np.random.default_rng((config.seed, epoch)).permutation(task.size)
        batch = [int(i) for i in order[position * config.batch : (position + 1) * config.batch]]
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * rate_at(progress.step, total, config.warm_up)
        task.module.train()
        with _autocast(parameters[0], config.precision):
            loss = task.loss(batch)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        task.after_step()
        progress.step += 1
        progress.epoch_loss += float(loss.detach()) * len(batch) / task.size
        if position + 1 == per_epoch:
            best = _end_epoch(task, progress, best)
        if position + 1 == per_epoch or progress.step % config.checkpoint_every == 0:
            save_checkpoint(path, task.module, optimiser, best, progress, fingerprint)
        if report:
            report("training", progress.step, total)
    return Trained(best, progress)


def rate_at(step: int, total: int, warm_up: float) -> float:
    """Share of the peak learning rate at a step: a straight line up, then a cosine down to zero.

    Args:
        step: 0 is the first.
        total: steps of the whole run.
        warm_up: share of them that the rise takes, rounded up to whole steps.
    """
    rise = math.ceil(warm_up * total)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1.0 + math.cos(math.pi * (step - rise) / (total - rise)))


def seed_everything(seed: int) -> None:
    """Set torch's generators and ask for deterministic kernels."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)


def _end_epoch(task: Task, progress: Progress, best: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    task.module.eval()
    with torch.no_grad():
        score = task.held_out_score()
    known = [value for value in progress.scores if value is not None]
    progress.losses.append(progress.epoch_loss)
    progress.scores.append(score)
    progress.epoch_loss = 0.0
    if score is not None and known and score <= max(known):
        return best
    progress.best_epoch = len(progress.scores) - 1
    return {name: value.detach().cpu().clone() for name, value in task.module.state_dict().items()}


def _is_over(progress: Progress, config: LoopConfig) -> bool:
    waited = len(progress.scores) - 1 - progress.best_epoch
    return bool(config.patience and progress.scores and progress.scores[-1] is not None and waited >= config.patience)


def _autocast(like: torch.Tensor, precision: Precision) -> AbstractContextManager[None]:
    context: AbstractContextManager[None] = torch.autocast(
        like.device.type, torch.bfloat16, enabled=precision == "bf16"
    )
    return context
