"""From a message to samples and register writes: plans compiled once per device, then applied to each message.

Pure: the plan of a device holds closures; mapping a message touches no clock, no network, no log.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

from scada.config import DeviceConfig, Direction, TagConfig
from scada.conversion import compile_limits, compile_read, kind_of
from scada.errors import ConfigError, Fault
from scada.feeds import FeedPlan, compile_feed, compile_setpoint
from scada.modbus.endpoint import Endpoint
from scada.outputs import OutPlan, Publication, Write, clashing, compile_out
from scada.paths import compile_path
from scada.payload import decode_payload
from scada.protocols.modbus import ModbusNetwork
from scada.protocols.mqtt import MqttNetwork
from scada.scaling import Limits, OutOfLimits
from scada.timestamps import compile_time
from scada.topic_index import matches
from scada.values import BadValue, Quality, Reason, RejectCode, Value

MAX_SAMPLES = 10_000
"""Most samples taken from one message; the payload's own size limit keeps real messages far below."""


@dataclass(frozen=True, slots=True)
class TagPlan:
    """One tag of a device: how its value is read from a decoded payload (raises BadValue), and where it goes.

    `clamps` are the tag's limits where one of them clamps, which makes the value uncertain; other limits are part of `read`.
    """

    tag_id: int
    name: str
    deadband: float
    read: Callable[[Any], Value]
    clamps: tuple[Limits, ...]
    outs: tuple[OutPlan, ...]


class Doubt(NamedTuple):
    """A reading that is not good; `value` None: none that could be taken."""

    value: Value | None
    quality: Quality
    reason: Reason


Reading = Value | Doubt | None
"""What a message says of a tag; None: nothing."""


class Report(NamedTuple):
    """What a message says at one source time (UTC, milliseconds): a reading for each of the plan's tags, in their order."""

    time_ms: int
    readings: list[Reading]


class Reject(NamedTuple):
    """Why a message (tag None) or a tag's value was not written."""

    code: RejectCode
    reason: str
    tag: str | None


class Mapped(NamedTuple):
    """What a message came to."""

    writes: list[Write]
    rejects: list[Reject]
    reports: list[Report]


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """A device as the gateway sees it, compiled. `faults` are the parts of its configuration that were left out.

    `topic` is None where it listens to none. `feeds` are the tags that get their value over the bus, `setpoints` those that are
    set by a message on `out_topic`; both by name. `silent_after_s`: 0 is never.
    """

    device_id: int
    name: str
    revision: int
    config: DeviceConfig
    topic: str | None
    tags: tuple[TagPlan, ...]
    samples: Callable[[Any], Any] | None
    time: Callable[[Any], int] | None
    silent_after_s: float
    feeds: Mapping[str, FeedPlan]
    setpoints: Mapping[str, Publication]
    out_topic: str
    out_retain: bool
    faults: tuple[Fault, ...]

    def map(self, payload: bytes, now_ms: int) -> Mapped:
        """Map one message's payload; never raises for what the payload holds. `now_ms` serves where it has no time stamp."""
        writes: list[Write] = []
        rejects: list[Reject] = []
        reports: list[Report] = []
        mapped = Mapped(writes, rejects, reports)
        try:
            document = decode_payload(payload)
            documents = (document,) if self.samples is None else self._samples(document)
        except BadValue as error:
            rejects.append(Reject(error.code, str(error), None))
            return mapped
        for document in documents:
            time_ms = now_ms
            if self.time is not None:
                try:
                    time_ms = self.time(document)
                except BadValue as error:
                    rejects.append(Reject(error.code, str(error), None))
                    continue
            readings: list[Reading] = []
            for tag in self.tags:
                reading: Reading
                try:
                    value = reading = tag.read(document)
                    if tag.clamps:
                        value, reading = _clamped(tag.clamps, value)
                except BadValue as error:
                    rejects.append(Reject(error.code, str(error), tag.name))
                    readings.append(_DOUBTS.get(error.code, _UNUSABLE))
                    continue
                readings.append(reading)
                for out in tag.outs:
                    try:
                        writes.append(Write(out, out.encode(value), value, time_ms))
                    except BadValue as error:
                        rejects.append(Reject(error.code, f"{out.place}: {error}", tag.name))
            reports.append(Report(time_ms, readings))
        return mapped

    def _samples(self, document: Any) -> list[Any]:
        samples = cast("Callable[[Any], Any]", self.samples)(document)
        if not isinstance(samples, list):
            raise BadValue(RejectCode.WRONG_TYPE, f"samples must be an array, not {kind_of(samples)}")
        if len(samples) > MAX_SAMPLES:
            raise BadValue(
                RejectCode.TOO_LARGE, f"{len(samples)} samples in one message, at most {MAX_SAMPLES} are taken"
            )
        return samples


