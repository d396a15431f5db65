"""Chat models of LangChain's as ours and ours as theirs: order, pictures, tools, scores, failures."""

from __future__ import annotations

import base64
import io
import math
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from fake_chat import ScriptedChat
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from PIL import Image
from pydantic import BaseModel

from flawscope.agent.errors import BackendError, InputError
from flawscope.agent.vision_language import Generated, Message, Picture, Slot, VisionLanguageModel
from flawscope.agent.vision_language.chat_model import FlawscopeChatModel
from flawscope.agent.vision_language.fakes import ScriptedModel, spoken
from flawscope.agent.vision_language.langchain_model import ChatModelAdapter
from flawscope.agent.vision_language.tool_text import ToolCall, called

RED = np.full((60, 80, 3), (220, 30, 30), np.uint8)


def red_png() -> str:
    file = io.BytesIO()
    Image.fromarray(RED).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


class Verdict(BaseModel):
    """The verdict on a part."""

    verdict: str


@tool
def zoom(region: str) -> str:
    """Look at a region
    again, enlarged."""
    return region


# --- theirs as ours ---------------------------------------------------------------------------------------------------


def test_parts_are_content_blocks_in_order() -> None:
    chat = ScriptedChat()
    turns = [
        Message("system", ("Be brief.",)),
        Message("user", ("good:", Picture(RED), Slot("prior", 3), "to judge <|im_end|>:", Picture(RED))),
        Message("assistant", ("fine",)),
    ]
    ChatModelAdapter(chat).generate(turns)
    system, user, assistant = chat.asked[0]
    assert (system, assistant) == (SystemMessage("Be brief."), AIMessage("fine"))
    assert [block.get("text", block["type"]) for block in user.content] == [
        "good:",
        "image_url",
        "to judge < |im_end|>:",
        "image_url",
    ]
    assert user.content[1]["image_url"]["url"].startswith("data:image/png;base64,")


def test_parameters_are_set_where_a_chat_model_has_them_and_it_is_not_changed() -> None:
    chat = ScriptedChat(temperature=0.3)
    ChatModelAdapter(chat).generate([Message("user", ("hi",))], max_tokens=9, temperature=0.7, seed=1)
    ChatModelAdapter(chat, keep=("temperature",)).generate([Message("user", ("hi",))], max_tokens=8)
    assert chat.given == [(0.7, 9), (0.3, 8)]
    assert (chat.temperature, chat.num_predict, ChatModelAdapter(chat).name) == (0.3, None, "scripted-chat")


def test_structured_output_is_used_and_words_where_there_is_none() -> None:
    asked = [Message("user", ("OK?",))]
    seen: list[str] = []
    held = ScriptedChat(text="", arguments={"verdict": "OK"})
    found = ChatModelAdapter(held).generate(asked, schema=Verdict, on_text=seen.append)
    assert (found.text, found.tokens, found.usage["form"], seen) == (
        '{"verdict": "OK"}',
        None,
        "structured",
        [found.text],
    )
    free = ScriptedChat(text='{"verdict": "NG"}')
    assert ChatModelAdapter(free).generate(asked, schema=Verdict).usage["form"] == "text"
    assert "JSON Schema" in str(free.asked[0][-1].content)
    assert found.usage["prompt_tokens"] == 7


def test_probabilities_are_read_from_the_response() -> None:
    chat = ScriptedChat(text="B", top=(("B", math.log(0.6)), ("A", math.log(0.2))))
    found = ChatModelAdapter(chat).choose([Message("user", ("?",))], ("A", "B"))
    assert (found.letter, found.mass) == ("B", pytest.approx(0.8))
    streamed = ChatModelAdapter(chat).generate([Message("user", ("?",))], on_text=lambda piece: None)
    assert [token.text for token in streamed.tokens or ()] == ["B"]


def test_whatever_an_integration_raises_is_a_failed_backend_that_repeats_no_key() -> None:
    chat = ScriptedChat(error=RuntimeError("bad key sk-secret"))
    with pytest.raises(BackendError, match=r"scripted-chat failed: RuntimeError") as caught:
        ChatModelAdapter(chat).generate([Message("user", ("?",))])
    assert "sk-secret" not in str(caught.value)
    with pytest.raises(BackendError, match="RuntimeError"):
        ChatModelAdapter(chat).generate([Message("user", ("?",))], on_text=lambda piece: None)


