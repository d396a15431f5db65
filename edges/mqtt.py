"""Verdicts over MQTT 5, quality of service 1: each is done when the broker has acknowledged it.

The client never keeps messages of its own: the outbox does, and after any doubt the connection is thrown away, so that
no stale copy is sent behind a newer message. Message properties: ``content-type`` application/json and the user
property ``idempotency-key``.
"""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING, Any

from ..agent.errors import MissingExtraError
from .destination import DELIVERED, Address, Outcome, tls_context
from .outbox import Message

if TYPE_CHECKING:
    from paho.mqtt.client import Client

    from ..agent.settings import Settings

FAILURE = 0x80
"""Reason codes from here on are failures (MQTT 5.0, section 2.4)."""
ABOUT_THE_MESSAGE = frozenset({0x90, 0x95, 0x99})
"""Topic name invalid, packet too large, payload format invalid: this message will never do."""
KEEPALIVE_S = 30
HERE, AWAY = "here", "away"


class _AwayError(Exception):
    """There is no connection; the text says why."""


class MqttPublisher:
    """Publishes each message and waits for the broker's acknowledgement.

    Args:
        address: broker and topic.
        settings: with user, password and the time that an answer may take.

    Raises:
        MissingExtraError: the client is not installed.
    """

    lanes = 1

    def __init__(self, address: Address, settings: Settings) -> None:
        try:
            import paho.mqtt.client  # noqa: F401 - said now rather than at the first verdict
        except ModuleNotFoundError as error:
            raise MissingExtraError("MQTT", "mqtt") from error
        self.destination = address.text
        self._address = address
        self._settings = settings
        self._client: Client | None = None
        self._acknowledged: dict[int, int] = {}
        self._changed = threading.Condition()
        self._state = AWAY

    def send(self, message: Message) -> Outcome:
        """One attempt."""
        try:
            outcome = self._publish(self._connected(), message)
        except _AwayError as error:
            outcome = Outcome("later", str(error))
        except (OSError, ValueError) as error:  # sockets and certificates; a host's name that is none
            outcome = Outcome("later", f"{type(error).__name__}: {getattr(error, 'strerror', None) or 'no connection'}")
        if outcome.kind == "later":
            self.close()
        return outcome

    def close(self) -> None:
        """Let go of the connection and of what it still holds."""
        client, self._client, self._state = self._client, None, AWAY
        self._acknowledged.clear()
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def _connected(self) -> Client:
        """The connection that there is, or a new one."""
        if self._client is not None and self._client.is_connected():
            return self._client
        self.close()
        client = self._client = self._new_client()
        client.connect(self._address.host, self._address.port, keepalive=KEEPALIVE_S, clean_start=True)
        client.loop_start()
        with self._changed:
            self._changed.wait_for(lambda: self._state != AWAY, self._settings.publish_timeout_s)
            if self._state != HERE:
                raise _AwayError("the broker does not answer" if self._state == AWAY else self._state)
        return client

    def _new_client(self) -> Client:
        from paho.mqtt.client import Client, MQTTv5
        from paho.mqtt.enums import CallbackAPIVersion

        name = f"flawscope-{uuid.uuid4().hex[:12]}"
        client = Client(CallbackAPIVersion.VERSION2, name, protocol=MQTTv5, reconnect_on_failure=False)
        client.connect_timeout = self._settings.publish_timeout_s
        if self._settings.mqtt_user is not None:
            password = self._settings.mqtt_password
            client.username_pw_set(self._settings.mqtt_user, None if password is None else password.get_secret_value())
        if self._address.scheme == "mqtts":
            client.tls_set_context(tls_context())
        client.on_connect = self._on_connect
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        return client

    def _publish(self, client: Client, message: Message) -> Outcome:
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        properties = Properties(PacketTypes.PUBLISH)
        properties.ContentType = "application/json"
        properties.UserProperty = [("idempotency-key", message.key)]
        sent = client.publish(self._address.topic, message.body, qos=1, properties=properties)
        with self._changed:
            self._changed.wait_for(
                lambda: sent.mid in self._acknowledged or self._state != HERE, self._settings.publish_timeout_s
            )
            reason = self._acknowledged.pop(sent.mid, None)
        if reason is None:
            return Outcome("later", "the broker did not acknowledge it")
        if reason < FAILURE:
            return DELIVERED
        problem = f"the broker refused it with reason 0x{reason:02X}"
        return Outcome("refused" if reason in ABOUT_THE_MESSAGE else "later", problem)

    # --- what the client's own thread tells ---------------------------------------------------------------------------

    def _tell(self, client: Client, state: str) -> None:
        with self._changed:
            if client is self._client and self._state in (AWAY, HERE):  # a refusal is followed by an end without reason
                self._state = state
                self._changed.notify_all()

    def _on_connect(self, client: Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._tell(client, f"the broker refused the connection: {reason}" if reason.is_failure else HERE)

    def _on_disconnect(self, client: Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._tell(client, "the connection to the broker ended")

    def _on_publish(self, client: Client, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        with self._changed:
            if client is self._client:
                self._acknowledged[mid] = int(reason.value)
                self._changed.notify_all()
