"""The local model keeps the contract of all vision-language models."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_contract import CHECKS, Check, keeps_to_a_form

from flawscope.agent.vision_language.checkpoint import load_checkpoint
from flawscope.agent.vision_language.qwen import QwenModel


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> QwenModel:
    return QwenModel(load_checkpoint(checkpoint, device="cpu"))


@pytest.mark.parametrize("check", [*CHECKS, keeps_to_a_form], ids=lambda check: check.__name__)
def test_it_keeps_the_contract(model: QwenModel, check: Check) -> None:
    check(model)
