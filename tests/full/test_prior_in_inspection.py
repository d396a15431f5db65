"""Prior tokens in an inspection: in the prompt when a file is set, gone without a trace when it is not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Plant
from fakes import PatchStatistics
from safetensors.torch import save_file

from flawscope.agent.errors import ConfigError, WeightsError
from flawscope.agent.inspector import Inspector
from flawscope.agent.vision_language import Generated, Message, Slot
from flawscope.agent.vision_language.identity import checkpoint_sha256
from flawscope.agent.vision_language.prior import FORMAT, PRIOR_TOKENS
from flawscope.agent.vision_language.qwen import QwenModel
from flawscope.tools.ad_expert.evidence_tokens import EvidenceTokenizer


@pytest.fixture(scope="module")
def tokens(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("tokens") / "tokens.safetensors"
    header = {
        "format": FORMAT,
        "backbone": PatchStatistics.name,
        "backbone_sha256": PatchStatistics.weights_sha256,
        "model": "tiny",
        "model_sha256": checkpoint_sha256(checkpoint),
        "width": "64",
        "patch_dim": "10",
        "steps": "1",
    }
    save_file(EvidenceTokenizer(10, 64).state_dict(), path, header)
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[Message]]:
    """What the model is asked, its answers being of no use."""
    found: list[list[Message]] = []

    def generate(self: QwenModel, messages: Sequence[Message], **options: Any) -> Generated:
        found.append(list(messages))
        return Generated("", None, "stop")

    monkeypatch.setattr(QwenModel, "generate", generate)
    return found


def slots(messages: Sequence[Message]) -> list[Slot]:
    return [part for message in messages for part in message.parts if isinstance(part, Slot)]


def inspect(plant: Plant, checkpoint: Path, picture: Path, **flags: Any) -> QwenModel:
    given = {"reasoner": "qwen_vl", "vlm_weights": checkpoint, "vlm_device": "cpu", "max_actions": 0, **flags}
    with Inspector(plant.loaded(**given)) as inspector:
        report = inspector.inspect(picture, product=None if flags.get("zero_shot") else "plate")
        assert report.error is None
        return inspector.deps.reasoner.model  # type: ignore[attr-defined, no-any-return]


def test_the_prompt_differs_by_the_tokens_alone(
    plant: Plant, checkpoint: Path, tokens: Path, asked: list[list[Message]]
) -> None:
    model = inspect(plant, checkpoint, plant.square, prior_tokens=tokens)
    on, asked[:] = asked[0], []
    inspect(plant, checkpoint, plant.square)
    off = asked[0]
    (slot,) = slots(on)
    assert slots(off) == []
    assert (slot.name, slot.length) == ("prior", PRIOR_TOKENS)
    assert slot.vectors is not None
    assert float((slot.vectors**2).sum(axis=1).mean() ** 0.5) == pytest.approx(model.median_row_norm, rel=1e-5)
    marked, bare = (model.encoder.encode(messages) for messages in (on, off))
    place = marked.slots["prior"]
    line = len(model.encoder.token_ids("\n"))  # the tokens' own line ends, as every part's does
    rest = torch.cat([marked.input_ids[:, : place.start], marked.input_ids[:, place.stop + line :]], dim=1)
    assert torch.equal(rest, bare.input_ids)


def test_another_picture_gives_other_tokens(
    plant: Plant, checkpoint: Path, tokens: Path, asked: list[list[Message]]
) -> None:
    for picture in (plant.square, plant.scratch):
        inspect(plant, checkpoint, picture, prior_tokens=tokens)
    first, *_, last = (slots(messages)[0].vectors for messages in asked)
    assert first is not None
    assert last is not None
    assert abs(first - last).max() > 1e-3


def test_what_cannot_be_used_is_said_before_the_first_picture(plant: Plant, checkpoint: Path, tokens: Path) -> None:
    with Inspector(plant.loaded(prior_tokens=tokens)) as inspector, pytest.raises(ConfigError, match="qwen_vl"):
        inspector.prepare("plate")
    given = {"reasoner": "qwen_vl", "vlm_weights": checkpoint, "prior_tokens": tokens.with_name("other.safetensors")}
    with Inspector(plant.loaded(**given)) as inspector, pytest.raises(WeightsError, match="no file of prior tokens"):
        inspector.prepare("plate")
