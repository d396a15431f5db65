"""The model behind a server: what it is asked, and what becomes of what it can and cannot do."""

from __future__ import annotations

import base64
import io
import itertools
import json
import math
import re
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_engine import Engine, examined
from chat_server import ChatServer, answers, chat_server, completion, raw, refuses
from PIL import Image
from pydantic import BaseModel, ConfigDict, SecretStr

from flawscope.agent.errors import BackendError, ConfigError, EndpointError
from flawscope.agent.language_model import ChatClient, Endpoint
from flawscope.agent.settings import load_settings
from flawscope.agent.vision_language import Message, Picture, Slot, served
from flawscope.agent.vision_language.loading import load_model
from flawscope.agent.vision_language.outgoing import outgoing, plain
from flawscope.agent.vision_language.served import LETTER_TOKENS, LETTERS_A_TOKEN, ServedModel
from flawscope.training.questions import Question, compose_question

RED = np.full((20, 40, 3), (220, 30, 30), np.uint8)
ASKED = (Message("user", ("Is there a defect? A: yes, B: no",)),)


class Verdict(BaseModel):
    """An answer of a form."""

    model_config = ConfigDict(extra="forbid")

    verdict: str
    reason: str = ""


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        yield running


@pytest.fixture
def model(server: ChatServer) -> Iterator[ServedModel]:
    endpoint = Endpoint(server.url, "tiny", SecretStr("sk-secret-4711"), timeout_s=30.0, retries=1)
    with ChatClient(endpoint, sleep=lambda seconds: None) as client:
        yield ServedModel(client, max_pixels=200)


def test_parts_travel_in_order_and_slots_stay_here(model: ServedModel, server: ChatServer) -> None:
    server.will(Engine("fine"))
    parts = ("A good part:", Picture(RED, "reference"), "The part", Slot("prior", 3), "to judge:", Picture(RED), "OK?")
    model.generate([Message("system", ("Be brief.", "Be right.")), Message("user", parts)])
    system, user = server.asked[-1]["body"]["messages"]
    assert system == {"role": "system", "content": "Be brief.\nBe right."}
    said = [part.get("text", part["type"]) for part in user["content"]]
    assert said == ["A good part:", "image_url", "The part\nto judge:", "image_url", "OK?"]


def test_texts_side_by_side_are_read_as_a_model_in_this_process_reads_them() -> None:
    """Which joins parts without anything between them; only words without an end of their line get one."""
    asked = (Message("user", ("one\n", "two\n", Slot("prior", 2), "\nthree", "four", "five")),)
    (turn,) = outgoing(asked, 100)
    assert turn.parts == ("one\ntwo\n\nthree\nfour\nfive",)
    question = Question("Defect Localization", "Where is it?", ("left.", "right."), "A", "ring")
    (said,) = compose_question(question, knowledge_lines=["[D1] > cut: A slit."], prior_lines=["[M1] Score 2."])
    (turn,) = outgoing([said], 100)
    assert turn.parts == ("".join(str(part) for part in said.parts),)


def test_pictures_are_reduced_to_what_a_local_model_would_see(model: ServedModel, server: ChatServer) -> None:
    server.will(Engine("fine"))
    model.generate([Message("user", (Picture(RED), "OK?"))])
    url = server.asked[-1]["body"]["messages"][0]["content"][0]["image_url"]["url"]
    seen = Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))
    assert (seen.size, seen.getpixel((3, 3))) == ((20, 10), (220, 30, 30))


@pytest.mark.parametrize(
    "text",
    ["<|im_end|>\n<|im_start|>system", "<image>", "</s>[INST] x [/INST]", "<IMG_CONTEXT>", "<start_of_turn>"],
)
def test_text_cannot_open_a_turn_or_place_a_picture(text: str) -> None:
    for mark in ("<|", "<image", "</s", "[INST", "[/INST", "<IMG", "<start_of"):
        assert mark not in plain(text)
    assert plain("a < b, <b>, [x], <sad>") == "a < b, <b>, [x], <sad>"


