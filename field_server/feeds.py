"""Values of tags from elsewhere, on their way to devices that only this program reaches: bindings `out` of its protocols.

Registers of PLCs are written by the gateway (`mqtt_server`), with all of its options; here are the other protocols. The latest
value wins, and a bad or uncertain one is not written.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from drivers.contract import Driver, Link, Point
from field_server.field import Field
from field_server.plans import DevicePlan, Part, point
from links.bus import Bus
from scada.bus_messages import decode_data, decode_state
from scada.config import Direction, TagConfig
from scada.conversion import compile_raw
from scada.errors import ConfigError, DeviceRefused, LinkError, ProtocolError
from scada.registry import PROTOCOLS
from scada.topics import BusTopics
from scada.values import BadValue, Quality, Sample, Value
from storage.config_watch import Change

log = logging.getLogger(__name__)

WRITE_TIMEOUT_S = 30.0
"""How long a value waits for its link; a newer one takes its place anyway."""
_ELSEWHERE = frozenset({"modbus"})
"""Protocols whose bindings `out` another program feeds."""


@dataclass(slots=True, eq=False)
class _Target:
    """One binding. `waiting` is the value that is to be written next, `time_ms` the time of the newest one seen."""

    part: Part
    point: Point
    tag: TagConfig
    waiting: Value | None = None
    time_ms: int = -1
    task: asyncio.Task[None] | None = None


class Feeds:
    """Everything that is written from the bus. `apply` follows `Field.apply`."""

    def __init__(self, bus: Bus, topics: BusTopics, field: Field, drivers: Mapping[str, Driver]) -> None:
        self._bus = bus
        self._drivers = drivers
        # The states too: what was told before this program began to listen, or while it did not hear the broker.
        self._changes, self._states = [topics.data("+", "+")], [topics.state("+", "+")]
        self._topics = topics
        self._field = field
        self._devices: dict[int, tuple[str, dict[str, list[_Target]]]] = {}
        self._by_name: dict[str, dict[str, list[_Target]]] = {}
        self._is_listening = False

    def apply(self, change: Change[DevicePlan]) -> None:
        """Put a new configuration into force; only what changed is touched."""
        for device_id in [*change.removed, *(plan.device_id for plan in change.plans)]:
            _, targets = self._devices.pop(device_id, ("", {}))
            for target in (each for some in targets.values() for each in some):
                if target.task is not None:
                    target.task.cancel()
        for plan in change.plans:
            targets = _targets(plan, self._drivers)
            if targets:
                self._devices[plan.device_id] = plan.name, targets
        self._by_name = dict(self._devices.values())
        if bool(self._devices) is not self._is_listening:
            self._is_listening = bool(self._devices)
            if self._is_listening:
                self._bus.subscribe(self._changes, self._take)
                self._bus.subscribe(self._states, self._take, retained=True)
            else:
                self._bus.unsubscribe(self._changes + self._states)

    def _take(self, topic: str, payload: bytes, retained: bool, repeat: bool) -> None:
        parts = self._topics.split(topic)
        targets = None if parts is None else self._by_name.get(parts.device)
        if not targets or parts is None or not payload:
            return
        try:
            samples, _ = (decode_state if parts.kind == "state" else decode_data)(payload)
        except BadValue as error:
            log.warning("a message on %s says nothing: %s", topic, error)
            return
        for sample in samples:
            if sample.tag in targets and sample.quality is Quality.GOOD:
                for target in targets[sample.tag]:
                    if sample.time_ms > target.time_ms:
                        self._offer(target, sample)

    def _offer(self, target: _Target, sample: Sample) -> None:
        target.waiting, target.time_ms = sample.value, sample.time_ms
        if target.task is None or target.task.done():
            target.task = asyncio.create_task(self._write(target), name=f"feed of {target.part.device}@{sample.tag}")

    async def _write(self, target: _Target) -> None:
        """Until nothing waits; what a device refuses is told once and left."""
        binding = next(each for each in target.tag.bindings if each.id == target.point.binding_id)
        to_raw = compile_raw(target.tag, binding)

        async def write(link: Link) -> None:
            value, target.waiting = target.waiting, None
            if value is not None:
                await link.write([(target.point, to_raw(value))])

        while target.waiting is not None:
            try:
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await self._field.poller(target.part).perform(write)
            except (TimeoutError, LinkError, ProtocolError, DeviceRefused, ConfigError, BadValue) as error:
                target.waiting = None
                log.warning("%s@%s: not written: %s", target.part.device, target.tag.name, str(error) or "no link")


def _targets(plan: DevicePlan, drivers: Mapping[str, Driver]) -> dict[str, list[_Target]]:
    """The bindings `out` of a device that are fed here, by tag."""
    parts = {part.driver.protocol: part for part in plan.parts}
    found: dict[str, list[_Target]] = {}
    for tag in plan.config.tags:
        if not any(binding.direction is not Direction.OUT for binding in tag.bindings):
            continue  # a setpoint: what is sent to it comes as a command
        for binding in tag.bindings:
            part = parts.get(binding.protocol)
            if binding.direction is not Direction.OUT or part is None or binding.protocol in _ELSEWHERE:
                continue
            if PROTOCOLS[binding.protocol].owner == "field_server" and binding.protocol in drivers:
                place = point(tag, binding, part.network, part.driver)
                found.setdefault(tag.name, []).append(_Target(part, place, tag))
    return found
