"""Webhooks against a real server on loopback that fails half the time: every verdict arrives, once each by its key."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from edges_plant import KEY, Receiver, in_order, record

from flawscope.agent.errors import ConfigError, StorageError
from flawscope.agent.settings import load_settings
from flawscope.audits.record_file import RecordWriter
from flawscope.edges import delivery, webhook
from flawscope.edges.delivery import Delivery, backoff_s
from flawscope.edges.destination import parse_address, publisher_for
from flawscope.edges.outbox import Message, Outbox
from flawscope.edges.webhook import asked_wait_s, signing_key

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAWSCOPE_WEBHOOK_KEY", KEY)
    monkeypatch.setenv("FLAWSCOPE_PUBLISH_TIMEOUT_S", "30")  # a busy machine may take its time to answer
    monkeypatch.setattr(delivery, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(delivery, "LONGEST_WAIT_S", 0.1)
    monkeypatch.setattr(delivery, "LONGEST_AWAY_S", 0.1)


@pytest.fixture
def receiver() -> Iterator[Callable[..., Receiver]]:
    made: list[Receiver] = []

    def make(**options: Any) -> Receiver:
        made.append(Receiver(**options))
        return made[-1]

    yield make
    for one in made:
        one.close()


class _Line:
    """An outbox with one destination and a file of records."""

    def __init__(self, folder: Path, address: str, **options: Any) -> None:
        self.records = folder / "records.jsonl"
        self.outbox = Outbox(folder)
        self.changed = threading.Condition()
        self.address = address
        publisher = publisher_for(address, load_settings().settings)
        self.delivery = Delivery(self.outbox, self.records, publisher, on_change=self._told, **options)
        self.delivery.start()

    def _told(self, destination: str, outcome: Any) -> None:
        with self.changed:
            self.changed.notify_all()

    def write(self, *records: Any) -> None:
        with RecordWriter(self.records) as writer:
            writer.append(records)
        self.delivery.recorded()

    def until(self, holds: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(holds, 60.0), self.outbox.messages()

    def close(self) -> None:
        self.delivery.stop(5.0)
        assert self.delivery.failure is None
        self.outbox.close()


def test_a_server_that_fails_half_the_time_gets_every_verdict_in_order_per_part(
    tmp_path: Path, receiver: Callable[..., Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAWSCOPE_PUBLISH_TIMEOUT_S", "0.3")
    date = format_datetime(datetime(2020, 1, 1, tzinfo=UTC), usegmt=True)  # long past: now
    faults = ("500", "502", "hang", "hang after", "reset", "429 0", f"503 {date}", "404")
    server = receiver(faults=faults, hang_s=0.8)
    line = _Line(tmp_path, server.address)
    for number in range(1, 61):
        line.write(record(number, f"S{number % 7}"))
    line.until(lambda: line.outbox.depth(server.address).pending == 0 and len(set(server.keys)) == 60)
    line.close()
    assert set(server.keys) == {record(number, f"S{number % 7}").id for number in range(1, 61)}
    assert [message["idempotency_key"] for message in server.accepted] == server.keys
    assert {message["sequence"] for message in server.accepted} == set(range(1, 61))
    assert in_order(server.accepted)
    assert server.forged == 0
    assert len(server.failed) >= 6
    assert all(sent["webhook-id"] == sent["idempotency-key"] for sent in server.headers)


def test_retry_after_holds_back_the_whole_destination(
    tmp_path: Path, receiver: Callable[..., Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "LANES", 1)  # no other message is on its way meanwhile
    server = receiver(faults=("429 1",), share=1.0)
    arrivals: list[float] = []
    answer = server.answer

    def noting(request: Any) -> None:
        if arrivals:
            server.share = 0.0  # only the first one fails
        arrivals.append(time.monotonic())
        answer(request)

    server.answer = noting  # type: ignore[method-assign]
    line = _Line(tmp_path, server.address)
    line.write(*(record(number) for number in range(1, 9)))
    line.until(lambda: len(server.accepted) == 8)
    assert server.failed == {"429 1": 1}
    assert arrivals[1] - arrivals[0] >= 1.0  # the next message too, which is of another part
    line.close()


def test_a_refused_message_is_a_dead_letter_and_holds_nobody_up(
    tmp_path: Path, receiver: Callable[..., Receiver]
) -> None:
    server = receiver(faults=("422",), share=1.0)
    line = _Line(tmp_path, server.address)
    line.write(record(1, "A"))
    line.until(lambda: line.outbox.depth(server.address).dead == 1)
    server.share = 0.0
    line.write(record(2, "A"))
    line.until(lambda: len(server.accepted) == 1)
    (dead,) = line.outbox.messages("dead")
    assert (dead.problem, dead.attempts) == ("HTTP 422", 1)
    line.outbox.retry([dead.id], time.time())
    line.delivery.recorded()
    line.until(lambda: len(server.accepted) == 2)
    assert [message["sequence"] for message in server.accepted] == [2, 1]
    line.close()


def test_one_message_that_always_fails_does_not_stop_the_others(
    tmp_path: Path, receiver: Callable[..., Receiver]
) -> None:
    server = receiver()
    line = _Line(tmp_path, server.address, give_up_s=0.5)
    answer = server.answer

    def poisoned(request: Any) -> None:
        if request.headers["webhook-id"] != record(1).id:
            answer(request)
            return
        request.rfile.read(int(request.headers["content-length"]))
        request.send_response(500)
        request.send_header("Content-Length", "0")
        request.end_headers()

    server.answer = poisoned  # type: ignore[method-assign]
    line.write(*(record(number) for number in range(1, 20)))
    line.until(lambda: line.outbox.depth(server.address).dead == 1 and line.outbox.depth(server.address).pending == 0)
    (dead,) = line.outbox.messages("dead")
    assert (dead.key, dead.problem) == (record(1).id, "HTTP 500")
    line.close()


def test_a_dead_destination_is_tried_by_one_message_at_a_time_and_all_arrive_when_it_is_back(
    tmp_path: Path, receiver: Callable[..., Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = receiver()
    address, port = gone.address, gone.server.server_port
    gone.close()
    line = _Line(tmp_path, address)
    line.write(*(record(number, f"S{number % 3}") for number in range(1, 31)))
    line.until(lambda: sum(message.attempts for message in line.outbox.messages()) >= 8)
    assert line.delivery._free({}) == 1
    assert "ConnectError" in line.outbox.messages()[0].problem
    with monkeypatch.context() as patch:
        patch.setattr("edges_plant.ThreadingHTTPServer.__init__", _at_port(port))
        back = receiver()
    line.until(lambda: len(back.accepted) == 30)
    assert in_order(back.accepted)
    line.close()


def _at_port(port: int) -> Any:
    from http.server import ThreadingHTTPServer

    begin = ThreadingHTTPServer.__init__

    def made(self: Any, address: tuple[str, int], handler: Any) -> None:
        begin(self, (address[0], port), handler)

    return made


def test_stopping_keeps_what_is_left_for_the_next_time(tmp_path: Path, receiver: Callable[..., Receiver]) -> None:
    server = receiver(faults=("500",), share=1.0)
    line = _Line(tmp_path, server.address)
    line.write(*(record(number) for number in range(1, 6)))
    line.until(lambda: bool(server.failed))
    line.close()
    server.share = 0.0
    again = _Line(tmp_path, server.address)
    again.until(lambda: len(server.accepted) == 5)
    again.close()


def test_a_disk_that_refuses_is_told_to_whoever_inspects(tmp_path: Path, receiver: Callable[..., Receiver]) -> None:
    server = receiver()
    line = _Line(tmp_path, server.address)
    line.write(record(1))
    line.until(lambda: len(server.accepted) == 1 and line.outbox.depth(line.address).pending == 0)
    line.delivery.check()
    line.records.write_bytes(b"")  # lost behind its back
    line.delivery.recorded()
    line.delivery._thread.join(60.0)
    with pytest.raises(StorageError, match="shorter"):
        line.delivery.check()
    line.delivery.stop(0.0)
    line.outbox.close()


def test_a_server_that_answers_a_byte_at_a_time_is_left_after_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAWSCOPE_PUBLISH_TIMEOUT_S", "0.3")
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                for byte in b"HTTP/1.1 200 OK" + b"\r\nx: y" * 1000:
                    connection.sendall(bytes([byte]))
                    if over.wait(0.1):
                        return

        dripping = threading.Thread(target=drip)
        dripping.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        publisher = publisher_for(address, load_settings().settings)
        outcome = publisher.send(Message(1, address, "0" * 32, "S1", b"{}", 0.0, 0.0, 0, "pending", ""))
        over.set()
        dripping.join(60.0)
        publisher.close()
    assert outcome.kind == "later"


def test_redirects_are_not_followed(tmp_path: Path, receiver: Callable[..., Receiver]) -> None:
    other, server = receiver(), receiver(share=1.0)
    server.faults = (f"307 {other.address}",)
    line = _Line(tmp_path, server.address)
    line.write(record(1))
    line.until(lambda: sum(message.attempts for message in line.outbox.messages()) >= 2)
    assert line.outbox.messages()[0].problem == "HTTP 307"
    assert other.headers == []
    line.close()


def test_backoff_doubles_up_to_a_limit_and_is_spread() -> None:
    monkey = pytest.MonkeyPatch()
    monkey.setattr(delivery, "FIRST_WAIT_S", 0.5)
    assert [backoff_s(n, 1.0, 60.0) for n in (1, 2, 3, 8, 9, 5000)] == [0.5, 1.0, 2.0, 60.0, 60.0, 60.0]
    assert backoff_s(3, 0.0, 60.0) == 1.0
    monkey.undo()


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        (None, None),
        ("7", 7.0),
        ("0", 0.0),
        ("999999999", 3600.0),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("Thu, 01 Jan 2099 12:00:00 GMT", 3600.0),
        ("soon", None),
        (f"Thu, 01 Jan {'9' * 30} 12:00:00 GMT", None),
        ("-3", None),
        ("", None),
    ],
)
def test_retry_after(value: str | None, wait_s: float | None) -> None:
    assert asked_wait_s(value, NOON) == wait_s


def test_a_signature_by_hand() -> None:
    """The example of the Standard Webhooks specification."""
    from flawscope.edges.webhook import signature

    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("key", ["", "short", "whsec_", "secret-secret-secret-secret-secret-!", "A" * 200])
def test_a_key_that_is_none_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ConfigError, match="FLAWSCOPE_WEBHOOK_KEY") as refused:
        signing_key(key)
    assert not key or key not in str(refused.value)


def test_without_a_key_there_is_no_webhook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLAWSCOPE_WEBHOOK_KEY")
    with pytest.raises(ConfigError, match="needs a key"):
        publisher_for("https://mes.example/verdicts", load_settings().settings)


@pytest.mark.parametrize(
    "text",
    [
        "mqtt://user:hunter2@broker/t",
        "https://h/?token=hunter2",
        "https://hunter2@h/",
        "mqtt://broker",
        "mqtt://broker/",
        "mqtt://broker/a/+/b",
        "mqtt://broker/a/%23",
        "mqtt://broker/$SYS/x",
        "mqtt://broker:99999/t",
        "mqtt://broker:hunter2/t",
        "ftp://h/x",
        "h/x",
        "https:///x",
        "https://h/a b",
        "https://h/\x1b[2J",
        "",
        "https://mes..plant/x",
        "mqtt://mes..plant/t",
        f"https://{'x' * 64}/",
    ],
)
def test_addresses_that_cannot_be_used_are_refused_without_repeating_them(text: str) -> None:
    with pytest.raises(ConfigError, match="--publish cannot use that address") as refused:
        parse_address(text)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("host", ["256.256.256.256", "xn--a", "xn--zz--", "[v1.a]"])
def test_a_host_that_the_client_cannot_use_is_refused_at_the_start(host: str) -> None:
    with pytest.raises(ConfigError, match="no usable host"):
        publisher_for(f"https://{host}/verdicts", load_settings().settings)


def test_addresses() -> None:
    assert parse_address("mqtt://broker/line/3/verdicts").topic == "line/3/verdicts"
    assert parse_address("mqtts://broker/t").port == 8883
    assert parse_address("mqtt://[::1]:2883/t").port == 2883
    assert parse_address("http://mes/x").plain
    assert not parse_address("http://127.0.0.1:9/x").plain
    assert not parse_address("https://mes/x").plain