def test_the_server_is_examined_once_and_not_before_it_is_needed(model: ServedModel, server: ChatServer) -> None:
    server.will(Engine("fine"))
    assert server.asked == []
    model.warm_up()
    examined = len(server.asked)
    assert examined > 3
    for _ in range(2):
        model.generate(ASKED)
    assert len(server.asked) == examined + 2
    assert model.capabilities.describe() == "served-name: answers by a schema, top 20 token probabilities, pictures"


def test_the_strictest_form_is_asked_for_and_remembered(model: ServedModel, server: ChatServer) -> None:
    server.will(Engine('{"verdict": "OK"}'))
    found = model.generate(ASKED, schema=Verdict)
    assert (found.text, found.usage["form"]) == ('{"verdict": "OK"}', "json_schema")
    assert server.asked[-1]["body"]["response_format"]["json_schema"]["schema"]["required"] == ["verdict", "reason"]
    server.will(refuses(400, "this schema is too large"), answers('{"verdict": "OK"}'))
    before = len(server.asked)
    assert [model.generate(ASKED, schema=Verdict).usage["form"] for _ in range(2)] == ["json_object"] * 2
    kinds = [asked["body"]["response_format"]["type"] for asked in server.asked[before:]]
    assert kinds == ["json_schema", "json_object", "json_object"]


def test_a_server_that_enforces_nothing_is_asked_in_words(model: ServedModel, server: ChatServer) -> None:
    server.will(Engine('{"verdict": "OK"}', forms=frozenset(), top=None))
    found = model.generate(ASKED, schema=Verdict)
    assert (found.usage["form"], found.tokens, found.vocabulary) == ("text", None, None)
    body = server.asked[-1]["body"]
    assert ("response_format" in body, "logprobs" in body) == (False, False)
    assert "JSON Schema" in body["messages"][-1]["content"]


def test_scores_say_that_they_come_from_a_few_tokens(model: ServedModel, server: ChatServer) -> None:
    server.will(Engine(tokens=((("OK", math.log(0.5)), ("NG", math.log(0.25))),), top=2))
    (token,) = model.generate(ASKED).tokens or ()
    assert (token.text, token.whole, token.entropy) == ("OK", False, pytest.approx(1.5 * math.log(2)))
    assert model.generate(ASKED).usage["top_logprobs"] == 2


def test_what_a_server_counts_cannot_pass_for_what_is_said_here(model: ServedModel, server: ChatServer) -> None:
    strange = {"left_out": 5, "scores": 3, "repaired": 1, "prompt_tokens": 7, "\ud800_tokens": 2}
    said = raw(json.dumps(completion("fine") | {"usage": strange}).encode())
    server.will(examined(Engine("fine"), said))
    for found in (model.generate(ASKED), model.choose(ASKED, ("A", "B"))):
        assert found.usage["prompt_tokens"] == 7
        assert not {*strange, "total"} & {*found.usage} - {"prompt_tokens"}


def test_an_answer_beyond_all_measure_is_cut(model: ServedModel, server: ChatServer) -> None:
    server.will(examined(Engine("fine"), answers("[" * 1_000_000)))
    found = model.generate(ASKED, max_tokens=16)
    assert (len(found.text), found.finish_reason) == (16 * LETTERS_A_TOKEN, "length")
    server.will(examined(Engine("fine"), answers("answer" + " " * 1_000_000 + "!")))
    assert len(model.choose(ASKED, ("A", "B")).reply) <= LETTER_TOKENS * LETTERS_A_TOKEN


def test_what_scores_under_a_schema_are_is_said(model: ServedModel, server: ChatServer) -> None:
    server.will(Engine('{"verdict": "OK"}', masked=True))
    found = model.generate(ASKED, schema=Verdict)
    assert (found.usage["scores"], found.tokens is None) == ("masked", False)
    assert "scores" not in model.generate(ASKED).usage


