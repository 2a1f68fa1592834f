"""What stands on the bus, kept by an independent client: samples, states, links, plans, servers and feedback with times.

Written from docs/bus.md with paho and json alone, so that what our programs say is judged by somebody else's reading of it.
"""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

KINDS = ("data", "state", "link", "plan", "server", "feedback")
RETAINED = {"state", "link", "plan", "server"}


@dataclass(frozen=True, slots=True)
class Heard:
    """One sample of `data`. `at_s` is when it arrived (monotonic, seconds), `time_ms` what it says itself."""

    at_s: float
    owner: str
    device: str
    tag: str
    value: Any
    quality: str
    time_ms: int
    reason: str
    late: bool


class BusWatch:
    """Listens to everything under `root`. Filled by paho's thread; lists only grow, so they can be read at any time."""

    def __init__(self, port: int, *others: str, root: str = "tagwire", session: bool = False) -> None:
        """`others`: filters of topics that are not of the bus, kept in `others` as (topic, document, whether it was retained).

        `session`: a persistent one, which misses nothing while the broker is away or restarted.
        """
        self.root = root
        self._port = port
        self.samples: list[Heard] = []
        self.kept: dict[str, Any] = {}
        """The newest document of each topic that is retained; topics below the root, those that were emptied are left out."""
        self.links: list[tuple[float, str, bool, str | None]] = []
        self.servers: list[tuple[float, str, bool]] = []
        self.feedback: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.others: list[tuple[str, Any, bool]] = []
        self.emptied: list[str] = []
        self.faults: list[str] = []
        self.connections = 0
        """On how many connections it has subscribed."""
        self._filters = [(f"{root}/{kind}/#", 1) for kind in KINDS] + [(each, 1) for each in others]
        self._ids = 0
        self._subscribed = threading.Event()
        more = {"client_id": f"watch-{id(self)}", "clean_session": False} if session else {}
        self._client = Client(CallbackAPIVersion.VERSION2, **more)  # type: ignore[arg-type]
        self._client.reconnect_delay_set(1, 1)
        self._client.max_inflight_messages_set(1000)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(10), "no subscription"

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()

    def of(self, device: str, tag: str) -> list[Heard]:
        """The samples of a tag, in the order of their arrival."""
        return [each for each in list(self.samples) if (each.device, each.tag) == (device, tag)]

    def last(self, device: str, tag: str) -> Heard | None:
        """The newest sample of a tag."""
        return next((each for each in reversed(self.samples) if (each.device, each.tag) == (device, tag)), None)

    def value(self, device: str, tag: str) -> Any:
        """The newest value of a tag."""
        heard = self.last(device, tag)
        return None if heard is None else heard.value

    def quality(self, device: str, tag: str) -> str | None:
        """The newest quality of a tag."""
        heard = self.last(device, tag)
        return None if heard is None else heard.quality

    @property
    def states(self) -> dict[str, dict[str, list[Any]]]:
        """The last state of each device."""
        return self._kept("state")

    @property
    def plans(self) -> dict[str, dict[str, Any]]:
        """The last plan of each device."""
        return self._kept("plan")

    def _kept(self, kind: str) -> dict[str, Any]:
        return {topic.split("/")[2]: kept for topic, kept in list(self.kept.items()) if topic.startswith(f"{kind}/")}

    def is_running(self, owner: str) -> bool:
        """Whether a program says that it is there."""
        return bool(self.kept.get(f"server/{owner}", {}).get("online"))

    def said(self, device: str, tag: str) -> tuple[Any, str, str] | None:
        """The newest value of a tag with its quality and the reason."""
        heard = self.last(device, tag)
        return None if heard is None else (heard.value, heard.quality, heard.reason)

    def online(self, device: str) -> list[bool]:
        """What was said of the link of a device, each change once."""
        said = [online for _, name, online, _ in list(self.links) if name == device]
        return [online for index, online in enumerate(said) if index == 0 or said[index - 1] != online]

    def publish(self, topic: str, payload: bytes | str, *, retain: bool = False, qos: int = 1) -> None:
        """A message on a topic under the root, acknowledged by the broker when this returns."""
        self._client.publish(f"{self.root}/{topic}", payload, qos, retain).wait_for_publish(10)

    def flood(self, messages: Iterable[tuple[str, bytes | str]], *, retain: bool = False) -> None:
        """Many messages as fast as the broker takes them, from a connection of their own."""
        client = Client(CallbackAPIVersion.VERSION2)
        client.max_inflight_messages_set(1000)
        client.connect("127.0.0.1", self._port)
        client.loop_start()
        for sent in [client.publish(f"{self.root}/{topic}", payload, 1, retain) for topic, payload in messages]:
            sent.wait_for_publish(30)
        client.disconnect()
        client.loop_stop()

    def set(self, device: str, tag: str = "", value: Any = None, **more: Any) -> str:
        """Send a command; its id. `more` replaces fields of the message, `id` among them, or leaves out those that are None."""
        self._ids += 1
        command_id = more.get("id", f"watch-{self._ids}")
        what = {"values": more.pop("values")} if "values" in more else {"tag": tag, "value": value}
        retain = more.pop("retain", False)
        document = {"id": command_id, **what, "expires_ms": now_ms() + 5000, "by": "watch", **more}
        message = json.dumps({key: each for key, each in document.items() if each is not None or key == "value"})
        self._client.publish(f"{self.root}/set/{device}", message, 1, retain)
        return str(command_id)

    def steps(self, command_id: str) -> list[str]:
        """The states that a command came to, in order."""
        return [each["state"] for each in list(self.feedback[command_id])]

    def final(self, command_id: str) -> dict[str, Any] | None:
        """The last word on a command."""
        return next((each for each in list(self.feedback[command_id]) if each["final"]), None)

    def _on_connect(self, client: Client, *_: object) -> None:
        client.subscribe(self._filters)

    def _on_subscribe(self, *_: object) -> None:
        self.connections += 1
        self._subscribed.set()

    def _on_message(self, client: Client, userdata: object, message: MQTTMessage) -> None:
        try:
            self._take(message, time.monotonic())
        except (ValueError, KeyError, TypeError, IndexError) as error:
            self.faults.append(f"{message.topic}: {error!r}: {message.payload[:200]!r}")

    def _take(self, message: MQTTMessage, at_s: float) -> None:
        document = json.loads(message.payload) if message.payload else None
        if not message.topic.startswith(f"{self.root}/"):
            self.others.append((message.topic, document, message.retain))
            return
        topic = message.topic.removeprefix(f"{self.root}/")
        kind, *names = topic.split("/")
        name = names[-1]
        if document is None:
            self.emptied.append(message.topic)
            self.kept.pop(topic, None)
            return
        if kind in RETAINED:
            self.kept[topic] = document
        if kind == "data":
            for tag, value, quality, time_ms, *more in document:
                extra = more[0] if more else {}
                reason, late = extra.get("reason", ""), extra.get("late", False)
                self.samples.append(Heard(at_s, names[0], name, tag, value, quality, time_ms, reason, late))
        elif kind == "link":
            self.links.append((at_s, name, document["online"], document["error"]))
        elif kind == "server":
            self.servers.append((at_s, name, document["online"]))
        elif kind == "feedback":
            self.feedback[document["id"]].append({**document, "at_s": at_s, "device": name})


def now_ms() -> int:
    """UTC milliseconds."""
    return time.time_ns() // 1_000_000


@contextmanager
def watch_bus(port: int, *others: str, root: str = "tagwire", session: bool = False) -> Iterator[BusWatch]:
    """A watch until the block ends."""
    watch = BusWatch(port, *others, root=root, session=session)
    try:
        yield watch
    finally:
        watch.close()
