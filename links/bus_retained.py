"""What an owner keeps retained on the bus: the last state of its devices, their links and plans. Bookkeeping without a socket."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from scada.bus_messages import LinkReport, encode_link, encode_state
from scada.topics import BusTopics
from scada.values import Sample

SLOTS = 20
"""A second is cut into so many; each device has its own, so a thousand that change all the time do not come at once."""


MAX_MESSAGE_BYTES = 4 * 1024 * 1024 - 1024
"""The embedded broker ends the connection that brings a longer one (4 MiB with its topic), again and again."""


class _Device:
    __slots__ = ("dirty", "link", "plan", "samples")

    def __init__(self) -> None:
        self.samples: dict[str, Sample] = {}
        self.link: LinkReport | None = None
        self.plan: bytes | None = None
        self.dirty = False


class Retained:
    """Topics that wait to be sent stand in order, each once, and take their payload when they go: the newest."""

    def __init__(self, topics: BusTopics, owner: str) -> None:
        self._topics = topics
        self._owner = owner
        self._devices: dict[str, _Device] = {}
        self._slots: list[dict[str, _Device]] = [{} for _ in range(SLOTS)]
        self._slot = 0
        self._due: dict[tuple[str, str], None] = {}  # (kind, device)
        self._cleared: dict[str, None] = {}  # devices whose topics are to be emptied, until that is sure
        self.changed = False
        """Whether `turn` has something to do."""
        self.too_long = ""
        """What could not be sent for its length last."""

    def put_samples(self, device: str, samples: Sequence[Sample]) -> None:
        """The state of `device` changed; it is sent when its turn comes."""
        entry = self._devices.get(device) or self._add(device)
        entry.samples.update({sample.tag: sample for sample in samples})
        if not entry.dirty:
            entry.dirty = self.changed = True

    def put_link(self, device: str, online: bool, error: str | None, now_ms: int) -> bool:
        """Whether that is news."""
        entry = self._devices.get(device) or self._add(device)
        old = entry.link
        if old is not None and old.online == online and old.error == error:
            return False
        since_ms = old.since_ms if old is not None and old.online == online else now_ms
        entry.link = LinkReport(online, since_ms, error)
        self._due[("link", device)] = None
        return True

    def put_plan(self, device: str, document: Mapping[str, Any] | None) -> None:
        """How the device is read; None: it is not."""
        entry = self._devices.get(device) or self._add(device)
        entry.plan = b"" if document is None else orjson.dumps(document)
        self._due[("plan", device)] = None

    def forget(self, device: str) -> None:
        """Empty what is retained of a device."""
        if self._devices.pop(device, None) is not None:
            for slot in self._slots:
                slot.pop(device, None)
        self._cleared[device] = None
        for kind in ("state", "link", "plan"):
            self._due[(kind, device)] = None

    def forget_tags(self, device: str, tags: Iterable[str]) -> None:
        """Tags that the device has no more leave its state, also when only the broker still has them there."""
        entry = self._devices.get(device) or self._add(device)
        for tag in tags:
            entry.samples.pop(tag, None)
        entry.dirty = self.changed = True

    def turn(self) -> None:
        """The next slot of the second: its devices' changed states are due. To be called SLOTS times a second."""
        self._slot = (self._slot + 1) % SLOTS
        for device, entry in self._slots[self._slot].items():
            if entry.dirty:
                entry.dirty = False
                self._due[("state", device)] = None
        if self._slot == 0:
            self.changed = any(entry.dirty for entry in self._devices.values())

    def turn_all(self) -> None:
        """At the end: every changed state is due."""
        for _ in range(SLOTS):
            self.turn()

    def all_again(self) -> None:
        """A new connection: the broker may have lost what it acknowledged. Everything is due."""
        self._due.clear()
        for device in self._cleared:
            self._due |= dict.fromkeys((kind, device) for kind in ("state", "link", "plan"))
        for device, entry in self._devices.items():
            if entry.link is not None:
                self._due[("link", device)] = None
            if entry.samples:
                entry.dirty = False
                self._due[("state", device)] = None
            if entry.plan is not None:
                self._due[("plan", device)] = None

    def take(self) -> tuple[str, bytes] | None:
        """The next topic and its payload; None when nothing is due."""
        while self._due:
            kind, device = next(iter(self._due))
            del self._due[(kind, device)]
            payload = self._payload(kind, device)
            if payload is not None and len(payload) > MAX_MESSAGE_BYTES:
                self.too_long = f"the {kind} of {device} is too long for a message: {len(payload)} bytes"
            elif payload is not None:
                return getattr(self._topics, kind)(self._owner, device), payload
        return None

    def put_back(self, topic: str) -> None:
        """What was taken could not be sent."""
        parts = self._topics.split(topic)
        if parts is not None:
            self._due[(parts.kind, parts.device)] = None

    def settled(self, topic: str) -> None:
        """An emptied topic is so for good."""
        parts = self._topics.split(topic)
        if parts is not None and parts.kind == "plan":  # the last of the three
            self._cleared.pop(parts.device, None)

    def __bool__(self) -> bool:
        return bool(self._due)

    def _add(self, device: str) -> _Device:
        entry = self._devices[device] = _Device()
        min(self._slots, key=len)[device] = entry
        self._cleared.pop(device, None)
        return entry

    def _payload(self, kind: str, device: str) -> bytes | None:
        entry = self._devices.get(device)
        if entry is None:
            return b"" if device in self._cleared else None
        if kind == "state":
            return _encode(entry.samples) if entry.samples else b""
        if kind == "link":
            return encode_link(entry.link) if entry.link is not None else b""
        return entry.plan or b""


def _encode(samples: Mapping[str, Sample]) -> bytes:
    try:
        return encode_state(samples.values())
    except TypeError:  # one of them is no JSON: the others are told all the same
        return encode_state([sample for sample in samples.values() if _is_json(sample)])


def _is_json(sample: Sample) -> bool:
    try:
        encode_state([sample])
    except TypeError:
        return False
    return True