# --- ours as theirs ---------------------------------------------------------------------------------------------------


def test_messages_become_turns_with_pictures_in_order() -> None:
    model = ScriptedModel(["fine"])
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{red_png()}"}}
    block = {"type": "image", "base64": red_png(), "mime_type": "image/png"}
    asked = [
        SystemMessage("Be brief."),
        HumanMessage(["see", url, {"type": "text", "text": "and"}, block]),
        HumanMessage("OK?"),
        AIMessage("", tool_calls=[{"name": "zoom", "args": {"region": "R1"}, "id": "1"}]),
        ToolMessage("nothing there", tool_call_id="1", name="zoom"),
    ]
    reply = FlawscopeChatModel(model=model).invoke(asked)
    assert reply.content == "fine"
    system, user, called, result = model.asked[0]
    assert system.parts == ("Be brief.",)
    assert [part if isinstance(part, str) else part.rgb.shape for part in user.parts] == [
        "see",
        (60, 80, 3),
        "and",
        (60, 80, 3),
        "OK?",
    ]
    assert np.array_equal(user.pictures[0].rgb, RED)
    assert called == Message("assistant", ('{"tool":"zoom","arguments":{"region":"R1"}}',))
    assert result == Message("user", ("Result of zoom:", "nothing there"))


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x.png"}}, "must be a data URL"),
        ({"type": "image_url", "image_url": "file:///etc/passwd"}, "must be a data URL"),
        ({"type": "image", "url": "https://example.org/x.png"}, "must be a data URL"),
        ({"type": "image_url", "image_url": None}, "must be a data URL"),
        ({"type": "image_url", "image_url": "data:image/png;base64,@@"}, "no base64"),
        ({"type": "image_url", "image_url": "data:image/png;base64,AAAA"}, "image"),
        ({"type": "image_url", "image_url": "data:text/html;base64,AAAA"}, "must be a data URL"),
        ({"type": "audio", "base64": ""}, "'audio'"),
    ],
)
def test_pictures_from_elsewhere_and_other_kinds_are_refused(block: dict[str, Any], said: str) -> None:
    model = ScriptedModel(["fine"])
    with pytest.raises(InputError, match=said):
        FlawscopeChatModel(model=model).invoke([HumanMessage([block])])
    assert model.asked == []


def test_scores_and_counts_are_in_the_response() -> None:
    answer = Generated("OK", spoken("OK", certainty=0.5).tokens, "length", {"prompt_tokens": 5, "completion_tokens": 1})
    reply = FlawscopeChatModel(model=ScriptedModel([answer])).invoke("?")
    (token,) = reply.response_metadata["logprobs"]["content"]
    assert (token["token"], token["logprob"]) == ("OK", pytest.approx(math.log(0.5)))
    assert reply.response_metadata["finish_reason"] == "length"
    assert reply.usage_metadata == {"input_tokens": 5, "output_tokens": 1, "total_tokens": 6}


class Slowly:
    """A model that waits before each further piece until it is let go on."""

    name = "slowly"

    def __init__(self, pieces: Sequence[str]) -> None:
        self.pieces = pieces
        self.go = threading.Semaphore(0)
        self.stopped = threading.Event()

    def generate(self, messages: Sequence[Message], **options: Any) -> Generated:
        try:
            for piece in self.pieces:
                assert self.go.acquire(timeout=10)
                options["on_text"](piece)
        except BaseException:
            self.stopped.set()
            raise
        return Generated("".join(self.pieces), None, "stop")

    def choose(self, messages: Sequence[Message], letters: Sequence[str]) -> Any:
        raise NotImplementedError


def test_pieces_are_streamed_as_they_are_generated() -> None:
    model = Slowly(["it ", "is ", "fine"])
    assert isinstance(model, VisionLanguageModel)
    pieces = FlawscopeChatModel(model=model).stream("?")
    for expected in model.pieces:
        model.go.release()
        assert next(pieces).content == expected
    assert {piece.content for piece in pieces} == {""}  # what is left says how it ended


