"""The contract of vision-language models, for those that need no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
from chat_engine import Engine
from chat_server import chat_server
from fake_chat import ScriptedChat
from model_contract import CHECKS, Check, keeps_to_a_form

from flawscope.agent.language_model import ChatClient, Endpoint
from flawscope.agent.vision_language import VisionLanguageModel
from flawscope.agent.vision_language.chat_model import FlawscopeChatModel
from flawscope.agent.vision_language.fakes import ScriptedModel, spoken
from flawscope.agent.vision_language.langchain_model import ChatModelAdapter
from flawscope.agent.vision_language.served import ServedModel

LETTER = (("A", math.log(0.7)), ("B", math.log(0.2)), (" A", math.log(0.05)))
LIGHT = '{"light": "red"}'


def served(engine: Engine) -> Callable[[], Iterator[VisionLanguageModel]]:
    def make() -> Iterator[VisionLanguageModel]:
        with chat_server(engine) as server, ChatClient(Endpoint(server.url, "tiny", timeout_s=30.0)) as client:
            yield ServedModel(client)

    return make


def both_ways(engine: Engine) -> Callable[[], Iterator[VisionLanguageModel]]:
    """A served model as a chat model of LangChain's as a vision-language model."""

    def make() -> Iterator[VisionLanguageModel]:
        for model in served(engine)():
            yield ChatModelAdapter(FlawscopeChatModel(model=model))

    return make


def adapted(chat: Callable[[], ScriptedChat]) -> Callable[[], Iterator[VisionLanguageModel]]:
    def make() -> Iterator[VisionLanguageModel]:
        yield ChatModelAdapter(chat())

    return make


def scripted() -> Iterator[VisionLanguageModel]:
    yield ScriptedModel([spoken("A fine part", certainty=0.9)] * 9, [{"A": 0.9, "B": 0.1}] * 9)


MODELS: dict[str, Callable[[], Iterator[VisionLanguageModel]]] = {
    "served": served(Engine(tokens=(LETTER, ((".", -0.1), ("!", -3.0))))),
    "served, words": served(Engine("The part is fine.")),
    "served, no probabilities, no streaming": served(Engine("B. fine", top=None, streams=False)),
    "served, nothing but text": served(
        Engine("fine", top=None, streams=None, forms=frozenset(), unknown=frozenset({"json_schema", "json_object"}))
    ),
    "chat model": adapted(lambda: ScriptedChat(text="A. A fine part")),
    "chat model with probabilities": adapted(lambda: ScriptedChat(text="A", top=LETTER)),
    "served, as a chat model": both_ways(Engine(tokens=(LETTER, ((".", -0.1), ("!", -3.0))))),
    "scripted": scripted,
}
HELD: dict[str, Callable[[], Iterator[VisionLanguageModel]]] = {
    "served": served(Engine(LIGHT)),
    "served, weaker": served(Engine(LIGHT, unknown=frozenset({"json_schema"}))),
    "chat model": adapted(lambda: ScriptedChat(text="", arguments={"light": "green"})),
    "chat model without forms": adapted(lambda: ScriptedChat(text=LIGHT)),
    "served, as a chat model": both_ways(Engine(LIGHT)),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", MODELS)
def test_it_keeps_the_contract(name: str, check: Check) -> None:
    for model in MODELS[name]():
        check(model)


@pytest.mark.parametrize("name", HELD)
def test_it_keeps_to_a_form(name: str) -> None:
    for model in HELD[name]():
        keeps_to_a_form(model)
