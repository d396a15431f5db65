"""A conversation through the model that composed the report: the same evidence, tools, and an answer that is checked.

The model sees the part, a good part, the suspicious areas enlarged, all evidence and the quoted pages, then the last
questions and answers. It may use a few tools; what it says then is cut to what the evidence carries. It cannot change
the verdict. When nothing usable comes, the embedded conversation answers from the report.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..prompts import render
from .chat_answers import check_answer
from .chat_messages import PROMPTS, described, earlier_evidence, opening
from .chat_tools import ChatTools, Found, refused
from .errors import BackendError
from .schemas import Evidence, InspectionReport
from .vision_language import Generated, Message, Part, Picture, VisionLanguageModel
from .vision_language.base import CallsTools
from .vision_language.tool_text import ToolCall, ToolDescription, call_text, parse_tool_calls, words_beside

if TYPE_CHECKING:
    from .inspector import InspectionDeps

MAX_CALLS = 3
"""Tool calls for one question."""
ANSWER_TOKENS = 400
RESULT_TOKENS = 350
REPLY_LETTERS = 2000
RECORDED_LETTERS = 600


@dataclass(frozen=True)
class Spoken:
    """A model's turn.

    Attributes:
        text: what is shown; empty when nothing of it may be.
        cites: evidence that carries it.
        picture: file of the last picture that a tool made.
        calls: tool calls: ``tool``, ``arguments``, ``result``.
        evidence: what they added.
        problems: what was cut, and what went wrong.
        failed: section of prompts/chat.md that says why there is no answer; empty when there is one.
    """

    text: str
    cites: tuple[str, ...] = ()
    picture: str | None = None
    calls: tuple[dict[str, Any], ...] = ()
    evidence: tuple[Evidence, ...] = ()
    problems: tuple[str, ...] = ()
    failed: str = ""


@dataclass
class _Turn:
    """A question while it is worked on.

    Attributes:
        tools: that may be used.
        messages: the conversation so far.
        handed: what the model is handed in its own way; empty where it is told of the tools in words.
        calls: made so far, as they are kept.
        found: what they found, each thing once.
        asked: what they found, by call.
    """

    tools: ChatTools
    messages: list[Message]
    handed: tuple[ToolDescription, ...] = ()
    calls: list[dict[str, Any]] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
    asked: dict[str, Found] = field(default_factory=dict)


def converse(
    question: str,
    report: InspectionReport,
    deps: InspectionDeps,
    model: VisionLanguageModel,
    turns: Sequence[Mapping[str, Any]],
    pictures: Sequence[Picture] = (),
) -> Spoken:
    """Answer one question.

    Args:
        question: free text.
        report: what is talked about; it was inspected without an error.
        deps: for the tools.
        model: that is asked.
        turns: earlier ones of the thread.
        pictures: labelled ``query``, ``reference`` and ``crop`` with the region's id.

    Raises:
        BackendError: the model failed.
    """
    earlier = earlier_evidence(turns)

    def asked(native: bool) -> tuple[_Turn, str, str]:
        tools = ChatTools(report, deps, earlier)
        messages = opening(question, report, earlier, tools, turns, pictures, native=native)
        turn = _Turn(tools, messages, tuple(described(tools)) if native else ())
        return turn, *_ask(turn, model)

    native = _takes_tools(model)
    try:
        turn, text, failed = asked(native)
    except BackendError:
        if not native or _takes_tools(model):
            raise
        turn, text, failed = asked(native=False)  # it refused the tools themselves: it is told of them in words
    added = tuple(item for found in turn.found for item in found.evidence)
    paths = [found.path for found in turn.found if found.path]
    spoken = Spoken("", (), paths[-1] if paths else None, tuple(turn.calls), added)
    if failed:
        return replace(spoken, failed=failed)
    checked = check_answer(text, report, (*earlier, *added))
    said = checked.text
    if checked.overturning:
        said = " ".join(filter(None, (said, render(PROMPTS, "stands", verdict=report.verdict.value))))
    if not said:
        return replace(spoken, problems=checked.problems, failed="fallback_unsupported")
    return replace(spoken, text=said, cites=checked.cites, problems=checked.problems)


def _ask(turn: _Turn, model: VisionLanguageModel) -> tuple[str, str]:
    """The model's answer in words, or the section that says why there is none.

    Ends: each round runs at least one of MAX_CALLS calls, or spends the one repair, or the one reminder.
    """
    repaired = reminded = False
    while True:
        reply = _generated(turn, model)
        text = reply.text.strip()
        wanted = reply.calls or calls_in(text)
        if wanted and len(turn.calls) < MAX_CALLS:
            _use(turn, wanted[: MAX_CALLS - len(turn.calls)], text)
        elif wanted:
            if reminded:
                return "", "fallback_calls"
            reminded = True
            _say(turn, text, render(PROMPTS, "no_more_tools"))
        elif wrong := unreadable(text):
            if repaired:
                return "", "fallback_malformed"
            repaired = True
            _say(turn, text, render(PROMPTS, "malformed", wrong=wrong))
        else:
            return text, ""


def _takes_tools(model: VisionLanguageModel) -> bool:
    return isinstance(model, CallsTools) and model.takes_tools()


def _generated(turn: _Turn, model: VisionLanguageModel) -> Generated:
    """The model's next reply; tools are handed over only while calls are left."""
    if turn.handed and len(turn.calls) < MAX_CALLS and isinstance(model, CallsTools):
        return model.generate_with_tools(turn.messages, turn.handed, max_tokens=ANSWER_TOKENS)
    return model.generate(turn.messages, max_tokens=ANSWER_TOKENS)