def test_who_stops_listening_ends_the_answer() -> None:
    model = Slowly(["it ", "is ", "fine"])
    pieces = FlawscopeChatModel(model=model).stream("?")
    model.go.release()
    next(pieces)
    pieces.close()
    model.go.release(2)
    assert model.stopped.wait(10)


def test_a_failure_in_the_middle_of_a_stream_is_raised_where_it_is_read() -> None:
    failing = ScriptedModel([BackendError("it broke.")])
    with pytest.raises(BackendError, match="it broke"):
        list(FlawscopeChatModel(model=failing).stream("?"))


def test_an_answer_ends_before_a_stop_mark() -> None:
    chat = FlawscopeChatModel(model=ScriptedModel(["one\ntwo", "one\ntwo"]))
    assert chat.invoke("?", stop=["\n"]).content == "one"
    assert next(chat.stream("?", stop=["\n"])).content == "one"


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_takes_tools_is_handed_them_and_answered_by_id(stream: bool) -> None:
    @tool
    def zoom(region: str) -> str:
        """Look again."""
        return region

    wanted = (ToolCall("zoom", {"region": "R1"}, "a"), called("zoom", "no JSON", "b"))
    model = ScriptedModel([Generated("I look.", None, "tool_calls", calls=wanted), "It is fine."], native=True)
    chat = FlawscopeChatModel(model=model).bind_tools([zoom])
    asked: list[Any] = [SystemMessage("You inspect."), HumanMessage("Where?")]
    said = sum_of(list(chat.stream(asked))) if stream else chat.invoke(asked)
    assert said.content == "I look."
    assert [(call["name"], call["args"], call["id"]) for call in said.tool_calls] == [("zoom", {"region": "R1"}, "a")]
    assert [call["id"] for call in said.invalid_tool_calls] == ["b"]
    again = AIMessage(said.content, tool_calls=said.tool_calls)
    chat.invoke([*asked, again, ToolMessage("Nothing there.", tool_call_id="a"), HumanMessage("So?")])
    assert model.handed == [("zoom",)] * 2
    system, question, calling, result, last = model.asked[1]
    assert "{" not in system.text  # nothing is told in words
    assert (question.role, calling.calls, calling.text) == (
        "user",
        (ToolCall("zoom", {"region": "R1"}, "a"),),
        "I look.",
    )
    assert (result.role, result.call_id, result.text, last.role) == ("tool", "a", "Nothing there.", "user")


def sum_of(pieces: list[Any]) -> Any:
    """A streamed message, put together."""
    whole = pieces[0]
    for piece in pieces[1:]:
        whole = whole + piece
    return whole


def test_tools_are_described_and_their_calls_read() -> None:
    model = ScriptedModel(['{"tool": "zoom", "arguments": {"region": "R1"}}', "It is fine."] * 2)
    chat = FlawscopeChatModel(model=model).bind_tools([zoom])
    called = chat.invoke([SystemMessage("Be brief."), HumanMessage("?")])
    assert [(call["name"], call["args"]) for call in called.tool_calls] == [("zoom", {"region": "R1"})]
    assert (called.content, chat.invoke("?").content) == ("", "It is fine.")
    told = model.asked[0][0]
    assert told.role == "system"
    assert "- zoom: Look at a region again, enlarged. Arguments:" in told.parts[1]
    first, *_ = chat.stream("?")
    assert isinstance(first, AIMessageChunk)
    assert first.tool_calls[0]["name"] == "zoom"


def test_a_form_is_held_to_by_the_model_itself() -> None:
    model = ScriptedModel(['{"verdict": "OK"}', "not JSON", "[" * 100_000])
    chat = FlawscopeChatModel(model=model).with_structured_output(Verdict)
    assert chat.invoke("?") == Verdict(verdict="OK")
    assert model.schemas == [Verdict]
    assert chat.invoke("?") is None
    assert chat.invoke("?") is None


def test_importing_the_package_needs_no_langchain() -> None:
    code = (
        "import sys, flawscope.agent.vision_language, flawscope.agent.vision_language.served\n"
        "print([name for name in ('langchain_core', 'torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
