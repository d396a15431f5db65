"""Where verdicts go: an address that can be printed, and what came of one attempt to deliver to it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import unquote, urlsplit

from ..agent.errors import ConfigError
from .outbox import Message

if TYPE_CHECKING:
    from ..agent.settings import Settings

SCHEMES = "mqtt://HOST[:PORT]/TOPIC, mqtts://HOST[:PORT]/TOPIC, https://HOST/PATH or http://HOST/PATH"


@dataclass(frozen=True)
class Outcome:
    """What came of one attempt.

    Attributes:
        kind: ``delivered``; ``later`` when it may succeed later; ``refused`` when this message never will.
        problem: why not, in words that hold no secret.
        wait_s: how long the receiver asks to be left alone, None when it does not say.
    """

    kind: Literal["delivered", "later", "refused"]
    problem: str = ""
    wait_s: float | None = None


DELIVERED = Outcome("delivered")


class Publisher(Protocol):
    """Delivers messages to one destination.

    Attributes:
        destination: its address as it may be printed.
        lanes: how many messages it takes at the same time.
    """

    destination: str
    lanes: int

    def send(self, message: Message) -> Outcome:
        """One attempt; returns within its time limit and raises nothing of the network."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


@dataclass(frozen=True)
class Address:
    """A destination's parts.

    Attributes:
        scheme: mqtt, mqtts, http or https.
        host: name or number.
        port: given, or the scheme's own.
        topic: of MQTT, else empty.
        text: the whole address.
    """

    scheme: str
    host: str
    port: int
    topic: str
    text: str

    @property
    def plain(self) -> bool:
        """Whether it is not encrypted and leaves this machine."""
        return self.scheme in ("mqtt", "http") and self.host not in ("localhost", "127.0.0.1", "::1")


PORTS = {"mqtt": 1883, "mqtts": 8883, "http": 80, "https": 443}


def parse_address(text: str) -> Address:
    """A destination's address.

    Raises:
        ConfigError: it is none, or may hold a secret; what that is is not repeated.
    """

    def refuse(why: str) -> ConfigError:
        return ConfigError(f"--publish cannot use that address: {why}.", hint=f"It takes {SCHEMES}.")

    if any(char.isspace() or not char.isprintable() for char in text):
        raise refuse("it holds blanks or control characters")
    if any(mark in text for mark in "@?#"):
        raise refuse("it must not hold a user, password, query or fragment; secrets come from the environment")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
        (host or "").encode("idna")  # as sockets spell it
    except ValueError:
        raise refuse("it has no usable host or port") from None
    if parts.scheme not in PORTS or not host or port == 0:
        raise refuse("it is not of a kind that is known")
    topic = unquote(parts.path).strip("/")
    if not parts.scheme.startswith("mqtt"):
        topic = ""
    elif not topic or any(mark in topic for mark in "+#\0") or topic.startswith("$") or len(topic.encode()) > 65_535:
        raise refuse("an MQTT topic has a name, neither + nor #, and no $ at its beginning")
    return Address(parts.scheme, host, port or PORTS[parts.scheme], topic, text)


def tls_context() -> ssl.SSLContext:
    """Certificates are always checked; SSL_CERT_FILE and SSL_CERT_DIR name a plant's own authority."""
    return ssl.create_default_context()


def publisher_for(text: str, settings: Settings) -> Publisher:
    """What delivers to an address.

    Raises:
        ConfigError: the address cannot be used, or a key that it needs is not set.
        MissingExtraError: MQTT without its client.
    """
    address = parse_address(text)
    if address.scheme.startswith("mqtt"):
        from .mqtt import MqttPublisher

        return MqttPublisher(address, settings)
    from .webhook import WebhookPublisher

    return WebhookPublisher(address, settings)
