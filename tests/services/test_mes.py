"""The MES example on SQLite and on a real PostgreSQL server: killed everywhere, resumed elsewhere, one row a part."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import Plant
from postgres_server import postgres_server

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import mes_workflow
from mes import database as mes_database
from mes import workflow as mes
from mes.database import ADDRESSES
from mes.rules import RULES, Rule, disposition_of

from flawscope.agent.checkpoints import open_checkpointer
from flawscope.agent.errors import ConfigError, StorageError
from flawscope.tools.control_plan.store import PlanStore

SCRIPT = Path(__file__).parents[1] / "mes_kills.py"
PLAN = "products:\n  - product: plate\n    severity: 9\n"
OWN = [f"{step}:{when}" for step in ("receive", "dispose", "ask", "write") for when in ("start", "end")]
INSIDE = [f"{step}:start" for step in ("see", "localise", "retrieve", "classify", "reason", "verify", "report")]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture
def plant_home(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the plant's home with a control plan, and the environment of a process that works in it."""
    plant.deps().knowledge.close()  # built once, there
    shutil.copytree(plant.home, tmp_path / "home", dirs_exist_ok=True)
    PlanStore(tmp_path / "home" / "plans").set("plate", PLAN, author="Bob")
    for name, value in {"BACKBONE": "patch-statistics", "STORE": "memory", "FALSE_ALARM": "0.15"}.items():
        monkeypatch.setenv(f"FLAWSCOPE_{name}", value)
    return tmp_path / "home"


def killed_everywhere(picture: Path, database: str, checkpoints: str, points: list[str]) -> dict[str, Any]:
    command = [sys.executable, str(SCRIPT), str(picture), database, checkpoints, *points]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    report = json.loads(json.dumps(row["report"]))
    for entry in report["trace"]:
        del entry["seconds"]
    return {**row, "report": report, "serial": "", "received": ""}


def check(found: dict[str, Any], points: list[str]) -> None:
    """Each part died once, where it should, went on at that step, and is booked once, as the one that did not die."""
    told = found["told"]
    assert told.pop("nowhere") == {"died": False, "resumed": [], "answers": 1, "once_more": []}
    assert {point: entry["died"] for point, entry in told.items()} == dict.fromkeys(points, True)
    assert {point: entry["once_more"] for point, entry in told.items()} == {point: [] for point in points}
    for point, entry in told.items():
        step, first = point.partition(":")[0], (entry["resumed"] or [""])[0]
        if step in ("localise", "retrieve"):  # side by side: the other one may be done, or end first
            assert first in ("inspect/localise", "inspect/retrieve")
        elif step == "ask":  # an answer that no step took is asked for again
            assert first == ""
        else:
            assert first == (f"inspect/{step}" if point in INSIDE else step)
    booked = {row["serial"]: without_times(row) for row in found["rows"]}
    assert len(found["rows"]) == len(points) + 1
    assert set(booked) == {"nowhere", *points}
    alike = booked["nowhere"]
    assert (alike["verdict"], alike["disposition"], alike["decided_by"]) == ("NG", "rework", "Kim")
    assert [serial for serial, row in booked.items() if row != alike] == []


@pytest.mark.usefixtures("plant_home")
def test_a_part_killed_at_every_step_is_booked_once_in_sqlite(plant: Plant, tmp_path: Path) -> None:
    points = OWN + INSIDE
    urls = f"sqlite:///{tmp_path}/mes.db", f"sqlite:///{tmp_path}/checkpoints.db"
    check(killed_everywhere(plant.square, *urls, points), points)


@pytest.mark.usefixtures("plant_home")
def test_a_part_killed_at_every_step_is_booked_once_in_postgresql(plant: Plant, postgres: str) -> None:
    database = postgres.replace("postgresql://", "postgresql+psycopg://")
    check(killed_everywhere(plant.square, database, database, OWN), OWN)


