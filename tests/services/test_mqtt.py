"""MQTT against a real mosquitto: stopped and started again in the middle, with TLS and passwords, with refusals."""

from __future__ import annotations

import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from broker import Broker, Subscriber
from edges_plant import in_order, record

from flawscope.agent.settings import load_settings
from flawscope.audits.record_file import RecordWriter, read_records
from flawscope.edges import delivery
from flawscope.edges.delivery import Delivery
from flawscope.edges.destination import publisher_for
from flawscope.edges.outbox import Message, Outbox

RUN = Path(__file__).parents[1] / "edges_run.py"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "LONGEST_WAIT_S", 0.5)
    monkeypatch.setattr(delivery, "LONGEST_AWAY_S", 0.5)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Callable[..., Broker]]:
    made: list[Broker] = []

    def make(*lines: str) -> Broker:
        made.append(Broker(tmp_path / "broker", lines) if lines else Broker(tmp_path / "broker"))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def subscriber() -> Iterator[Callable[..., Subscriber]]:
    made: list[Subscriber] = []

    def make(*given: Any, **options: Any) -> Subscriber:
        made.append(Subscriber(*given, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def _message(number: int = 1) -> Message:
    return Message(number, "", f"{number:032x}", "S1", b'{"sequence": 1, "part": "S1"}', 0.0, 0.0, 0, "pending", "")


def test_a_broker_stopped_and_started_in_the_middle_gets_all_in_order(
    tmp_path: Path, broker: Callable[..., Broker], subscriber: Callable[..., Subscriber]
) -> None:
    server = broker()
    mes = subscriber(server.port)
    address = f"mqtt://127.0.0.1:{server.port}/plant/line3/verdicts"
    records = tmp_path / "records.jsonl"
    with Outbox(tmp_path) as outbox:
        line = Delivery(outbox, records, publisher_for(address, load_settings().settings))
        line.start()

        def write(numbers: range) -> None:
            with RecordWriter(records) as writer:
                writer.append(record(number, f"S{number % 5}") for number in numbers)
            line.recorded()

        write(range(1, 41))
        mes.until(40)
        write(range(41, 61))
        server.stop()  # some of these are on their way
        write(range(61, 81))
        while not any(message.attempts for message in outbox.messages()):
            time.sleep(0.05)
        server.start()
        write(range(81, 101))
        mes.until(100)
        while outbox.depth(address).pending:  # the last acknowledgement may follow the message
            time.sleep(0.05)
        line.stop(5.0)
        line_failure = line.failure
    assert line_failure is None
    assert set(mes.keys) == {record(number, f"S{number % 5}").id for number in range(1, 101)}
    assert [message["idempotency_key"] for message in mes.messages] == mes.keys
    assert in_order(mes.messages)
    assert mes.topics == {"plant/line3/verdicts"}


def _certificates(folder: Path) -> None:
    """An authority of the plant's own, and a certificate of it for the loopback address."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "rsa:2048", "-nodes")
    openssl(*new, "-x509", "-days", "2", "-subj", "/CN=plant", "-keyout", "ca.key", "-out", "ca.crt")
    openssl(*new, "-subj", "/CN=broker", "-keyout", "broker.key", "-out", "broker.csr")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    signed = ("x509", "-req", "-in", "broker.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial")
    openssl(*signed, "-days", "2", "-extfile", "names", "-out", "broker.crt")


@pytest.mark.filterwarnings("ignore:unclosed <ssl:ResourceWarning")  # the client's own, after a failed handshake
def test_tls_and_a_password_from_the_environment(
    tmp_path: Path,
    broker: Callable[..., Broker],
    subscriber: Callable[..., Subscriber],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _certificates(tmp_path)
    subprocess.run(
        ["mosquitto_passwd", "-b", "-c", "words", "line3", "hunter2"], cwd=tmp_path, check=True, capture_output=True
    )
    (tmp_path / "words").chmod(0o600)
    files = (f"cafile {tmp_path}/ca.crt", f"certfile {tmp_path}/broker.crt", f"keyfile {tmp_path}/broker.key")
    server = broker("allow_anonymous false", f"password_file {tmp_path}/words", *files)
    address = f"mqtts://127.0.0.1:{server.port}/plant/t"
    monkeypatch.setenv("FLAWSCOPE_MQTT_USER", "line3")
    monkeypatch.setenv("FLAWSCOPE_MQTT_PASSWORD", "hunter2")

    def sent() -> Any:
        publisher = publisher_for(address, load_settings().settings)
        try:
            return publisher.send(_message())
        finally:
            publisher.close()

    untrusted = sent()
    assert (untrusted.kind, "SSLCertVerificationError" in untrusted.problem) == ("later", True)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.crt"))
    trusted = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    mes = subscriber(server.port, user="line3", password="hunter2", tls=trusted)
    assert sent().kind == "delivered"
    mes.until(1)
    monkeypatch.setenv("FLAWSCOPE_MQTT_PASSWORD", "hunter3")
    refused = sent()
    assert refused.kind == "later"
    assert "refused the connection" in refused.problem
    assert "hunter" not in refused.problem


def test_a_topic_that_is_not_allowed_and_a_port_that_is_no_broker(
    tmp_path: Path, broker: Callable[..., Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "acl").write_text("topic read plant/#\n")
    (tmp_path / "acl").chmod(0o600)
    server = broker("allow_anonymous true", f"acl_file {tmp_path}/acl")
    monkeypatch.setenv("FLAWSCOPE_PUBLISH_TIMEOUT_S", "5")
    publisher = publisher_for(f"mqtt://127.0.0.1:{server.port}/plant/t", load_settings().settings)
    refused = publisher.send(_message())
    assert (refused.kind, refused.problem) == ("later", "the broker refused it with reason 0x87")
    server.stop()
    away = publisher.send(_message())
    assert (away.kind, away.problem.split(":")[0]) == ("later", "ConnectionRefusedError")
    publisher.close()


def test_the_command_inspects_on_while_the_broker_is_away_and_survives_a_kill(
    tmp_path: Path, broker: Callable[..., Broker], subscriber: Callable[..., Subscriber]
) -> None:
    server = broker()
    mes = subscriber(server.port)
    (tmp_path / "in").mkdir()
    command = [sys.executable, str(RUN), "watch", "in", "-p", "plate", "-o", "out", "--settle", "0.1"]
    command += ["--publish", f"mqtt://127.0.0.1:{server.port}/plant/line3", "--name-pattern", r"(?P<serial>S\d)-"]

    def feed(numbers: range) -> None:
        for number in numbers:
            (tmp_path / "in" / f"S{number % 3}-{number}.png").write_bytes(f"part {number}".encode())

    def lines(process: subprocess.Popen[str], number: int) -> None:
        assert process.stdout is not None
        assert all(process.stdout.readline() for _ in range(number))

    first = subprocess.Popen(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    feed(range(10))
    lines(first, 10)
    mes.until(10)
    server.stop()
    feed(range(10, 20))
    lines(first, 10)  # recorded, though nobody takes the verdicts
    first.kill()
    first.communicate(timeout=60)
    server.start()
    feed(range(20, 30))
    second = subprocess.Popen(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    lines(second, 10)
    mes.until(30)
    second.send_signal(signal.SIGTERM)
    second.communicate(timeout=120)
    assert second.returncode == 0
    assert set(mes.keys) == {one.id for one in read_records(tmp_path / "out")}
    assert len(set(mes.keys)) == 30
    assert in_order(mes.messages)
