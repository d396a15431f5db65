"""A real server over loopback keeps the same contract, and what it leaves out is found out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from model_contract import CHECKS, QUESTION, Check, answers_something_when_a_form_is_wanted

from flawscope.agent.language_model import ChatClient, Endpoint
from flawscope.agent.vision_language.checkpoint import load_checkpoint
from flawscope.agent.vision_language.qwen import QwenModel
from flawscope.agent.vision_language.served import ServedModel
from tests.full.real_server import transformers_serve
from tests.tiny_vlm import build_tiny_checkpoint

pytestmark = pytest.mark.timeout(900)  # a server that imports torch from a cold disk

LETTERS_ONLY = 18
"""Random weights whose answer is whole letters: each way of decoding shows pieces of letters differently."""


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if given := request.config.getoption("--served-checkpoint"):
        return Path(given).resolve()
    return build_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "model", seed=LETTERS_ONLY)


@pytest.fixture(scope="module")
def url(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with transformers_serve(folder, tmp_path_factory.mktemp("log") / "serve.log") as running:
        yield running


@pytest.fixture(scope="module")
def model(url: str, folder: Path) -> Iterator[ServedModel]:
    with ChatClient(Endpoint(url, str(folder), timeout_s=120.0)) as client:
        yield ServedModel(client)


@pytest.mark.parametrize("check", [*CHECKS, answers_something_when_a_form_is_wanted], ids=lambda check: check.__name__)
def test_it_keeps_the_contract(model: ServedModel, check: Check) -> None:
    check(model)


def test_what_it_can_do_is_found_out(model: ServedModel) -> None:
    assert model.capabilities.describe().endswith("plain answers only, no token probabilities, pictures")
    assert model.capabilities.sampling


def test_it_streams(model: ServedModel) -> None:
    seen: list[str] = []
    said = model.generate(QUESTION, max_tokens=12, on_text=seen.append)
    assert len(seen) > 1
    assert "".join(seen) == said.text


def test_it_says_what_the_same_checkpoint_says_here(model: ServedModel, folder: Path) -> None:
    local = QwenModel(load_checkpoint(folder, device="cpu")).generate(QUESTION, max_tokens=8)
    served = model.generate(QUESTION, max_tokens=8)
    assert served.text == local.text.strip() != ""
