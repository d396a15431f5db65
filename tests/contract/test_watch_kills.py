"""The command in a process of its own: killed again and again, and stopped by signals."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from edges_plant import KEY, Receiver, in_order

from flawscope.audits.record_file import read_records

RUN = Path(__file__).parents[1] / "edges_run.py"
KILLS, PICTURES = 4, 60


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver(faults=("500", "hang after", "reset"), hang_s=0.6)
    yield one
    one.close()


def started(folder: Path, *arguments: str, file_kb: int | None = None, **environ: str) -> subprocess.Popen[str]:
    """The command, watching ``folder/in``."""
    command = [sys.executable, str(RUN), "watch", "in", "-p", "plate", "-o", "out", "--settle", "0.1", *arguments]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("FLAWSCOPE_")}
    keys = {"FLAWSCOPE_WEBHOOK_KEY": KEY, "FLAWSCOPE_PUBLISH_TIMEOUT_S": "30", "FLAWSCOPE_HOME": str(folder / "home")}
    if file_kb is not None:  # no file may grow beyond it, which is what a full disk is to a writer
        command = ["bash", "-c", f'ulimit -f {file_kb}; exec "$0" "$@"', *command]
    return subprocess.Popen(
        command, cwd=folder, env={**clean, **keys, **environ}, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_killed_again_and_again_nothing_is_lost_or_doubled(tmp_path: Path, receiver: Receiver) -> None:
    (tmp_path / "in").mkdir()
    chance = random.Random(6)
    over, starts = threading.Event(), threading.Semaphore(0)

    def feed() -> None:
        for number in range(PICTURES):
            if number % (PICTURES // (KILLS + 1)) == 0:
                starts.acquire()  # each start finds new pictures: its first line is waited for
            temporary = tmp_path / "in" / f".{number}"
            temporary.write_bytes(f"slow part {number}".encode())
            temporary.replace(tmp_path / "in" / f"S{number % 8}-{number}.png")
            over.wait(0.05)

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    arguments = ("--publish", receiver.address, "--name-pattern", r"(?P<serial>S\d)-", "--poll", "0.05")
    acknowledged: list[str] = []
    for _ in range(KILLS):
        starts.release()
        process = started(tmp_path, *arguments, FLAWSCOPE_PUBLISH_TIMEOUT_S="0.5")
        assert process.stdout is not None
        acknowledged.append(process.stdout.readline())
        time.sleep(chance.uniform(0.0, 0.3))
        process.kill()
        rest, _ = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        acknowledged += [line + "\n" for line in rest.split("\n")[:-1]]
    starts.release()
    feeder.join()
    process = started(tmp_path, *arguments, FLAWSCOPE_PUBLISH_TIMEOUT_S="0.5")
    records = tmp_path / "out" / "records.jsonl"
    while records.read_bytes().count(b"\n") < PICTURES or len(set(receiver.keys)) < PICTURES:
        assert process.poll() is None
        over.wait(0.1)
    process.send_signal(signal.SIGTERM)
    code, _, _ = ended(process)
    assert code == 0
    found = list(read_records(tmp_path / "out"))
    assert [record.line.number for record in found] == list(range(1, PICTURES + 1))
    assert len({record.line.image for record in found}) == PICTURES
    assert len({record.id for record in found}) == PICTURES
    told = {line.split(maxsplit=1)[1].strip() for line in acknowledged if line.endswith("\n")}
    assert told <= {record.line.image for record in found}
    assert set(receiver.keys) == {record.id for record in found}
    assert in_order(receiver.accepted)


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order_with_code_0(tmp_path: Path, receiver: Receiver, kind: signal.Signals) -> None:
    receiver.share = 0.0
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"bad")
    process = started(tmp_path, "--publish", receiver.address, "--poll", "0.05")
    assert process.stdout is not None
    assert process.stdout.readline() == f"NG      {(tmp_path / 'in' / 'a.png').resolve()}\n"
    process.send_signal(kind)
    code, _, err = ended(process)
    assert code == 0
    first, last = err.splitlines()
    assert first == "flawscope: watching in, looking every 0.05 s; Ctrl-C ends it."
    assert last == "flawscope: stopped: 1 pictures: 0 OK, 1 NG, 0 REVIEW. The next watch goes on from here."
    assert [message["verdict"] for message in receiver.accepted] == ["NG"]


def test_a_full_disk_is_code_10_and_the_next_run_goes_on(tmp_path: Path, receiver: Receiver) -> None:
    receiver.share = 0.0
    (tmp_path / "in").mkdir()
    for number in range(PICTURES):
        (tmp_path / "in" / f"{number}.png").write_bytes(str(number).encode())
    arguments = ("--publish", receiver.address, "--poll", "0.05")
    for kilobytes in (8, 60, 90):  # the first refuses the outbox, the others a record, a list or a message
        code, _, err = ended(started(tmp_path, *arguments, file_kb=kilobytes))
        assert code == 10, err
        assert "Traceback" not in err
        assert err.splitlines()[-1].startswith("flawscope: ")
    process = started(tmp_path, *arguments)
    while len(set(receiver.keys)) < PICTURES:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 0
    found = list(read_records(tmp_path / "out"))
    assert len({record.line.image for record in found}) == len(found) == PICTURES
    assert set(receiver.keys) == {record.id for record in found}


def test_secrets_are_nowhere_to_be_read(tmp_path: Path, receiver: Receiver) -> None:
    receiver.faults, receiver.share = ("500",), 1.0
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"good")
    secrets: dict[str, str] = {"FLAWSCOPE_MQTT_PASSWORD": "hunter2-mqtt", "FLAWSCOPE_MQTT_USER": "line3"}
    process = started(tmp_path, "--publish", receiver.address, "--poll", "0.05", **secrets)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, out, err = ended(process)
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert receiver.headers
    for secret in (KEY, "hunter2-mqtt"):
        assert secret not in out + err
        assert secret.encode() not in written
        assert not any(secret in value for sent in receiver.headers for value in sent.values())


def test_the_outbox_is_decided_by_people_while_it_is_in_use(tmp_path: Path, receiver: Receiver) -> None:
    receiver.faults, receiver.share = ("422",), 1.0
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / "in" / f"{name}.png").write_bytes(name.encode())
    process = started(tmp_path, "--publish", receiver.address, "--poll", "0.05")
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(2)]
    assert all(line.startswith("OK") for line in lines)
    while (listed := _outbox(tmp_path, "list", "out", "--dead")[1]).count("\tdead\t") < 2:
        time.sleep(0.1)
    assert f"\t{receiver.address}\tHTTP 422\n" in listed
    receiver.share = 0.0
    first, second = (line.split("\t")[0] for line in listed.splitlines())
    assert _outbox(tmp_path, "drop", "out", second)[:2] == (0, "1 dropped\n")
    assert _outbox(tmp_path, "retry", "out", first)[:2] == (0, "1 to be sent again\n")
    while not receiver.accepted:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 0
    assert len(receiver.accepted) == 1
    assert _outbox(tmp_path, "list", "out")[1] == ""
    code, _, err = _outbox(tmp_path, "retry", "out", "99")
    assert code == 2
    assert "99 is not the id of a dead letter" in err
    assert _outbox(tmp_path, "retry", "out")[0] == 2
    code, _, err = _outbox(tmp_path, "list", "in")
    assert code == 2
    assert "holds no outbox" in err
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["product"] == "plate"


def _outbox(folder: Path, *arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, str(RUN.parents[1] / "cli.py"), "outbox", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr
