"""What the bus says of devices just now: last samples, links, plans, and which programs run. Read from any thread.

Messages are kept as they came and taken apart when somebody asks: most are never looked at.
"""

import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from scada.bus_messages import LinkReport, decode_data, decode_link, decode_state
from scada.payload import decode_payload
from scada.topics import BusTopics
from scada.values import BadValue, Sample

log = logging.getLogger(__name__)

MAX_DEVICES = 20_000
"""Devices (of one owner each) that are remembered; beyond it the one that was silent longest is forgotten."""
MAX_BYTES = 256 * 1024 * 1024
MAX_OWNERS = 1_000
_MAX_PENDING = 64
"""Data messages that wait to be taken apart; they all go when the next state comes, within a second of a change."""


@dataclass(frozen=True, slots=True)
class OwnedLink:
    """What one program says about its link to a device."""

    owner: str
    report: LinkReport


class _Device:
    """What one owner said about one device."""

    __slots__ = ("link", "pending", "plan", "samples", "size", "state")

    def __init__(self) -> None:
        self.state = b""
        self.pending: list[bytes] = []
        self.samples: dict[str, Sample] | None = None
        self.link = b""
        self.plan = b""
        self.size = 0

    @property
    def is_empty(self) -> bool:
        return not (self.state or self.pending or self.samples or self.link or self.plan)

    def weigh(self) -> int:
        """Its size has changed by so many bytes."""
        size = len(self.state) + len(self.link) + len(self.plan) + sum(len(each) for each in self.pending)
        before, self.size = self.size, size
        return size - before

    def current(self) -> dict[str, Sample]:
        if self.samples is None:
            self.samples = {}
            if self.state:
                self._take(decode_state, self.state)
        for payload in self.pending:
            self._take(decode_data, payload)
        self.pending.clear()
        return self.samples

    def _take(self, decode: Any, payload: bytes) -> None:
        assert self.samples is not None
        try:
            samples, _ = decode(payload)
        except BadValue as error:
            log.warning("bus: a message that says nothing: %s", error)
            return
        for sample in samples:
            old = self.samples.get(sample.tag)
            # What comes late may be older than what is known; everything else came in order, whatever the clocks say.
            if not sample.late or old is None or sample.time_ms >= old.time_ms:
                self.samples[sample.tag] = sample


class LiveValues:
    """Filled by the bus in its thread, read by requests in theirs."""

    def __init__(self, topics: BusTopics, max_devices: int = MAX_DEVICES, max_bytes: int = MAX_BYTES) -> None:
        self._topics = topics
        self._max_devices = max_devices
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._devices: OrderedDict[tuple[str, str], _Device] = OrderedDict()
        self._owners_of: dict[str, set[str]] = {}
        self._servers: dict[str, bool] = {}
        self._bytes = 0

    def take(self, topic: str, payload: bytes) -> None:
        """A message on one of the topics data, state, link, plan, server; others are ignored."""
        parts = self._topics.split(topic)
        if parts is None:
            return
        with self._lock:
            if parts.kind == "server":
                self._take_server(parts.owner, payload)
            elif parts.kind in ("data", "state", "link", "plan"):
                self._take_device(parts.kind, parts.owner, parts.device, payload)

    def samples(self, device: str) -> dict[str, dict[str, Sample]]:
        """The last samples of a device: by owner, then by tag."""
        with self._lock:
            owners = sorted(self._owners_of.get(device, ()))
            return {owner: dict(self._devices[owner, device].current()) for owner in owners}

    def links(self, device: str) -> list[OwnedLink]:
        """What each owner says about its link to a device."""
        with self._lock:
            result = []
            for owner in sorted(self._owners_of.get(device, ())):
                payload = self._devices[owner, device].link
                if payload:
                    try:
                        result.append(OwnedLink(owner, decode_link(payload)))
                    except BadValue as error:
                        log.warning("bus: a link message of %s that says nothing: %s", owner, error)
            return result

    def plans(self, device: str) -> dict[str, Any]:
        """How each owner reads a device, by owner."""
        with self._lock:
            result = {}
            for owner in sorted(self._owners_of.get(device, ())):
                payload = self._devices[owner, device].plan
                if payload:
                    try:
                        result[owner] = decode_payload(payload, self._max_bytes)
                    except BadValue as error:
                        log.warning("bus: a plan of %s that says nothing: %s", owner, error)
            return result

    def is_running(self, owner: str) -> bool | None:
        """Whether a program is there; None when nobody has said so."""
        with self._lock:
            return self._servers.get(owner)

    def _take_server(self, owner: str, payload: bytes) -> None:
        if not payload:
            self._servers.pop(owner, None)
            return
        try:
            document = decode_payload(payload)
        except BadValue:
            document = None
        known = len(self._servers) < MAX_OWNERS or owner in self._servers
        if isinstance(document, dict) and isinstance(document.get("online"), bool) and known:
            self._servers[owner] = document["online"]

    def _take_device(self, kind: str, owner: str, device: str, payload: bytes) -> None:
        key = owner, device
        entry = self._devices.get(key)
        if entry is None:
            if not payload:
                return
            entry = self._devices[key] = _Device()
            self._owners_of.setdefault(device, set()).add(owner)
        if kind == "data":
            entry.pending.append(payload)
            if len(entry.pending) >= _MAX_PENDING:
                entry.current()
        elif kind == "state":
            entry.state, entry.samples = payload, None
            entry.pending.clear()
        elif kind == "link":
            entry.link = payload
        else:
            entry.plan = payload
        self._bytes += entry.weigh()
        self._devices.move_to_end(key)
        if entry.is_empty:
            self._forget(key)
        while self._devices and (len(self._devices) > self._max_devices or self._bytes > self._max_bytes):
            self._forget(next(iter(self._devices)))

    def _forget(self, key: tuple[str, str]) -> None:
        owner, device = key
        self._bytes -= self._devices.pop(key).size
        owners = self._owners_of[device]
        owners.discard(owner)
        if not owners:
            del self._owners_of[device]
