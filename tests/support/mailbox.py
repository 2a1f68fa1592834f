"""The Modbus server with tags in its registers: its database, a subscriber of the bus, and the server as a process."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from storage.config_store import ConfigStore
from storage.engine import open_engine
from storage.migrate import migrate
from tests.support.brokers import Broker, Proxy
from tests.support.processes import Process, free_port, start_program, wait_until


def register_tag(name: str, register: int, direction: str = "in", **more: Any) -> dict[str, Any]:
    """A tag with one binding in our registers; `more` goes to the address, but for data_type, scaling, limits, deadband, options
    and `source`, another binding.
    """
    tag = {key: more.pop(key) for key in ("data_type", "scaling", "limits", "deadband") if key in more}
    own: dict[str, Any] = {"protocol": "modbus_server", "direction": direction}
    own |= {key: more.pop(key) for key in ("options",) if key in more}
    source = more.pop("source", None)
    own["address"] = {"register": register, **more}
    return {"name": name, **tag, "bindings": [own, *([source] if source else [])]}


class BusEar:
    """What is published below `tagwire/`, in order: (topic, document, retained). It outlives the broker."""

    def __init__(self, port: int, *, filters: tuple[str, ...] = ("tagwire/#",)) -> None:
        self.messages: list[tuple[str, Any, bool]] = []
        self._subscribed = threading.Event()
        # A session that the broker keeps: what is published before this subscriber is back is delivered then.
        self._client = Client(CallbackAPIVersion.VERSION2, client_id="ear", clean_session=False)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda *_: self._client.subscribe([(each, 1) for each in filters])
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(10)

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, document: Any, retain: bool = False) -> None:
        """A message, acknowledged by the broker when this returns; None is an empty one."""
        payload = b"" if document is None else json.dumps(document)
        self._client.publish(topic, payload, 1, retain).wait_for_publish(10)

    def samples(self, device: str, tag: str, owner: str = "modbus_server") -> list[list[Any]]:
        """[value, quality, time, ...] of a tag, as they were told on `data`."""
        topic = f"tagwire/data/{owner}/{device}"
        return [row[1:] for name, rows, _ in list(self.messages) if name == topic for row in rows if row[0] == tag]

    def last(self, device: str, tag: str) -> tuple[Any, str] | None:
        """The newest value and quality."""
        found = self.samples(device, tag)
        return (found[-1][0], found[-1][1]) if found else None

    def feedback(self, device: str) -> list[dict[str, Any]]:
        """What became of commands and calls."""
        return [document for name, document, _ in list(self.messages) if name == f"tagwire/feedback/{device}"]

    def retained(self, topic: str) -> Any:
        """The last message on a topic; None without one."""
        return next((document for name, document, _ in reversed(list(self.messages)) if name == topic), None)

    def _on_message(self, _client: Client, _userdata: Any, message: MQTTMessage) -> None:
        document = json.loads(message.payload) if message.payload[:1] in (b"{", b"[") else message.payload
        self.messages.append((message.topic, document, message.retain))


class MailboxPlant:
    """A configuration database and a Modbus server on it, made by `mailbox_plant`."""

    def __init__(self, folder: Path, broker: Broker | Proxy) -> None:
        self.folder = folder
        self.broker = broker
        self.port = free_port()
        self.settings: dict[str, str | int | Path] = {
            "MQTT_HOST": "127.0.0.1",
            "MQTT_PORT": broker.port,
            "SQLALCHEMY_DATABASE_URI": f"sqlite:///{folder}/plant.sqlite",
            "TAGWIRE_DATA_DIR": folder,
        }
        self._engine = open_engine(str(self.settings["SQLALCHEMY_DATABASE_URI"]))
        migrate(self._engine)
        self.store = ConfigStore(self._engine)

    def device(self, name: str, tags: list[dict[str, Any]], **networks: Any) -> dict[str, Any]:
        """Configure a device; `networks` by protocol, `modbus_server` is there in any case."""
        return self.store.create_device({"name": name, "network": {"modbus_server": {}, **networks}, "tags": tags})

    @contextmanager
    def server(self, **settings: str | int | Path) -> Iterator[Process]:
        """The server, ready: registers are served, the mailbox follows."""
        with start_program("modbus_server", MODBUS_SERVER_PORT=self.port, **(self.settings | settings)) as process:
            process.wait_ready()
            yield process

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()


@contextmanager
def mailbox_plant(folder: Path, broker: Broker | Proxy) -> Iterator[MailboxPlant]:
    """A plant in `folder`."""
    plant = MailboxPlant(folder, broker)
    try:
        yield plant
    finally:
        plant.close()


@contextmanager
def bus_ear(broker: Broker) -> Iterator[BusEar]:
    """A subscriber of everything."""
    ear = BusEar(broker.port)
    try:
        yield ear
    finally:
        ear.close()


def told(ear: BusEar, device: str, tag: str, value: Any, quality: str = "good", timeout_s: float = 20.0) -> None:
    """Wait until the newest sample of a tag is this one."""

    def is_there() -> bool:
        found = ear.last(device, tag)
        if found is None or found[1] != quality:
            return False
        return found[0] == value or (isinstance(value, float) and abs(found[0] - value) < 1e-6)

    wait_until(is_there, timeout_s, f"{device}@{tag} = {value} {quality}, told {ear.samples(device, tag)}")


def within(seconds: float, condition: Callable[[], object], what: str) -> float:
    """How long it took until `condition()` was true, at most `seconds`."""
    begun = time.monotonic()
    wait_until(condition, seconds, what)
    return time.monotonic() - begun
