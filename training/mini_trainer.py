"""One worker of the mini's training: which batches a step has, its losses, its optimiser, its checkpoints."""

from __future__ import annotations

import copy
import ctypes
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed, nn
from torch.nn import functional

from ..tools.knowledge.schema import GOOD
from .checkpoint import Progress, load_checkpoint, save_checkpoint
from .loop import CHECKPOINT, Report
from .mini_data import PackMaker, RealCase, chosen
from .mini_model import MiniShape, build_model
from .mini_packing import Pack, collate, letters_among, read_batch, use_packed_attention
from .mini_pictures import Gallery
from .mini_reports import PAGE_TOKENS
from .mini_schedule import DETECTION, Batchwork, MiniConfig, asked_share, batches_of, doubt_at, rate_at
from .questions.simulated import Simulator

PAGE_SHARES = (0.65, 0.2, 0.15)
"""How often a batch of reports has each budget of ``PAGE_TOKENS``."""
BARE = 3
"""Reports on measurements alone for each one with pages: they are short, and a verdict is read from measurements."""
LOG = "training.jsonl"
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
REAL_REPORTS = 0.4
"""Share of the batches of reports that are about labelled pictures, of the second part."""


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
        The end behind a letter is a word.
        """
        batch = collate(packs, pad, image)
        features = gallery.features(self.mini, dict.fromkeys(key for _, _, key in batch.pictures))
        *middle, last = read_batch(self.mini, batch, features, self.layers)
        rows, places, wanted = batch.targets.T
        logits = self.mini.lm_head(last[rows, places]).float()
        words = functional.cross_entropy(logits, wanted)
        if not len(batch.options):
            return words, words, torch.zeros(()), logits.argmax(dim=1) == wanted
        is_letter, letter = letters_among(wanted, letters)
        few = logits[is_letter][:, list(letters)]
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


def keep_memory() -> None:
    """Have the C library keep what is freed: a third of the time would go into handing pages back and forth."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # of glibc; others have none
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


class Trainer:
    """One worker's half of the training.

    Args:
        job: of the run.
        rank: number of this worker; 0 writes checkpoints.
        group: whether gradients are shared with other workers.
    """

    def __init__(self, job: Job, rank: int, *, group: bool) -> None:
        from transformers import AutoProcessor

        keep_memory()
        self.job, self.rank, self.group = job, rank, group
        config = job.config
        processor = AutoProcessor.from_pretrained(job.folder, local_files_only=True)
        tokenizer = processor.tokenizer
        self.looked_at = [case for case in job.cases if case.prior is not None]
        self.even = even(job.cases)
        self.gallery = Gallery(processor.image_processor)
        keys = [*job.bystanders, *(k for case in (*job.cases, *job.held_out) for k in (*case.references, case.picture))]
        self.gallery.add(dict.fromkeys(keys))
        self.simulator = copy.copy(job.simulator)  # its doubt changes with the run, the job's stays as it was given
        self.maker = PackMaker(tokenizer, self.simulator, self.simulator.pages, self.gallery.grids, job.bystanders)
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
        self.simulator.doubt = doubt_at(config, share)
        if work.kind == "real":
            cases = self.even if work.task == DETECTION else self.job.cases
            return chosen(cases, lambda case: self.maker.real(rng, case, work.task, config.endings), rng, config.packs)
        shown = 0.5 if asked_share(config, share) >= config.shown_from else 0.0
        if work.kind == "bare report":
            return [self.maker.report(rng, shown, 0) for _ in range(BARE * config.packs)]
        if work.kind == "report":
            budget = int(rng.choice(PAGE_TOKENS, p=PAGE_SHARES))
            if self.looked_at and rng.random() < REAL_REPORTS:
                cases = [self.looked_at[int(i)] for i in rng.integers(len(self.looked_at), size=config.packs)]
                return [self.maker.real_report(rng, case, budget) for case in cases]
            return [self.maker.report(rng, shown, budget) for _ in range(config.packs)]
        return [self.maker.simulated(rng, work.task, config.endings, shown) for _ in range(config.packs)]

    def step(self, share: float) -> dict[str, list[bool]]:
        """One step of the optimiser; which answers were right, by subtask, in this worker's batches."""
        config, step = self.job.config, self.progress.step
        for group, times in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = times * rate_at(config, share)
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
        if config.minutes is not None:
            self.began -= 60.0 * config.minutes * share_reached(path.parent / LOG, first)
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
                    with (path.parent / LOG).open("a", encoding="utf-8") as log:
                        log.write(json.dumps(line) + "\n")
                right = {}
            if report:
                report("training", round(1000 * share), 1000)


def even(cases: Sequence[RealCase]) -> Sequence[RealCase]:
    """As many good parts as defective ones, the fewer repeated: how a data set is mixed is not to be learnt.

    Args:
        cases: of both kinds; of one alone they are returned as they are.
    """
    good = [case for case in cases if case.subject.defect_type == GOOD]
    bad = [case for case in cases if case.subject.defect_type != GOOD]
    if not good or not bad:
        return cases
    most = max(len(good), len(bad))
    return [*islice(cycle(good), most), *islice(cycle(bad), most)]


def share_reached(log: Path, step: int) -> float:
    """How far a run was at a step by its log, so that a resumed one does not begin its schedule again; 0 without."""
    if not log.is_file():
        return 0.0
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    return max((float(line["share"]) for line in lines if line["step"] == step), default=0.0)
