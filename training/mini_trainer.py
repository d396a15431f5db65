"""One worker of the mini's training: which batches a step has, its losses, its optimiser, its checkpoints."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed, nn
from torch.nn import functional

from ..agent.errors import ConfigError
from .checkpoint import Progress, load_checkpoint, save_checkpoint
from .loop import CHECKPOINT, Report
from .mini_data import PackMaker, RealCase, chosen
from .mini_model import MiniShape, build_model
from .mini_packing import Pack, collate, cosine_rate, read_batch, use_packed_attention
from .mini_pictures import Gallery
from .questions import TASKS, Task
from .questions.simulated import Simulator

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
        warm_up: share of the run.
        sure_until: share of the steps in which evidence is strong and right; doubt grows over the fifth behind it.
        shown_from: share of the steps after which simulated prompts may show pictures.
        real_from: share of the steps after which labelled pictures are asked about.
        reports_from: share of the steps after which reports are written.
        option_loss: weight of telling right options from wrong ones before the answer is due.
        words_loss: weight of the answer among all words, beside that among the letters of the options.
        seed: of everything.
        workers: processes that share each step's batches; their number changes the result by rounding alone.
        checkpoint_every: steps between checkpoints.
    """

    shape: MiniShape = MiniShape()  # noqa: RUF009  # frozen
    steps: int = 500
    minutes: float | None = None
    packs: int = 3
    endings: int = 5
    learning_rate: float = 4e-4
    judge_rate: float = 20.0
    weight_decay: float = 0.05
    warm_up: float = 0.04
    sure_until: float = 0.3
    shown_from: float = 0.3
    real_from: float = 0.5
    reports_from: float = 0.45
    option_loss: float = 0.5
    words_loss: float = 0.1
    seed: int = 0
    workers: int = 2
    checkpoint_every: int = 50

    def __post_init__(self) -> None:
        if min(self.steps, self.packs, self.endings, self.workers, self.checkpoint_every) < 1:
            raise ConfigError("steps, packs, endings, workers and checkpoint_every must be positive.")


def identity_of(config: MiniConfig) -> dict[str, Any]:
    """The configuration as plain values, for fingerprint and card."""
    return dataclasses.asdict(config)


