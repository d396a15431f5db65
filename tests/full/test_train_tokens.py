"""``train tokens``: only the tokenizers change, a held-out loss falls, and a killed run ends in the same weights."""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import PatchStatistics
from full.token_data import few_pages, local_model, run, small_config, sources, write_parts

from flawscope.agent.errors import InputError, WeightsError
from flawscope.agent.vision_language import Message, Picture, Slot
from flawscope.agent.vision_language.prior import PRIOR_TOKENS, TOKENS_FILE, load_prior_tokens
from flawscope.agent.vision_language.qwen import QwenModel
from flawscope.training.answer_loss import answer_losses, teach
from flawscope.training.checkpoint import state_sha256
from flawscope.training.loop import rate_at
from flawscope.training.picture_evidence import look_at_products
from flawscope.training.tokens import TokenTask, build_samples, train_tokens


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parts(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> QwenModel:
    return local_model(checkpoint)


@pytest.fixture(scope="module")
def task(data: Path, model: QwenModel, tmp_path_factory: pytest.TempPathFactory) -> TokenTask:
    found = look_at_products(
        sources(data, "plate"),
        PatchStatistics(),
        tmp_path_factory.mktemp("cache"),
        references=4,
        max_pictures=100,
        seed=0,
    )
    torch.manual_seed(0)
    return TokenTask(build_samples(sources(data, "plate"), found, few_pages(), small_config()), [], model, 10)


def conversation(seed: int, words: str) -> list[Message]:
    picture = Picture(np.random.default_rng(seed).integers(0, 255, (60 + 40 * seed, 90, 3), dtype=np.uint8))
    return [Message("user", ("Inspect.", picture, words))]


def test_the_loss_of_an_answer_is_that_of_its_own_tokens_whatever_stands_beside_it(model: QwenModel) -> None:
    asked = [conversation(0, "Is there a defect? A. Yes. B. No."), conversation(1, "Where? A. Left. B. Right.")]
    said = ["B", "scratch at the upper left"]
    taught = [teach(model, messages, answer) for messages, answer in zip(asked, said, strict=True)]
    assert taught[0].encoded.length != taught[1].encoded.length
    embeds = [model.encoder.embeddings(one.encoded) for one in taught]
    with torch.no_grad():
        together = answer_losses(model, taught, embeds)
        alone = torch.cat([answer_losses(model, [one], [each]) for one, each in zip(taught, embeds, strict=True)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    # by hand: the letter, then the end of the turn
    prefix = model.prefix(model.encoder.encode(asked[0]))
    letter, end = (model.encoder.token_ids(text)[0] for text in ("B", "<|im_end|>"))
    assert taught[0].answer.tolist() == [letter, end]
    first = -float(prefix.logits.log_softmax(dim=-1)[letter])
    with torch.no_grad():
        out = model.checkpoint.model(
            inputs_embeds=embeds[0],
            attention_mask=torch.ones(embeds[0].shape[:2], dtype=torch.long),
            position_ids=taught[0].encoded.position_ids,
        )
    second = -float(out.logits[0, -2].log_softmax(dim=-1)[end])
    assert float(alone[0]) == pytest.approx((first + second) / 2, abs=1e-4)


def test_every_sample_has_a_place_for_tokens_and_half_of_them_words_too(task: TokenTask) -> None:
    told = 0
    for sample in task.samples:
        slots = [part for part in sample.messages()[0].parts if isinstance(part, Slot)]
        assert [(slot.name, slot.length) for slot in slots] == [("prior", PRIOR_TOKENS)]
        assert not any(isinstance(part, Slot) for part in sample.messages(tokens=False)[0].parts)
        told += "[M1]" in sample.messages()[0].text or "[R1]" in sample.messages()[0].text
        assert sample.question.task not in ("Object Classification", "Object Analysis")
    assert 0 < told < len(task.samples)
    defective = [s.evidence for s in task.samples if s.question.defect_type == "hole"]
    assert defective
    assert all(each.anomaly_map.max() == 1.0 and each.prior.calibrated for each in defective)


def test_gradients_reach_all_of_the_tokenizers_and_nothing_else(task: TokenTask) -> None:
    before = state_sha256(task.model.checkpoint.model.state_dict())
    task.module.zero_grad()
    task.loss(range(4)).backward()
    for name, parameter in task.module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    reached = [name for name, parameter in task.module.named_parameters() if parameter.grad.abs().max() > 0]
    assert {name.split(".")[0] for name in reached} == {"loc", "vis"}
    assert all(parameter.grad is None for parameter in task.model.checkpoint.model.parameters())
    assert state_sha256(task.model.checkpoint.model.state_dict()) == before
    length = task.vectors(task.samples[0].evidence).square().sum(dim=1).mean().sqrt()
    assert float(length.detach()) == pytest.approx(task.model.median_row_norm, rel=1e-5)


def test_only_the_tokenizers_change_and_the_held_out_loss_falls(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    shards = {path.name: path.read_bytes() for path in checkpoint.glob("*.safetensors")}
    model = local_model(checkpoint)
    before = state_sha256(model.checkpoint.model.state_dict())
    card = train_tokens(
        sources(data, "plate"),
        sources(data, "ring"),
        PatchStatistics(),
        model,
        few_pages(),
        tmp_path / "out",
        tmp_path / "cache",
        small_config(epochs=3),
    )
    assert state_sha256(model.checkpoint.model.state_dict()) == before
    assert {path.name: path.read_bytes() for path in checkpoint.glob("*.safetensors")} == shards
    metrics = card["metrics"]
    assert metrics["held-out loss, trained tokens"] < metrics["held-out loss, untrained tokens"]
    assert metrics["held-out loss, trained tokens"] < metrics["held-out loss, no tokens"]
    assert metrics["held-out loss, trained tokens"] == pytest.approx(-max(card["history"]["held_out"]), rel=1e-6)
    tokens = load_prior_tokens(tmp_path / "out" / TOKENS_FILE, model, PatchStatistics.weights_sha256)
    assert state_sha256(tokens.tokenizer.state_dict()) == card["weights_sha256"]
    assert card["language_model"]["width"] == "64"
    assert "Flawscope prior tokens" in (tmp_path / "out" / "card.md").read_text()


@pytest.mark.timeout(600)  # three processes that import torch and transformers
def test_a_killed_run_ends_in_the_weights_of_an_uninterrupted_one(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    whole = run(data, checkpoint, tmp_path / "whole")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["full.token_data"])
    steps = context.Value("i", -1)
    process = context.Process(target=run, args=(data, checkpoint, tmp_path / "killed", steps), kwargs={"until": 3})
    process.start()
    while process.exitcode is None and steps.value < 2:
        time.sleep(0.001)
    process.kill()
    process.join()
    assert 2 <= steps.value <= 3  # it cannot have ended before it was killed
    assert not (tmp_path / "killed" / TOKENS_FILE).exists()
    resumed = run(data, checkpoint, tmp_path / "killed", resume=True)
    assert resumed["weights_sha256"] == whole["weights_sha256"]
    assert resumed["metrics"] == whole["metrics"]
    with pytest.raises(WeightsError, match="other data or settings"):
        run(data, checkpoint, tmp_path / "killed", resume=True, seed=1)


def test_products_that_no_reference_calibrates_teach_nothing(data: Path, model: QwenModel, tmp_path: Path) -> None:
    lone = tmp_path / "lone" / "plate"
    for kind in ("train/good/0.png", "test/hole/0.png", "test/good/4.png"):
        (lone / kind).parent.mkdir(parents=True, exist_ok=True)
        (lone / kind).write_bytes((data / "plate" / kind).read_bytes())
    with pytest.raises(InputError, match="nothing to train on"):
        train_tokens(
            sources(tmp_path / "lone", "plate"),
            [],
            PatchStatistics(),
            model,
            few_pages(),
            tmp_path / "out",
            tmp_path / "cache",
            small_config(),
        )


def test_the_rate_rises_in_a_line_and_falls_in_a_cosine() -> None:
    rates = [rate_at(step, 100, 0.03) for step in range(100)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert all(before > after for before, after in itertools.pairwise(rates[3:]))
    assert [rate_at(step, 10, 0.0) for step in (0, 5)] == pytest.approx([1.0, 0.5])
    assert rates[-1] == pytest.approx(0.5 * (1 + math.cos(math.pi * 96 / 97)))


def test_the_command_trains_and_says_what_it_did(
    data: Path,
    checkpoint: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    run_command: Callable[..., int],
) -> None:
    assert run_command("train", "tokens", "--data", data, "--hold-out", "ring", "--weights", checkpoint) == 0
    out = home / "models" / "prior-tokens-model"
    card = json.loads((out / "card.json").read_text())
    assert card["config"]["loop"]["learning_rate"] == 1e-4
    assert [product["name"] for product in card["data"]["held_out"]] == ["ring"]
    assert "held-out loss, trained tokens" in capsys.readouterr().out
    assert run_command("train", "tokens", "--data", data, "--weights", home / "nowhere") == 9
    assert "no Qwen2.5-VL checkpoint" in capsys.readouterr().err