@pytest.mark.usefixtures("plant_home")
@pytest.mark.parametrize("where", ["sqlite", "postgresql"])
def test_several_processes_with_the_same_part_at_the_same_time(
    where: str, plant: Plant, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    urls = [f"sqlite:///{tmp_path}/mes.db", f"sqlite:///{tmp_path}/checkpoints.db"]
    if where == "postgresql":
        server = request.getfixturevalue("postgres")
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute("CREATE DATABASE together")
        urls = [server.replace("postgresql://", "postgresql+psycopg://").replace("/postgres", "/together")] * 2
    command = [sys.executable, str(SCRIPT), str(plant.new_good), *urls]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    several = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)
        for _ in range(3)
    ]
    said = [process.communicate() for process in several]
    assert [process.returncode for process in several] == [0, 0, 0], "\n".join(err[-2000:] for _, err in said)
    for out, _ in said:
        (row,) = json.loads(out)["rows"]
        assert (row["serial"], row["verdict"], row["disposition"]) == ("nowhere", "OK", "ship")


@pytest.fixture
def opened(plant_home: Path, tmp_path: Path) -> Iterator[Any]:
    """The workflow on SQLite, in this process."""
    assert plant_home.is_dir()
    with mes.open_workflow(f"sqlite:///{tmp_path}/mes.db", f"sqlite:///{tmp_path}/checkpoints.db") as workflow:
        yield workflow


ANSWER = {"disposition": "scrap", "by": "Kim", "note": "hole"}


def test_a_good_part_asks_nobody(opened: Any, plant: Plant) -> None:
    part = mes.take_in(opened, "SN-1", plant.new_good, "plate", "L7")
    assert part["row"] is not None
    found = {name: part["row"][name] for name in ("serial", "lot", "verdict", "disposition", "decided_by")}
    assert found == {"serial": "SN-1", "lot": "L7", "verdict": "OK", "disposition": "ship", "decided_by": "rules"}


def test_an_answer_that_is_none_is_asked_for_again(opened: Any, plant: Plant) -> None:
    mes.take_in(opened, "SN-1", plant.square, "plate")
    for nonsense in ({"disposition": "melt", "by": "Kim"}, {"disposition": "scrap"}, {}):
        part = mes.answer_for(opened, "SN-1", nonsense)
        assert "an answer needs" in part["problem"]
        assert part["row"] is None
    part = mes.answer_for(opened, "SN-1", ANSWER)
    assert part["row"] is not None
    assert (part["row"]["disposition"], part["row"]["note"]) == ("scrap", "hole")
    with pytest.raises(ConfigError, match="waits for nobody"):
        mes.answer_for(opened, "SN-1", ANSWER)


def test_a_part_that_comes_again_with_another_picture(opened: Any, plant: Plant) -> None:
    mes.take_in(opened, "SN-1", plant.square, "plate")
    with pytest.raises(ConfigError, match="not finished"):
        mes.take_in(opened, "SN-1", plant.new_good, "plate")
    mes.answer_for(opened, "SN-1", {**ANSWER, "disposition": "rework"})
    part = mes.take_in(opened, "SN-1", plant.new_good, "plate")
    assert part["row"] is not None
    assert (part["row"]["disposition"], part["row"]["decided_by"]) == ("ship", "rules")  # Kim spoke of the other one


def test_a_part_that_was_taken_in_as_the_wrong_product(opened: Any, plant: Plant) -> None:
    part = mes.take_in(opened, "SN-1", plant.new_good, "plat")
    assert part["report"]["error"]["code"] == "product"
    with pytest.raises(ConfigError, match=r"not finished with .* as plat"):
        mes.take_in(opened, "SN-1", plant.new_good, "plate")
    mes.answer_for(opened, "SN-1", {**ANSWER, "disposition": "hold"})
    part = mes.take_in(opened, "SN-1", plant.new_good, "plate")
    assert part["row"] is not None
    assert (part["row"]["product"], part["row"]["disposition"], part["row"]["decided_by"]) == ("plate", "ship", "rules")


