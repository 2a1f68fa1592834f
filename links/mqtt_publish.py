"""One message to a broker, from a command."""

import asyncio
import secrets

from links.environment import MqttSettings
from links.mqtt import MqttLink
from scada.errors import LinkError


async def publish_once(
    settings: MqttSettings, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, timeout_s: float = 5.0
) -> None:
    """Connect, publish one message, wait for its acknowledgement, leave; raises LinkError, at once when the broker refuses."""
    client_id = f"{settings.client_id_prefix}-publish-{secrets.token_hex(4)}"
    link = MqttLink(settings, client_id, lambda *_: None, persistent=False)
    link.start()
    try:
        async with asyncio.timeout(timeout_s):
            await link.connected()
        await link.publish(topic, payload, qos=qos, retain=retain, timeout_s=timeout_s)
    except TimeoutError as error:
        raise LinkError(f"broker {settings.host}:{settings.port}: {link.error or 'no answer'}") from error
    finally:
        await link.close()
