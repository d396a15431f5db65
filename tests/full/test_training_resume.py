"""A run that is killed again and again ends in the weights that it would have had."""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full.tiny_clip import build_tiny_clip
from full.training_data import pair, run, run_prompts, small_config, write_products
from safetensors.torch import load_file

from flawscope.agent.errors import ConfigError, WeightsError
from flawscope.tools.ad_expert.head_file import load_head
from flawscope.training.checkpoint import state_sha256
from flawscope.training.loop import CHECKPOINT, LoopConfig, fit, seed_everything
from flawscope.training.zero_shot import PROMPTS_FILE

PRELOADED = [
    "flawscope.training.embedded",
    "flawscope.training.zero_shot",
    "flawscope.tools.backbones.onnx_lite",
    "open_clip",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_products(tmp_path_factory.mktemp("data"))


def weights_of(folder: Path) -> str:
    return str(json.loads((folder / "card.json").read_text())["weights_sha256"])


def contents_of(file: Path) -> str:
    """sha256 of the tensors; the order in a file's header is left to chance."""
    return state_sha256(load_file(file))


def kill_again_and_again(train: Callable[..., None], data: Path, third: Path, tmp_path: Path, kills: int) -> int:
    """One run that is left alone, into ``whole``, and one that is killed so often and then ends, into ``killed``.

    Args:
        train: ``run`` or ``run_prompts``.
        data: their first argument.
        third: their third argument.
        tmp_path: gets both folders.
        kills: SIGKILLs, each a few steps further into the run.

    Returns:
        Steps of the whole run.
    """
    # A server process that has torch loaded forks each run, so that so many starts cost little.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    out, whole = tmp_path / "killed", tmp_path / "whole"

    def start(folder: Path, resume: bool) -> tuple[Any, Any]:
        steps = context.Value("i", -1)
        process = context.Process(target=train, args=(data, folder, third, steps), kwargs={"resume": resume})
        process.start()
        return process, steps

    first, steps = start(whole, False)
    first.join()
    assert first.exitcode == 0

    chance, seen = random.Random(0), []
    while len(seen) < kills:
        process, reached = start(out, True)
        goal = max(seen, default=0) + chance.randint(0, 3)
        while process.exitcode is None and reached.value < goal:
            time.sleep(0.001)
        time.sleep(chance.uniform(0.0, 0.01))  # anywhere in a step, or while its checkpoint is being written
        process.kill()
        process.join()
        seen.append(max(0, reached.value))
    assert max(seen) > 3  # they fell into the training; a quick machine may end it before the last one
    last, _ = start(out, True)
    last.join()
    assert last.exitcode == 0
    return int(steps.value)


@pytest.mark.timeout(1200)  # eleven processes that import torch
def test_ten_kills_at_random_points_change_no_bit(data: Path, tmp_path: Path) -> None:
    assert kill_again_and_again(run, data, tmp_path / "cache", tmp_path, kills=10) == 42
    out, whole = tmp_path / "killed", tmp_path / "whole"
    assert weights_of(out) == weights_of(whole)
    # The best epoch may be an early one; this is the state after the last step, moments and random generator included.
    assert contents_of(out / CHECKPOINT) == contents_of(whole / CHECKPOINT)
    for name, value in load_head(whole / "head.npz").weights.items():
        np.testing.assert_array_equal(load_head(out / "head.npz").weights[name], value)


@pytest.mark.timeout(1200)
def test_kills_at_random_points_change_no_bit_of_clips_prompts(data: Path, tmp_path: Path) -> None:
    clip = build_tiny_clip(tmp_path / "tiny")
    assert kill_again_and_again(run_prompts, data, clip, tmp_path, kills=6) == 18
    out, whole = tmp_path / "killed", tmp_path / "whole"
    assert weights_of(out) == weights_of(whole)
    assert contents_of(out / PROMPTS_FILE) == contents_of(whole / PROMPTS_FILE)
    assert contents_of(out / CHECKPOINT) == contents_of(whole / CHECKPOINT)


class Line:
    """Fits one number to its samples, with dropout, which draws from torch's generator."""

    size = 7

    def __init__(self, stop_after: int | None = None, scores: tuple[float, ...] = ()) -> None:
        self.module = torch.nn.Sequential(torch.nn.Linear(1, 3), torch.nn.Dropout(0.5), torch.nn.Linear(3, 1))
        self.seen: list[list[int]] = []
        self.stop_after = stop_after
        self.scores = list(scores)

    def loss(self, indices: list[int]) -> torch.Tensor:
        if self.stop_after is not None and len(self.seen) == self.stop_after:
            raise KeyboardInterrupt
        self.seen.append(list(indices))
        x = torch.tensor([[float(i)] for i in indices])
        return (self.module(x) - 2 * x).square().mean()

    def after_step(self) -> None:
        pass

    def held_out_score(self) -> float | None:
        return self.scores.pop(0) if self.scores else None


def fitted(folder: Path, task: Line, resume: bool = False, **config: object) -> str:
    settings = LoopConfig(epochs=4, batch=3, checkpoint_every=2, **config)  # type: ignore[arg-type]
    return state_sha256(fit(task, settings, folder, fingerprint="x", resume=resume).state)


@pytest.mark.parametrize("stop_after", range(1, 12))
def test_stopping_after_any_step_changes_no_bit_and_no_order(stop_after: int, tmp_path: Path) -> None:
    seed_everything(3)
    whole = Line()
    expected = fitted(tmp_path / "whole", whole)
    assert len(whole.seen) == 12
    for epoch in (0, 3, 6, 9):
        assert sorted(i for batch in whole.seen[epoch : epoch + 3] for i in batch) == list(range(7))

    seed_everything(3)
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "cut", Line(stop_after))
    seed_everything(3)
    rest = Line()
    assert fitted(tmp_path / "cut", rest, resume=True) == expected
    assert rest.seen == whole.seen[12 - len(rest.seen) :]


def test_the_best_epoch_is_kept_and_patience_ends_the_run(tmp_path: Path) -> None:
    seed_everything(0)
    task = Line(scores=(0.5, 0.9, 0.8, 0.7))
    result = fit(task, LoopConfig(epochs=10, batch=7, patience=2), tmp_path, fingerprint="x")
    assert result.progress.scores == [0.5, 0.9, 0.8, 0.7]
    assert result.progress.best_epoch == 1
    assert state_sha256(result.state) != state_sha256(task.module.state_dict())


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    seed_everything(0)
    fitted(tmp_path, Line())
    with pytest.raises(WeightsError, match="other data or settings"):
        fit(Line(), LoopConfig(), tmp_path, fingerprint="y", resume=True)
    (tmp_path / CHECKPOINT).write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="damaged"):
        fit(Line(), LoopConfig(), tmp_path, fingerprint="x", resume=True)


def test_nonsense_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="positive"):
        LoopConfig(epochs=0)


def test_another_seed_makes_other_weights(data: Path, tmp_path: Path) -> None:
    from fakes import PatchStatistics

    from flawscope.training.embedded import train_head

    plate, ring = pair(data)
    cards = [
        train_head([plate], [ring], PatchStatistics(), tmp_path / str(i), tmp_path / "cache", small_config(seed=seed))
        for i, seed in enumerate((1, 1, 2))
    ]
    assert cards[0]["weights_sha256"] == cards[1]["weights_sha256"] != cards[2]["weights_sha256"]