def default_topic(device_id: int) -> str:
    """The topic of a device whose configuration names none."""
    return f"device/{device_id}"


def default_out_topic(device_id: int) -> str:
    """The topic that a device is sent its values on, when its configuration names none."""
    return f"device/{device_id}/out"


_UNUSABLE: Final = Doubt(None, Quality.BAD, Reason.CONFIG_ERROR)
_DOUBTS: Final[Mapping[RejectCode, Reading]] = {
    # Devices tell what is new, in several messages: what one of them leaves out is as it was.
    RejectCode.MISSING: None,
    RejectCode.OUT_OF_RANGE: Doubt(None, Quality.BAD, Reason.OUT_OF_RANGE),
}


def _clamped(limits: tuple[Limits, ...], value: Value) -> tuple[Value, Reading]:
    """The value inside its limits, and what is to be told of it; raises BadValue."""
    inside = value
    for each in limits:
        inside = each.apply(inside)  # type: ignore[arg-type]  # only numbers have limits
    return inside, value if inside == value else Doubt(inside, Quality.UNCERTAIN, Reason.OUT_OF_RANGE)


def compile_device(device: DeviceConfig) -> DevicePlan | None:
    """The plan of a device, or None when nothing of it is the gateway's. What cannot be compiled is left out, and in `faults`."""
    faults = list(device.faults)
    tags: list[TagPlan] = []
    feeds: dict[str, FeedPlan] = {}
    setpoints: dict[str, Publication] = {}
    modbus, mqtt = device.networks.get("modbus"), device.networks.get("mqtt")
    endpoint = modbus.endpoint if isinstance(modbus, ModbusNetwork) else None
    used: set[tuple[str, ...]] = set()
    for tag in device.tags:
        try:
            plan = _compile_tag(device, tag, endpoint)
            if plan is not None:
                tags.append(plan)
                continue
            feed = compile_feed(device, tag, endpoint)
            setpoint = compile_setpoint(device, tag)
            published = setpoint or (feed and feed.publication)
            if published:
                if clashing(published.keys, used):
                    raise ConfigError(
                        f"{'.'.join(published.keys)} stands where another tag's value stands in the message"
                    )
                used.add(published.keys)
        except ConfigError as error:
            faults.extend(Fault(f"{device.name}@{tag.name}", str(fault)) for fault in error.faults)
            continue
        if feed is not None:
            feeds[tag.name] = feed
        if setpoint is not None:
            setpoints[tag.name] = setpoint
    if not isinstance(mqtt, MqttNetwork):
        if not feeds:
            return None
        mqtt = MqttNetwork()
        topic = None
    else:
        topic = (mqtt.topic or default_topic(device.id)) if tags or not used else None
    out_topic = mqtt.out_topic or default_out_topic(device.id)
    if topic is not None and used and matches(topic, out_topic):
        faults.append(Fault(f"{device.name}", f"would read what it is sent on {out_topic}: it is sent nothing"))
        setpoints = {}
        feeds = {name: FeedPlan(name, feed.outs, None) for name, feed in feeds.items() if feed.outs}
    return DevicePlan(
        device_id=device.id,
        name=device.name,
        revision=device.revision,
        config=device,
        topic=topic,
        tags=tuple(tags),
        samples=None if mqtt.samples is None else compile_path(mqtt.samples).get,
        time=_compile_time(mqtt),
        silent_after_s=mqtt.silent_after_s,
        feeds=feeds,
        setpoints=setpoints,
        out_topic=out_topic,
        out_retain=mqtt.out_retain,
        faults=tuple(faults),
    )


def _compile_tag(device: DeviceConfig, tag: TagConfig, endpoint: Endpoint | None) -> TagPlan | None:
    """The plan of a tag that is read from MQTT; None for any other."""
    source = None
    outs: list[OutPlan] = []
    for binding in tag.bindings:
        if binding.direction is not Direction.OUT:
            if binding.protocol != "mqtt":
                return None
            source = binding
    if source is None:
        return None
    for binding in tag.bindings:
        if binding.protocol == "modbus":
            outs.append(compile_out(device, tag, binding, endpoint))
    limits = compile_limits(tag, source)
    clamps = limits if limits and any(each.action is OutOfLimits.CLAMP for each in limits) else ()
    read = compile_read(tag, source, () if clamps else limits)
    return TagPlan(tag.id, tag.name, tag.deadband, read, clamps, tuple(outs))


def _compile_time(network: MqttNetwork) -> Callable[[Any], int] | None:
    if network.time is None:
        return None
    get, convert = compile_path(network.time).get, compile_time(network.time_format)
    return lambda document: convert(get(document))
