"""What the bus says of devices just now: last samples, links, plans, and which programs run. Read from any thread.

Messages are kept as they came and taken apart when somebody asks: most are never looked at.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from links.bus_heartbeat import MISSED, PERIOD_S
from scada.bus_messages import LinkReport, decode_data, decode_link, decode_state
from scada.payload import decode_payload
from scada.topics import BusTopics
from scada.values import BadValue, Quality, Sample, Value

log = logging.getLogger(__name__)

MAX_DEVICES = 20_000
"""Devices (of one owner each) that are remembered; beyond it the one that was silent longest is forgotten."""
MAX_BYTES = 256 * 1024 * 1024
MAX_OWNERS = 1_000
DOUBT_S = 3.0
"""A state that was overtaken on the way is followed by the next one within a second."""
SILENT_S = MISSED * PERIOD_S + 1.0
"""A program that sends heartbeats and then nothing at all for so long hangs: three are missing, and a second for their way."""
_MAX_PENDING = 64
"""Data messages that wait to be taken apart; they all go when the next state comes, within a second of a change."""


@dataclass(frozen=True, slots=True)
class OwnedLink:
    """What one program says about its link to a device."""

    owner: str
    report: LinkReport


class _Device:
    """What one owner said about one device.

    State and data come over two subscriptions, and what crosses on the way, or comes twice, may be older than what was seen:
    such a sample is doubted, and believed when nothing newer came within DOUBT_S (the owner's clock was set back).
    """

    __slots__ = ("_doubts", "_samples", "_state_s", "_unread", "came", "link", "pending", "plan", "size", "state")

    def __init__(self) -> None:
        self.state = b""
        self.pending: list[tuple[float, bytes]] = []
        self.link = b""
        self.plan = b""
        self.size = 0
        self.came: dict[str, int] = {}
        """By kind, the number of the picture that it came with last."""
        self._samples: dict[str, Sample] = {}
        self._doubts: dict[str, tuple[float, Sample]] = {}
        self._unread = False
        self._state_s = 0.0

    @property
    def is_empty(self) -> bool:
        return not (self.state or self.pending or self._samples or self.link or self.plan)

    def weigh(self) -> int:
        """Its size has changed by so many bytes."""
        size = len(self.state) + len(self.link) + len(self.plan) + sum(len(each) for _, each in self.pending)
        before, self.size = self.size, size
        return size - before

    def replace(self, state: bytes, clock_s: float) -> None:
        """A state came: what came before it and was not looked at is not needed any more."""
        self.state, self._state_s, self._unread = state, clock_s, bool(state)
        self.pending.clear()
        if not state:
            self._samples.clear()
            self._doubts.clear()

    def drop(self, picture: int) -> None:
        """What came before this picture, and not again with it, is gone."""
        if max(self.came.get("state", 0), self.came.get("data", 0)) < picture:
            self.replace(b"", 0.0)
        if self.came.get("link", 0) < picture:
            self.link = b""
        if self.came.get("plan", 0) < picture:
            self.plan = b""

    def current(self, clock_s: float) -> dict[str, Sample]:
        if self._unread:
            self._unread = False
            self._take_state(_decoded(decode_state, self.state))
        for came_s, payload in self.pending:
            for sample in _decoded(decode_data, payload):
                self._take(sample, came_s)
        self.pending.clear()
        for tag, (came_s, sample) in list(self._doubts.items()):
            if clock_s - came_s >= DOUBT_S:
                self._samples[tag] = sample
                del self._doubts[tag]
        return self._samples

    def _take_state(self, samples: list[Sample]) -> None:
        """It has every tag of the device, but those that are newer than all of it."""
        newest = max((sample.time_ms for sample in samples), default=0)
        told = {sample.tag for sample in samples}
        for tag in [tag for tag, known in self._samples.items() if tag not in told and known.time_ms <= newest]:
            del self._samples[tag]
            self._doubts.pop(tag, None)
        for sample in samples:
            self._take(sample, self._state_s)

    def _take(self, sample: Sample, came_s: float) -> None:
        known = self._samples.get(sample.tag)
        if known is None or sample.time_ms >= known.time_ms:
            self._samples[sample.tag] = sample
            self._doubts.pop(sample.tag, None)
        elif not sample.late:
            self._doubts[sample.tag] = came_s, sample


def _decoded(decode: Callable[[bytes], tuple[list[Sample], list[str]]], payload: bytes) -> list[Sample]:
    try:
        return decode(payload)[0]
    except BadValue as error:
        log.warning("bus: a message that says nothing: %s", error)
        return []


class LiveValues:
    """Filled by the bus in its thread, read by requests in theirs."""

    def __init__(
        self,
        topics: BusTopics,
        max_devices: int = MAX_DEVICES,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topics = topics
        self._clock = clock
        self._max_devices = max_devices
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._devices: OrderedDict[tuple[str, str], _Device] = OrderedDict()
        self._owners_of: dict[str, set[str]] = {}
        self._servers: dict[str, bool] = {}
        self._heard: dict[str, float] = {}
        """When each program that sends heartbeats was heard last."""
        self._bytes = 0
        self._picture = 0

    def begin_picture(self) -> int:
        """The connection ended: with the next one all that the broker has kept comes again. The number of that picture."""
        with self._lock:
            self._picture += 1
            return self._picture

    def end_picture(self, picture: int) -> None:
        """All of it has come, unless another picture began: what did not come again was taken back meanwhile."""
        with self._lock:
            if picture != self._picture:
                return
            for key, entry in list(self._devices.items()):
                entry.drop(picture)
                self._bytes += entry.weigh()
                if entry.is_empty:
                    self._forget(key)

    def listen_anew(self) -> None:
        """The bus is online: nobody was silent while nothing could be heard."""
        with self._lock:
            self._heard = dict.fromkeys(self._heard, self._clock())

    def take(self, topic: str, payload: bytes, retained: bool = False) -> None:
        """A message on one of the topics data, state, link, plan, server, heartbeat; others are ignored."""
        parts = self._topics.split(topic)
        if parts is None:
            return
        with self._lock:
            is_beat = parts.kind == "heartbeat" and len(self._heard) < MAX_OWNERS
            # In a flood of data a heartbeat has to queue as well, and may be dropped: they say just as much.
            if is_beat or parts.owner in self._heard:
                self._heard[parts.owner] = self._clock()
            if parts.kind == "server":
                self._take_server(parts.owner, payload)
            elif parts.kind in ("data", "state", "link", "plan"):
                self._take_device(parts.kind, parts.owner, parts.device, payload, retained)

    def samples(self, device: str) -> dict[str, dict[str, Sample]]:
        """The last samples of a device: by owner, then by tag."""
        with self._lock:
            owners = sorted(self._owners_of.get(device, ()))
            now_s = self._clock()
            return {owner: dict(self._devices[owner, device].current(now_s)) for owner in owners}

    def shows(self, device: str, values: Mapping[str, Value | None], since_ms: int) -> bool:
        """Whether each of these tags has the value, a good one, or a sample that was measured since (UTC, milliseconds); none of
        an owner whose link to the device is down, as far as has been heard.
        """
        found, links = self.samples(device), self.links(device)
        away = {each.owner for each in links if not each.report.online}

        def is_shown(tag: str, value: Value | None) -> bool:
            known = [samples[tag] for owner, samples in found.items() if tag in samples and owner not in away]
            return any(
                each.time_ms >= since_ms or (each.value == value and each.quality is Quality.GOOD) for each in known
            )

        return all(is_shown(tag, value) for tag, value in values.items())

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

    def is_silent(self, owner: str) -> bool:
        """Whether a program hangs, or cannot reach the broker, which has not noticed yet: its heartbeats have ceased."""
        with self._lock:
            heard_s = self._heard.get(owner)
            return heard_s is not None and self._clock() - heard_s > SILENT_S

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

    def _take_device(self, kind: str, owner: str, device: str, payload: bytes, retained: bool) -> None:
        key = owner, device
        entry = self._devices.get(key)
        if entry is None:
            if not payload:
                return
            entry = self._devices[key] = _Device()
            self._owners_of.setdefault(device, set()).add(owner)
        entry.came[kind] = self._picture
        if kind == "data":
            entry.pending.append((self._clock(), payload))
            if len(entry.pending) >= _MAX_PENDING:
                entry.current(self._clock())
        elif kind == "state":
            if not retained or payload != entry.state:
                if retained:
                    entry.current(self._clock())  # it may be behind what has come
                entry.replace(payload, self._clock())
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