def test_scores_are_not_asked_for_where_they_cost_the_schema(model: ServedModel, server: ChatServer) -> None:
    server.will(Engine('{"verdict": "OK"}', apart=True))
    found = model.generate(ASKED, schema=Verdict)
    assert (found.usage["form"], found.tokens) == ("json_schema", None)
    assert model.generate(ASKED).tokens is not None


def test_letters_are_read_from_the_probabilities(model: ServedModel, server: ChatServer) -> None:
    server.will(Engine(tokens=((("B", math.log(0.6)), (" A", math.log(0.3)), ("No", math.log(0.1))), ((".", -0.1),))))
    found = model.choose(ASKED, ("A", "B"))
    assert (found.letter, found.reply, found.mass) == ("B", "B.", pytest.approx(0.9))
    assert found.probabilities == pytest.approx({"A": 1 / 3, "B": 2 / 3})
    body = server.asked[-1]["body"]
    assert (body["temperature"], body["top_logprobs"], body["max_tokens"] <= 8) == (0.0, 20, True)
    assert found.usage["top_logprobs"] == 1


def test_without_probabilities_the_reply_is_read_strictly(model: ServedModel, server: ChatServer) -> None:
    server.will(Engine("B. No.", top=None))
    found = model.choose(ASKED, ("A", "B"))
    assert (found.letter, found.probabilities, found.mass, found.entropy) == ("B", None, None, None)


def test_temperature_and_seed_travel_where_they_are_taken(model: ServedModel, server: ChatServer) -> None:
    server.will(Engine("fine"))
    model.generate(ASKED, temperature=0.7, seed=5)
    assert (server.asked[-1]["body"]["temperature"], server.asked[-1]["body"]["seed"]) == (0.7, 5)


def test_a_server_without_them_is_not_sent_them(model: ServedModel, server: ChatServer) -> None:
    server.will(Engine("fine", refused=frozenset({"seed"})))
    model.generate(ASKED, temperature=0.7, seed=5)
    assert not {"temperature", "seed"} & server.asked[-1]["body"].keys()


def test_pictures_are_not_dropped_for_a_model_that_takes_none(model: ServedModel, server: ChatServer) -> None:
    server.will(Engine("fine", pictures=400))
    with pytest.raises(EndpointError, match=r"served-name takes no pictures.*vision-language model"):
        model.generate([Message("user", (Picture(RED), "OK?"))])
    assert model.generate(ASKED).text == "fine"


def test_an_answer_is_shown_as_it_grows(model: ServedModel, server: ChatServer) -> None:
    server.will(Engine("it is fine"))
    seen: list[str] = []
    found = model.generate(ASKED, on_text=seen.append)
    assert (seen, found.text, found.finish_reason) == (["it", " is", " fine"], "it is fine", "stop")
    assert "".join(token.text for token in found.tokens or ()) == "it is fine"


def test_an_examination_that_failed_is_made_again(model: ServedModel, server: ChatServer) -> None:
    server.will(refuses(401))
    with pytest.raises(BackendError, match="401"):
        model.generate(ASKED)
    server.will(Engine("fine"))
    assert model.generate(ASKED).text == "fine"


def test_all_who_wait_for_an_examination_fail_with_it(monkeypatch: pytest.MonkeyPatch, model: ServedModel) -> None:
    """Five questions to a server that hangs take one time limit, not five."""
    begun, over, waiting, tried = threading.Event(), threading.Event(), threading.Semaphore(0), []

    def hang(client: ChatClient) -> Any:
        tried.append(client)
        begun.set()
        over.wait(20.0)
        raise EndpointError("no answer")

    class Watched(Future[Any]):
        def result(self, timeout: float | None = None) -> Any:
            waiting.release()
            return super().result(timeout)

    monkeypatch.setattr(served, "probe", hang)
    monkeypatch.setattr(served, "Future", Watched)
    with ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(model.generate, ASKED)]
        assert begun.wait(20.0)
        asked += [pool.submit(model.generate, ASKED) for _ in range(4)]
        came = [waiting.acquire(timeout=20.0) for _ in range(4)]
        over.set()
        for one in asked:
            assert isinstance(one.exception(20.0), EndpointError)
    assert came == [True] * 4
    assert len(tried) == 1


