"""Whatever a model's server does wrong, an inspection ends in a report: REVIEW, or one whose error says why."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from chat_engine import Engine, examined
from chat_server import (
    Act,
    ChatServer,
    answers,
    chat_server,
    drops,
    hangs,
    raw,
    refuses,
    slow,
    trickles,
)
from conftest import Plant

from flawscope.agent.inspector import InspectionDeps
from flawscope.agent.schemas import InspectionReport, Verdict
from flawscope.graphs.inspection import build_inspection_graph

SHORT_S, LONG_S = 1.5, 60.0
"""For servers that keep one waiting, and for all others however busy the machine is."""
OK = json.dumps(
    {
        "verdict": "OK",
        "defect_type": "none",
        "region": "none",
        "sentences": [{"about": "description", "text": "The surface is even.", "cites": ["M1"]}],
    }
)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        yield running


def inspect(plant: Plant, server: ChatServer, timeout_s: float = LONG_S) -> InspectionReport:
    asked = {"reasoner": "openai_api", "llm_base_url": server.url, "llm_model": "m", "llm_timeout_s": timeout_s}
    deps: InspectionDeps = plant.deps(**asked, llm_retries=1, max_actions=0)
    state = build_inspection_graph(deps).invoke({"image": str(plant.new_good), "product": "plate"})
    return InspectionReport.model_validate(state["report"])


@dataclass(frozen=True)
class Fault:
    """What a server does, and how the report says so.

    Attributes:
        act: it.
        said: words of the report.
        timeout_s: how long it is waited for.
    """

    act: Callable[[], Act]
    said: str
    timeout_s: float = LONG_S


FAILURES = {
    "busy": Fault(lambda: refuses(429, "slow down"), "answered 429"),
    "busy for long": Fault(lambda: refuses(429, Retry_After="3600"), "asks to wait 3600 s"),
    "broken": Fault(lambda: refuses(500, "CUDA error"), "answered 500: CUDA error"),
    "key refused": Fault(lambda: refuses(401), "FLAWSCOPE_LLM_API_KEY"),
    "truncated": Fault(lambda: raw(b'{"choices": [{"mess'), "no whole JSON"),
    "broken off": Fault(lambda: drops, "failed"),
    "hanging": Fault(lambda: hangs(4.0), "within 1.5 s", SHORT_S),
    "slow": Fault(lambda: slow(4.0, answers(OK)), "within 1.5 s", SHORT_S),
    "dripping": Fault(lambda: trickles(4.0), "within 1.5 s", SHORT_S),
    "elsewhere": Fault(lambda: raw(b"", 307, Location="http://127.0.0.1:9/"), "redirects"),
    "huge": Fault(lambda: raw(b" " * 8_200_000), "larger than"),
    "another protocol": Fault(lambda: raw(b'{"hello": 1}'), "no usable"),
    "silent": Fault(lambda: answers(""), "no answer"),
    "refusing": Fault(lambda: answers("x", "content_filter"), "refused to answer"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_server_that_fails_is_a_report_with_its_error(plant: Plant, server: ChatServer, name: str) -> None:
    fault = FAILURES[name]
    server.will(examined(Engine(), fault.act()))
    report = inspect(plant, server, fault.timeout_s)
    assert report.verdict is Verdict.REVIEW
    assert report.error is not None
    assert (report.error.code, report.error.exit_code) == ("endpoint", 7)
    assert fault.said in report.error.message


@pytest.mark.parametrize("name", ["broken", "key refused", "truncated", "hanging", "elsewhere"])
def test_a_server_that_fails_when_it_is_examined_is_too(plant: Plant, server: ChatServer, name: str) -> None:
    server.will(FAILURES[name].act())
    report = inspect(plant, server, FAILURES[name].timeout_s)
    assert report.error is not None
    assert FAILURES[name].said in report.error.message


def test_a_server_whose_every_answer_is_slow_is_not_examined_for_as_many_time_limits(
    plant: Plant, server: ChatServer
) -> None:
    """Each answer would be in time; six of them are not."""
    server.will(slow(0.4 * SHORT_S, examined(Engine(), answers(OK))))
    report = inspect(plant, server, SHORT_S)
    assert (report.verdict, len(server.asked) <= 3) == (Verdict.REVIEW, True)
    assert report.error is not None
    assert (report.error.code, "within 1.5 s" in report.error.message) == ("endpoint", True)


UNUSABLE = {
    "words": "The part is fine.",
    "cut": '{"verdict": "OK", "defe',
    "wrong form": '{"answer": "OK"}',
    "wrong value": OK.replace('"OK"', '"PERFECT"'),
    "contradicts itself": OK.replace('"defect_type": "none"', '"defect_type": "scratch"'),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_answer_of_the_wrong_form_is_asked_for_once_more_and_then_review(
    plant: Plant, server: ChatServer, name: str
) -> None:
    server.will(examined(Engine(), answers(UNUSABLE[name])))
    report = inspect(plant, server)
    assert (report.verdict, report.error) == (Verdict.REVIEW, None)
    asked = [one for one in server.asked if "response_format" in one["body"] and "traffic" not in str(one["body"])]
    assert len(asked) == 2


PASSING = {
    "busy": refuses(429, Retry_After="0"),
    "broken": refuses(500),
    "truncated": raw(b'{"choices": [{"mess'),
    "broken off": drops,
    "silent": answers(""),
}


@pytest.mark.parametrize("name", PASSING)
def test_a_failure_that_passes_is_asked_again(plant: Plant, server: ChatServer, name: str) -> None:
    faults = iter([PASSING[name]])
    server.will(examined(Engine(), lambda handler, body: next(faults, answers(OK))(handler, body)))
    report = inspect(plant, server)
    assert (report.verdict, report.error) == (Verdict.OK, None)


def test_without_probabilities_the_model_is_not_taken_for_certain(plant: Plant, server: ChatServer) -> None:
    server.will(examined(Engine(top=None), answers(OK)))
    report = inspect(plant, server)
    assert report.error is None
    assert report.uncertainty is not None
    assert "no token probabilities" in report.uncertainty.source
