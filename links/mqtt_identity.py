"""Who a program is to its MQTT broker: client id, session, will, and the secrets of both sides."""

import ssl
from dataclasses import dataclass

from links.environment import MqttSettings


@dataclass(frozen=True, slots=True)
class Will:
    """Published by the broker when this client is gone; `online` is published by the client itself when it is there."""

    topic: str
    offline: bytes
    online: bytes


@dataclass(frozen=True, slots=True)
class Identity:
    """The same over all connections of one link. `broker` is its name in messages."""

    settings: MqttSettings
    client_id: str
    broker: str
    will: Will | None
    persistent: bool
    tls: ssl.SSLContext | None


def make_tls(settings: MqttSettings) -> ssl.SSLContext | None:
    """The context that the settings ask for; raises OSError for files that cannot be used."""
    if not settings.tls:
        return None
    context = ssl.create_default_context(cafile=settings.tls_ca)
    if settings.tls_cert is not None:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    return context