def test_going_back_to_the_rules(opened: Any, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    mes.take_in(opened, "SN-1", plant.square, "plate")
    mes.answer_for(opened, "SN-1", ANSWER)
    monkeypatch.setitem(RULES, "plate", (Rule(1, "use as is", ask=False),))
    begun = opened.get_state(mes.thread_of("SN-1")).values["received"]
    part = mes.redo(opened, "SN-1", "dispose")
    assert part["row"] is not None
    assert (part["row"]["disposition"], part["row"]["decided_by"]) == ("use as is", "rules")
    assert part["received"] == begun
    part = mes.redo(opened, "SN-1", "dispose", {"report": {**part["report"], "verdict": "OK"}})
    assert part["row"] is not None
    assert part["row"]["disposition"] == "ship"
    past = [
        step.values["row"]["disposition"] for step in opened.get_state_history(mes.thread_of("SN-1")) if not step.next
    ]
    assert past == ["ship", "use as is", "scrap"]
    with pytest.raises(ConfigError, match="never stood before weigh"):
        mes.redo(opened, "SN-1", "weigh")


def test_going_back_to_the_inspection_inspects_again(
    opened: Any, plant: Plant, capsys: pytest.CaptureFixture[str]
) -> None:
    mes.take_in(opened, "SN-1", plant.new_good, "plate")
    capsys.readouterr()
    mes.redo(opened, "SN-1", "inspect")
    assert capsys.readouterr().err.split()[0] == "inspect/see"


@pytest.mark.parametrize(
    ("product", "severity", "planned", "wanted"),
    [
        ("plate", 10, None, ("scrap", True)),
        ("plate", 8, None, ("rework", False)),
        ("plate", 1, None, ("use as is", True)),
        ("plate", 8, "quarantine", ("quarantine", False)),
        ("textile", 10, None, ("scrap", False)),
        ("plate", "high", None, ("hold", True)),
        ("plate", None, "rework", ("rework", True)),
    ],
)
def test_rules(product: str, severity: int | str | None, planned: str | None, wanted: tuple[str, bool]) -> None:
    plan = {"kind": "plan", "values": {"severity": severity, "disposition": planned, "version": 1}}
    found = disposition_of({"verdict": "NG", "product": product, "evidence": [plan]}, RULES)
    assert (found["do"], found["ask"]) == wanted


def test_a_severity_below_a_plants_own_rules_waits_for_a_person() -> None:
    plan = {"kind": "plan", "values": {"severity": 2, "disposition": None, "version": 1}}
    found = disposition_of(
        {"verdict": "NG", "product": "plate", "evidence": [plan]}, {"": (Rule(5, "scrap", ask=False),)}
    )
    assert (found["do"], found["ask"]) == ("hold", True)
    assert "no rule" in found["why"]


def test_a_part_without_a_plan_or_a_verdict_waits_for_a_person() -> None:
    assert disposition_of({"verdict": "NG", "product": None, "evidence": []}, RULES)["ask"]
    doubtful = disposition_of({"verdict": "REVIEW", "verdict_reason": "flat", "evidence": []}, RULES)
    assert (doubtful["do"], doubtful["why"], doubtful["ask"]) == ("hold", "flat", True)


def test_long_serials_and_notes_fit_into_postgresql(postgres: str) -> None:
    engine = mes_database.open_database(postgres)
    row = {"verdict": "OK", "picture_sha256": "0" * 64, "disposition": "ship", "decided_by": "rules", "report": {}}
    row |= {"serial": "S" * 300, "image": "a.png", "note": "n" * 2000, "received": "2026-01-01T00:00:00+00:00"}
    mes_database.upsert(engine, row)
    with engine.begin() as connection:
        kept = connection.execute(mes_database.PARTS.select().where(mes_database.PARTS.c.serial == row["serial"])).one()
    assert (kept.note, kept.verdict) == (row["note"], "OK")
    engine.dispose()


@pytest.mark.usefixtures("plant_home")
def test_the_command_line(
    plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert mes_workflow.main(["part", "SN-1", str(plant.square), "--product", "plate"]) == 0
    assert mes_workflow.main(["answer", "SN-1", "--disposition", "rework", "--by", "Kim"]) == 0
    assert mes_workflow.main(["parts"]) == 0
    asked, answered, booked = capsys.readouterr().out.splitlines()
    assert asked == "SN-1: NG, scrap? severity 9 of the control plan, version 1"
    assert answered == "SN-1: NG, rework, by Kim: "
    assert booked == "SN-1: NG, rework, by Kim"
    assert mes_workflow.main(["part", "SN-2", "nowhere.png"]) == 4
    assert capsys.readouterr().err == "mes: nowhere.png does not exist. Check the path.\n"
    assert mes_workflow.main(["--database", "sqlite:////nowhere/mes.db", "parts"]) == 10
    assert capsys.readouterr().err == "mes: the database cannot be used: unable to open database file\n"
    for address, why in {
        "mes.db": "the address of the database cannot be read.",
        "nosuch://kim:geheim@host/mes": "the address of the database cannot be read.",
        "mysql+pymysql://kim:geheim@host/mes": "the database's driver pymysql is not installed.",
    }.items():
        assert mes_workflow.main(["--database", address, "part", "SN-2", str(plant.square)]) == 2
        assert capsys.readouterr().err == f"mes: {why} {ADDRESSES}\n"


@pytest.mark.usefixtures("plant_home")
def test_parts_that_wait_are_listed_before_those_that_are_booked(
    plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for serial, picture in {"SN-2": plant.square, "SN-1": plant.square, "SN-0": plant.new_good}.items():
        assert mes_workflow.main(["part", serial, str(picture), "--product", "plate"]) == 0
    why = "NG, scrap? severity 9 of the control plan, version 1"
    for answered, listed in (
        (None, [f"waits: SN-1: {why}", f"waits: SN-2: {why}", "SN-0: OK, ship, by rules"]),
        ("SN-1", [f"waits: SN-2: {why}", "SN-0: OK, ship, by rules", "SN-1: NG, rework, by Kim"]),
    ):
        if answered:
            assert mes_workflow.main(["answer", answered, "--disposition", "rework", "--by", "Kim"]) == 0
        capsys.readouterr()
        assert mes_workflow.main(["parts"]) == 0
        assert capsys.readouterr().out.splitlines() == listed


@pytest.mark.usefixtures("plant_home")
def test_parts_that_wait_are_listed_from_postgresql_by_whoever_asks(plant: Plant, postgres: str) -> None:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE DATABASE waiting")
    url = postgres.replace("postgresql://", "postgresql+psycopg://").replace("/postgres", "/waiting")
    with mes.open_workflow(url, url) as workflow:
        assert mes.waiting(workflow) == []
        for serial, picture in {"SN-2": plant.square, "SN-1": plant.square, "SN-0": plant.new_good}.items():
            mes.take_in(workflow, serial, picture, "plate")
    for serial, left in (("SN-2", ["SN-1"]), ("SN-1", [])):
        with mes.open_workflow(url, url) as workflow:  # another process, another connection
            found = {question["serial"]: question for question in mes.waiting(workflow)}
            assert list(found) == sorted([serial, *left])  # the booked good part asks nothing
            assert (found[serial]["verdict"], found[serial]["proposed"]) == ("NG", "scrap")
            row = mes.answer_for(workflow, serial, ANSWER)["row"]
            assert row is not None
            assert (row["disposition"], row["decided_by"]) == ("scrap", "Kim")
            assert [question["serial"] for question in mes.waiting(workflow)] == left


def test_without_sqlalchemy_the_script_says_what_to_install() -> None:
    script = Path(mes_workflow.__file__)
    code = f"import runpy, sys; sys.modules['sqlalchemy'] = None; sys.path.insert(0, {str(script.parent)!r});"
    done = subprocess.run(
        [sys.executable, "-c", f"{code} runpy.run_path({str(script)!r}, run_name='__main__')", "parts"],
        capture_output=True,
        text=True,
        check=False,
    )
    told = "mes: the table of parts needs SQLAlchemy. Install it: pip install sqlalchemy\n"
    assert (done.returncode, done.stdout, done.stderr) == (8, "", told)


def test_a_database_that_is_away_is_one_line_without_its_password() -> None:
    with (
        pytest.raises(StorageError, match="in PostgreSQL cannot be used") as caught,
        open_checkpointer("postgresql://kim:geheim@127.0.0.1:1/plant"),
    ):
        pass
    assert "geheim" not in str(caught.value)
    for password in ("ge@heim", "ge/heim", "ge?heim", "ge#heim"):
        with (
            pytest.raises(ConfigError, match="cannot be read") as refused,
            open_checkpointer(f"postgresql://kim:{password}@127.0.0.1:1/plant"),
        ):
            pass
        assert "heim" not in str(refused.value)


def test_two_first_users_of_a_server(postgres: str) -> None:
    code = "import sys; from flawscope.agent.checkpoints import open_checkpointer as o\nwith o(sys.argv[1]): pass"
    command = [sys.executable, "-c", code, postgres.replace("/postgres", "/template1")]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    assert [(process.communicate()[1], process.returncode) for process in both] == [(b"", 0), (b"", 0)]