def _say(turn: _Turn, said: str, answer: str) -> None:
    said = said[:REPLY_LETTERS] or "…"
    turn.messages += [Message("assistant", (said,)), Message("user", (f"{answer}\n",))]


def _use(turn: _Turn, calls: Sequence[ToolCall], text: str) -> None:
    """Run calls and show the model what they found, each in a message of its own where the tools were handed over."""
    shown = []
    for call in calls:
        found = _found(turn, call)
        turn.calls.append(_recorded(call, found))
        shown.append(_shown(call.name, found))
    if not turn.handed:
        parts = tuple(part for each in shown for part in each)
        turn.messages += [Message("assistant", (call_text(calls)[:REPLY_LETTERS],)), Message("user", parts)]
        return
    named = _named(calls, {call.id for message in turn.messages for call in message.calls})
    beside = words_beside(text)[:REPLY_LETTERS]
    turn.messages.append(Message("assistant", (beside,) if beside else (), named))
    for call, (told, *_) in zip(named, shown, strict=True):
        turn.messages.append(Message("tool", (told,), call_id=call.id))
    if pictures := tuple(part for _, *further in shown for part in further):  # results are words in the protocol
        turn.messages.append(Message("user", pictures))


def _found(turn: _Turn, call: ToolCall) -> Found:
    """What a call finds; the same call finds the same, and counts, so that asking again comes to an end."""
    if call.fault:
        return refused("arguments", call.fault)
    key = json.dumps([call.name, dict(call.arguments)], sort_keys=True, default=str)
    if key not in turn.asked:
        turn.asked[key] = turn.tools.call(call.name, call.arguments)
        turn.found.append(turn.asked[key])
    return turn.asked[key]


def _named(calls: Sequence[ToolCall], taken: set[str]) -> tuple[ToolCall, ...]:
    """The calls with the ids that they came with; missing and repeated ones get ids of nine letters, as Mistral's."""
    named: list[ToolCall] = []
    for call in calls:
        number = len(taken)
        while not call.id or call.id in taken:
            call, number = replace(call, id=f"call{number:05d}"), number + 1
        taken.add(call.id)
        named.append(call)
    return tuple(named)


def _recorded(call: ToolCall, found: Found) -> dict[str, Any]:
    arguments = json.loads(json.dumps(dict(call.arguments), default=str))
    return {
        "tool": call.name[:80],
        "arguments": arguments if len(json.dumps(arguments)) <= RECORDED_LETTERS else {},
        "result": json.dumps(found.record, ensure_ascii=False)[:RECORDED_LETTERS],
        "failed": "error" in found.record,
    }


def _shown(name: str, found: Found) -> list[Part]:
    """A tool's record as quoted data: pages and names of files in it are not the project's words."""
    from ..tools.knowledge.schema import cut_to_budget, plain_text

    lines: list[str] = []
    pages = found.record.get("pages") or [found.record]
    for page in pages:
        said = page.get("text") or json.dumps(page, ensure_ascii=False)
        heading = (
            render(PROMPTS, "result", id=page["id"], tool=name)
            if "id" in page
            else render(PROMPTS, "result_without_id", tool=plain_text(name)[:40])
        )
        kept = [cut_to_budget(f"> {plain_text(line)}", RESULT_TOKENS) for line in str(said).splitlines()]
        lines += [heading, *(line for line in kept if line.strip("> "))]
    parts: list[Part] = ["".join(f"{line}\n" for line in lines)]
    if found.picture is not None:
        parts += [f"{render(PROMPTS, 'seen')}\n", found.picture, "\n"]
    return parts


def calls_in(text: str) -> tuple[ToolCall, ...]:
    """The tool calls of a reply, also behind words: models like to announce what they do."""
    return parse_tool_calls(text) or (parse_tool_calls(text[text.find("{") :]) if '"tool"' in text else ())


def unreadable(text: str) -> str:
    """Why a reply is neither an answer nor a tool call; empty when it is an answer."""
    if not text:
        return "it is empty"
    opened = text.lstrip("`json \n")[:1]
    if opened not in ("{", "[") and "<tool_call>" not in text:
        return ""
    try:
        value, _ = json.JSONDecoder().raw_decode(text, text.find(opened) if opened in ("{", "[") else 0)
    except (ValueError, RecursionError):
        # "[M1] The part …" opens with a bracket as well
        return "" if opened == "[" and not text.lstrip().startswith(("[{", "[[")) else "the JSON does not parse"
    if isinstance(value, dict) and isinstance(value.get("sentences"), list):
        return ""
    return 'it has no "tool" and no "sentences"'
