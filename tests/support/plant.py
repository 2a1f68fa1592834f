"""A gateway as a real process between a real broker and a device, configured in its own database."""

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from storage.config_store import ConfigStore
from storage.engine import open_engine
from storage.event_store import RejectLog
from storage.migrate import migrate
from storage.outbox import Outbox
from tests.support.brokers import Broker, Proxy
from tests.support.processes import Process, clean_environment

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


class Plant:
    """The parts that a test of the gateway needs. `folder` holds the data of every program, and the database unless a setting
    names another one.
    """

    def __init__(self, folder: Path, broker: Broker | Proxy, **settings: str | int | Path) -> None:
        self.folder = folder
        self.uri = str(settings.get("SQLALCHEMY_DATABASE_URI", f"sqlite:///{folder}/plant.sqlite"))
        self.engine = open_engine(self.uri)
        migrate(self.engine)
        self.store = ConfigStore(self.engine)
        self.broker = broker
        self.settings = settings
        self.gateway: Process | None = None

    def device(self, name: str, port: int, tags: list[dict[str, Any]], **network: Any) -> dict[str, Any]:
        """Configure a device on topic plant/NAME with its Modbus side on a loopback port."""
        mqtt = {"topic": f"plant/{name}", **network.pop("mqtt", {})}
        modbus = {"host": "127.0.0.1", "port": port, "timeout_s": 0.3, "connect_timeout_s": 0.5, **network}
        return self.store.create_device({"name": name, "network": {"mqtt": mqtt, "modbus": modbus}, "tags": tags})

    async def start(self, *, ready: bool = True, online: bool = True) -> Process:
        """Start the gateway, and wait until it is ready and has subscribed."""
        defaults: dict[str, str | int | Path] = {
            "MQTT_HOST": "127.0.0.1",
            "MQTT_PORT": self.broker.port,
            "SQLALCHEMY_DATABASE_URI": self.uri,
            "TAGWIRE_DATA_DIR": self.folder,
        }
        environment = clean_environment(**(defaults | self.settings))
        self.gateway = Process([sys.executable, "-m", "mqtt_server"], environment)
        if ready:
            await asyncio.to_thread(self.gateway.wait_ready)
        if online:
            await self.wait(lambda: ONLINE.search(self.output), "the gateway is online")
            await asyncio.sleep(0.1)
        return self.gateway

    @property
    def output(self) -> str:
        """What the gateway has printed."""
        assert self.gateway is not None
        return self.gateway.output

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

    async def wait(self, condition: Any, what: str, timeout_s: float = 10.0) -> None:
        """Until `condition()` is true."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}\n{self.gateway and self.output}"
            await asyncio.sleep(0.01)

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
        if plant.gateway is not None:
            await asyncio.to_thread(plant.gateway.close)
        plant.engine.dispose()