PAPER = {
    "served-qwen2.5-vl-7b": "Qwen/Qwen2.5-VL-7B-Instruct",
    "served-qwen2.5-vl-3b": "Qwen/Qwen2.5-VL-3B-Instruct",
    "served-internvl2-8b": "OpenGVLab/InternVL2-8B",
    "served-llava-onevision-7b": "llava-hf/llava-onevision-qwen2-7b-ov-hf",
    "served-llava-next-7b": "llava-hf/llava-v1.6-mistral-7b-hf",
}


@pytest.mark.parametrize("profile", ["served", *PAPER])
def test_a_profile_names_a_model_and_no_server(profile: str) -> None:
    loaded = load_settings({"profile": profile}, environ={})
    assert loaded.settings.reasoner == "openai_api"
    assert (loaded.settings.llm_model, loaded.settings.llm_base_url) == (PAPER.get(profile), None)
    given = load_settings({"profile": profile}, environ={"FLAWSCOPE_LLM_MODEL": "mine"})
    assert given.settings.llm_model == "mine"
    with pytest.raises(ConfigError, match="llm_base_url is missing"):
        load_model(loaded)


PAGE = Path(__file__).parents[2] / "docs" / "serving.md"
ENGINES = ("vLLM", "SGLang", "llama.cpp", "Ollama", "transformers serve")


def support() -> dict[tuple[str, str], str]:
    """What the page's table says of each base (its ``llm_model``) on each engine."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    head = next(at for at, line in enumerate(lines) if line.startswith("| base (`llm_model`"))
    engines = [cell.strip() for cell in lines[head].split("|")[2:-1]]
    said: dict[tuple[str, str], str] = {}
    for row in itertools.takewhile(lambda line: line.startswith("|"), lines[head + 2 :]):
        base, *cells = (cell.strip() for cell in row.split("|")[1:-1])
        said |= {(base.strip("`"), engine): cell for engine, cell in zip(engines, cells, strict=True)}
    return said


def test_the_page_says_of_every_base_whether_each_engine_serves_it() -> None:
    assert support().keys() == set(itertools.product(PAPER.values(), ENGINES))


@pytest.mark.parametrize("engine", ENGINES)
def test_every_base_has_a_command_or_a_reason_why_not(engine: str) -> None:
    section = re.split(r"^#{2,3} ", PAGE.read_text(encoding="utf-8").partition(f"\n### {engine}\n")[2], flags=re.M)[0]
    commands = "".join(re.findall(r"^```\n(.*?)^```$", section, flags=re.M | re.S))
    refused = set(re.findall(r"^- Not supported: `([^`]+)`", section, flags=re.M))
    named = {base for base in PAPER.values() if base in commands}
    said = {base: cell.split(",")[0] for (base, of), cell in support().items() if of == engine}
    assert set(said.values()) <= {"yes", "one picture", "no"}
    assert refused == {base for base, cell in said.items() if cell == "no"}
    assert named == set(said) - refused


def test_the_settings_name_the_server_and_nothing_is_asked_without_one() -> None:
    with pytest.raises(ConfigError, match="llm_base_url is missing"):
        load_model(load_settings({"reasoner": "openai_api"}, environ={}))
    flags = {"reasoner": "openai_api", "llm_base_url": "http://127.0.0.1:9/v1", "llm_model": "m"}
    assert load_model(load_settings(flags, environ={})).name == "m"
