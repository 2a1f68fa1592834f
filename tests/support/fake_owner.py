"""An owner of tags on the bus, written from the description of the bus alone: it answers commands and calls as it is told."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.processes import wait_until

WAY = ("accepted", "sent", "acknowledged", "verified")
FINAL = {"verified", "failed", "expired", "superseded"}


class FakeOwner:
    """Publishes under `name`. `way` are the states that every command goes through; `reason` stands in the last one.

    Nothing comes back from the devices in `dead`. `own` are the tags that calls are answered for; None is whatever was asked.
    `tells`: what was verified is told as a value too, a moment after the verdict.
    """

    def __init__(self, port: int, name: str = "field_server") -> None:
        self.name = name
        self.way: Sequence[str] = WAY
        self.reason = ""
        self.values: dict[str, Any] = {}
        self.dead: Sequence[str] = ()
        self.own: Sequence[str] | None = None
        self.tells = False
        self.received: list[tuple[str, bool, dict[str, Any]]] = []
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=f"fake-{name}")
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._client.subscribe([("tagwire/set/+", 1), ("tagwire/call/+", 1)])
        assert self._subscribed.wait(10)

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, document: Any, retain: bool = False) -> None:
        """A message, acknowledged by the broker when this returns; None is an empty one."""
        payload = b"" if document is None else json.dumps(document)
        self._client.publish(topic, payload, 1, retain).wait_for_publish(10)

    def server(self, online: bool) -> None:
        """Say that this program is there, or not."""
        self.publish(f"tagwire/server/{self.name}", {"online": online}, retain=True)

    def link(self, device: str, online: bool, error: str | None = None) -> None:
        """Say whether a device is reached."""
        document = {"online": online, "since": 1_700_000_000_000, "error": error}
        self.publish(f"tagwire/link/{self.name}/{device}", document, retain=True)

    def state(self, device: str, **values: Any) -> None:
        """The last values of a device, good ones."""
        now_ms = time.time_ns() // 1_000_000
        document = {tag: [value, "good", now_ms] for tag, value in values.items()}
        self.publish(f"tagwire/state/{self.name}/{device}", document, retain=True)

    def data(self, device: str, *rows: Sequence[Any]) -> None:
        """Changes of a device."""
        self.publish(f"tagwire/data/{self.name}/{device}", rows)

    def wait_for(self, count: int) -> None:
        """Until so many messages have come."""
        wait_until(lambda: len(self.received) >= count, 10, f"{count} messages, there are {self.received}")

    def _on_message(self, client: Client, userdata: Any, message: MQTTMessage) -> None:
        asked = json.loads(message.payload)
        kind, device = message.topic.split("/")[1:]
        self.received.append((message.topic, message.retain, asked))
        if device in self.dead:
            return
        feedback = {"id": asked["id"], "tag": asked.get("tag"), "by": asked["by"], "from": asked["from"]}
        tags: Sequence[str] = asked.get("tags") or self.own or ()
        if kind == "call" and self.own is not None:
            tags = [tag for tag in tags if tag in self.own]
            if not tags:
                return
        states = self.way if kind == "set" else self.way[-1:]
        for state in states:
            final = state in FINAL
            document = {**feedback, "state": state, "time_ms": time.time_ns() // 1_000_000, "final": final}
            document["reason"] = self.reason if final else ""
            if kind == "set":
                document |= {"value": asked.get("value", asked.get("values")), "old_value": self.values.get("old")}
            elif state == "verified":
                now_ms = document["time_ms"]
                document["values"] = {tag: [self.values.get(tag), "good", now_ms] for tag in tags}
            client.publish(f"tagwire/feedback/{device}", json.dumps(document), 1)
        if kind == "set" and self.tells and states[-1] == "verified":
            values = asked["values"] if "values" in asked else {asked["tag"]: asked["value"]}
            now_ms = time.time_ns() // 1_000_000
            rows = [[tag, each, "good", now_ms] for tag, each in values.items()]
            time.sleep(0.005)  # as long as a program collects changes
            client.publish(f"tagwire/data/{self.name}/{device}", json.dumps(rows), 1)


@contextmanager
def fake_owner(port: int, name: str = "field_server") -> Iterator[FakeOwner]:
    """An owner on the broker at a loopback port."""
    owner = FakeOwner(port, name)
    try:
        yield owner
    finally:
        owner.close()
