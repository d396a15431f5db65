"""``train lora``: conversations survive a file, only the adapter changes, and an adapter finds its own model again."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from full.token_data import few_pages, local_model, sources, write_parts
from peft import PeftModel
from safetensors.torch import load_file, save_file

from flawscope.agent.errors import InputError, WeightsError
from flawscope.agent.vision_language import Message, Picture
from flawscope.agent.vision_language.adapter import ADAPTER_FILE, add_adapter
from flawscope.agent.vision_language.checkpoint import load_checkpoint
from flawscope.agent.vision_language.identity import checkpoint_sha256
from flawscope.agent.vision_language.qwen import QwenModel
from flawscope.training.checkpoint import state_sha256
from flawscope.training.conversations import (
    Conversation,
    question_conversations,
    read_conversations,
    write_conversations,
)
from flawscope.training.loop import LoopConfig, seed_everything
from flawscope.training.lora import CONVERSATIONS_FILE, LoraRun, LoraTask, train_lora

LETTERS = ("A", "B")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parts(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def conversations(data: Path) -> dict[str, list[Conversation]]:
    return {name: list(question_conversations(sources(data, name), few_pages(), seed=0)) for name in ("plate", "ring")}


def small_run(epochs: int = 2, seed: int = 0, learning_rate: float = 1e-2) -> LoraRun:
    loop = LoopConfig(
        epochs=epochs, batch=4, learning_rate=learning_rate, weight_decay=0.0, patience=0, seed=seed, checkpoint_every=1
    )
    return LoraRun(loop, rank=4, alpha=8)


def question() -> list[Message]:
    picture = Picture(np.random.default_rng(1).integers(0, 255, (70, 90, 3), dtype=np.uint8))
    return [Message("user", (picture, "Is there any defect? A. Yes. B. No."))]


def trained(
    data: Path,
    checkpoint: Path,
    conversations: dict[str, list[Conversation]],
    out: Path,
    run: LoraRun,
    model: QwenModel | None = None,
    resume: bool = False,
) -> dict[str, object]:
    return train_lora(
        sources(data, "plate"),
        sources(data, "ring"),
        conversations["plate"],
        conversations["ring"],
        model or local_model(checkpoint),
        out,
        run,
        resume=resume,
    )


def test_conversations_are_questions_with_and_without_options_and_survive_a_file(
    conversations: dict[str, list[Conversation]], tmp_path: Path
) -> None:
    mine = conversations["plate"]
    assert len({each.id for each in mine}) == len(mine)
    for each in mine:
        words = each.messages()[0].text
        assert each.answer in each.letters if each.letters else len(each.answer) > 3
        assert ("\nA. " in words) == bool(each.letters)
        assert [picture.label for picture in each.messages()[0].pictures] == ["reference", "query"]
        assert "[M1]" not in words
    assert {bool(each.letters) for each in mine} == {True, False}
    assert write_conversations(tmp_path / "c.jsonl", mine) == len(mine)
    assert read_conversations(tmp_path / "c.jsonl") == mine
    line = json.loads((tmp_path / "c.jsonl").read_text().splitlines()[0])
    assert [turn["role"] for turn in line["messages"]] == ["user", "assistant"]


@pytest.mark.parametrize("bad", ["nonsense", "{}", '{"id": 1, "messages": [{}, {}]}', "[]"])
def test_what_is_no_conversation_is_refused_by_its_line(bad: str, tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text(f"{bad}\n")
    with pytest.raises(InputError, match="line 1"):
        read_conversations(tmp_path / "c.jsonl")


def test_an_untrained_adapter_changes_no_answer_and_only_its_matrices_learn(
    checkpoint: Path, conversations: dict[str, list[Conversation]]
) -> None:
    model = local_model(checkpoint)
    plain = model.choose(question(), LETTERS).probabilities
    own = {name: value.clone() for name, value in model.checkpoint.model.named_parameters()}
    seed_everything(0)
    task = LoraTask(conversations["plate"], [], model, small_run())
    assert model.choose(question(), LETTERS).probabilities == plain
    names = task.module.stored()
    assert {name.split(".")[-3] for name in names} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert all("language_model" in name for name in names)
    assert len(names) == 2 * 4 * 2  # layers, projections, A and B
    task.loss(range(4)).backward()
    learning = {name for name, value in model.checkpoint.model.named_parameters() if value.grad is not None}
    assert len(learning) == 16
    assert all("lora_" in name for name in learning)
    for name, value in model.checkpoint.model.named_parameters():
        if "lora_" not in name:
            torch.testing.assert_close(value, own[name.replace(".base_layer", "")], atol=0, rtol=0)


def test_training_lowers_the_loss_keeps_the_checkpoint_and_the_adapter_comes_back(
    data: Path, checkpoint: Path, conversations: dict[str, list[Conversation]], tmp_path: Path
) -> None:
    shards = {path.name: path.read_bytes() for path in checkpoint.glob("*.safetensors")}
    model = local_model(checkpoint)
    plain = model.choose(question(), LETTERS).probabilities
    card = trained(data, checkpoint, conversations, tmp_path / "out", small_run(), model)
    assert {path.name: path.read_bytes() for path in checkpoint.glob("*.safetensors")} == shards
    losses = card["history"]["losses"]  # type: ignore[index]
    assert losses[-1] < losses[0]
    assert card["metrics"]["held-out loss, last epoch"] < card["metrics"]["held-out loss, untrained"]  # type: ignore[index]
    learnt = model.choose(question(), LETTERS).probabilities
    assert learnt != plain
    again = QwenModel(load_checkpoint(checkpoint, device="cpu", max_pixels=4 * 784, adapter=tmp_path / "out"))
    assert again.choose(question(), LETTERS).probabilities == pytest.approx(learnt, abs=1e-6)
    assert not any(value.requires_grad for value in again.checkpoint.model.parameters())
    theirs = QwenModel(load_checkpoint(checkpoint, device="cpu", max_pixels=4 * 784))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by a name of old
        PeftModel.from_pretrained(theirs.checkpoint.model, tmp_path / "out")
    assert theirs.choose(question(), LETTERS).probabilities == pytest.approx(learnt, abs=1e-6)


def test_a_stopped_run_ends_in_the_weights_of_an_uninterrupted_one(
    data: Path,
    checkpoint: Path,
    conversations: dict[str, list[Conversation]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = {name: each[:10] for name, each in conversations.items()}
    whole = trained(data, checkpoint, few, tmp_path / "whole", small_run())
    calls, loss = [], LoraTask.loss

    def stopping(self: LoraTask, indices: list[int]) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return loss(self, indices)

    with monkeypatch.context() as patch:
        patch.setattr(LoraTask, "loss", stopping)
        with pytest.raises(KeyboardInterrupt):
            trained(data, checkpoint, few, tmp_path / "cut", small_run())
    resumed = trained(data, checkpoint, few, tmp_path / "cut", small_run(), resume=True)
    assert resumed["weights_sha256"] == whole["weights_sha256"]
    assert resumed["history"] == whole["history"]
    with pytest.raises(WeightsError, match="other data or settings"):
        trained(data, checkpoint, few, tmp_path / "cut", small_run(seed=1), resume=True)


def test_adapters_that_do_not_fit_are_refused(
    checkpoint: Path, conversations: dict[str, list[Conversation]], data: Path, tmp_path: Path
) -> None:
    few = {name: each[:4] for name, each in conversations.items()}
    trained(data, checkpoint, few, tmp_path / "good", small_run(epochs=1))
    sha256 = checkpoint_sha256(checkpoint)

    def refused(folder: Path, message: str, own: str = sha256) -> None:
        with pytest.raises(WeightsError, match=message):
            add_adapter(local_model(checkpoint).checkpoint.model, folder, own)

    refused(tmp_path / "none", "no LoRA adapter")
    refused(tmp_path / "good", "other weights", "1" * 64)
    state = load_file(tmp_path / "good" / ADAPTER_FILE)
    for name, changed in {
        "short": dict(list(state.items())[:-1]),
        "foreign": {**state, "base_model.model.other.lora_A.weight": torch.zeros(4, 4)},
        "shape": {key: value[:1] for key, value in state.items()},
    }.items():
        shutil.copytree(tmp_path / "good", tmp_path / name)
        save_file(changed, tmp_path / name / ADAPTER_FILE)
        refused(tmp_path / name, "does not fit|damaged")
    (tmp_path / "short" / ADAPTER_FILE).write_bytes(b"nonsense")
    refused(tmp_path / "short", "damaged")


def test_the_command_writes_the_conversations_and_the_adapter(
    data: Path,
    checkpoint: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    run_command: Callable[..., int],
) -> None:
    given = ("--data", data, "--hold-out", "ring", "--weights", checkpoint, "--pictures", 2, "--epochs", 1)
    assert run_command("train", "lora", *given) == 0
    out = home / "models" / "lora-model"
    said = read_conversations(out / CONVERSATIONS_FILE)
    assert said
    assert {each.product for each in said} == {"plate"}
    card = json.loads((out / "card.json").read_text())
    assert card["metrics"]["conversations"] == len(said)
    assert state_sha256(load_file(out / ADAPTER_FILE)) == card["weights_sha256"]
    assert "for comparison only" in (out / "card.md").read_text()
    assert "held-out loss, last epoch" in capsys.readouterr().out
