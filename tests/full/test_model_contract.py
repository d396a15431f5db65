"""The local model keeps the contract of all vision-language models."""

from __future__ import annotations

import pytest
from model_contract import CHECKS, Check, keeps_to_a_form

from flawscope.agent.vision_language.checkpoint import load_checkpoint
from flawscope.agent.vision_language.qwen import QwenModel
from tests.tiny_vlm import build_tiny_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> QwenModel:
    folder = build_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "model")
    return QwenModel(load_checkpoint(folder, device="cpu"))


@pytest.mark.parametrize("check", [*CHECKS, keeps_to_a_form], ids=lambda check: check.__name__)
def test_it_keeps_the_contract(model: QwenModel, check: Check) -> None:
    check(model)
