"""Train the mini checkpoint: Qwen2.5-VL's classes and 12 million weights at most, on a CPU, in less than 45 minutes.

It is a laboratory animal. It has learnt to read: to find in measurements and pages what a question asks and to name
the option that says the same, and to be unsure where they are. Nobody should inspect parts with it.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing

from ..agent.errors import ConfigError
from ..agent.home import write_json_atomically
from ..agent.settings import LoadedSettings
from ..benchmarks.datasets import open_dataset
from ..tools.knowledge.schema import load_documents
from .card import fingerprint_of
from .checkpoint import state_sha256
from .loop import Report
from .mini_card import card_of, measure, write_card
from .mini_cases import real_cases
from .mini_data import RealCase, training_texts
from .mini_model import build_model, build_processor, build_tokenizer
from .mini_pictures import with_made_defects
from .mini_schedule import MiniConfig, identity_of
from .mini_trainer import Job, Trainer
from .questions.simulated import Simulator

LEAVE_OUT = ("transistor", "textile", "steel_types")
"""Products that nothing of may be seen, since the mini is tested on them."""
HOLD_OUT = ("magnetic_tile",)
"""Products that are not trained on, by which it is judged while it is made."""
TEXTS = 4000
BYSTANDERS = 40
"""Good pictures that stand beside simulated cases, and as many copies with made defects."""


@dataclass(frozen=True)
class Sources:
    """What a run learns from, as its card tells it.

    Attributes:
        data: folder of labelled products.
        train: products that are asked about.
        hold_out: products that it is judged by.
        leave_out: products of which nothing is seen, neither pictures nor pages nor their names.
    """

    data: Path
    train: tuple[str, ...]
    hold_out: tuple[str, ...]
    leave_out: tuple[str, ...]


def sources_of(data: Path, hold_out: Sequence[str], leave_out: Sequence[str]) -> Sources:
    """Split the products of a data set.

    Raises:
        InputError: the data cannot be read.
        ConfigError: a name is unknown, or nothing is left to train on.
    """
    names = [product.name for product in open_dataset(data).products]
    if unknown := sorted({*hold_out} - {*names}):
        raise ConfigError(f"--hold-out {', '.join(unknown)}: no such product.", hint=f"Found: {', '.join(names)}.")
    train = tuple(name for name in names if name not in (*hold_out, *leave_out))
    if not train:
        raise ConfigError("there is no product to train on.")
    return Sources(data, train, tuple(hold_out), tuple(leave_out))


def train_mini(
    sources: Sources,
    loaded: LoadedSettings,
    folder: Path,
    config: MiniConfig,
    *,
    resume: bool = False,
    report: Report | None = None,
) -> dict[str, Any]:
    """Gather evidence, train, measure, write checkpoint and card.

    Args:
        sources: what to learn from.
        loaded: settings whose home keeps the evidence; for this alone.
        folder: of the checkpoint.
        config: of the run.
        resume: continue a run that was stopped.
        report: told (what, done, all).

    Returns:
        The card.

    Raises:
        InputError: the data cannot be read.
        WeightsError: the folder's checkpoint belongs to another run.
        StorageError: the disk refuses.
    """
    began = time.monotonic()
    seen = [page for page in load_documents() if page.product not in sources.leave_out]
    products = (*sources.train, *sources.hold_out)
    found = real_cases(sources.data, products, loaded, seen, seed=config.seed, progress=report)
    cases = [case for name in sources.train for case in found[name]]
    held_out = [case for name in sources.hold_out for case in found[name]]
    good = list(dict.fromkeys(key for case in cases for key in case.references))[:BYSTANDERS]
    made = with_made_defects(good, loaded.home.root / "made", config.seed)
    learnt = [page for page in seen if page.product not in sources.hold_out]
    simulator = Simulator(learnt, frozenset((*sources.leave_out, *sources.hold_out)))
    identity = {**identity_of(config), "products": products, "pages": [page.content_hash() for page in seen]}
    job = prepare(folder, config, simulator, cases, held_out, [*good, *made], fingerprint_of(identity))
    gathered = time.monotonic() - began
    trainer = train(job, resume=resume, report=report)
    trained = time.monotonic() - began - gathered
    sha256 = save(trainer, {"what": "mini: a laboratory animal that reads evidence", "data": list(products)})
    card = card_of(trainer, sources, sha256, {"evidence": gathered, "training": trained}, measure(trainer, seen))
    write_card(folder, card)
    return card


def prepare(
    folder: Path,
    config: MiniConfig,
    simulator: Simulator,
    cases: Sequence[RealCase],
    held_out: Sequence[RealCase],
    bystanders: Sequence[str],
    fingerprint: str,
) -> Job:
    """Train the tokenizer, where the folder has none yet, and write down what workers need.

    Args:
        folder: of the results.
        config: of the run.
        simulator: draws cases.
        cases: to train on.
        held_out: to judge by.
        bystanders: pictures beside simulated cases.
        fingerprint: of data and configuration.
    """
    (folder / "training").mkdir(parents=True, exist_ok=True)
    if not (folder / "processor_config.json").is_file():
        tokenizer = build_tokenizer(training_texts(simulator, TEXTS, config.seed), config.shape.vocabulary)
        build_processor(tokenizer).save_pretrained(folder)
    return Job(config, folder, simulator, tuple(cases), tuple(bystanders), tuple(held_out), fingerprint)


def train(job: Job, *, resume: bool = False, report: Report | None = None) -> Trainer:
    """Train with the job's number of processes.

    Args:
        job: of `prepare`.
        resume: continue from the folder's checkpoint when there is one.
        report: told (what, done, all).

    Returns:
        The first worker, with the trained model.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two processes of one thread share a step better than one process of two threads
    try:
        if job.config.workers == 1:
            trainer = Trainer(job, 0, group=False)
            trainer.run(resume=resume, report=report)
            return trainer
        with tempfile.TemporaryDirectory() as meeting, _others(job, meeting, resume):
            _join(meeting, 0, job.config.workers)
            trainer = Trainer(job, 0, group=True)
            trainer.run(resume=resume, report=report)
            return trainer
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
        torch.set_num_threads(threads)


@contextlib.contextmanager
def _others(job: Job, meeting: str, resume: bool) -> Iterator[None]:
    """The other workers, ended with this one."""
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_work, args=(job, meeting, rank, resume), daemon=True)
        for rank in range(1, job.config.workers)
    ]
    for process in processes:
        process.start()
    try:
        yield
        for process in processes:
            process.join()
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()


def _work(job: Job, meeting: str, rank: int, resume: bool) -> None:
    torch.set_num_threads(1)
    _join(meeting, rank, job.config.workers)
    Trainer(job, rank, group=True).run(resume=resume, report=None)
    distributed.destroy_process_group()


def _join(meeting: str, rank: int, workers: int) -> None:
    store = distributed.FileStore(str(Path(meeting) / "meeting"), workers)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=workers)


def save(trainer: Trainer, about: dict[str, Any]) -> str:
    """Write the checkpoint beside its processor, marked as a laboratory animal.

    Args:
        trainer: after training.
        about: what its config says of it.

    Returns:
        sha256 of the weights.
    """
    folder, config = trainer.job.folder, trainer.job.config
    plain = build_model(trainer.maker.tokenizer, config.shape, config.seed)
    plain.load_state_dict(trainer.learner.mini.state_dict())
    plain.save_pretrained(folder)
    path = folder / "config.json"
    saved = json.loads(path.read_text(encoding="utf-8"))
    write_json_atomically(path, {**saved, "flawscope": {"laboratory": True, **about}})
    return state_sha256(plain.state_dict())