class Learner(nn.Module):  # type: ignore[misc]
    """The mini with the heads that exist in training alone.

    Attributes:
        mini: ``Qwen2_5_VLForConditionalGeneration``.
        judges: for the layer before the last, which tells right options from wrong ones.
    """

    def __init__(self, mini: Any, shape: MiniShape) -> None:
        super().__init__()
        self.mini = mini
        self.layers = (shape.layers - 1,)
        self.judges = nn.ModuleList(nn.Linear(shape.width, 1) for _ in self.layers)

    def losses(
        self, packs: Sequence[Pack], gallery: Gallery, pad: int, image: int, letters: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Loss of the letters, of the words, of the options, and which answers were right, bool (n,).

        Letters compete with each other first: to learn that an answer is a letter at all would shake everything else.
        """
        batch = collate(packs, pad, image)
        features = gallery.features(self.mini, dict.fromkeys(key for _, _, key in batch.pictures))
        *middle, last = read_batch(self.mini, batch, features, self.layers)
        rows, places, wanted = batch.targets.T
        logits = self.mini.lm_head(last[rows, places]).float()
        words = functional.cross_entropy(logits, wanted)
        if not len(batch.options):
            return words, words, torch.zeros(()), logits.argmax(dim=1) == wanted
        few = logits[:, list(letters)]
        letter = (wanted[:, None] == torch.tensor(letters)[None]).long().argmax(dim=1)
        options = torch.zeros(())
        where = (batch.options[:, 0], batch.options[:, 1])
        for judge, hidden in zip(self.judges, middle, strict=True):
            said = judge(hidden[where])[:, 0].float()
            options = options + functional.binary_cross_entropy_with_logits(said, batch.right)
        return functional.cross_entropy(few, letter), words, options, few.argmax(dim=1) == letter


@dataclass(frozen=True, eq=False)
class Job:
    """What every worker needs to know; it can be sent to another process.

    Attributes:
        config: of the run.
        folder: where tokenizer and checkpoint lie.
        simulator: draws cases.
        cases: labelled pictures to train on.
        bystanders: pictures that stand beside simulated cases.
        held_out: labelled pictures to judge by.
        fingerprint: of data and configuration.
    """

    config: MiniConfig
    folder: Path
    simulator: Simulator
    cases: tuple[RealCase, ...]
    bystanders: tuple[str, ...]
    held_out: tuple[RealCase, ...]
    fingerprint: str

    @property
    def checkpoint(self) -> Path:
        """Where the run is kept, in a folder of its own: beside the model it would pass for a part of it."""
        return self.folder / "training" / CHECKPOINT


@dataclass(frozen=True)
class Batchwork:
    """One batch of a step: of which kind, about which subtask."""

    kind: str
    task: Task


def batches_of(config: MiniConfig, step: int, share: float, real: bool) -> list[Batchwork]:
    """The batches of a step, such that even and odd ones are about as long.

    Every subtask simulated, one of the harder ones twice; a report once those are due, and real pictures likewise.
    """
    work = [Batchwork("simulated", task) for task in ORDER]
    work.append(Batchwork("simulated", HARD[step % len(HARD)]))
    if share >= config.reports_from:
        work.append(Batchwork("report", "Defect Analysis"))
    if real and share >= config.real_from:
        work += [Batchwork("real", TASKS[(3 * step + i) % len(TASKS)]) for i in range(2 + len(work) % 2)]
    return work


def doubt_at(config: MiniConfig, share: float) -> float:
    """Share of simulated cases whose evidence may be weak or wrong: none at first, all from a fifth later on."""
    return float(np.clip((share - config.sure_until) / 0.2, 0.0, 1.0))


class Trainer:
    """One worker's half of the training.

    Args:
        job: of the run.
        rank: number of this worker; 0 writes checkpoints.
        group: whether gradients are shared with other workers.
    """

    def __init__(self, job: Job, rank: int, *, group: bool) -> None:
        from transformers import AutoProcessor

        self.job, self.rank, self.group = job, rank, group
        config = job.config
        processor = AutoProcessor.from_pretrained(job.folder, local_files_only=True)
        tokenizer = processor.tokenizer
        self.gallery = Gallery(processor.image_processor)
        keys = [*job.bystanders, *(k for case in (*job.cases, *job.held_out) for k in (*case.references, case.picture))]
        self.gallery.add(dict.fromkeys(keys))
        self.maker = PackMaker(tokenizer, job.simulator, job.simulator.pages, self.gallery.grids, job.bystanders)
        self.pad = int(tokenizer.convert_tokens_to_ids("<|endoftext|>"))
        self.image = int(tokenizer.convert_tokens_to_ids("<|image_pad|>"))
        self.learner = Learner(build_model(tokenizer, config.shape, config.seed), config.shape)
        use_packed_attention(self.learner.mini)
        matrices = [p for p in self.learner.mini.parameters() if p.ndim > 1]
        others = [p for p in self.learner.mini.parameters() if p.ndim < 2]
        judges = list(self.learner.judges.parameters())
        self.rates = (1.0, 1.0, config.judge_rate)
        self.optimiser = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": others, "weight_decay": 0.0},
                {"params": judges, "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            betas=(0.9, 0.98),
        )
        self.progress = Progress()
        self.began = time.monotonic()

    def share(self) -> float:
        """How far the run is, in [0, 1]; the same for all workers."""
        config = self.job.config
        done = self.progress.step / config.steps
        if config.minutes is None:
            return done
        clock = torch.tensor([max(done, (time.monotonic() - self.began) / 60.0 / config.minutes)])
        if self.group:
            distributed.broadcast(clock, 0)
        return min(1.0, float(clock))

    def packs(self, step: int, share: float, number: int, work: Batchwork) -> list[Pack]:
        """A batch's packs; they depend on the seed, the step and the batch's number alone."""
        config = self.job.config
        rng = np.random.default_rng([config.seed, step, number])
        self.job.simulator.doubt = doubt_at(config, share)
        if work.kind == "real":
            return chosen(
                self.job.cases, lambda case: self.maker.real(rng, case, work.task, config.endings), rng, config.packs
            )
        shown = 0.5 if share >= config.shown_from else 0.0
        if work.kind == "report":
            return [self.maker.report(rng, shown) for _ in range((config.packs + 1) // 2)]
        return [self.maker.simulated(rng, work.task, config.endings, shown) for _ in range(config.packs)]

    def step(self, share: float) -> dict[str, list[bool]]:
        """One step of the optimiser; which answers were right, by subtask, in this worker's batches."""
        config, step = self.job.config, self.progress.step
        for group, times in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = times * config.learning_rate * cosine_rate(share, config.warm_up)
        self.optimiser.zero_grad(set_to_none=False)
        work = batches_of(config, step, share, bool(self.job.cases))
        right: dict[str, list[bool]] = {}
        for number, each in enumerate(work):
            if number % config.workers != self.rank and self.group:
                continue
            with torch.autocast("cpu", torch.bfloat16):
                packs = self.packs(step, share, number, each)
                answers, words, options, good = self.learner.losses(
                    packs, self.gallery, self.pad, self.image, self.maker.letters
                )
            ((answers + config.words_loss * words + config.option_loss * options) / len(work)).backward()
            self.progress.epoch_loss += float(answers.detach()) / len(work) / config.checkpoint_every
            right.setdefault(f"{each.kind} {each.task}", []).extend(good.tolist())
        if self.group:
            self._share_gradients()
        nn.utils.clip_grad_norm_(self.learner.mini.parameters(), 0.5)
        self.optimiser.step()
        self.progress.step += 1
        return right

    def _share_gradients(self) -> None:
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.learner.parameters()]
        flat = torch.cat([grad.reshape(-1) for grad in grads])
        distributed.all_reduce(flat)
        for parameter, piece in zip(
            self.learner.parameters(), flat.split([grad.numel() for grad in grads]), strict=True
        ):
            parameter.grad = piece.view_as(parameter)

    def run(self, *, resume: bool, report: Report | None) -> None:
        """All steps that are left."""
        config, path = self.job.config, self.job.checkpoint
        if resume and path.is_file():
            self.progress, _ = load_checkpoint(path, self.learner, self.optimiser, self.job.fingerprint)
        self.learner.train()
        right: dict[str, list[bool]] = {}
        first, self.began = self.progress.step, time.monotonic()
        while (share := self.share()) < 1.0:
            for name, found in self.step(share).items():
                right.setdefault(name, []).extend(found)
            done = self.progress.step
            if done % config.checkpoint_every == 0:
                self.progress.losses.append(self.progress.epoch_loss)
                self.progress.epoch_loss = 0.0
                if self.rank == 0:
                    save_checkpoint(path, self.learner, self.optimiser, {}, self.progress, self.job.fingerprint)
                    shares = {name: round(sum(found) / len(found), 3) for name, found in sorted(right.items())}
                    line = {
                        "step": done,
                        "seconds": round(time.monotonic() - self.began),
                        "since": first,
                        "share": round(share, 3),
                        "right": shares,
                    }
                    with (path.parent / "training.jsonl").open("a", encoding="utf-8") as log:
                        log.write(json.dumps(line) + "\n")
                right = {}
            if report:
                report("training", round(1000 * share), 1000)
