"""A real mosquitto on a free loopback port, which can be stopped and started again, and a subscriber that keeps all."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

DAYS_S = 100_000


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Broker:
    """The server.

    Attributes:
        folder: of its configuration and what it keeps.
        lines: of its configuration, beside the usual.
    """

    folder: Path
    lines: tuple[str, ...] = ("allow_anonymous true",)
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.folder.mkdir(exist_ok=True)
        usual = (
            f"listener {self.port} 127.0.0.1",
            *self.lines,
            "persistence true",
            f"persistence_location {self.folder}/",
            "max_queued_messages 0",
            *(("user root",) if os.geteuid() == 0 else ()),
        )
        (self.folder / "broker.conf").write_text("\n".join(usual) + "\n")

    def start(self) -> None:
        where = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
        assert where is not None, "these tests need mosquitto (apt-get install mosquitto)"
        command = [where, "-c", str(self.folder / "broker.conf")]
        with (self.folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        waited = threading.Event()
        for _ in range(600):
            assert self._process.poll() is None, (self.folder / "broker.log").read_text()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            waited.wait(0.05)
        raise AssertionError("mosquitto does not listen")

    def stop(self) -> None:
        """End it as a person would; what it holds for subscribers is kept on its disk."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None


class Subscriber:
    """Has a session that the broker keeps, so that nothing is missed while either is away."""

    def __init__(self, port: int, *, user: str | None = None, password: str | None = None, tls: Any = None) -> None:
        self.messages: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.topics: set[str] = set()
        self._changed = threading.Condition()
        self._here = threading.Event()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, "mes", protocol=mqtt.MQTTv5)
        self.client.reconnect_delay_set(1, 1)
        if user is not None:
            self.client.username_pw_set(user, password)
        if isinstance(tls, ssl.SSLContext):
            self.client.tls_set_context(tls)
        self.client.on_connect = self._connected
        self.client.on_subscribe = lambda *told: self._here.set()
        self.client.on_message = self._received
        kept = Properties(PacketTypes.CONNECT)
        kept.SessionExpiryInterval = DAYS_S
        self.client.connect("127.0.0.1", port, clean_start=False, properties=kept)
        self.client.loop_start()
        assert self._here.wait(60.0)

    def _connected(self, client: Any, *told: Any) -> None:
        client.subscribe("plant/#", qos=1)

    def _received(self, client: Any, userdata: Any, message: Any) -> None:
        with self._changed:
            self.messages.append(json.loads(message.payload))
            self.keys.append(dict(message.properties.UserProperty)["idempotency-key"])
            self.topics.add(message.topic)
            self._changed.notify_all()

    def until(self, number: int) -> None:
        """So many different messages have come."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(set(self.keys)) >= number, 120.0), len(set(self.keys))

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()
