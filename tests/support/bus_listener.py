"""Somebody who listens to the bus and talks on it, written from the description of the bus alone."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion


class BusListener:
    """Keeps what it hears: `data` in order, the newest `state`, `link`, `server`, all `feedback`, and other topics raw."""

    def __init__(self, port: int, *filters: str) -> None:
        self.data: list[tuple[str, str, list[Any]]] = []
        self.states: dict[tuple[str, str], dict[str, Any]] = {}
        self.links: dict[tuple[str, str], dict[str, Any]] = {}
        self.servers: dict[str, dict[str, Any]] = {}
        self.feedback: list[dict[str, Any]] = []
        self.others: list[tuple[str, Any, bool]] = []
        self._subscribed = threading.Event()
        kinds = ("data/+/+", "state/+/+", "link/+/+", "server/+", "feedback/+")
        self._filters = [(each, 1) for each in (*(f"tagwire/{kind}" for kind in kinds), *filters)]
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._on_message
        self._client.on_connect = lambda client, *_: client.subscribe(self._filters)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.reconnect_delay_set(1, 1)
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

    def samples(self, device: str, tag: str, owner: str = "mqtt_server") -> list[list[Any]]:
        """What was told of a tag, in order: [value, quality, time_ms, more]."""
        return [row[1:] for who, name, row in self.data if (who, name, row[0]) == (owner, device, tag)]

    def last(self, device: str, tag: str, owner: str = "mqtt_server") -> tuple[Any, str, str] | None:
        """The newest value of a tag with its quality and the reason."""
        found = self.samples(device, tag, owner)
        if not found:
            return None
        value, quality, _, *more = found[-1]
        return value, quality, more[0].get("reason", "") if more else ""

    def _on_message(self, _client: Client, _userdata: Any, message: MQTTMessage) -> None:
        root, *levels = message.topic.split("/")
        document = json.loads(message.payload) if message.payload else None
        if root != "tagwire":
            self.others.append((message.topic, document, message.retain))
        elif levels[0] == "data":
            self.data += [(levels[1], levels[2], row) for row in document]
        elif levels[0] in ("state", "link"):
            kept = self.states if levels[0] == "state" else self.links
            if document is None:
                kept.pop((levels[1], levels[2]), None)
            else:
                kept[levels[1], levels[2]] = document
        elif levels[0] == "server":
            self.servers[levels[1]] = document
        elif levels[0] == "feedback":
            self.feedback.append(document)


@contextmanager
def listen(port: int, *filters: str) -> Iterator[BusListener]:
    """A listener on everything of the bus, and on `filters`."""
    listener = BusListener(port, *filters)
    try:
        yield listener
    finally:
        listener.close()
