"""A conversation through a local checkpoint, whose random words leave the report's own answers standing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Plant

from flawscope.agent.inspector import Inspector
from flawscope.agent.schemas import InspectionReport
from flawscope.agent.session import begin_conversation, open_conversation
from flawscope.agent.vision_language import Generated, Message
from flawscope.agent.vision_language.qwen import QwenModel


@pytest.fixture(scope="module")
def report(plant: Plant) -> InspectionReport:
    with Inspector(plant.loaded()) as inspector:
        return inspector.inspect(plant.square, product="plate")


def test_random_words_are_cut_and_the_report_answers(
    plant: Plant, checkpoint: Path, report: InspectionReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    generate = QwenModel.generate

    def listened(self: QwenModel, messages: Sequence[Message], **options: Any) -> Generated:
        reply = generate(self, messages, **{**options, "max_tokens": 24})
        said.append(reply.text)
        return reply

    monkeypatch.setattr(QwenModel, "generate", listened)
    loaded = plant.loaded(reasoner="qwen_vl", vlm_weights=checkpoint, vlm_device="cpu")
    with begin_conversation(loaded, report) as conversation:
        first = conversation.ask("where is it?")
        thread = conversation.thread_id
    assert said
    assert "From the evidence: R1: upper left" in first.text
    assert first.cites == ("R1",)
    with open_conversation(loaded, thread) as conversation:
        assert conversation.ask("what is it?").text
        assert [turn["question"] for turn in conversation.turns] == ["where is it?", "what is it?"]
        assert conversation.report == report


def test_the_model_sees_the_pictures_of_tools(
    plant: Plant, checkpoint: Path, report: InspectionReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = [json.dumps({"tool": "zoom", "arguments": {"region": "R1"}}), "The hole lies at the upper left [R1]."]
    pictures: list[int] = []

    def scripted(self: QwenModel, messages: Sequence[Message], **options: Any) -> Generated:
        encoded = self.encoder.encode(messages)  # the pictures take their places among the tokens
        assert encoded.input_ids.shape[1] > 500
        pictures.append(sum(len(message.pictures) for message in messages))
        return Generated(replies[len(pictures) - 1], None, "stop")

    monkeypatch.setattr(QwenModel, "generate", scripted)
    loaded = plant.loaded(reasoner="qwen_vl", vlm_weights=checkpoint, vlm_device="cpu")
    with begin_conversation(loaded, report) as conversation:
        answer = conversation.ask("Where is it? Look closer.")
    assert pictures == [3, 4]
    assert answer.text == "The hole lies at the upper left."
    assert [call["tool"] for call in answer.calls] == ["zoom"]
