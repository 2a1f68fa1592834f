"""Messages to devices: the latest value of each tag, together, as soon as the broker takes them."""

import asyncio
import time
from collections.abc import Callable, Mapping

import orjson

from links.mqtt import MqttLink
from links.publications import PublishRefused
from scada.errors import LinkError
from scada.mapping import DevicePlan
from scada.outputs import compose
from scada.values import BadValue, RejectCode, Value

KEPT_S = 1.0
"""A message is remembered this long after its acknowledgement: Mosquitto acknowledges before it saves, and its end forgets it."""
Keys = tuple[str, ...]
Report = Callable[[RejectCode, str, str, str | None, Value | None], None]
"""`report(code, reason, device, tag, value)` lists what cannot be sent."""


class _Device:
    """What waits for one device; at most one message is unanswered, so that values arrive in order."""

    __slots__ = ("answered_at", "plan", "recent", "under_way", "waiting")

    def __init__(self, plan: DevicePlan) -> None:
        self.plan = plan
        self.waiting: dict[Keys, Value] = {}
        self.under_way: dict[Keys, Value] = {}
        self.recent: dict[Keys, Value] = {}
        self.answered_at = 0.0


class Publisher:
    """Of all devices, over one link. Bounded: one value a tag. Runs in one event loop."""

    def __init__(self, link: MqttLink, report: Report) -> None:
        self._link = link
        self._report = report
        self._devices: dict[int, _Device] = {}
        self._connection = 0
        self._taken = asyncio.Event()

    def put(self, plan: DevicePlan) -> None:
        """Send to a device from now on, or otherwise than before; what waits for it goes to its new topic."""
        if not any(feed.publication for feed in plan.feeds.values()):
            self._devices.pop(plan.device_id, None)
            return
        device = self._devices.get(plan.device_id)
        if device is None:
            self._devices[plan.device_id] = _Device(plan)
            return
        device.plan = plan
        known = {feed.publication.keys for feed in plan.feeds.values() if feed.publication is not None}
        device.waiting = {keys: value for keys, value in device.waiting.items() if keys in known}

    def remove(self, device_id: int) -> None:
        """A device that is gone, with what waits for it."""
        self._devices.pop(device_id, None)

    async def drained(self) -> None:
        """Wait until the broker has taken everything; while it is away it takes nothing."""
        while self._link.online.is_set() and any(
            device.waiting or device.under_way for device in self._devices.values()
        ):
            self._taken.clear()
            await self._taken.wait()

    def send(self, device_id: int, values: Mapping[str, Value]) -> None:
        """Values of tags, by name; what waits already of them is replaced."""
        device = self._devices.get(device_id)
        if device is None:
            return
        for tag, value in values.items():
            publication = device.plan.feeds[tag].publication
            if publication is None:
                continue
            try:
                device.waiting[publication.keys] = publication.encode(value)
            except BadValue as error:
                self._report(error.code, f"{device.plan.out_topic}: {error}", device.plan.name, tag, value)
        self._pump(device)

    def connection(self, online: bool) -> None:
        """A connection began, or ended: what it did not take for good goes out over the next one."""
        self._connection += 1
        if online:
            for device in self._devices.values():
                self._pump(device)
            return
        now = time.monotonic()
        for device in self._devices.values():
            if now - device.answered_at > KEPT_S:
                device.recent = {}
            device.waiting = device.recent | device.under_way | device.waiting
            device.recent, device.under_way = {}, {}

    def _pump(self, device: _Device) -> None:
        if not device.waiting or device.under_way or not self._link.online.is_set():
            return
        device.under_way, device.waiting = device.waiting, {}
        connection = self._connection

        def done(error: LinkError | None) -> None:
            if connection != self._connection or (error is not None and not isinstance(error, PublishRefused)):
                return  # of a connection that ended: `connection` looks after it
            sent, device.under_way = device.under_way, {}
            now = time.monotonic()
            if error is not None:
                self._report(RejectCode.OVERFLOW, str(error), device.plan.name, None, None)
            else:
                device.recent = sent if now - device.answered_at > KEPT_S else device.recent | sent
            device.answered_at = now
            self._taken.set()
            self._pump(device)

        plan = device.plan
        try:
            self._link.post(plan.out_topic, orjson.dumps(compose(device.under_way)), done, retain=plan.out_retain)
        except LinkError:
            return  # the connection has just ended: `connection` is about to be called, and puts everything back
