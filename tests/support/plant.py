"""A gateway as a real process between a real broker and a device, configured in its own database."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from storage.event_store import RejectLog
from storage.outbox import Outbox
from tests.support.brokers import Broker, Proxy
from tests.support.configured_program import ConfiguredProgram
from tests.support.processes import Process

Payload = bytes | str
ONLINE = re.compile(r"online \(tagwire-mqtt_server(-\d+of\d+)?\)")
"""What the gateway says when it has subscribed to the devices' topics."""


def tag(name: str, register: int, type: str = "uint16", *, path: str | None = None, **more: Any) -> dict[str, Any]:
    """A tag of the gateway's kind. `more`: data_type, options, in_options, scaling, address, limits."""
    source = {"protocol": "mqtt", "direction": "in", "address": {"path": name if path is None else path}}
    address = {"register": register, "type": type, **more.get("address", {})}
    sink: dict[str, Any] = {"protocol": "modbus", "direction": "out", "address": address}
    if "in_options" in more:
        source["options"] = more["in_options"]
    sink |= {key: more[key] for key in ("options", "scaling", "limits") if key in more}
    return {"name": name, "data_type": more.get("data_type", "float"), "bindings": [source, sink]}


class Plant(ConfiguredProgram):
    """A gateway, who publishes to it, and what becomes of that."""

    program = "mqtt_server"

    def device(self, name: str, port: int, tags: list[dict[str, Any]], **network: Any) -> dict[str, Any]:
        """Configure a device on topic plant/NAME with its Modbus side on a loopback port."""
        mqtt = {"topic": f"plant/{name}", **network.pop("mqtt", {})}
        modbus = {"host": "127.0.0.1", "port": port, "timeout_s": 0.3, "connect_timeout_s": 0.5, **network}
        return self.store.create_device({"name": name, "network": {"mqtt": mqtt, "modbus": modbus}, "tags": tags})

    async def start(self, *, ready: bool = True, online: bool = True) -> Process:
        """Start the gateway, and wait until it is ready and has subscribed."""
        self.running = self.process()
        if ready:
            await asyncio.to_thread(self.running.wait_ready)
        if online:
            await self.wait(lambda: ONLINE.search(self.output), "the gateway is online")
            await asyncio.sleep(0.3)  # the broker has its SUBSCRIBE by now
        return self.running

    async def publish(self, messages: Iterable[tuple[str, Payload]], *, qos: int = 1, retain: bool = False) -> None:
        """Publish straight to the broker, and wait until it has acknowledged everything."""
        await asyncio.to_thread(self._publish, list(messages), qos, retain)

    def _publish(self, messages: list[tuple[str, Payload]], qos: int, retain: bool) -> None:
        client = Client(CallbackAPIVersion.VERSION2)
        client.max_inflight_messages_set(500)
        client.connect("127.0.0.1", self.broker.port)
        client.loop_start()
        infos = [client.publish(topic, payload, qos, retain) for topic, payload in messages]
        for info in infos:
            info.wait_for_publish(20)
        client.disconnect()
        client.loop_stop()

    def rejects(self) -> list[dict[str, Any]]:
        """What /api/v1/rejects shows, newest first."""
        return list(RejectLog(self.engine).list(1, 1000)[0])

    def outbox(self) -> list[Any]:
        """The values on disk."""
        return [row.value for row in Outbox(self.engine).load()]


@asynccontextmanager
async def build_plant(folder: Path, broker: Broker | Proxy, **settings: str | int | Path) -> AsyncIterator[Plant]:
    """A plant whose gateway is ended with the block."""
    plant = Plant(folder, broker, **settings)
    try:
        yield plant
    finally:
        await plant.close()
