"""The knowledge server goes away between two pictures: the line goes on, and every report says what it lacks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from flawscope.agent.errors import KnowledgeUnreachableError
from flawscope.agent.inspector import Inspector
from flawscope.agent.schemas import Evidence, InspectionReport, Verdict
from flawscope.benchmarks.lite_server import free_port, lite_server
from flawscope.graphs.evidence import AWAY_ID
from flawscope.tools.knowledge import remote


@pytest.fixture
def home(plant: Any, tmp_path: Path) -> Path:
    """A copy of the plant's home: a base on a server notes there what the server holds."""
    return Path(shutil.copytree(plant.home, tmp_path / "plant"))


def inspector(plant: Any, home: Path, uri: str, **changes: Any) -> Inspector:
    return Inspector(
        plant.loaded(**{"home": home, "store": "milvus", "milvus_uri": uri, "milvus_timeout_s": 20.0} | changes)
    )


def away(report: InspectionReport) -> list[Evidence]:
    return [item for item in report.evidence if item.id == AWAY_ID]


def test_the_server_is_killed_between_two_pictures_and_comes_back(
    plant: Any, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(remote, "REST", 0.0)
    with lite_server(tmp_path / "data") as server, inspector(plant, home, server.uri) as line:
        before = line.inspect(plant.square, product="plate")
        server.process.kill()
        server.process.wait(timeout=10)
        without = line.inspect(plant.square, product="plate")
        with lite_server(tmp_path / "data", server.port):
            after = line.inspect(plant.square, product="plate")
    assert not away(before)
    assert (without.verdict, without.error, without.image_score) == (Verdict.NG, None, before.image_score)
    [said] = away(without)
    assert said.text.startswith(
        "Inspected without searching the knowledge base: the knowledge server http://127.0.0.1:"
    )
    assert said.text.endswith("cannot be reached.")
    assert said.values == {"searched": False}
    assert any(step.action == "retrieve" and "cannot be reached" in step.note for step in without.trace)
    assert not any(step.action == "more_docs" for step in without.trace)
    assert after.evidence == before.evidence
    assert capfd.readouterr().err == ""


def test_a_halted_server_costs_the_time_that_was_set_and_not_for_every_picture(
    plant: Any, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[str] = []
    wait = remote.RemoteStore._timed
    monkeypatch.setattr(remote, "REST", 1000.0)  # of half a second, whatever the machine is busy with
    monkeypatch.setattr(remote.RemoteStore, "_timed", lambda store, call: waited.append("once") or wait(store, call))
    with lite_server(tmp_path / "data") as server:
        inspector(plant, home, server.uri).deps.knowledge.close()  # filled with patience
        server.halt()
        with inspector(plant, home, server.uri, milvus_timeout_s=0.5) as line:
            line.prepare("plate")
            waited.clear()
            line.deps.knowledge._store._again = 0.0  # type: ignore[attr-defined]  # the rest after opening is over
            reports = [line.inspect(plant.square, product="plate") for _ in range(2)]
            assert line.deps.knowledge.away is not None
            assert waited == ["once"]
    for report in reports:
        assert report.verdict is Verdict.NG
        assert "does not answer within 0.5 s" in away(report)[0].text


def test_who_requires_knowledge_gets_an_error_and_no_verdict(plant: Any, home: Path, tmp_path: Path) -> None:
    closed = f"http://127.0.0.1:{free_port()}"
    with (
        inspector(plant, home, closed, knowledge_required=True) as line,
        pytest.raises(KnowledgeUnreachableError, match="cannot be reached"),
    ):
        line.prepare("plate")
    with (
        lite_server(tmp_path / "data") as server,
        inspector(plant, home, server.uri, knowledge_required=True) as line,
    ):
        line.prepare("plate")
        server.process.kill()
        server.process.wait(timeout=10)
        report = line.inspect(plant.square, product="plate")
    assert report.verdict is Verdict.REVIEW
    assert report.error is not None
    assert (report.error.code, report.error.exit_code) == ("knowledge_unreachable", 6)
